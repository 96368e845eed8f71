"""The images on which two detectors differ most, with what each of them sees."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from gam_yolo.evaluation import Detections, GroundTruth, match_coco
from gam_yolo.report.result import Panel, Picture

__all__ = ["differing_images"]

CONFIDENCE = 0.25
"""Detections below it are neither drawn nor counted, as in Ultralytics' prediction."""

_SIDE = 380  # longer side of a panel in pixels
# Colours that colour-blind readers tell apart.
_FOUND, _FALSE, _OBJECT, _IGNORED = (0, 158, 115), (213, 94, 0), (0, 114, 178), (130, 130, 130)


@dataclass(frozen=True)
class _Seen:
    """What a detector sees with enough confidence: detections, which are right or not counted, counts per image."""

    detections: Detections
    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    found: NDArray[np.intp]
    false: NDArray[np.intp]


def differing_images(
    truth: GroundTruth,
    files: dict[int, Path],
    baseline: tuple[str, Detections],
    variant: tuple[str, Detections],
    number: int = 3,
) -> list[Picture]:
    """Draw the images on which the variant gains most over the baseline, and those on which it loses most.

    An image's gain is objects found minus false detections (IoU 0.5, confidence 0.25), variant against baseline.

    Args:
        truth: The objects.
        files: Where each image lies, by its index; images that are not there are passed over.
        baseline: Name and detections.
        variant: Name and detections.
        number: Images for either side.
    """
    before, after = _seen(truth, baseline[1]), _seen(truth, variant[1])
    gain = (after.found - after.false) - (before.found - before.false)
    order = [int(i) for i in np.argsort(gain, kind="stable") if int(i) in files]
    worst = [i for i in order[:number] if gain[i] < 0]
    best = [i for i in order[::-1][:number] if gain[i] > 0]
    pictures = []
    for index in best + worst:
        objects = truth.image == index
        total = int((objects & ~truth.crowd).sum())
        panels = [
            _panel(
                files[index], f"annotated: {total} objects", truth.box[objects], _OBJECT, truth, truth.label[objects]
            )
        ]
        for name, seen in ((baseline[0], before), (variant[0], after)):
            own = seen.detections.image == index
            colours = [
                _FOUND if right else _IGNORED if ignored else _FALSE
                for right, ignored in zip(seen.right[own], seen.ignored[own], strict=True)
            ]
            caption = f"{name}: {seen.found[index]} found, {seen.false[index]} false"
            panels.append(
                _panel(files[index], caption, seen.detections.box[own], colours, truth, seen.detections.label[own])
            )
        note = f"{variant[0]} is {'ahead' if gain[index] > 0 else 'behind'} by {abs(int(gain[index]))}"
        pictures.append(Picture(variant[0], Path(truth.files[index]).name, note, tuple(panels)))
    return pictures


def _seen(truth: GroundTruth, detections: Detections) -> _Seen:
    keep = detections.score >= CONFIDENCE
    kept = Detections(
        detections.source, detections.image[keep], detections.label[keep], detections.box[keep], detections.score[keep]
    )
    table = match_coco(truth, kept)
    right = np.zeros(len(kept.score), dtype=bool)
    right[table.detection] = table.tp[:, 0]
    ignored = np.ones(len(kept.score), dtype=bool)  # what COCO's limit of detections leaves out is not counted either
    ignored[table.detection] = table.ignored[:, 0]
    n = len(truth.ids)
    return _Seen(
        kept,
        right,
        ignored,
        found=np.bincount(kept.image[right], minlength=n),
        false=np.bincount(kept.image[~right & ~ignored], minlength=n),
    )


def _panel(
    file: Path,
    caption: str,
    boxes: NDArray[np.float64],
    colours: tuple[int, int, int] | list[tuple[int, int, int]],
    truth: GroundTruth,
    labels: NDArray[np.intp],
) -> Panel:
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    scale = _SIDE / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=11)
    for number, (box, label) in enumerate(zip(boxes * scale, labels, strict=True)):
        colour = colours[number] if isinstance(colours, list) else colours
        x, y, w, h = box.tolist()
        draw.rectangle((x, y, x + w, y + h), outline=colour, width=2)
        name = truth.classes[int(label)]
        left, top, right, bottom = draw.textbbox((x + 2, max(y - 13, 0)), name, font=font)
        draw.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=colour)
        draw.text((x + 2, max(y - 13, 0)), name, fill="white", font=font)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return Panel(caption, "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
