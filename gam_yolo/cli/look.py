"""`gam-yolo look`: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gam_yolo.cli.console import console
from gam_yolo.cli.options import Batch, Device, ImageSize, Replicates, Split, Trust

# What needs torch is imported by the command that needs it: so that `gam-yolo --help` does not wait for it.

__all__ = ["look"]


def look(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... [IMAGES|FOLDER|VIDEO]...",
            help="Checkpoints or run folders, 'name=best.pt' to name one; then images, or --data.",
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="Dataset YAML; with it, the mAP lost without each block is measured.")
    ] = None,
    split: Split = "val",
    imgsz: ImageSize = None,
    batch: Batch = 16,
    device: Device = "",
    conf: Annotated[float, typer.Option(help="Lowest confidence of detections that are drawn.")] = 0.25,
    limit: Annotated[int, typer.Option(help="The most images, or frames, whose gates are read.")] = 100,
    pictures: Annotated[int, typer.Option(help="Number of images that are drawn.")] = 4,
    vid_stride: Annotated[int, typer.Option(help="Take every n-th frame of a video.")] = 1,
    replicates: Replicates = 1000,
    trust: Trust = False,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the page and the drawings.")] = "runs/look",
) -> None:
    """Show the gates of attention blocks on images, heat maps, and what each block is worth."""
    from gam_yolo.attention import look as looking

    out = console()
    models, images = looking.split_arguments(paths)
    found = looking.look(
        models,
        images or None,
        data=data,
        split=split,
        imgsz=imgsz,
        batch=batch,
        device=device,
        confidence=conf,
        limit=limit,
        pictures=pictures,
        vid_stride=vid_stride,
        replicates=replicates,
        trust=trust,
        output=output,
        progress=lambda text: out.print(text, style="dim"),
    )
    out.print(str(found))
    out.print(f"Page: {Path(output) / 'look.html'}")
