"""How far a study is: a table of its runs, from the `results.csv` that each training writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.table import Table

from gam_yolo.study.plan import Run
from gam_yolo.study.scheduler import Job
from gam_yolo.training_log import MAP, TOP1, read_results

__all__ = ["Epochs", "duration", "read_epochs", "seconds_left", "table"]


@dataclass(frozen=True)
class Epochs:
    """How far a training has come.

    Attributes:
        done: Epochs done.
        of: Epochs of its recipe.
        seconds: Duration of the last epoch; None before there is one, and with releases that do not write it.
        map: mAP50-95, or top-1 accuracy, by Ultralytics' own validation after the last epoch; None before there is one.
    """

    done: int
    of: int
    seconds: float | None = None
    map: float | None = None


def read_epochs(run: Run) -> Epochs:
    """Read a run's progress from its training's `results.csv`."""
    rows = read_results(run.folder.results)
    if not rows:
        return Epochs(0, run.epochs)
    last = rows[-1]
    now, before = last.get("time"), rows[-2].get("time", 0.0) if len(rows) > 1 else 0.0
    if now is not None and before < now:  # it restarts on resuming, and older releases do not write it
        now -= before
    return Epochs(int(last["epoch"]), run.epochs, now, last.get(MAP, last.get(TOP1)))


def seconds_left(jobs: Sequence[Job]) -> float | None:
    """Estimate the time until all runs have ended, at most, as trainings may stop early.

    It assumes that as many run at a time as now. A run without a finished epoch is taken to be as fast as others of
    its variant, or else as the mean of all.

    Returns:
        Seconds; None before any epoch has ended.
    """
    far = {id(job): read_epochs(job.run) for job in jobs}
    by_variant = defaultdict(list)
    for job in jobs:
        if seconds := far[id(job)].seconds:
            by_variant[job.run.label].append(seconds)
    if not by_variant:
        return None
    overall = fmean(fmean(values) for values in by_variant.values())
    left = 0.0
    for job in jobs:
        if job.state in {"waiting", "queued", "running"}:
            known = by_variant.get(job.run.label)
            left += (far[id(job)].of - far[id(job)].done) * (fmean(known) if known else overall)
    return left / max(1, sum(job.state == "running" for job in jobs))


def table(jobs: Sequence[Job]) -> Table:
    """Return a table of all runs."""
    left = seconds_left(jobs)
    done = sum(job.state == "finished" for job in jobs)
    shown = Table(
        "run",
        "state",
        "epoch",
        "top-1" if any(job.run.spec.get("task") == "classify" for job in jobs) else "mAP50-95",
        title=f"{done} of {len(jobs)} runs finished" + (f", {duration(left)} left" if left else ""),
    )
    for job in jobs:
        far = read_epochs(job.run)
        shown.add_row(
            job.run.name, job.state, f"{far.done}/{far.of}", "" if far.map is None else f"{100 * far.map:.1f}"
        )
    return shown


def duration(seconds: float) -> str:
    """Return how long that is, in words.

    Examples:
        >>> duration(11), duration(671), duration(7260)
        ('about 11 s', 'about 11 min', 'about 2 h 1 min')
    """
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"about {round(seconds)} s"
    return f"about {minutes} min" if minutes < 100 else f"about {minutes // 60} h {minutes % 60} min"
