"""The images on which two detectors differ most, with the detections of each."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from gam_yolo.evaluation import Detections, GroundTruth, match_coco
from gam_yolo.report.formatting import printable
from gam_yolo.report.schema import Panel, Picture

__all__ = ["CONFIDENCE", "Box", "Confident", "as_url", "differing_images", "draw_boxes", "match_confident"]

CONFIDENCE = 0.25
"""Detections below it are neither drawn nor counted, as in Ultralytics' prediction."""

_SIDE = 380  # longer side of a panel in pixels
_NUMBER = 3  # images for either side
# Colours that colour-blind readers tell apart.
_FOUND, _FALSE, _OBJECT, _IGNORED = (0, 158, 115), (213, 94, 0), (0, 114, 178), (130, 130, 130)


_PAD, _HIDDEN = 2, 0.1  # a label's margin in pixels; the share of another box that it may hide
_Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Box:
    """A box to draw: left, top, width and height in pixels of the panel, its class, its colour."""

    place: _Corners
    name: str
    colour: tuple[int, int, int]

    @property
    def corners(self) -> _Corners:
        """Left, top, right and bottom."""
        x, y, w, h = self.place
        return x, y, x + w, y + h


@dataclass(frozen=True)
class Confident:
    """A detector's confident detections: which are right, which do not count, and how many there are per image."""

    detections: Detections
    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    found: NDArray[np.intp]
    false: NDArray[np.intp]


def differing_images(
    truth: GroundTruth,
    files: Mapping[int, Path],
    baseline: tuple[str, Confident],
    variant: tuple[str, Confident],
) -> tuple[list[Picture], dict[str, str]]:
    """Draw the images on which the variant is ahead of the baseline most, and those on which it is behind most.

    A variant is ahead on an image where it finds more objects; or as many, at least one, with fewer false detections
    (IoU 0.5, confidence 0.25). Images are ordered by objects found, then by false detections. So a detector that finds
    nothing is ahead nowhere, however many false detections the other has.

    Args:
        truth: The objects.
        files: Where each image lies, by its index; images that are not there are passed over.
        baseline: Name, and what `match_confident` returned.
        variant: The same.

    Returns:
        The pictures, and the reason for each image that could not be drawn, by its name.
    """
    before, after = baseline[1], variant[1]
    found, false = after.found - before.found, after.false - before.false
    not_empty = after.found > 0
    ahead = (found > 0) | ((found == 0) & (false < 0) & not_empty)
    behind = (found < 0) | ((found == 0) & (false > 0) & not_empty)
    order = np.lexsort((false, -found))  # the furthest ahead first
    pictures: list[Picture] = []
    failed: dict[str, str] = {}
    for candidates in (order[ahead[order]], order[behind[order]][::-1]):
        drawn = 0
        for index in map(int, candidates):
            if index not in files or drawn == _NUMBER:
                continue
            name = printable(Path(truth.files[index]).name)
            try:
                panels = _panels(truth, index, files[index], baseline, variant)
            except Exception as error:  # the next image takes the place of a broken one
                failed[name] = printable(str(error))
                continue
            counted = _counted(int(found[index]), "object"), _counted(int(false[index]), "false detection")
            note = f"{variant[0]} finds {counted[0]}, {counted[1]}"
            pictures.append(Picture(variant[0], name, note, panels, str(files[index])))
            drawn += 1
    return pictures, failed


def _counted(difference: int, what: str) -> str:
    """Write a difference in numbers of things.

    Examples:
        >>> _counted(-1, "object"), _counted(2, "object"), _counted(0, "object")
        ('1 object fewer', '2 objects more', 'as many objects')
    """
    if not difference:
        return f"as many {what}s"
    return f"{abs(difference)} {what}{'s' if abs(difference) > 1 else ''} {'more' if difference > 0 else 'fewer'}"


