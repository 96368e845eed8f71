"""The `gam-yolo` command. Each sub-command parses its arguments, calls one function, and prints what it returns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gam_yolo import __version__
from gam_yolo.cli.blocks import blocks
from gam_yolo.cli.compare import compare
from gam_yolo.cli.console import exit_on_error
from gam_yolo.cli.export import export_plain
from gam_yolo.cli.graph import check, place, transfer
from gam_yolo.cli.look import look
from gam_yolo.cli.power import power
from gam_yolo.cli.prepare import prepare
from gam_yolo.cli.study import study
from gam_yolo.report.formatting import printable

__all__ = ["app", "main"]


class _Group(TyperGroup):
    """Shows what was typed as text in its own errors too: a file's name cannot move the cursor or change colours."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        with _as_text():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _as_text():
            return super().invoke(ctx)


@contextlib.contextmanager
def _as_text() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)  # of an error about the command line, from whichever click
        if isinstance(message, str):
            with contextlib.suppress(AttributeError):  # another kind of error, whose message cannot be set
                error.message = printable(message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="gam-yolo",
    cls=_Group,
    help="Place attention blocks in a YOLO model, keep its pretrained weights, and compare detectors with intervals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a bug of ours keeps Python's own traceback
)
for _command in (blocks, place, check, transfer, prepare, compare, look, power, study, export_plain):
    app.command()(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gam-yolo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hold the options that come before a sub-command."""


def main() -> None:
    """Run the command. Bad input is one line on standard error and exit status 2."""
    with exit_on_error():
        app()
