"""The sub-command `study` of `gam-yolo`: plan, run, report."""

from __future__ import annotations

import contextlib
import fnmatch
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError

if TYPE_CHECKING:
    from gam_yolo.study.config import Study
    from gam_yolo.study.plan import Plan, Run
    from gam_yolo.study.scheduler import Launcher

__all__ = ["study"]

# What needs torch is imported by the functions that need it: `gam-yolo --help` is not to wait for it.


def study(
    file: Annotated[Path, typer.Argument(help="A study file; cfg/studies has some.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and train nothing.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Runs to bring forward: 'gam', 'gam-s0', '*-s0'; may be repeated.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Trainings at a time; 0 for one per GPU. They share the GPUs in turn.")
    ] = 0,
    project: Annotated[
        Path | None, typer.Option(help="The folder that studies lie in; else 'study' in Ultralytics' runs_dir.")
    ] = None,
    ray: Annotated[
        str, typer.Option(help="Train on a Ray cluster: 'auto' or its address. All nodes must see --project.")
    ] = "",
) -> None:
    """Train every variant of a study with every seed, and report. The same command goes on where it was stopped."""
    from filelock import FileLock, Timeout

    from gam_yolo.study.config import read_study

    console = Console(highlight=False, soft_wrap=True)
    content = read_study(file)
    folder = (project or ultralytics_api.runs_folder() / "study").resolve() / content.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            failed = _carry_out(content, folder, dry_run, only or [], workers, ray, console)
    except Timeout:
        raise UserError(f"{folder}: another process is carrying out this study; wait for it, or stop it") from None
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        raise typer.Exit(130) from None
    except OSError as error:
        raise UserError(f"{error.filename or folder}: cannot be read or written ({error.strerror})") from None
    if failed:
        raise typer.Exit(1)


def _carry_out(
    content: Study, folder: Path, dry_run: bool, only: list[str], workers: int, ray: str, console: Console
) -> list[str]:
    """Plan, run and report; return the names of failed runs."""
    from gam_yolo.study import plan

    def say(text: str) -> None:
        console.print(text, markup=False)

    with contextlib.ExitStack() as stack:
        if not dry_run:
            launcher = stack.enter_context(_launcher(ray, workers, say))
        planned = plan.plan(content, folder)
        runs = _chosen(planned.runs, only)
        console.print(_plan_table(planned, runs))
        for note in planned.notes:
            say(note)
        if dry_run:
            return []
        failed = _run(runs, launcher, console, say)
    _report(content, planned, folder, "" if ray else plan.first_device(planned.runs[0].train), console)
    return failed


def _launcher(ray: str, workers: int, say: Callable[[str], None]) -> AbstractContextManager[Launcher]:
    """Return where runs are trained: on a Ray cluster, or on this machine."""
    import torch

    from gam_yolo.study import local, ray_cluster

    if ray:
        return ray_cluster.connected(ray, workers, say)
    gpus = [str(index) for index in range(torch.cuda.device_count())]
    return contextlib.nullcontext(local.Local(workers or max(1, len(gpus)), gpus))


def _run(runs: list[Run], launcher: Launcher, console: Console, say: Callable[[str], None]) -> list[str]:
    """Bring the runs to their ends and show how far they are; return the names of failed ones."""
    from gam_yolo.study import progress, scheduler

    jobs = [scheduler.Job(run, state="finished" if run.finished else "waiting") for run in runs]
    with Live(console=console, auto_refresh=False, transient=True) as live:
        estimated = False

        def watch() -> None:
            nonlocal estimated
            if not estimated and (left := progress.seconds_left(jobs)):
                estimated = True
                say(f"first epochs are done: {progress.duration(left)}, at most")
            if console.is_terminal:
                live.update(progress.table(jobs), refresh=True)

        scheduler.execute(jobs, launcher, say, watch)
    console.print(progress.table(jobs))
    return [job.run.name for job in jobs if job.state == "failed"]


def _chosen(runs: tuple[Run, ...], only: list[str]) -> list[Run]:
    """Return the runs whose name or variant matches one of the patterns; all where there is none."""
    for pattern in only:
        if not any(fnmatch.fnmatch(run.name, pattern) or fnmatch.fnmatch(run.variant, pattern) for run in runs):
            names = ", ".join(dict.fromkeys(run.variant for run in runs))
            raise UserError(f"--only is '{pattern}', which is no run of the study, expected one of {names}")
    return [
        run
        for run in runs
        if not only or any(fnmatch.fnmatch(name, pattern) for pattern in only for name in (run.name, run.variant))
    ]


def _plan_table(planned: Plan, runs: list[Run]) -> Table:
    table = Table("run", "GFLOPs", "epochs", "folder", "")
    for run in runs:
        row = (run.name, f"{planned.gflops[run.variant]:.2f}", str(run.train.get("epochs", 100)), run.folder.name)
        table.add_row(*row, "finished" if run.finished else "")
    return table


def _report(content: Study, planned: Plan, folder: Path, device: str, console: Console) -> None:
    """Report on what is finished of the whole plan, whatever was chosen this time."""
    from gam_yolo.study.config import CONTROL
    from gam_yolo.study.results import report

    weights: dict[str, list[Path]] = defaultdict(list)
    for run in planned.runs:
        if run.finished:
            weights[run.variant].append(run.folder / "train" / "weights" / "best.pt")
    missing = [run.name for run in planned.runs if not run.finished]
    if content.baseline not in weights or len(weights) < 2:
        console.print("no report yet: it needs a finished run of the baseline and of another variant")
        return
    if missing:
        console.print(f"the report is without {', '.join(missing)}", markup=False)
    headline, page = report(
        folder,
        weights,
        planned.data,
        planned.runs[0].spec["imgsz"],
        content.baseline,
        CONTROL if CONTROL in weights else "",
        device,
        lambda text: console.print(text, markup=False),
    )
    console.print(headline, markup=False)
    console.print(f"The report is {page}", markup=False)
