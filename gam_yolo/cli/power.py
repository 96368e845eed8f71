"""`gam-yolo power`: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gam_yolo.cli.console import console

__all__ = ["power"]


def power(
    pilot: Annotated[Path, typer.Argument(help="The pilot: a report.json of compare or study, or its folder.")],
    detect: Annotated[float, typer.Option(help="The difference to detect, in points: 1 is a hundredth.")] = 1.0,
    metric: Annotated[str, typer.Option(help="The metric, as in report.json; by default AP or top1.")] = "",
    seeds: Annotated[int | None, typer.Option(help="Seeds planned for each variant; by default the pilot's.")] = None,
    images: Annotated[int | None, typer.Option(help="Images planned; by default the pilot's.")] = None,
    comparisons: Annotated[
        int | None, typer.Option(help="Variants to be compared with the baseline; by default the pilot's.")
    ] = None,
) -> None:
    """Say how many seeds and images it takes to detect a difference, from a finished report."""
    from gam_yolo.report.power import power as compute

    found = compute(pilot, detect=detect, metric=metric, seeds=seeds, images=images, comparisons=comparisons)
    console().print(str(found))
