"""`gam-yolo blocks`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from gam_yolo import describe
from gam_yolo.cli.console import console

__all__ = ["blocks"]


def blocks(
    names: Annotated[list[str] | None, typer.Argument(help="Blocks to show; default: all.")] = None,
    channels: Annotated[int, typer.Option("--channels", "-c", min=1, help="Channels of the feature map.")] = 256,
    size: Annotated[int, typer.Option("--size", "-s", min=1, help="Height and width of the feature map.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the blocks that a model YAML can name, with their parameters and multiply-adds at a size."""
    entries = describe.blocks(names, channels=channels, size=size)
    if as_json:
        found = {"channels": channels, "size": size, "blocks": [asdict(e) for e in entries]}
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table(title=f"Registered blocks, each with its default arguments, at {channels} x {size} x {size}")
    table.add_column("Block", style="bold", no_wrap=True)
    table.add_column("Parameters", justify="right", no_wrap=True)
    table.add_column("Multiply-adds", justify="right", no_wrap=True)
    table.add_column("Source")
    table.add_column("What it is")
    for e in entries:
        counts = ["-" if count is None else f"{count:,}" for count in (e.parameters, e.macs)]
        table.add_row(e.name, *counts, e.source, e.problem or e.description)
    console().print(table)
