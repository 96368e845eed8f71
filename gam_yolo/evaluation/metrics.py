"""Average precision and recall from a match table, under any non-negative weight of the images.

A bootstrap replicate is a weight for each image. With integer weights the metrics equal those of pycocotools on a data
set in which each image occurs that often. With all weights one they are the ordinary metrics. A matrix of weights gives
many replicates at once.

Only the rows of true positives matter. Between two of them precision falls and recall is constant, so the precision
envelope and the recall at which it is read do not change.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gam_yolo.annotations.data import Array
from gam_yolo.evaluation.matching import AREAS, IOU_THRESHOLDS, MAX_DETECTIONS, MatchTable

__all__ = ["COCO_METRICS", "VOC_METRICS", "coco_metrics", "over_classes", "precision_curve", "voc_metrics"]

COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve, in the order in which pycocotools prints them."""

VOC_METRICS = ("VOC2007 AP50", "VOC2010 AP50")
"""The 11-point definition of the challenges 2007 to 2009, and the all-point definition since 2010."""

_HUNDREDTHS: Array = np.linspace(0, 1, 101)  # pycocotools' recall points
# The development kit's `for t=0:0.1:1`. MATLAB counts the first half up from 0 and the second half down from 1. So the
# fourth point is 0.30000000000000004, but the seventh and eighth are the doubles nearest to 0.6 and 0.7.
_TENTHS: Array = np.array([0.1 * k if k <= 5 else 1 - 0.1 * (10 - k) for k in range(11)])
_EPSILON = np.spacing(1)  # pycocotools adds it to precision's denominator
_CELLS_AT_ONCE = 1 << 23  # detections of a class times replicates held at once: 64 MB, three times per thread
_THREADS = 8  # bounds the memory
_LONG_ROW = 256  # from this length, adding row by row is faster than NumPy's accumulation along the first axis


def coco_metrics(table: MatchTable, weights: Array) -> Array:
    """Compute COCO's twelve metrics of each class.

    Args:
        table: From `match_coco`.
        weights: Non-negative image weights, shape (images, replicates).

    Returns:
        Shape (classes, 12, replicates), in the order of `COCO_METRICS`; NaN where a class has no counted object.
    """
    at_50, at_75 = np.searchsorted(IOU_THRESHOLDS, (0.5, 0.75)).tolist()
    result = np.full((table.n_classes, len(COCO_METRICS), weights.shape[1]), np.nan)

    def fill(label: int, chunk: slice) -> None:
        curves = _ClassCurves(table, label, weights[:, chunk])
        precision = np.stack([curves.average_precision(setting, _HUNDREDTHS) for setting in range(curves.n_settings)])
        ap = precision.reshape(len(AREAS), table.n_thresholds, -1)
        fewer = [curves.recall(n)[0] for n in (1, 10)]
        by_area = curves.recall(MAX_DETECTIONS)
        result[label, :, chunk] = [
            ap[0].mean(axis=0),
            ap[0, at_50],
            ap[0, at_75],
            *ap[1:].mean(axis=1),
            *fewer,
            *by_area,
        ]

    _for_each_class(table, weights, fill)
    return result


def voc_metrics(table: MatchTable, weights: Array) -> Array:
    """Compute VOC's two definitions of AP at IoU 0.5 for each class.

    Both follow the development kits. VOC2007 is the mean of `max(prec(rec>=t))` over `t=0:0.1:1`, with the tenths as
    MATLAB computes them. Ports to Python with `np.arange(0, 1.1, 0.1)` read the envelope a rounding error above 0.6 and
    0.7, so their AP is lower where recall is exactly 0.6 or 0.7. VOC2010 is the area under the precision envelope.

    Args:
        table: From `match_voc`.
        weights: Non-negative image weights, shape (images, replicates).

    Returns:
        Shape (classes, 2, replicates), in the order of `VOC_METRICS`; NaN where a class has no counted object.
    """
    result = np.full((table.n_classes, len(VOC_METRICS), weights.shape[1]), np.nan)

    def fill(label: int, chunk: slice) -> None:
        curves = _ClassCurves(table, label, weights[:, chunk])
        result[label, :, chunk] = [curves.average_precision(0, _TENTHS), curves.average_precision(0, None)]

    _for_each_class(table, weights, fill)
    return result


def over_classes(per_class: Array) -> Array:
    """Average over the classes that have objects: shape (classes, ...) to (...), NaN where none has."""
    present = ~np.isnan(per_class)
    count = present.sum(axis=0)
    total = np.where(present, per_class, 0.0).sum(axis=0)
    return _ratio(total, count)


def precision_curve(table: MatchTable, threshold: int = 0) -> Array:
    """Read each class's interpolated precision at recall 0, 0.01, ... 1, over all areas, each image counted once.

    Args:
        table: From `match_coco`.
        threshold: Index into `IOU_THRESHOLDS`.

    Returns:
        Shape (classes, 101); NaN where a class has no counted object.
    """
    result = np.full((table.n_classes, len(_HUNDREDTHS)), np.nan)
    for label in range(table.n_classes):
        curves = _ClassCurves(table, label, np.ones((table.n_images, 1)))
        if curves.objects[0, 0] > 0:
            envelope, recall = curves.envelope(threshold)
            found = np.searchsorted(recall[:, 0], _HUNDREDTHS, side="left")
            result[label] = np.append(envelope[:, 0], 0.0)[found]
    return result