def _panels(
    truth: GroundTruth, index: int, file: Path, before: tuple[str, Confident], after: tuple[str, Confident]
) -> tuple[Panel, ...]:
    """Draw an image's annotations, and the detections of each of two detectors."""
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    scale = _SIDE / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    objects = truth.image == index
    names = [printable(name) for name in truth.classes]
    total = int((objects & ~truth.crowd).sum())
    boxes = [
        Box(tuple(scale * box), names[label], _OBJECT)
        for box, label in zip(truth.box[objects], truth.label[objects], strict=True)
    ]
    panels = [_panel(image, f"annotated: {total} objects", boxes)]
    for name, seen in (before, after):
        own = np.flatnonzero(seen.detections.image == index)
        boxes = [
            Box(
                tuple(scale * seen.detections.box[i]),
                names[seen.detections.label[i]],
                _FOUND if seen.right[i] else _IGNORED if seen.ignored[i] else _FALSE,
            )
            for i in own
        ]
        panels.append(_panel(image, f"{name}: {seen.found[index]} found, {seen.false[index]} false", boxes))
    return tuple(panels)


def match_confident(truth: GroundTruth, detections: Detections) -> Confident:
    """Match the detections with a confidence of 0.25 or more."""
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
    return Confident(
        kept,
        right,
        ignored,
        found=np.bincount(kept.image[right], minlength=n),
        false=np.bincount(kept.image[~right & ~ignored], minlength=n),
    )


def _panel(image: Image.Image, caption: str, boxes: list[Box]) -> Panel:
    return Panel(caption, as_url(draw_boxes(image, boxes)))


def as_url(image: Image.Image) -> str:
    """Return an image as a data URL: a JPEG, or a PNG if parts of it are transparent."""
    buffer, form = io.BytesIO(), "png" if image.mode == "RGBA" else "jpeg"
    image.save(buffer, form, quality=80)
    return f"data:image/{form};base64," + base64.b64encode(buffer.getvalue()).decode()


def draw_boxes(image: Image.Image, boxes: list[Box]) -> Image.Image:
    """Return a copy of an image with boxes and their names; a name that would hide other boxes is left out."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=11)
    named = [box for box in boxes if box.name]
    labels = _place_labels(named, [draw.textbbox((0, 0), box.name, font=font) for box in named], image.size)
    for (left, top, right, bottom), box in labels:
        draw.rectangle((left, top, right, bottom), fill=box.colour)
    for box in boxes:  # over the labels: no label hides a line
        x, y, w, h = box.place
        draw.rectangle((x, y, x + w, y + h), outline=box.colour, width=2)
    for (left, top, *_), box in labels:
        x, y, *_ = draw.textbbox((0, 0), box.name, font=font)
        draw.text((left + _PAD - x, top + _PAD - y), box.name, fill="white", font=font)
    return image


def _place_labels(
    boxes: list[Box], texts: list[tuple[float, float, float, float]], size: tuple[int, int]
) -> list[tuple[_Corners, Box]]:
    """Find a place for each box's label: above it, below it, or inside at its top.

    A label that would lie on another label, or hide more than a tenth of another box, is left out.
    """
    placed: list[tuple[_Corners, Box]] = []
    for box, (x0, y0, x1, y1) in zip(boxes, texts, strict=True):
        x, y, _, h = box.place
        width, height = x1 - x0 + 2 * _PAD, y1 - y0 + 2 * _PAD
        left = max(0.0, min(x, size[0] - width))
        for top in (y - height, y + h, y):
            label = (left, top, left + width, top + height)
            if (
                0 <= top <= size[1] - height
                and not any(_shared(label, other) for other, _ in placed)
                and all(_shared(label, o.corners) <= _HIDDEN * o.place[2] * o.place[3] for o in boxes if o is not box)
            ):
                placed.append((label, box))
                break
    return placed


def _shared(a: _Corners, b: _Corners) -> float:
    """Return the area that two rectangles share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
