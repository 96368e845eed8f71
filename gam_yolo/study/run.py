"""Carry out a study: plan, train, report."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError
from gam_yolo.study import local, ray_cluster
from gam_yolo.study.config import CONTROL, Study, read_study
from gam_yolo.study.folder import StudyFolder
from gam_yolo.study.plan import Plan, first_device, plan
from gam_yolo.study.progress import duration, seconds_left
from gam_yolo.study.scheduler import FINISHED, WAITING, Job, Launcher, execute
from gam_yolo.study.validation import BATCH

if TYPE_CHECKING:
    from gam_yolo.report.result import Comparison, Statistics

__all__ = ["plan_study", "run_study"]

Progress = Callable[[str], None]


def plan_study(study: str | Path | Study, *, only: Sequence[str] = (), project: str | Path | None = None) -> Plan:
    """Plan a study without writing anything, and without running code from any file.

    Args:
        study: A study file, the bare name of a shipped one such as `demo.yaml`, or what `read_study` returns.
        only: As in `run_study`.
        project: As in `run_study`.

    Returns:
        The runs, their folders and costs, and notes about what a reader must know.

    Raises:
        UserError: The study file, a model or the data cannot be read.
    """
    content, folder = _open(study, project)
    with _file_errors(folder):
        return plan(content, folder, dry_run=True).only(only)


def run_study(
    study: str | Path | Study,
    *,
    workers: int = 0,
    only: Sequence[str] = (),
    project: str | Path | None = None,
    ray: str = "",
    progress: Progress | None = None,
    watch: Callable[[Sequence[Job]], None] | None = None,
) -> Comparison | None:
    """Train every variant of a study with every seed, and compare them.

    Called again, it resumes: finished runs are kept, interrupted trainings continue from their newest snapshot. A run
    whose code, data, arguments or environment have changed is trained as a new run, and `progress` says what changed.

    Args:
        study: A study file, the bare name of a shipped one such as `demo.yaml`, or what `read_study` returns.
        workers: Trainings at a time; 0 for one per GPU. They share the GPUs in turn.
        only: Train only these runs: names or patterns such as `gam`, `gam-s0`, `*-s0`. Empty for all.
        project: The folder for studies; by default `study` in Ultralytics' `runs_dir`.
        ray: Train on the Ray cluster at this address, or `auto`. All its nodes must see `project`.
        progress: Called with a line of text at each step.
        watch: Called with all runs and their states twice a second while they are trained.

    Returns:
        The comparison of all finished runs, as `gam_yolo.compare` returns it; None before the baseline and another
        variant have a finished run. Failed runs are left out.

    Raises:
        UserError: The study cannot be read or planned, another process carries it out, or the disk is full.
    """
    content, folder = _open(study, project)
    say = progress or (lambda _: None)
    with _file_errors(folder), contextlib.ExitStack() as stack:
        folder.path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(FileLock(folder.lock, timeout=0))
        with _launcher(ray, workers, say) as launcher:
            planned = plan(content, folder)
            chosen = planned.only(only)
            for line in _summary(chosen, folder):
                say(line)
            jobs = [Job(run, state=FINISHED if run.finished else WAITING) for run in chosen.runs]
            execute(jobs, launcher, say, _Watch(say, watch))
        return _compare(planned, folder, "" if ray else first_device(planned.runs[0].train), say)


def _open(study: str | Path | Study, project: str | Path | None) -> tuple[Study, StudyFolder]:
    content = study if isinstance(study, Study) else read_study(study)
    base = Path(project) if project else ultralytics_api.runs_folder() / "study"
    return content, StudyFolder(base.resolve() / content.name)


@contextlib.contextmanager
def _file_errors(folder: StudyFolder) -> Iterator[None]:
    """Turn the system's errors into one line that names the file."""
    try:
        yield
    except Timeout:
        raise UserError(
            "another process is carrying out this study", at=folder.path, fix="Wait for it, or stop it"
        ) from None
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"cannot be read or written ({reason})", at=str(error.filename or folder.path)) from None


