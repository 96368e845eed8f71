"""`gam-yolo prepare`."""

from __future__ import annotations

from typing import Annotated

import typer

from gam_yolo.cli.console import console, print_file

__all__ = ["prepare"]


def prepare(
    data: Annotated[str, typer.Argument(help="A dataset YAML: a path, or a name that `yolo data=` accepts.")],
    init: Annotated[
        bool,
        typer.Option(
            "--init",
            help="Print a dataset YAML for DATA: a COCO file, a folder of them, or a VOC folder.",
        ),
    ] = False,
) -> None:
    """Make a dataset ready as training would, and count its images and boxes."""
    from gam_yolo import datasets  # takes seconds: it needs OpenCV

    if init:
        print_file(datasets.init_yaml(data))
        return
    found = datasets.prepare(data)
    console().print(f"{found.yaml.name}: ready in {found.folder}")
    for split, tally in found.splits.items():
        console().print(f"{split}: {tally}")
    for warning in found.warnings:
        console(stderr=True).print(f"warning: {warning}")
