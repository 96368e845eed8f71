"""Which detection finds which object: computed once per image, before any metric and any resampling.

Matching within an image does not depend on the other images in the sample. So it is done once. Every metric of every
bootstrap replicate is then a weighted count over the resulting table.

Sources of the two rules: COCO's evaluation as pycocotools implements it (https://github.com/cocodataset/cocoapi), and
the development kit of the PASCAL VOC challenge (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf, section
4.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gam_yolo.annotations.data import Array, Detections, GroundTruth

__all__ = ["AREAS", "IOU_THRESHOLDS", "MAX_DETECTIONS", "MatchTable", "match_coco", "match_voc"]

IOU_THRESHOLDS: Array = np.linspace(0.5, 0.95, 10)
"""COCO's ten IoU thresholds."""

AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""COCO's ranges of object area in square pixels; both ends belong to the range."""

MAX_DETECTIONS = 100
"""COCO evaluates at most this many detections per image and class."""

_CEILING = 1 - 1e-10  # pycocotools' bound on the threshold: a perfect overlap counts despite rounding
_PAIRS_AT_ONCE = 2_000_000  # bounds the memory of the overlap computation at some 200 MB


@dataclass(frozen=True)
class MatchTable:
    """The outcome of every detection at every setting, ordered by class, then by falling score.

    Settings are (area range, IoU threshold) pairs, area by area.

    Attributes:
        n_images: Images in the split, with or without objects.
        n_classes: Classes.
        n_thresholds: IoU thresholds per area range.
        detection: Each row's index into the `Detections`, shape (detections,); a row is one detection.
        image: Each detection's image, shape (detections,).
        score: Each detection's confidence, shape (detections,).
        rank: Each detection's place among those of its image and class, 0 for the most confident.
        start: Row of each class's first detection and, last, the number of rows; shape (classes + 1,).
        tp: Whether the detection found a counted object, shape (detections, settings).
        ignored: Whether the protocol leaves the detection out of the count, shape (detections, settings).
        object_image: Each annotated object's image, shape (objects,).
        object_label: Each annotated object's class, shape (objects,).
        counted: Whether the object counts in each area range, shape (objects, areas).
    """

    n_images: int
    n_classes: int
    n_thresholds: int
    detection: NDArray[np.intp]
    image: NDArray[np.intp]
    score: Array
    rank: NDArray[np.intp]
    start: NDArray[np.intp]
    tp: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    object_image: NDArray[np.intp]
    object_label: NDArray[np.intp]
    counted: NDArray[np.bool_]


def match_coco(truth: GroundTruth, detections: Detections) -> MatchTable:
    """Match by COCO's rule, as pycocotools does for boxes.

    In the order of score, a detection takes the free object that it overlaps most, if by at least the threshold.
    Objects outside the area range and crowds are considered last. A detection that takes one of them is ignored, and so
    is an unmatched detection whose own area is out of range. Any number of detections can take the same crowd, and
    overlap with a crowd is relative to the detection's area alone.

    Returns:
        A table of 40 settings: the four `AREAS` by the ten `IOU_THRESHOLDS`.
    """
    order, rank = _ordered(truth, detections, MAX_DETECTIONS)
    box = detections.box[order]
    low, high = np.array(list(AREAS.values())).T
    n_areas, n_thresholds = len(AREAS), len(IOU_THRESHOLDS)
    outside = (truth.area[:, None] < low) | (truth.area[:, None] > high)
    object_ignored = outside | truth.crowd[:, None]
    own_area = (box[:, 2] * box[:, 3])[:, None]
    own_outside = (own_area < low) | (own_area > high)

    detection, target, iou = _overlaps(truth, detections, order, truth.crowd)
    # A detection's turn is its place among those of its image and class that overlap any object. Detections of one turn
    # never compete for an object, so they are matched together, at all settings.
    group = detections.image[order] * len(truth.classes) + detections.label[order]
    candidates = np.unique(detection)
    turn_of = np.zeros(len(order), dtype=np.intp)
    turn_of[candidates] = _place_in_group(group[candidates])
    # The last pair of a detection is the one pycocotools prefers: largest overlap, of equals the later object.
    by_preference = np.lexsort((target, iou, detection, turn_of[detection]))
    detection, target, iou = detection[by_preference], target[by_preference], iou[by_preference]
    reaches = iou[:, None] >= np.minimum(IOU_THRESHOLDS, _CEILING)

    n_pairs = len(detection)
    free = np.ones((len(truth.image), n_areas, n_thresholds), dtype=bool)
    matched_ignored = np.zeros((len(order), n_areas, n_thresholds), dtype=bool)
    tp = np.zeros_like(matched_ignored)
    turn = turn_of[detection]
    for first, last in _runs(turn):
        pair = slice(first, last)
        eligible = reaches[pair, None, :] & (free[target[pair]] | truth.crowd[target[pair], None, None])
        # One number per pair, 0 if not eligible: counted objects before ignored ones, then the order of preference.
        worth = np.arange(1, last - first + 1)[:, None] + n_pairs * ~object_ignored[target[pair]]
        starts = np.flatnonzero(np.diff(detection[pair], prepend=-1))
        best = np.maximum.reduceat(np.where(eligible, worth[:, :, None], 0), starts)
        row, area, threshold = np.nonzero(best)
        value = best[row, area, threshold]
        counts = value > n_pairs
        winner = first + np.where(counts, value - n_pairs, value) - 1
        free[target[winner], area, threshold] = False
        row = detection[pair][starts][row]
        tp[row, area, threshold] = counts
        matched_ignored[row, area, threshold] = ~counts
    ignored = matched_ignored | (own_outside[:, :, None] & ~tp)
    return _table(truth, detections, order, rank, tp, ignored, ~object_ignored)