def _launcher(ray: str, workers: int, say: Progress) -> contextlib.AbstractContextManager[Launcher]:
    """Return where runs are trained: on a Ray cluster, or on this machine."""
    import torch

    if ray:
        return ray_cluster.connected(ray, workers, say)
    gpus = [str(index) for index in range(torch.cuda.device_count())]
    return contextlib.nullcontext(local.Local(workers or max(1, len(gpus)), gpus))


def _summary(planned: Plan, folder: StudyFolder) -> Iterator[str]:
    finished = sum(run.finished for run in planned.runs)
    yield f"{len(planned.runs)} runs in {folder.path}, {finished} of them finished"
    yield f"GFLOPs: {', '.join(f'{name} {cost:.2f}' for name, cost in planned.gflops.items())}"
    yield from planned.notes
    yield from _outlook(planned, folder)


def _outlook(planned: Plan, folder: StudyFolder) -> Iterator[str]:
    """Say what the study will be able to detect, from its pilot, or from its own report so far."""
    from gam_yolo.report.power import power

    study, seeds = planned.study, len(planned.study.seeds)
    pilot = Path(study.pilot) if study.pilot else folder.report / "report.json"
    if seeds < 2 or not (study.pilot or pilot.is_file()):
        return
    try:
        found = power(pilot, seeds=seeds, comparisons=len(study.variants) - 1 or None)
    except UserError as error:
        if study.pilot:
            raise UserError(error, at=f"{study.path}, key 'pilot'") from None
        return
    often, mostly = found.detectable
    yield (
        f"By the noise in {pilot}, {seeds} seeds on its {found.images} images detect a difference of {often:.1f} "
        f"points of mAP 50-95 in 80 % of such studies, and of {mostly:.1f} points in 90 %"
    )


class _Watch:
    """Passes the jobs on, and once estimates the time left."""

    def __init__(self, say: Progress, watch: Callable[[Sequence[Job]], None] | None) -> None:
        self._say, self._watch, self._estimated = say, watch, False

    def __call__(self, jobs: Sequence[Job]) -> None:
        if not self._estimated and (left := seconds_left(jobs)):
            self._estimated = True
            self._say(f"the first epochs have ended: at most {duration(left)} left")
        if self._watch:
            self._watch(jobs)


def _compare(planned: Plan, folder: StudyFolder, device: str, say: Progress) -> Comparison | None:
    """Report on all finished runs of the whole plan, whichever were chosen this time."""
    from gam_yolo.report.predictions import Settings
    from gam_yolo.report.run import run as report
    from gam_yolo.report.variants import Variant

    baseline = planned.study.baseline
    weights: dict[str, list[Path]] = defaultdict(list)
    for run in planned.runs:
        if run.finished:
            weights[run.variant].append(run.folder.best)
            if times := run.folder.nms_time_limit():
                say(
                    f"{run.name}: the training's own validation lost detections to Ultralytics' NMS time limit {times} "
                    "times, so its best.pt may be of another epoch"
                )
    if baseline not in weights or len(weights) < 2:
        say("no report yet: it needs a finished run of the baseline and of another variant")
        return None
    if missing := [run.name for run in planned.runs if not run.finished]:
        say(f"the report is without {', '.join(missing)}")
    names = sorted(weights, key=lambda name: name != baseline)  # the others are compared with the first
    variants = [Variant(name, tuple(weights[name])) for name in names]
    settings = Settings(str(planned.data), "val", planned.runs[0].spec["imgsz"], BATCH, device)
    control = CONTROL if CONTROL in weights else None
    comparison = report(variants, None, control, settings, _statistics(planned, say), folder.report, say)
    say(comparison.headline)
    say(f"The report is {folder.report / 'report.html'}")
    return comparison


def _statistics(planned: Plan, say: Progress) -> Statistics:
    """Return how to compare: seed by seed where the study file says so and every variant has the same seeds."""
    from gam_yolo.report.result import Statistics

    seeds = defaultdict(list)
    for run in planned.runs:
        if run.finished:
            seeds[run.variant].append(run.seed)
    complete = len({tuple(found) for found in seeds.values()}) == 1
    if planned.study.pair_seeds and not complete:
        say("pair_seeds: the variants do not have the same finished seeds yet, so the report does not pair them")
    return Statistics(pair_seeds=planned.study.pair_seeds and complete)
