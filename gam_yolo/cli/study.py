"""The sub-command `study` of `gam-yolo`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from gam_yolo.cli.console import console
from gam_yolo.cli.options import Trust

if TYPE_CHECKING:
    from gam_yolo.study.plan import Plan
    from gam_yolo.study.scheduler import Job

__all__ = ["study"]

# What needs torch is imported by the functions that need it, so that `gam-yolo --help` does not wait for it.


def study(
    file: Annotated[str, typer.Argument(help="A study file, or the name of a shipped one, such as demo.yaml.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show runs and costs; train nothing, write nothing.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Train only these runs: 'gam', 'gam-s0', '*-s0', 'voc/gam', 'voc'; may be repeated."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Trainings at a time; 0 for one per GPU, or on CPUs one per core.")
    ] = 0,
    project: Annotated[
        str | None, typer.Option(help="The folder for studies; by default 'study' in Ultralytics' runs_dir.")
    ] = None,
    ray: Annotated[
        str, typer.Option(help="Train on a Ray cluster: 'auto' or its address. All nodes must see --project.")
    ] = "",
    trust: Trust = False,
) -> None:
    """Train every variant of a study with every seed on each dataset, and write the report.

    Run the same command again to resume.
    """
    from gam_yolo.study.run import plan_study, run_study

    out = console()
    if dry_run:
        _print_plan(plan_study(file, only=only or (), project=project), out)
        return
    screen = _Screen(out)
    chosen = only or ()
    try:
        run_study(
            file,
            workers=workers,
            only=chosen,
            project=project,
            ray=ray,
            trust=trust,
            progress=out.print,
            watch=screen.show,
        )
    except KeyboardInterrupt:
        out.print("stopped; run the same command again to resume")
        raise typer.Exit(130) from None
    finally:
        screen.live.stop()
    if screen.failed:
        raise typer.Exit(1)


class _Screen:
    """Shows the runs while they are trained: a live table on a terminal, and one table at the end."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self.live = Live(console=out, auto_refresh=False, transient=True)
        self.failed = False

    def show(self, jobs: Sequence[Job]) -> None:
        from gam_yolo.study.progress import table
        from gam_yolo.study.scheduler import FAILED, FINISHED

        self.failed = any(job.state == FAILED for job in jobs)
        if all(job.state in (FAILED, FINISHED) for job in jobs):
            self.live.stop()
            self._out.print(table(jobs))
        elif self._out.is_terminal:
            self.live.start()
            self.live.update(table(jobs), refresh=True)


def _print_plan(plan: Plan, out: Console) -> None:
    table = Table("run", "GFLOPs", "epochs", "folder", "")
    for run in plan.runs:
        cost = f"{plan.gflops[run.label]:.2f}"
        table.add_row(run.name, cost, str(run.epochs), run.folder.path.name, "finished" if run.finished else "")
    out.print(table)
    for note in plan.notes:
        out.print(note)
