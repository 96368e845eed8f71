"""How far the blocks of the compared checkpoints have moved from the identity, on images of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from gam_yolo import ultralytics_api
from gam_yolo.movement import Movement, movement
from gam_yolo.report.predictions import load
from gam_yolo.report.tasks import TaskName

if TYPE_CHECKING:
    import torch

__all__ = ["IMAGES", "mean_movements", "still_notes"]

IMAGES = 8
"""Most images that are measured on."""


def mean_movements(
    checkpoints: Mapping[str, Sequence[Path]], images: Sequence[Path], imgsz: int, device: str, task: TaskName
) -> dict[str, tuple[Movement, ...]]:
    """Measure every block of every checkpoint, and return the mean over the seeds of each variant that has blocks.

    Args:
        checkpoints: Those of each variant.
        images: Image files, of which at most `IMAGES` are read, evenly spread.
        imgsz: Side of the square they are fitted into, in pixels; a classifier gets the middle of each image.
        device: Device in Ultralytics' notation, "" for its choice.
        task: What the checkpoints do.
    """
    import torch

    from gam_yolo.registry import blocks_in

    where = ultralytics_api.get("select_device")(device, verbose=False)
    batch: torch.Tensor | None = None
    result = {}
    for name, paths in checkpoints.items():
        seeds = []
        for path in paths:
            network = load(path, task).model.float()
            if not blocks_in(network):
                break
            if batch is None:
                chosen = np.linspace(0, len(images) - 1, min(IMAGES, len(images))).astype(int)
                batch = torch.stack([_read(images[i], imgsz, task) for i in chosen]).to(where)
            seeds.append(movement(network.to(where), batch))
        if seeds and len({tuple(m.block for m in seed) for seed in seeds}) == 1:
            result[name] = tuple(map(_mean, *seeds))
    return result


def still_notes(found: Mapping[str, Sequence[Movement]]) -> list[str]:
    """Return a note on each variant all of whose blocks are still the identity."""
    return [
        f"The blocks of {name} change their input by at most {100 * max(m.change for m in blocks):.2g} %. They are "
        "still the identity, so the comparison says nothing about them; docs/blocks.md says how to let them learn."
        for name, blocks in found.items()
        if blocks and all(m.still for m in blocks)
    ]


def _mean(*seeds: Movement) -> Movement:
    block, *numbers = (field.name for field in fields(Movement))
    return Movement(getattr(seeds[0], block), *(float(np.mean([getattr(m, key) for m in seeds])) for key in numbers))


def _read(file: Path, imgsz: int, task: TaskName) -> torch.Tensor:
    """Read an image as the validation of a task does, shape (3, imgsz, imgsz), from 0 to 1."""
    import torch

    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    if task == "classify":
        cropped: torch.Tensor = ultralytics_api.get("classify_transforms")(imgsz)(upright)
        return cropped
    square = ultralytics_api.get("LetterBox")((imgsz, imgsz))(image=np.asarray(upright))
    return torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1) / 255