def _for_each_class(table: MatchTable, weights: Array, fill: Callable[[int, slice], None]) -> None:
    """Call `fill` for each class that has objects, with slices of the replicates that fit in memory together."""
    labels, chunks = [], []
    for label in np.unique(table.object_label[table.counted.any(axis=1)]).tolist():
        rows = int(table.start[label + 1] - table.start[label])
        step = max(1, _CELLS_AT_ONCE // max(rows, 1))
        slices = [slice(i, i + step) for i in range(0, weights.shape[1], step)]
        labels += [label] * len(slices)
        chunks += slices
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:  # NumPy releases the GIL
        list(pool.map(fill, labels, chunks))


class _ClassCurves:
    """Precision and recall of one class at each setting, for every column of weights.

    Attributes:
        n_settings: Settings of the table.
        objects: Weighted number of counted objects in each area range, shape (areas, replicates).
    """

    def __init__(self, table: MatchTable, label: int, weights: Array) -> None:
        first, last = int(table.start[label]), int(table.start[label + 1])
        hits = np.flatnonzero(table.tp[first:last].any(axis=1))
        rows = slice(first, first + int(hits[-1]) + 1 if len(hits) else first)  # later rows change nothing
        self._weights = weights
        self._image = table.image[rows]
        self._rank = table.rank[rows]
        self._tp = table.tp[rows]
        self._kept = ~table.ignored[rows]
        self._n_thresholds = table.n_thresholds
        self._area: int | None = None
        self.n_settings = self._tp.shape[1]
        own = table.object_label == label
        self.objects: Array = table.counted[own].T.astype(float) @ weights[table.object_image[own]]

    def recall(self, max_detections: int) -> Array:
        """Compute the share of objects found by the best `max_detections` of each image, averaged over the thresholds.

        Returns:
            Shape (areas, replicates).
        """
        found = self._tp & (self._rank < max_detections)[:, None]
        shares = found.reshape(len(found), len(self.objects), self._n_thresholds).mean(axis=2)
        by_image = np.argsort(self._image, kind="stable")
        images, first = np.unique(self._image[by_image], return_index=True)
        shares = np.add.reduceat(shares[by_image], first) if len(images) else shares
        # Not `@`: the threads of BLAS would compete with ours.
        return _ratio(np.einsum("ia,ij->aj", shares, self._weights[images]), self.objects)

    def average_precision(self, setting: int, grid: Array | None) -> Array:
        """Compute the mean of the precision envelope over recall, shape (replicates,).

        Args:
            setting: Column of the table.
            grid: Evenly spaced recalls from 0 to 1 at which the envelope is read; None for the area under it.
        """
        if not self._tp[:, setting].any():
            return np.where(self._objects(setting) > 0, 0.0, np.nan)
        envelope, recall = self.envelope(setting)
        # Summed by parts: the share gained at each point times its envelope.
        envelope[:-1] -= envelope[1:]
        share, whole = (recall, 1) if grid is None else (_reached(recall, grid), len(grid))
        area = np.einsum("ij,ij->j", envelope, share) / whole
        return np.where(self._objects(setting) > 0, area, np.nan)

    def envelope(self, setting: int) -> tuple[Array, Array]:
        """Compute, at each true positive, the highest precision there or at higher recall, and the recall.

        Returns:
            Envelope and recall, each of shape (true positives, replicates).
        """
        rows = np.flatnonzero(self._tp[:, setting])
        recall = _accumulate(np.add, self._weights[self._image[rows]])
        precision = self._seen(setting, rows)
        precision += _EPSILON
        np.divide(recall, precision, out=precision)
        _accumulate(np.maximum, precision[::-1])
        recall /= np.maximum(self._objects(setting), np.finfo(float).tiny)
        return precision, recall

    def _seen(self, setting: int, rows: NDArray[np.intp]) -> Array:
        """Sum the weights of the detections that count, up to and including each of the given rows.

        The thresholds of an area range ignore almost the same detections. So the sum is computed once for the range, at
        its last threshold, and corrected for the few that differ.
        """
        area = setting // self._n_thresholds
        if self._area != area:
            self._area = area
            self._kept_last = self._kept[:, (area + 1) * self._n_thresholds - 1]
            self._sum_last = _running_sum(self._weights, self._image[self._kept_last])
        seen: Array = self._sum_last[np.cumsum(self._kept_last)[rows]]
        differing = np.flatnonzero(self._kept_last != self._kept[:, setting])
        if len(differing):
            sign = np.where(self._kept_last[differing], -1.0, 1.0)[:, None]
            correction = _accumulate(np.add, self._weights[self._image[differing]] * sign)
            reached = np.searchsorted(differing, rows, side="right")
            seen[reached > 0] += correction[reached[reached > 0] - 1]
        return seen

    def _objects(self, setting: int) -> Array:
        objects: Array = self.objects[setting // self._n_thresholds]
        return objects


def _ratio(part: Array, whole: Array) -> Array:
    """Divide; NaN where there is no whole."""
    result: Array = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return result


def _reached(recall: Array, grid: Array) -> Array:
    """Count the points of an evenly spaced grid from 0 to 1 that each recall has reached."""
    count: Array = recall * (len(grid) - 1)
    count += 1e-9  # undoes the multiplication's rounding; the comparison below decides
    np.floor(count, out=count)
    count += grid[count.astype(np.intp)] <= recall
    return count


def _running_sum(weights: Array, image: NDArray[np.intp]) -> Array:
    """Sum the weights of the first 0, 1, 2, ... of the given images, shape (images + 1, replicates)."""
    result = np.empty((len(image) + 1, weights.shape[1]))
    result[0] = 0.0
    np.take(weights, image, axis=0, out=result[1:])
    _accumulate(np.add, result)
    return result


def _accumulate(operation: np.ufunc, values: Array) -> Array:
    """Apply `operation` down the first axis, in place, and return the values."""
    if values.shape[1] < _LONG_ROW:
        operation.accumulate(values, axis=0, out=values)
    else:
        for above, row in pairwise(values):
            operation(above, row, out=row)
    return values
