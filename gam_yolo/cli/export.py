"""`gam-yolo export-plain`: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gam_yolo.cli.console import console
from gam_yolo.cli.options import Trust

__all__ = ["export_plain"]


def export_plain(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint that Ultralytics wrote, such as best.pt.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The module to write; by default NAME_plain.py beside it.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Write one Python file with which a checkpoint can be loaded where gam-yolo is not installed."""
    from gam_yolo import plain

    out = console()
    found = plain.export_plain(checkpoint, output, trust=trust)
    out.print(f"{found.path}: {', '.join(found.blocks) or 'what your blocks import'}")
    for name in found.missing:
        out.print(f"The checkpoint also needs the module {name}.")
    out.print(f"Where gam-yolo is not installed: import {found.path.stem}, then YOLO('{checkpoint.name}').")
