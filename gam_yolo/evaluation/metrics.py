"""Average precision and recall from a match table, under any non-negative weight of the images.

A bootstrap replicate is a weight for each image. With integer weights the metrics equal those of pycocotools on a
dataset in which each image occurs that often. With all weights one they are the ordinary metrics. A matrix of weights
gives many replicates at once.

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
from scipy.sparse import csr_array

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
_CELLS_IN_CACHE = 1 << 15  # 256 KB
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
        hits = int(table.tp[table.start[label] : table.start[label + 1]].any(axis=1).sum())
        number = -(-weights.shape[1] * max(hits, 1) // _CELLS_AT_ONCE)
        # Of equal length: a slice of a single column would be summed in another order.
        bounds = np.linspace(0, weights.shape[1], number + 1).astype(int).tolist()
        labels += [label] * number
        chunks += [slice(*bound) for bound in pairwise(bounds)]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:  # NumPy releases the GIL
        list(pool.map(fill, labels, chunks))


class _ClassCurves:
    """Precision and recall of one class at each setting, for every column of weights.

    Sums of weights are exact, so they may be taken in any order: as products with a sparse matrix. The rest is computed
    some rows at a time, which stay in the processor's cache.

    Attributes:
        n_settings: Settings of the table.
        objects: Weighted number of counted objects in each area range, shape (areas, replicates).
    """

    def __init__(self, table: MatchTable, label: int, weights: Array) -> None:
        first, last = int(table.start[label]), int(table.start[label + 1])
        hits = np.flatnonzero(table.tp[first:last].any(axis=1))
        rows = slice(first, first + int(hits[-1]) + 1 if len(hits) else first)  # later rows change nothing
        self._weights = np.ascontiguousarray(weights)
        self._image = table.image[rows]
        self._rank = table.rank[rows]
        self._tp = table.tp[rows]
        self._kept = ~table.ignored[rows]
        self._n_thresholds = table.n_thresholds
        self._area: int | None = None
        self.n_settings = self._tp.shape[1]
        own = table.object_label == label
        area, which = np.nonzero(table.counted[own].T)
        ends = np.searchsorted(area, np.arange(table.counted.shape[1] + 1))
        self.objects = self._sums(table.object_image[own][which], ends)

    def _sums(self, image: NDArray[np.intp], ends: NDArray[np.intp], factor: Array | None = None) -> Array:
        """Sum the weights of the images from each of `ends` to the next, shape (ends - 1, replicates)."""
        values = np.ones(len(image)) if factor is None else factor
        matrix = csr_array((values, image, ends), shape=(len(ends) - 1, len(self._weights)))
        result: Array = matrix @ self._weights
        return result

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
        area, which = np.nonzero(shares.T)
        ends = np.searchsorted(area, np.arange(len(self.objects) + 1))
        return _ratio(self._sums(images[which], ends, shares[which, area]), self.objects)

    def average_precision(self, setting: int, grid: Array | None) -> Array:
        """Compute the mean of the precision envelope over recall, shape (replicates,).

        Args:
            setting: Column of the table.
            grid: Evenly spaced recalls from 0 to 1 at which the envelope is read; None for the area under it.
        """
        if not self._tp[:, setting].any():
            return np.where(self._objects(setting) > 0, 0.0, np.nan)
        envelope, share = self.envelope(setting)
        # Summed by parts: the share gained at each point times its envelope.
        for rows in _parts(share):
            lower = envelope[rows.start + 1 : rows.stop + 1]
            envelope[rows.start : rows.start + len(lower)] -= lower
            if grid is not None:
                _count_reached(share[rows], grid)
        area = np.einsum("ij,ij->j", envelope, share) / (1 if grid is None else len(grid))
        return np.where(self._objects(setting) > 0, area, np.nan)

    def envelope(self, setting: int) -> tuple[Array, Array]:
        """Compute, at each true positive, the highest precision there or at higher recall, and the recall.

        Returns:
            Envelope and recall, each of shape (true positives, replicates).
        """
        hits = np.flatnonzero(self._tp[:, setting])
        image = self._image[hits]
        seen, at, correction, level = self._seen(setting, hits)
        recall, precision = (np.empty((len(hits), self._weights.shape[1])) for _ in range(2))
        for rows in _parts(recall):
            np.take(self._weights, image[rows], axis=0, out=recall[rows], mode="clip")
            _accumulate(np.add, recall[max(0, rows.start - 1) : rows.stop])
            np.take(seen, at[rows], axis=0, out=precision[rows], mode="clip")
            if len(correction):
                precision[rows] += correction[level[rows]]
            precision[rows] += _EPSILON
            np.divide(recall[rows], precision[rows], out=precision[rows])
        objects = np.maximum(self._objects(setting), np.finfo(float).tiny)
        for rows in reversed(_parts(recall)):
            _accumulate(np.maximum, precision[rows.start : rows.stop + 1][::-1])
            recall[rows] /= objects
        return precision, recall

    def _seen(self, setting: int, hits: NDArray[np.intp]) -> tuple[Array, NDArray[np.intp], Array, NDArray[np.intp]]:
        """Sum the weights of the detections that count, up to and including each of the given rows.

        The thresholds of an area range ignore almost the same detections. So the sum is computed once for the range, at
        its last threshold and at every row that any threshold needs, and corrected for the few that differ.

        Returns:
            Sums, and which of them each row needs; corrections, empty if there are none, and which each row needs.
        """
        area = setting // self._n_thresholds
        if self._area != area:
            self._area = area
            settings = slice(area * self._n_thresholds, (area + 1) * self._n_thresholds)
            self._hits = np.flatnonzero(self._tp[:, settings].any(axis=1))
            self._kept_last = self._kept[:, settings.stop - 1]
            ends = np.append(0, np.cumsum(self._kept_last)[self._hits])
            self._sum_last = _accumulate(np.add, self._sums(self._image[self._kept_last][: ends[-1]], ends))
        at = np.searchsorted(self._hits, hits)
        differing = np.flatnonzero(self._kept_last != self._kept[:, setting])
        reached, level = np.unique(np.searchsorted(differing, hits, side="right"), return_inverse=True)
        if not reached.any():
            return self._sum_last, at, np.empty(0), level
        differing = differing[: reached[-1]]
        sign = np.where(self._kept_last[differing], -1.0, 1.0)
        correction = self._sums(self._image[differing], np.append(0, reached), sign)
        return self._sum_last, at, _accumulate(np.add, correction), level

    def _objects(self, setting: int) -> Array:
        objects: Array = self.objects[setting // self._n_thresholds]
        return objects


def _ratio(part: Array, whole: Array) -> Array:
    """Divide; NaN where there is no whole."""
    result: Array = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return result


def _parts(values: Array) -> list[slice]:
    """Cut an array into slices of rows that stay in the processor's cache while they are computed."""
    n, step = len(values), max(1, _CELLS_IN_CACHE // values.shape[1])
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


def _count_reached(recall: Array, grid: Array) -> None:
    """Replace each recall by the number of points of an evenly spaced grid from 0 to 1 that it has reached."""
    count: Array = recall * (len(grid) - 1)
    count += 1e-9  # undoes the multiplication's rounding; the comparison below decides
    np.floor(count, out=count)
    point = count * grid[1] if grid is _HUNDREDTHS else grid[count.astype(np.intp)]
    np.add(count, point <= recall, out=recall)


def _accumulate(operation: np.ufunc, values: Array) -> Array:
    """Apply `operation` down the first axis, in place, and return the values."""
    if values.shape[1] < _LONG_ROW:
        operation.accumulate(values, axis=0, out=values)
    else:
        for above, row in pairwise(values):
            operation(above, row, out=row)
    return values
