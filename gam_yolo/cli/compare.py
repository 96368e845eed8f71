"""`gam-yolo compare`: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from gam_yolo.cli.console import console
from gam_yolo.cli.options import Batch, Device, ImageSize, Replicates, Split, Trust

if TYPE_CHECKING:
    from gam_yolo.report.result import Comparison

# What needs torch is imported by the command that needs it: so that `gam-yolo --help` does not wait for it.

__all__ = ["compare"]


def compare(
    variants: Annotated[
        list[str],
        typer.Argument(
            metavar="BASELINE VARIANT...",
            help="Run folders, checkpoints or prediction files, the baseline first; several seeds: 'gam=runs/gam-s*'.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="Dataset YAML to validate checkpoints on; for classifiers a folder with train/ and val/."),
    ] = None,
    gt: Annotated[
        str | None,
        typer.Option(help="Annotations, if not those of the dataset YAML: a COCO file or a VOC folder."),
    ] = None,
    split: Split = "val",
    control: Annotated[
        str | None, typer.Option(help="A second variant to subtract from the others, such as one of equal cost.")
    ] = None,
    imgsz: ImageSize = None,
    batch: Batch = 16,
    device: Device = "",
    replicates: Replicates = 1000,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Groups of images that are not independent: a regular expression for file names, a CSV file, 'parent' "
            "(each folder), or 'none'."
        ),
    ] = None,
    latex: Annotated[
        bool, typer.Option("--latex", help="Write a LaTeX table, and the charts as PDF and SVG, for a paper.")
    ] = False,
    look: Annotated[
        bool,
        typer.Option("--look", help="Show in the report what each block does and is worth, and heat maps; see `look`."),
    ] = False,
    trust: Trust = False,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder for the report and the predictions made.")
    ] = "runs/compare",
) -> None:
    """Test whether detectors or classifiers differ, and write the report: a page, Markdown, JSON and CSV."""
    from gam_yolo.comparing import compare as compare_variants

    out = console()
    latex = _writes_table(output, latex)
    found = compare_variants(
        variants,
        data=data,
        gt=gt,
        split=split,
        control=control,
        imgsz=imgsz,
        batch=batch,
        device=device,
        replicates=replicates,
        groups=groups,
        look=look,
        trust=trust,
        output=output,
        progress=lambda text: out.print(text, style="dim"),
    )
    folder = Path(output)
    if latex:
        _write_for_paper(found, folder)
    for warning in found.warnings:
        out.print(warning, style="bold red")
    out.print(_table(found))
    out.print(found.headline, style="bold")
    for note in [note for note in found.notes if note not in found.warnings]:
        out.print(note, style="dim")
    out.print(f"Report: {folder / 'report.html'}")


def _writes_table(output: str, latex: bool) -> bool:
    """Return whether to write a table: where one is asked for, or would otherwise be of an earlier comparison.

    What is in the way of it is found before anything takes time.
    """
    from gam_yolo.errors import UserError
    from gam_yolo.report.paper import has_table

    try:
        return bool(output.strip()) and (has_table(Path(output)) or latex)
    except UserError:
        if latex:
            raise
        return False


def _write_for_paper(found: Comparison, folder: Path) -> None:
    """Write the LaTeX table and the figures."""
    from gam_yolo.io import write
    from gam_yolo.report.paper import FIGURES, TABLE

    write(folder / TABLE, found.to_latex())
    found.save_figures(folder / FIGURES)


def _table(found: Comparison) -> Table:
    """Lay out the report's main table for the terminal."""
    from gam_yolo.report.tables import main_table

    head, *rows = main_table(found)
    table = Table(title=f"{found.data.images} images, {found.about.short} in points", title_style="", show_lines=True)
    for name in head:
        table.add_column(
            name, no_wrap=name == "variant", justify="left" if name.startswith(("v", "minus")) else "right"
        )
    for row in rows:
        table.add_row(*row)
    return table
