"""The sub-commands `place`, `check` and `transfer` of `gam-yolo`: parse, call, print."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from gam_yolo.cli.console import console, print_file
from gam_yolo.cli.options import Trust
from gam_yolo.errors import UserError, brief

# What needs torch is imported by the command that needs it, so that `gam-yolo --help` does not wait for it.

__all__ = ["check", "place", "transfer"]


def place(
    base: Annotated[str, typer.Argument(help="A model YAML: a path, or a name that `yolo model=` accepts.")],
    block: Annotated[str, typer.Option(help="The block to place. Not needed to remove rows or blocks.")] = "",
    at: Annotated[
        str,
        typer.Option(
            help="Where: '15,18,21', 'p3', 'backbone', 'head-inputs', 'after SPPF', 'before SPPF', 'inside C2f', "
            "'replace C2PSA', 'remove C2PSA', or a published placement. '--at help' lists all."
        ),
    ] = "",
    args: Annotated[str, typer.Option(help="The block's arguments, such as '16' or '{start: identity}'.")] = "",
    feeds: Annotated[
        str, typer.Option(help="Which rows read the block: 'all' that read the row, or only the 'next' one.")
    ] = "all",
    remove: Annotated[
        bool, typer.Option("--remove", help="Restore the base: remove all blocks, undo all replacements.")
    ] = False,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The YAML file to write; without it the YAML is printed.")
    ] = None,
    show: Annotated[
        str | None, typer.Option(help="Also write a drawing of the graph, an SVG file in which the blocks are marked.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that place did not write.")] = False,
) -> None:
    """Place a block in a model YAML, or remove blocks, and correct every row number."""
    from gam_yolo.graph import place as placing
    from gam_yolo.graph.positions import describe

    if at == "help":
        typer.echo(describe())
        return
    if remove == bool(block or at):
        problem = "--remove is given with --block or --at" if remove else "there is nothing to do"
        raise UserError(problem, expected="--block and --at, or --remove alone")
    placed = placing.place(base, block=block or None, at=at, args=_arguments(args), feeds=feeds)
    for note in placed.notes:
        console(stderr=True).print(note)
    placing.save(placed, output, show, force=force)
    if output is None:
        print_file(placed.text)


def check(
    files: Annotated[
        list[str], typer.Argument(help="Model YAMLs: paths, folders of them, or names that `yolo model=` accepts.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: an object for one file, else a list.")] = False,
) -> None:
    """Find mistakes in model YAMLs. Exit status: 0 none, 1 warnings, 2 errors."""
    from gam_yolo.graph import find, lint

    names = find.model_files(files)
    found = {name: lint.check(name) for name in names}
    if as_json:
        shown = [lint.as_json(name, findings) for name, findings in found.items()]
        typer.echo(json.dumps(shown[0] if names == files and len(shown) == 1 else shown, indent=2))
    else:
        for name, findings in found.items():
            for line in [finding.line(name) for finding in findings] or [f"{name}: clean"]:
                console().print(line)
    raise typer.Exit(max(map(lint.status, found.values())))


def transfer(
    source: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="It has the weights (.pt).")],
    target: Annotated[str, typer.Argument(metavar="MODEL", help="It would get them (.yaml or .pt).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, tensor by tensor.")] = False,
    trust: Trust = False,
) -> None:
    """Show which layers get which weights if MODEL is trained with pretrained=CHECKPOINT. Nothing is written."""
    from gam_yolo.graph import transfer as transferring

    report = transferring.transfer(source, target, trust=trust)
    if as_json:
        typer.echo(json.dumps({**report.counts(), **asdict(report)}, indent=2))
        return
    table = Table("row", "module", "from row", "tensors", "state")
    for row in report.rows():
        table.add_row(*row)
    console().print(table)
    console().print(report.line())


def _arguments(text: str) -> list[Any]:
    """Read a row's arguments as a YAML would have them between the brackets, which may be left out."""
    try:
        args = yaml.safe_load(text if text.lstrip().startswith("[") else f"[{text}]")
    except (yaml.YAMLError, ValueError, RecursionError):
        args = None
    if not isinstance(args, list):
        raise UserError(f"--args is {brief(text)}", expected="arguments such as '16' or '16, {start: identity}'")
    return args
