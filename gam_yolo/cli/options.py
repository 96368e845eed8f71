"""The options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Batch", "Device", "ImageSize", "Replicates", "Split", "Trust"]

Split = Annotated[str, typer.Option(help="Split of the dataset.")]
ImageSize = Annotated[int | None, typer.Option(help="Image size in pixels; by default the size of the training.")]
Batch = Annotated[int, typer.Option(help="Images per batch of the validation.")]
Device = Annotated[str, typer.Option(help="Device as Ultralytics names it: 0, cpu, mps.")]
Replicates = Annotated[int, typer.Option(help="Bootstrap samples of the images.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Let checkpoints run code, for layers of your own. By default they cannot.")
]
