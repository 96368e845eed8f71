"""The paired image bootstrap: one set of random image weights, the same for every model and seed that is compared.

Each replicate weights the images by independent exponential variables (the Bayesian bootstrap: D. B. Rubin, Annals of
Statistics 9, 1981). Drawing images with replacement would lose a class whenever none of its few images is drawn. The
mean over the remaining classes then hides that class's variance. With positive weights every class is in every
replicate. What few images still hide is known and corrected. For class c on n_c images, with m_c its metric on the
dataset, m the mean over the C classes present, and e_c a replicate's deviation from the mean replicate:

    n_c >= 2:  e_c is multiplied by sqrt((n_c + 1) / (n_c - 1))
    n_c = 1:   e_c gains (m_c - m) sqrt(C / (C - 1)) (w - 1), with w the relative weight of the class's only image

The first is exact for a mean over images: n_c exponential weights give it the variance s^2 (n_c - 1) / (n_c (n_c + 1))
for a sample variance s^2, where s^2 / n_c is wanted. The second borrows the variance of a class on one image from its
distance to the other classes, as survey statistics does for strata with one unit ("collapsed strata": K. M. Wolter,
Introduction to Variance Estimation, section 2.5). It is exact where classes differ by chance only, otherwise too large.
Both are linear in the metrics, so they hold for a difference of variants as for each variant.

Images that are not independent, such as frames of one video, share a weight: one for each group. Then n_c is the
effective number of groups, (sum of sizes)^2 / (sum of squared sizes), where the size of a group is its number of images
with class c. (L. Kish, Survey Sampling, 1965.)

The standard error of AP75 that weights give is too small: about 0.95 of the true one in simulations, for frequent and
rare classes alike. So the deviations of AP75 are multiplied by 1.05. This is measured (`docs/evaluation.md`), also on
scenarios that it was not fitted on, and not derived: the reason is not known.

What is estimated is the mean, over the classes present here, of what each would give on average over datasets of as
many images in which it occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gam_yolo.annotations.data import Array, Detections, GroundTruth
from gam_yolo.evaluation.groups import effective_number
from gam_yolo.evaluation.matching import AREAS, MatchTable, match_coco, match_voc
from gam_yolo.evaluation.metrics import COCO_METRICS, VOC_METRICS, coco_metrics, over_classes, voc_metrics
from gam_yolo.evaluation.statistics import Samples

__all__ = ["METRICS", "draw_weights", "measure", "resample"]

METRICS = (*COCO_METRICS, *VOC_METRICS)
"""What is measured of a set of detections, over all classes and for each class."""

_AP75_FACTOR = 1.05  # see the module
_UNIT = 2.0**-16  # weights are multiples of it, so that sums are exact and recall reaches 1, the grid's last point


def draw_weights(n_images: int, replicates: int, seed: int) -> Array:
    """Draw positive weights of mean and variance 1, shape (images, replicates); for groups of images, their number."""
    drawn = np.random.default_rng(seed).standard_exponential((n_images, replicates))
    drawn /= _UNIT  # in place: for 80,000 images each copy takes 0.6 GB
    np.ceil(drawn, out=drawn)
    drawn *= _UNIT
    return drawn


def measure(
    truth: GroundTruth, detections: Detections, weights: Array, on_match: Callable[[MatchTable], None] | None = None
) -> Array:
    """Compute every metric under every column of image weights.

    Args:
        truth: The objects.
        detections: One model's detections.
        weights: Non-negative, shape (images, replicates).
        on_match: Called with COCO's match table, for whoever needs more of it.

    Returns:
        Shape (1 + classes, `METRICS`, replicates): the mean over classes, then each class; NaN where no object counts.
    """
    table = match_coco(truth, detections)
    if on_match:
        on_match(table)
    coco = coco_metrics(table, weights)
    del table  # it is large
    per_class = np.concatenate([coco, voc_metrics(match_voc(truth, detections), weights)], axis=1)
    return np.concatenate([over_classes(per_class)[None], per_class])


def resample(
    truth: GroundTruth,
    seeds: Sequence[Detections],
    weights: Array,
    groups: NDArray[np.intp] | None = None,
    on_match: Callable[[MatchTable], None] | None = None,
) -> Samples:
    """Measure one variant on the dataset and on each replicate of it.

    Args:
        truth: The objects.
        seeds: The detections of each training seed.
        weights: From `draw_weights`; pass the same for all variants, which is what pairs them.
        groups: The row of `weights` of each image, shape (images,): images of one group share a weight, and wherever
            images are counted, groups are. By default each image is its own group.
        on_match: Called with COCO's match table of each seed, for whoever needs more of it.
    """
    groups = np.arange(len(truth.ids)) if groups is None else groups
    columns = np.concatenate([np.ones((len(truth.ids), 1)), weights[groups]], axis=1)
    images, by_class, first = _presence(truth, groups)
    whole = np.empty((len(seeds), 1 + len(by_class), len(METRICS), columns.shape[1]))
    for found, detections in zip(whole, seeds, strict=True):
        found[:] = measure(truth, detections, columns, on_match)
        _restore_variance(found, by_class, first, weights)
    inverse = np.where(by_class > 0, 1 / np.maximum(by_class, 1), 0.0)
    effective = inverse.sum(axis=0) ** 2 / np.maximum((inverse**3).sum(axis=0), np.finfo(float).tiny)
    return Samples(
        value=whole[..., 0],
        replicates=whole[..., 1:],
        images=np.concatenate([images[None], by_class]),
        effective=np.concatenate([np.minimum(effective, images)[None], by_class]),
    )


def _restore_variance(measured: Array, by_class: Array, first: NDArray[np.intp], weights: Array) -> None:
    """Replace the replicates, in place, by ones with the variance that classes on few images hide; see the module."""
    value, replicates = measured[..., 0], measured[..., 1:]
    own = replicates[1:]
    own -= own.mean(axis=-1, keepdims=True)
    several = by_class > 1
    own *= np.sqrt(np.where(several, (by_class + 1) / np.where(several, by_class - 1, 1), 1.0))[..., None]
    own[:, METRICS.index("AP75")] *= _AP75_FACTOR
    classes = (by_class > 0).sum(axis=0)
    alone = np.nonzero((by_class == 1) & (classes > 1))
    distance = (value[1:] - value[0]) * np.sqrt(classes / np.maximum(classes - 1, 1))
    own[alone] += distance[alone][:, None] * (weights[first[alone]] / weights.mean(axis=0) - 1)
    own += value[1:, :, None]
    replicates[0] = over_classes(own)


def _presence(truth: GroundTruth, groups: NDArray[np.intp]) -> tuple[Array, Array, NDArray[np.intp]]:
    """Find the groups of images with objects that each metric counts.

    Returns:
        Effective number of groups, shape (`METRICS`,), that of each class, shape (classes, `METRICS`), and the first
        group of each class.
    """
    none = np.zeros(0, dtype=np.intp)
    nothing = Detections("", none, none, np.zeros((0, 4)), np.zeros(0))
    images = np.zeros(len(METRICS))
    by_class = np.zeros((len(truth.classes), len(METRICS)))
    first = np.zeros(by_class.shape, dtype=np.intp)
    areas = list(AREAS)
    area = [next((i for i, name in enumerate(areas) if metric[2:] == name[0]), 0) for metric in COCO_METRICS]
    columns = {i: [j for j, other in enumerate(area) if other == i] for i in range(len(areas))}
    found = [(match_coco(truth, nothing).counted[:, i], own) for i, own in columns.items()]
    found.append((match_voc(truth, nothing).counted[:, 0], [METRICS.index(metric) for metric in VOC_METRICS]))
    for counted, own in found:
        label, image = truth.label[counted], truth.image[counted]
        images[own] = effective_number(np.zeros_like(label), groups[image], image, 1)[0]
        number, earliest = effective_number(label, groups[image], image, len(truth.classes))
        by_class[:, own], first[:, own] = number[:, None], earliest[:, None]
    return images, by_class, first
