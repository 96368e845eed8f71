"""The sub-commands `place`, `check` and `transfer` of `gam-yolo`: parse, call, print."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from gam_yolo.errors import UserError, brief
from gam_yolo.graph.edit import Edit, remove, rewrite
from gam_yolo.graph.model import Document
from gam_yolo.io import write

# What needs torch is imported by the command that needs it: `gam-yolo --help` is not to wait for it.

__all__ = ["check", "place", "transfer"]

NO_BLOCK = "none"


def place(
    base: Annotated[str, typer.Argument(help="A model YAML: a path, or a name that `yolo model=` takes.")],
    block: Annotated[str, typer.Option(help=f"The block to place, or '{NO_BLOCK}' to take all blocks out.")],
    at: Annotated[
        str, typer.Option(help="Behind which rows: '15,18,21', 'p3', 'backbone', 'neck', 'head-inputs', 'after SPPF'.")
    ] = "",
    args: Annotated[str, typer.Option(help="The block's arguments, such as '16' or '{start: identity}'.")] = "",
    feeds: Annotated[
        str, typer.Option(help="Who reads the block: 'all' who read the row, or the 'next' row only.")
    ] = "all",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The YAML to write; else it is printed.")
    ] = None,
    show: Annotated[Path | None, typer.Option(help="An SVG picture of the graph to write, blocks marked.")] = None,
) -> None:
    """Place a block in a model YAML, or take blocks out, with every row number kept right."""
    from gam_yolo import registry
    from gam_yolo.graph.draw import svg
    from gam_yolo.graph.find import load
    from gam_yolo.graph.place import place_block
    from gam_yolo.graph.shapes import measure, scales

    document = load(base)
    if block == NO_BLOCK:
        edit = remove(document.graph, registry.BLOCKS.__contains__)
        text = rewrite(document, edit)
    else:
        edit, placed = place_block(document, block, at, _arguments(args), feeds)
        text = placed.text
    tell = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in _told(document, edit):
        tell.print(line, markup=False)
    if show:
        config = Document(text, document.name).config
        write(show, svg(edit.graph, measure(config, document.name, scales(config)[0]), registry.BLOCKS.__contains__))
    if output:
        write(output, text)
    else:
        typer.echo(text, nl=False)


def check(
    file: Annotated[str, typer.Argument(help="A model YAML: a path, or a name that `yolo model=` takes.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is wrong with a model YAML. Exit status: 0 nothing, 1 warnings, 2 errors."""
    from gam_yolo.graph import lint as checks

    findings = checks.check(file)
    if as_json:
        typer.echo(json.dumps(checks.as_json(file, findings), indent=2))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for f in findings:
            console.print(f"{file}: {f.level}: {f.message}; {f.remedy} [{f.code}]", markup=False)
        if not findings:
            console.print(f"{file}: clean", markup=False)
    raise typer.Exit(checks.status(findings))


def transfer(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint to take weights from (.pt).")],
    target: Annotated[str, typer.Argument(metavar="DST", help="The model to carry them to (.yaml or .pt).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, tensor by tensor.")] = False,
) -> None:
    """Show which layer's weights would go where when DST is trained with pretrained=SRC; nothing is written."""
    from gam_yolo.graph.transfer import rehearse

    ledger = rehearse(source, target)
    if as_json:
        tensors = [asdict(tensor) for tensor in ledger.tensors]
        typer.echo(json.dumps({**ledger.counts(), "parted": ledger.parted, "tensors": tensors}, indent=2))
        return
    table = Table("row", "module", "from row", "tensors", "state")
    for row in ledger.rows():
        table.add_row(*row)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(ledger.line(), markup=False)


def _arguments(text: str) -> list[Any]:
    """Read a row's arguments as a YAML would have them between the brackets, which may be left out."""
    try:
        args = yaml.safe_load(text if text.lstrip().startswith("[") else f"[{text}]")
    except (yaml.YAMLError, ValueError, RecursionError):
        args = None
    if not isinstance(args, list):
        raise UserError(f"--args is {brief(text)}, expected arguments such as '16' or '16, {{start: identity}}'")
    return args


def _told(document: Document, edit: Edit) -> list[str]:
    """Say for each block that was put in who reads it and who still reads the row before it; else what went."""
    graph = edit.graph

    def named(rows: list[int]) -> str:
        return ", ".join(str(graph.layers[i]) for i in rows) or "nobody"

    told = []
    for new, old in enumerate(edit.origin):
        if old is None:
            before = graph.layers[new].sources[0]
            still = [i for i in graph.readers(before) if i != new]
            rest = f"; still reading {graph.layers[before]} itself: {named(still)}" if still else ""
            told.append(
                f"{graph.layers[new]} attends {graph.layers[before]}; read by {named(graph.readers(new))}{rest}"
            )
    gone = sorted(set(range(len(document.graph.layers))) - {old for old in edit.origin if old is not None})
    told.extend(f"{document.graph.layers[i]} taken out" for i in gone)
    return told or ["no blocks to take out"]
