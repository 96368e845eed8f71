"""The `gam-yolo` command: parses, calls, prints. Each sub-command lives with what it does."""

from __future__ import annotations

import os
import sys

import typer
from rich.console import Console
from rich.text import Text

from gam_yolo.cli.blocks import blocks
from gam_yolo.cli.compare import compare
from gam_yolo.cli.graph import check, place, transfer
from gam_yolo.cli.study import study
from gam_yolo.errors import EXIT_STATUS, UserError

__all__ = ["app", "main"]

app = typer.Typer(
    name="gam-yolo",
    help="Place attention blocks in a YOLO, carry pretrained weights along, and compare detectors with error bars.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a bug of ours keeps Python's own traceback
)
for _command in (blocks, place, check, transfer, compare, study):
    app.command()(_command)


@app.callback()
def _root() -> None:
    """Keep sub-commands named even while there is only one."""


def main() -> None:
    """Run the command; bad input ends in a one-line error on standard error and exit status 2."""
    try:
        app()
    except (UserError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError):
            message = f"{error.filename or 'the output'}: cannot be read or written ({error.strerror})"
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would fail again when it flushes at its end
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        console.print("[bold red]error:[/]", Text(message))
        sys.exit(EXIT_STATUS)
