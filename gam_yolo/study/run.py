"""Carry out a study: plan, train, report."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from gam_yolo import ultralytics_api
from gam_yolo.checkpoints import trusting
from gam_yolo.errors import UserError, one_line
from gam_yolo.io import output_path
from gam_yolo.known_faults import reject_broken_numpy
from gam_yolo.study import local, ray_cluster
from gam_yolo.study.config import CONTROL, Study, read_studies
from gam_yolo.study.folder import StudyFolder
from gam_yolo.study.plan import Plan, first_device, merged, plan
from gam_yolo.study.progress import duration, seconds_left
from gam_yolo.study.scheduler import FINISHED, WAITING, Job, execute
from gam_yolo.study.validation import BATCH

if TYPE_CHECKING:
    from gam_yolo.report.overall import StudyResult
    from gam_yolo.report.result import Comparison
    from gam_yolo.report.schema import Statistics

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
    studies, folder = _open(study, project)
    with _file_errors(folder):
        return merged(plan(one, folder.dataset(one.dataset), dry_run=True) for one in studies).only(only)


def run_study(
    study: str | Path | Study,
    *,
    workers: int = 0,
    only: Sequence[str] = (),
    project: str | Path | None = None,
    ray: str = "",
    trust: bool = False,
    progress: Progress | None = None,
    watch: Callable[[Sequence[Job]], None] | None = None,
) -> Comparison | StudyResult | None:
    """Train every variant of a study with every seed on each of its datasets, and compare them.

    All datasets are prepared and checked before the first training. Called again, it resumes: finished runs are kept,
    interrupted trainings continue from their newest snapshot. A run whose code, data, arguments or environment have
    changed is trained as a new run, and `progress` says what changed.

    Args:
        study: A study file, the bare name of a shipped one such as `demo.yaml`, or what `read_study` returns.
        workers: Trainings at a time; 0 for one per GPU, or on CPUs as many as have a core and memory each. They share
            the GPUs in turn.
        only: Train only these runs: names or patterns such as `gam`, `gam-s0`, `*-s0`, or with the name of a dataset
            `voc`, `voc/gam`. Empty for all.
        project: The folder for studies; by default `study` in Ultralytics' `runs_dir`.
        ray: Train on the Ray cluster at this address, or `auto`. All its nodes must see `project`.
        trust: Let checkpoints run code, for layers of your own that are not registered. By default they are rejected.
        progress: Called with a line of text at each step.
        watch: Called with all runs and their states twice a second while they are trained.

    Returns:
        With one dataset: the comparison of all finished runs, as `gam_yolo.compare` returns it; None before the
        baseline and another variant have a finished run. With several: the comparison on each dataset and the
        differences over all; None before two datasets have a comparison. Failed runs are left out.

    Raises:
        UserError: The study cannot be read or planned, another process carries it out, or the disk is full.
    """
    studies, folder = _open(study, project)
    say = progress or (lambda _: None)
    from gam_yolo.report.files import REPORT, reject_obstacles

    with _file_errors(folder), contextlib.ExitStack() as stack, trusting(trust):
        folder.path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(FileLock(folder.lock, timeout=0))
        reject_broken_numpy()
        with ray_cluster.connected(ray, workers, say) if ray else contextlib.nullcontext() as cluster:
            for one in studies:
                reject_obstacles(folder.dataset(one.dataset).report, REPORT, ("predictions",))
            plans = [plan(one, folder.dataset(one.dataset)) for one in studies]
            for run in merged(plans).runs:
                if run.finished:
                    run.folder.check_checkpoint()
            chosen = merged(plans).only(only)
            launcher = cluster or local.this_machine(chosen, workers)
            for line in _summary(studies, chosen, folder):
                say(line)
            jobs = [Job(run, state=FINISHED if run.finished else WAITING) for run in chosen.runs]
            execute(jobs, launcher, say, _Watch(say, watch))
        compared = {
            one.dataset: _compare(
                one, planned, folder.dataset(one.dataset), "" if ray else first_device(planned.runs[0].train), say
            )
            for one, planned in zip(studies, plans, strict=True)
        }
        return compared[""] if "" in compared else _over_datasets(studies[0], compared, folder, say)


def _open(study: str | Path | Study, project: str | Path | None) -> tuple[tuple[Study, ...], StudyFolder]:
    studies = (study,) if isinstance(study, Study) else read_studies(study)
    base = (
        output_path(project, "the folder for studies")
        if project is not None
        else ultralytics_api.runs_folder() / "study"
    )
    return studies, StudyFolder(base.resolve() / studies[0].name)


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
        reason = error.strerror or one_line(error)
        raise UserError(f"cannot be read or written ({reason})", at=str(error.filename or folder.path)) from None


def _summary(studies: Sequence[Study], planned: Plan, folder: StudyFolder) -> Iterator[str]:
    finished = sum(run.finished for run in planned.runs)
    yield f"{len(planned.runs)} runs in {folder.path}, {finished} of them finished"
    yield f"GFLOPs: {', '.join(f'{name} {cost:.2f}' for name, cost in planned.gflops.items())}"
    yield from planned.notes
    for study in studies:
        yield from _outlook(study, folder.dataset(study.dataset))


def _outlook(study: Study, folder: StudyFolder) -> Iterator[str]:
    """Say what the study will be able to detect, from its pilot, or from its own report so far."""
    from gam_yolo.report.formatting import METRIC_NAMES
    from gam_yolo.report.power import power

    seeds, where = len(study.seeds), f"{study.dataset}: " if study.dataset else ""
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
        f"{where}By the noise in {pilot}, {seeds} seeds on its {found.images} images detect a difference of "
        f"{often:.1f} points of {METRIC_NAMES[found.metric]} in 80 % of such studies, "
        f"and of {mostly:.1f} points in 90 %"
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


def _compare(study: Study, planned: Plan, folder: StudyFolder, device: str, say: Progress) -> Comparison | None:
    """Report on all finished runs on one dataset, whichever were chosen this time."""
    from gam_yolo.report.files import REPORT
    from gam_yolo.report.predictions import Settings
    from gam_yolo.report.run import run as report
    from gam_yolo.report.task_evaluation import Request
    from gam_yolo.report.variants import Variant

    baseline = study.baseline
    where = f"{study.dataset}: " if study.dataset else ""
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
        say(f"{where}no report yet: it needs a finished run of the baseline and of another variant")
        if (page := folder.report / REPORT[0]).is_file():
            say(f"{where}{page} is of earlier runs, which are not this study's any more")
        return None
    if missing := [run.name for run in planned.runs if not run.finished]:
        say(f"{where}the report is without {', '.join(missing)}")
    names = sorted(weights, key=lambda name: name != baseline)  # the others are compared with the first
    variants = [Variant(name, tuple(weights[name])) for name in names]
    settings = Settings(planned.runs[0].train["data"], "val", planned.runs[0].spec["imgsz"], BATCH, device)
    control = CONTROL if CONTROL in weights else None
    statistics = _statistics(study, planned, say)
    request = Request(variants, settings, statistics, control=control, progress=say, notes=tuple(study.notes))
    comparison = report(request, folder.report)
    say(f"{where}{comparison.headline}")
    say(f"The report is {folder.report / 'report.html'}")
    return comparison


def _statistics(study: Study, planned: Plan, say: Progress) -> Statistics:
    """Return how to compare: seed by seed where the study file says so and every variant has the same seeds."""
    from gam_yolo.report.schema import Statistics

    seeds = defaultdict(list)
    for run in planned.runs:
        if run.finished:
            seeds[run.variant].append(run.seed)
    complete = len({tuple(found) for found in seeds.values()}) == 1
    if study.pair_seeds and not complete:
        say("pair_seeds: the variants do not have the same finished seeds yet, so the report does not pair them")
    return Statistics(pair_seeds=study.pair_seeds and complete)


def _over_datasets(
    study: Study, compared: Mapping[str, Comparison | None], folder: StudyFolder, say: Progress
) -> StudyResult | None:
    """Report on the differences over the datasets that have a comparison."""
    from gam_yolo.report.overall import summarize

    found = {name: comparison for name, comparison in compared.items() if comparison}
    if len(found) < 2:
        say("no summary yet: it needs the reports of two datasets")
        return None
    if missing := [name for name in compared if name not in found]:
        say(f"the summary is without {', '.join(missing)}")
    result = summarize(study.name, found, study.notes)
    page = result.save(folder.report)
    say(result.headline)
    say(f"The summary is {page}")
    return result
