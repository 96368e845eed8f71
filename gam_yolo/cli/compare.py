"""The sub-command `compare` of `gam-yolo`: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gam_yolo.errors import UserError, nearest
from gam_yolo.report.formatting import points, signed, signed_span, span

# What needs torch is imported by the command that needs it: `gam-yolo --help` is not to wait for it.

__all__ = ["compare"]


def compare(
    variants: Annotated[
        list[str],
        typer.Argument(
            metavar="BASELINE VARIANT...",
            help="Checkpoints, run folders or prediction files; several seeds as 'gam=runs/gam-s*/weights/best.pt'.",
        ),
    ],
    data: Annotated[str | None, typer.Option(help="Dataset YAML to validate checkpoints on.")] = None,
    gt: Annotated[
        Path | None, typer.Option(help="Ground truth, if not the YAML's: a COCO annotation file or a VOC folder.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "val",
    control: Annotated[
        str | None, typer.Option(help="A variant, such as one of equal cost, to take differences to as well.")
    ] = None,
    imgsz: Annotated[int | None, typer.Option(help="Image size; else what the checkpoints were trained at.")] = None,
    batch: Annotated[int, typer.Option(help="Images a batch.")] = 16,
    device: Annotated[str, typer.Option(help="Device as Ultralytics names it: 0, cpu, mps.")] = "",
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap samples of the images.")] = 1000,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report and the predictions made.")
    ] = Path("runs/compare"),
) -> None:
    """Say whether detectors differ, and write the report: a page, Markdown, JSON and CSV."""
    from gam_yolo.report.comparison import Statistics
    from gam_yolo.report.predictions import Settings
    from gam_yolo.report.run import run
    from gam_yolo.report.variants import parse_variants

    parsed = parse_variants(variants)
    names = [variant.name for variant in parsed]
    if control is not None and control not in names[1:]:
        raise UserError(
            f"--control is '{control}', which is none of {', '.join(names[1:])}{nearest(control, names[1:])}"
        )
    console = Console(markup=False, highlight=False)  # a name may hold brackets
    settings = Settings(data=data, split=split, imgsz=imgsz, batch=batch, device=device)
    statistics = Statistics(replicates=replicates)
    report = run(parsed, gt, control, settings, statistics, output, say=lambda text: console.print(text, style="dim"))
    console.print(_table(report))
    console.print(report["headline"], style="bold")
    for note in report["notes"]:
        console.print(note, style="dim")
    console.print(f"The report is {output / 'report.html'}")


def _table(report: dict[str, Any]) -> Table:
    """Lay out the report's main table for the terminal."""
    baseline, control = report["baseline"], report["control"]
    table = Table(title=f"{report['data']['images']} images, mAP in points", title_style="", show_lines=True)
    references = [baseline, *([control] if control else [])]
    table.add_column("variant", no_wrap=True)
    for name in ("seeds", "mAP 50-95"):
        table.add_column(name, justify="right")
    for reference in references:
        table.add_column(f"minus {reference}")
    table.add_column("mAP 50", justify="right")
    table.add_column("cost", justify="right")
    for variant in report["variants"]:
        cells = [variant["name"], str(len(variant["runs"])), _value(variant["metrics"]["AP"])]
        for reference in references:
            tree = variant["differences"].get(reference)
            cells.append(_gain(tree["metrics"]["AP"]) if tree else "")
        cells.append(_value(variant["metrics"]["AP50"]))
        cells.append(_cost(variant["cost"]) if variant["cost"] else "")
        table.add_row(*cells)
    return table


def _value(found: dict[str, Any]) -> str:
    return f"{points(found['value'])}\n{span(found)}"


def _gain(found: dict[str, Any]) -> str:
    return f"{signed(found['value'])}\n{signed_span(found)}\n{found['verdict']}"


def _cost(cost: dict[str, Any]) -> str:
    gflops = f"{cost['gflops']:.1f} GFLOPs\n" if cost["gflops"] else ""
    return f"{cost['parameters'] / 1e6:.2f} M\n{gflops}{cost['latency_median']:.0f} ms (p95 {cost['latency_p95']:.0f})"
