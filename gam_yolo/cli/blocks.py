"""`gam-yolo blocks`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from textwrap import fill, indent
from typing import Annotated

import typer
from rich.table import Table

from gam_yolo import describe
from gam_yolo.cli.console import console

__all__ = ["blocks"]

_STARTS = {
    "default": "f(x), with the random weights of the source.",
    "identity": "x + gain a (f(x) - x), with one learnable number a per channel. It is x at first, because a is 0.",
    "zero": "f(x) with gates centred at 1. It is x at first, because each gate is 1 then.",
}


def blocks(
    names: Annotated[list[str] | None, typer.Argument(help="Blocks to show in detail; default: a list of all.")] = None,
    channels: Annotated[int, typer.Option("--channels", "-c", min=1, help="Channels of the feature map.")] = 256,
    size: Annotated[int, typer.Option("--size", "-s", min=1, help="Height and width of the feature map.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the blocks that a model YAML can name, or show what is known about some of them."""
    entries = describe.blocks(names, channels=channels, size=size)
    where = f"{channels} x {size} x {size}"
    if as_json:
        found = {"channels": channels, "size": size, "blocks": [asdict(e) for e in entries]}
        typer.echo(json.dumps(found, indent=2, default=str))
    elif names:
        typer.echo("\n\n".join("\n".join(_details(e, where, console().width)) for e in entries))
    else:
        console().print(_table(entries, where))


def _table(entries: list[describe.BlockInfo], where: str) -> Table:
    table = Table(title=f"Registered blocks, each with its default arguments, at {where}")
    table.add_column("Block", style="bold", no_wrap=True)
    table.add_column("Parameters", justify="right", no_wrap=True)
    table.add_column("Multiply-adds", justify="right", no_wrap=True)
    table.add_column("Source")
    table.add_column("What it is")
    for e in entries:
        table.add_row(e.name, _number(e.parameters), _number(e.macs), e.source, e.problem or e.description)
    return table


def _details(e: describe.BlockInfo, where: str, width: int) -> Iterator[str]:
    def wrapped(text: str, margin: str = "  ") -> str:
        deeper = margin + "  "
        return fill(text, max(width, 30), initial_indent=margin, subsequent_indent=deeper, break_on_hyphens=False)

    yield wrapped(f"{e.name}: {e.description}", "")
    yield wrapped(f"source: {e.source}")
    if e.equation:
        yield f"  formula:\n{indent(e.equation, '    ')}"
    yield wrapped(f"at {where}: {_cost(e)}")
    if e.problem:
        yield wrapped(f"problem: {e.problem}")
    yield "  arguments:" if e.arguments else "  arguments: none"
    from_preset = {key for preset in e.presets for key in preset.arguments}
    for argument in e.arguments:
        default = "required" if argument.required else f"default {_literal(argument.default)}"
        default = "from the preset" if argument.name in from_preset else default
        meaning = argument.meaning.replace(", see `Start`", "")  # a class; below is what a row needs of it
        yield wrapped(f"{argument.name} ({default}): {meaning}".removesuffix(": "), "    ")
    if e.presets:
        yield "  presets:"
    for preset in e.presets:
        given = ", ".join(f"{key} {_literal(value)}" for key, value in preset.arguments.items())
        yield wrapped(f"{preset.name}: {given}; {_cost(preset)}", "    ")
    if e.starts:
        yield "  starts, where f(x) is the formula:"
    for start in e.starts:
        yield wrapped(f"{start}: {_STARTS[start]}", "    ")
    yield wrapped(f"row: {e.row}")


def _cost(e: describe.BlockInfo | describe.Preset) -> str:
    return f"{_number(e.parameters)} parameters, {_number(e.macs)} multiply-adds"


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _literal(value: object) -> str:
    """Write a value as a YAML would have it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
