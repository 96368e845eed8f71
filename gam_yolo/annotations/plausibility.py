"""Reject detections whose boxes cannot be what their file says: in other pixels, in another order, or repeated.

The objects decide: what is right overlaps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gam_yolo.annotations.data import Array, Detections, GroundTruth
from gam_yolo.annotations.rules import BEYOND, MIN_OBJECTS
from gam_yolo.errors import UserError

__all__ = ["reject_beside", "reject_implausible"]

_MOST_BEYOND = 0.2  # of the boxes; detectors that do not clip have a few
_MOST_TWICE = 0.05  # of the records; a detector's scores and boxes have too many digits to agree by chance
_FEWEST = 3  # objects that tell in which pixels boxes are
_SAMPLE = 150  # images with objects that tell what the numbers of a box are
_BETTER = 1.2  # times the overlap, and by so many standard errors, shows another meaning
_SURE = 3.0
_EXPLAINED = 0.3  # mean IoU of a reading that is right; without it, boxes at random may fit another one better

_ORDERS: dict[str, Callable[[Array], Array]] = {
    "corners [x1, y1, x2, y2]": lambda box: np.hstack([box[:, :2], box[:, 2:] - box[:, :2]]),
    "corners [y1, x1, y2, x2]": lambda box: np.hstack([box[:, 1::-1], (box[:, 2:] - box[:, :2])[:, ::-1]]),
    "[centre x, centre y, width, height]": lambda box: np.hstack([box[:, :2] - box[:, 2:] / 2, box[:, 2:]]),
    "[y, x, height, width]": lambda box: box[:, [1, 0, 3, 2]],
}
"""What else the four numbers of a box may be, as `[x, y, width, height]`."""

_INPUTS = (320, 416, 448, 480, 512, 608, 640, 768, 800, 960, 1024, 1280)
"""Sides of network inputs whose pixels boxes may be in, if they were not scaled back."""


def reject_implausible(detections: Detections, categories: Sequence[Any], truth: GroundTruth) -> NDArray[np.intp]:
    """Reject detections that the objects contradict.

    Args:
        detections: The detections; their classes are not looked at.
        categories: The `category_id` of each, as in the file.
        truth: What the detections are compared with.

    Returns:
        For each object, the most confident detection with an IoU of 0.5 or more, whatever its class; else -1. Shape
        (objects,).

    Raises:
        UserError: The boxes are not `[x, y, width, height]` in pixels of the image files, or records occur twice.
    """
    found = _overlapped(truth, detections)
    _reject_annotated_size(detections, truth)
    _reject_other_reading(detections, truth)
    _reject_other_unit(detections, truth, found)
    _reject_repeats(detections, categories)
    return found


def _overlapped(truth: GroundTruth, detections: Detections) -> NDArray[np.intp]:
    """Return, for each object, the most confident detection with an IoU of 0.5 or more, whatever its class; else -1."""
    found = np.full(len(truth.image), -1, dtype=np.intp)
    by_score = np.lexsort((-detections.score, detections.image))
    bounds = np.searchsorted(detections.image[by_score], np.arange(len(truth.ids) + 1))
    objects = np.flatnonzero(~truth.crowd)
    objects = objects[np.argsort(truth.image[objects], kind="stable")]
    images, begin = np.unique(truth.image[objects], return_index=True)
    for image, rows in zip(images, np.split(objects, begin)[1:], strict=True):
        own = by_score[bounds[image] : bounds[image + 1]]
        hit, place = np.nonzero(_iou(truth.box[rows][:, None], detections.box[own]) >= 0.5)
        hit, first = np.unique(hit, return_index=True)
        found[rows[hit]] = own[place[first]]
    return found


def _iou(a: Array, b: Array) -> Array:
    """Return the IoU of boxes, 0 where neither has an extent."""
    (x, y, w, h), (left, top, width, height) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    across = np.minimum(left + width, x + w) - np.maximum(left, x)
    down = np.minimum(top + height, y + h) - np.maximum(top, y)
    shared = np.clip(across, 0, None) * np.clip(down, 0, None)
    union: Array = np.asarray(w * h + width * height - shared)
    result: Array = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    return result


def _reject_annotated_size(detections: Detections, truth: GroundTruth) -> None:
    """Reject boxes in pixels of the annotation where images were saved at another size.

    The objects decide: which of the two readings overlaps them more.
    """
    if not truth.scaled:
        return
    factors = np.ones((len(truth.ids), 2))
    factors[[*truth.scaled]] = [*truth.scaled.values()]
    scaled = replace(detections, box=detections.box * np.tile(factors[detections.image], 2))
    resized = np.isin(truth.image, [*truth.scaled])
    as_files, as_annotated = (_agreement(truth, reading)[resized] for reading in (detections, scaled))
    objects = [(reading > 0).sum() for reading in (as_files, as_annotated)]
    if objects[1] >= _FEWEST and as_annotated.sum() > 1.02 * as_files.sum():
        raise UserError(
            f"its boxes are in pixels of the annotated size on images that were saved at another size: on these "
            f"{len(truth.scaled)}, they overlap {objects[1]} objects with an IoU of 0.5 if so, and {objects[0]} if not",
            at=detections.source,
            expected="pixels of the image files",
            fix="Scale the boxes of these images, or compare the checkpoint instead of its predictions",
        )


def _reject_other_unit(detections: Detections, truth: GroundTruth, found: NDArray[np.intp]) -> None:
    """Reject boxes that are not in pixels of the original images, or not `[x, y, width, height]`."""
    total, objects = len(detections.box), int((~truth.crowd).sum())
    sizes = truth.sizes[detections.image]
    beyond = (detections.box[:, :2] + detections.box[:, 2:] > (1 + BEYOND) * sizes).any(axis=1).sum()
    wrong = ""
    if total and (detections.box[:, :2] + detections.box[:, 2:] <= 1 + BEYOND).all():
        wrong = f"all {total} boxes lie within one pixel, as numbers relative to the image do"
    elif total >= MIN_OBJECTS and _MOST_BEYOND * total < beyond:
        wrong = f"{beyond} of {total} boxes extend well beyond their image, as in another unit or order"
    elif total >= objects >= MIN_OBJECTS and (found < 0).all():
        wrong = f"none of its {total} boxes overlaps any of {objects} objects with an IoU of 0.5, whatever its class"
    if wrong:
        raise UserError(
            wrong,
            at=detections.source,
            expected="boxes [x, y, width, height] in pixels of the original image",
            fix="If the boxes are right and the detector finds nothing, compare its checkpoint",
        )


def _reject_other_reading(detections: Detections, truth: GroundTruth) -> None:
    """Reject boxes, of either file, that agree with the other's clearly better if their numbers mean something else.

    In part of the datasets, most boxes remain inside their image whatever they mean.
    """
    images = np.unique(truth.image[~truth.crowd])[:_SAMPLE]
    rows, own = np.isin(truth.image, images), np.isin(detections.image, images)
    truth = replace(truth, image=truth.image[rows], box=truth.box[rows], crowd=truth.crowd[rows])
    detections = Detections(
        detections.source, detections.image[own], detections.label[own], detections.box[own], detections.score[own]
    )
    plain = _agreement(truth, detections)
    sizes = truth.sizes[detections.image]
    readings = [
        (detections.source, truth.source, how, _agreement(truth, replace(detections, box=box)))
        for how, box in chain(
            ((order, read(detections.box)) for order, read in _ORDERS.items()),
            (
                (f"in pixels of a network input of {side}", box)
                for side in _INPUTS
                for box in _unscaled(detections.box, sizes, side)
            ),
        )
    ]
    readings += [
        (truth.source, detections.source, order, _agreement(replace(truth, box=read(truth.box)), detections))
        for order, read in _ORDERS.items()
    ]
    at, other, how, best = max(readings, key=lambda reading: reading[3].sum())
    gain = best - plain
    better = best.sum() > _BETTER * plain.sum() and gain.sum() > _SURE * np.sqrt((gain**2).sum())
    if better and best.mean() > _EXPLAINED:
        raise UserError(
            f"its boxes seem to be {how}: the mean IoU of objects with the detections that find them is then "
            f"{best.mean():.2f}, not {plain.mean():.2f}",
            at=at,
            expected="boxes [x, y, width, height] in pixels of the original image",
            fix=f"Correct them, or those of {other}",
        )


def _unscaled(box: Array, sizes: Array, side: int) -> Iterator[Array]:
    """Yield boxes in pixels of the images, if they are in pixels of a square network input.

    The image was stretched to the input, or scaled and padded: at the right and the bottom, or at both sides.
    """
    yield box / np.tile(side / sizes, 2)
    scale = side / sizes.max(axis=1, keepdims=True)
    for share in (0, 0.5):
        yield (box - np.pad(share * (side - scale * sizes), ((0, 0), (0, 2)))) / scale


def _agreement(truth: GroundTruth, detections: Detections) -> Array:
    """Return the IoU of each object and the detection that `_overlapped` finds; 0 where it finds none."""
    found, result = _overlapped(truth, detections), np.zeros(len(truth.box))
    hit = found >= 0
    result[hit] = _iou(truth.box[hit], detections.box[found[hit]])
    return result


def _reject_repeats(detections: Detections, categories: Sequence[Any]) -> None:
    """Reject a file in which records occur twice, as when files of several runs were joined."""
    columns = (detections.image, detections.score, *detections.box.T)
    mixed = np.sort(sum(column * factor for column, factor in zip(columns, np.sqrt([2, 3, 5, 7, 11, 13]), strict=True)))
    if (mixed[1:] == mixed[:-1]).sum() <= _MOST_TWICE * len(mixed):  # equal records have equal sums
        return
    order = np.lexsort((detections.box[:, 0], detections.score, detections.image))
    equal = np.ones(len(order) - 1, dtype=bool)
    for column in columns:  # one at a time, as a file may have millions of records
        equal &= column[order[1:]] == column[order[:-1]]
    repeats = sum(categories[order[i]] == categories[order[i + 1]] for i in np.flatnonzero(equal))
    if repeats >= MIN_OBJECTS and repeats > _MOST_TWICE * len(order):
        raise UserError(
            f"{repeats} of {len(order)} records repeat another one",
            at=detections.source,
            expected="each detection once",
        )


def reject_beside(detections: Detections, truth: GroundTruth) -> None:
    """Reject what the ids do not show: boxes beside their images."""
    width, height = truth.sizes[detections.image].T
    x, y, w, h = detections.box.T
    beside = np.flatnonzero((x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0))
    beside = beside[(w[beside] > 0) & (h[beside] > 0)]
    if len(beside):
        i = int(beside[0])
        image = int(detections.image[i])
        others = f", as in {len(beside) - 1} more" if len(beside) > 1 else ""
        raise UserError(
            f"its box {np.round(detections.box[i], 1).tolist()} is beside image {truth.ids[image]!r:.120} of "
            f"{width[i]:g} x {height[i]:g} pixels{others}",
            at=f"{detections.source}, record {i}",
            expected="pixels of the original image",
        )
