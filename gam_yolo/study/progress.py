"""What a study is doing: a table of its runs from the `results.csv` that each training writes."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.table import Table

from gam_yolo.study.plan import Run
from gam_yolo.study.scheduler import Job
from gam_yolo.training_log import MAP, read_results

__all__ = ["Epochs", "read_epochs", "seconds_left", "table"]


@dataclass(frozen=True)
class Epochs:
    """How far a training is.

    Attributes:
        done: Epochs done.
        of: Epochs of its recipe.
        seconds: What the last epoch took; None before there is one.
        map: mAP50-95 by Ultralytics' own validation after the last epoch; None before there is one.
    """

    done: int
    of: int
    seconds: float | None = None
    map: float | None = None


def read_epochs(run: Run) -> Epochs:
    """Read how far a run is from its training's `results.csv`."""
    of = int(run.train.get("epochs", 100))
    rows = read_results(run.folder / "train" / "results.csv")
    if not rows:
        return Epochs(0, of)
    last = rows[-1]
    before = rows[-2]["time"] if len(rows) > 1 and rows[-2]["time"] < last["time"] else 0.0  # it restarts on resuming
    return Epochs(int(last["epoch"]), of, last["time"] - before, last.get(MAP))


def seconds_left(jobs: Sequence[Job]) -> float | None:
    """Estimate the time for all that is left, at most (trainings may stop early); None before any epoch has ended.

    It takes as many to run at a time as do now.
    A run that has not had an epoch yet is taken to be as fast as others of its variant, else as the mean of all.
    """
    far = {id(job): read_epochs(job.run) for job in jobs}
    by_variant = defaultdict(list)
    for job in jobs:
        if seconds := far[id(job)].seconds:
            by_variant[job.run.variant].append(seconds)
    if not by_variant:
        return None
    overall = fmean(fmean(values) for values in by_variant.values())
    left = 0.0
    for job in jobs:
        if job.state in {"waiting", "queued", "running"}:
            known = by_variant.get(job.run.variant)
            left += (far[id(job)].of - far[id(job)].done) * (fmean(known) if known else overall)
    return left / max(1, sum(job.state == "running" for job in jobs))


def table(jobs: Sequence[Job]) -> Table:
    """Show all runs."""
    left = seconds_left(jobs)
    done = sum(job.state == "finished" for job in jobs)
    shown = Table(
        "run",
        "state",
        "epoch",
        "mAP50-95",
        title=f"{done} of {len(jobs)} runs finished" + (f", {duration(left)}" if left else ""),
    )
    for job in jobs:
        far = read_epochs(job.run)
        shown.add_row(
            job.run.name, job.state, f"{far.done}/{far.of}", "" if far.map is None else f"{100 * far.map:.1f}"
        )
    return shown


def duration(seconds: float) -> str:
    """Say how long is left."""
    return f"about {datetime.timedelta(seconds=round(seconds))} left"
