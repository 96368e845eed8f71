"""The paired image bootstrap: one set of draws, the same for every model and seed that is compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gam_yolo.evaluation.data import Array, Detections, GroundTruth
from gam_yolo.evaluation.matching import AREAS, MatchTable, match_coco, match_voc
from gam_yolo.evaluation.metrics import COCO_METRICS, VOC_METRICS, coco_metrics, over_classes, voc_metrics
from gam_yolo.evaluation.statistics import Samples

__all__ = ["METRICS", "measure", "multiplicities", "resample"]

METRICS = (*COCO_METRICS, *VOC_METRICS)
"""What is measured of a set of detections, over all classes and for each class."""


def multiplicities(n_images: int, replicates: int, seed: int) -> Array:
    """Draw how often each image occurs in each bootstrap sample of as many images, shape (images, replicates)."""
    drawn = np.random.default_rng(seed).integers(0, n_images, (replicates, n_images))
    drawn += np.arange(replicates)[:, None] * n_images
    counts = np.bincount(drawn.ravel(), minlength=replicates * n_images)
    return np.ascontiguousarray(counts.reshape(replicates, n_images).T, dtype=float)


def measure(truth: GroundTruth, detections: Detections, weights: Array) -> Array:
    """Compute every metric under every column of image weights.

    Args:
        truth: The objects.
        detections: One model's detections.
        weights: Non-negative, shape (images, replicates).

    Returns:
        Shape (1 + classes, `METRICS`, replicates): the mean over classes, then each class; NaN where nothing is to be
        found.
    """
    per_class = np.concatenate(
        [
            coco_metrics(match_coco(truth, detections), weights),
            voc_metrics(match_voc(truth, detections), weights),
        ],
        axis=1,
    )
    return np.concatenate([over_classes(per_class)[None], per_class])


def resample(truth: GroundTruth, seeds: Sequence[Detections], draws: Array) -> Samples:
    """Measure one variant on the data set and on each bootstrap sample of it.

    Args:
        truth: The objects.
        seeds: The detections of each training seed.
        draws: What `multiplicities` drew: the same for all variants, which is what pairs them.
    """
    weights = np.concatenate([np.ones((len(truth.ids), 1)), draws], axis=1)
    measured = np.stack([measure(truth, detections, weights) for detections in seeds])
    return Samples(measured[..., 0], measured[..., 1:], _support(truth))


def _support(truth: GroundTruth) -> NDArray[np.intp]:
    """Count the images with an object that each metric counts, shape (1 + classes, `METRICS`)."""
    none = np.zeros(0, dtype=np.intp)
    nothing = Detections("", none, none, np.zeros((0, 4)), np.zeros(0))
    result = np.zeros((1 + len(truth.classes), len(METRICS)), dtype=np.intp)
    areas = list(AREAS)
    coco, voc = match_coco(truth, nothing), match_voc(truth, nothing)
    for column, metric in enumerate(METRICS):
        area = next((i for i, name in enumerate(areas) if metric[2:] == name[0]), 0)
        table: MatchTable = coco if metric in COCO_METRICS else voc
        image = table.object_image[table.counted[:, area]]
        label = table.object_label[table.counted[:, area]]
        result[0, column] = len(np.unique(image))
        pairs = np.unique(label * len(truth.ids) + image)
        result[1:, column] = np.bincount(pairs // max(len(truth.ids), 1), minlength=len(truth.classes))
    return result