def match_voc(truth: GroundTruth, detections: Detections) -> MatchTable:
    """Match by the VOC development kit's rule at IoU 0.5.

    A detection is compared with the object that it overlaps most, even if that is already found. The most confident
    detection of an object finds it, and any other is a false positive. A detection of a difficult object is ignored.
    VOC has no crowds; a COCO crowd is treated like a difficult object. The number of detections is not limited.

    Returns:
        A table of one setting.
    """
    order, rank = _ordered(truth, detections, None)
    not_counted = truth.difficult | truth.crowd
    detection, target, iou = _overlaps(truth, detections, order, np.zeros_like(truth.crowd))
    # The first pair of a detection is the kit's choice: largest overlap, of equals the earlier object.
    by_preference = np.lexsort((target, -iou, detection))
    detection, first = np.unique(detection[by_preference], return_index=True)
    target = target[by_preference][first]
    finders = np.unique(target, return_index=True)[1]  # rows are in the order of score within an image and class
    found = np.zeros(len(target), dtype=bool)
    found[finders] = True
    tp = np.zeros((len(order), 1, 1), dtype=bool)
    ignored = np.zeros_like(tp)
    tp[detection, 0, 0] = found & ~not_counted[target]
    ignored[detection, 0, 0] = not_counted[target]
    return _table(truth, detections, order, rank, tp, ignored, ~not_counted[:, None])


def _place_in_group(group: NDArray[np.intp]) -> NDArray[np.intp]:
    """Number the members of each run of equal values from 0, shape as given."""
    place = np.arange(len(group))
    new = np.flatnonzero(np.diff(group, prepend=-1))
    return place - np.repeat(new, np.diff(new, append=len(group)))


def _runs(values: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of each run of equal values."""
    yield from pairwise(np.flatnonzero(np.diff(values, prepend=-1, append=-1)).tolist())


def _ordered(
    truth: GroundTruth, detections: Detections, limit: int | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order detections by image, class and falling score, the best `limit` of each image and class.

    Returns:
        Indices into the detections, and each one's rank in its image and class.
    """
    group = detections.image * len(truth.classes) + detections.label
    order = np.lexsort((-detections.score, group))  # stable: of equal scores the earlier in the file comes first
    rank = _place_in_group(group[order])
    keep = slice(None) if limit is None else rank < limit
    return order[keep], rank[keep]


def _overlaps(
    truth: GroundTruth, detections: Detections, order: NDArray[np.intp], crowd: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """List the pairs of a detection and an object, of one image and class, that overlap by IoU 0.5 or more.

    Returns:
        Rows of `order`, indices of objects, and IoU (overlap relative to the detection alone where `crowd`).
    """
    n_classes = len(truth.classes)
    object_group = truth.image * n_classes + truth.label
    by_group = np.argsort(object_group, kind="stable")
    group = (detections.image * n_classes + detections.label)[order]
    begin = np.searchsorted(object_group[by_group], group, side="left")
    count = np.searchsorted(object_group[by_group], group, side="right") - begin
    total = np.cumsum(count)
    box = detections.box[order]
    found: list[tuple[NDArray[np.intp], NDArray[np.intp], Array]] = []
    cuts = np.searchsorted(total, np.arange(0, total[-1] if len(total) else 0, _PAIRS_AT_ONCE)).tolist()
    for low, high in pairwise([*cuts, len(order)]):
        n = count[low:high]
        row = np.repeat(np.arange(low, high), n)
        target = by_group[np.arange(len(row)) + np.repeat(begin[low:high] - (np.cumsum(n) - n), n)]
        d, g = box[row], truth.box[target]
        width = np.minimum(d[:, 0] + d[:, 2], g[:, 0] + g[:, 2]) - np.maximum(d[:, 0], g[:, 0])
        height = np.minimum(d[:, 1] + d[:, 3], g[:, 1] + g[:, 3]) - np.maximum(d[:, 1], g[:, 1])
        shared = np.clip(width, 0, None) * np.clip(height, 0, None)
        own = d[:, 2] * d[:, 3]
        union = np.where(crowd[target], own, own + g[:, 2] * g[:, 3] - shared)
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
        near = iou >= IOU_THRESHOLDS[0]
        found.append((row[near], target[near], iou[near]))
    if not found:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp), np.zeros(0)
    rows, targets, ious = zip(*found, strict=True)
    return np.concatenate(rows), np.concatenate(targets), np.concatenate(ious)


def _table(
    truth: GroundTruth,
    detections: Detections,
    order: NDArray[np.intp],
    rank: NDArray[np.intp],
    tp: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    counted: NDArray[np.bool_],
) -> MatchTable:
    """Bring the rows, so far by image, into the table's order: by class, falling score, image."""
    image, label, score = detections.image[order], detections.label[order], detections.score[order]
    rows = np.lexsort((-score, label))
    settings = (len(order), -1) if len(order) else (0, tp.shape[1] * tp.shape[2])
    return MatchTable(
        n_images=len(truth.ids),
        n_classes=len(truth.classes),
        n_thresholds=tp.shape[2],
        detection=order[rows],
        image=image[rows],
        score=score[rows],
        rank=rank[rows],
        start=np.searchsorted(label[rows], np.arange(len(truth.classes) + 1)),
        tp=tp[rows].reshape(settings),
        ignored=ignored[rows].reshape(settings),
        object_image=truth.image,
        object_label=truth.label,
        counted=counted,
    )
