"""Accuracy of classifiers: the share of images whose class is the most probable, or among the five most probable.

It is a mean over images of values that are 0 or 1, so the bootstrap has a closed form. With exponential weights the
variance of the mean of n values is s^2 (n - 1) / (n (n + 1)) for their sample variance s^2. The replicates are scaled
by sqrt((n + 1) / (n - 1)), which makes it s^2 / n, as for classes in `gam_yolo.evaluation.bootstrap`. They are still
drawn, so that images and training seeds are crossed by the same formulas as for detectors.

Two classifiers often disagree on few images only, and the variance of their difference is then known from these few. So
the degrees of freedom of a difference follow from its own values d on the images (their kurtosis, as in Satterthwaite's
formula): 2 / (sum d^4 / (sum d^2)^2 - 1 / n), which is about n for normal values, and about 2 m where d is 1 or -1 on m
images and 0 elsewhere.

Two that agree on all n images may still differ on others. If they do on a share of 1 - (1 - level)^(1 / n), about 3 / n
at 95 %, no image of n shows it with the chance 1 - level. So the interval reaches that far (J. A. Hanley and
A. Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249, 1983).

Images that are not independent share a weight, one for each group. What counts instead of their number is then the
effective number of groups, and instead of d, the sum of d - mean(d) over each group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gam_yolo.annotations.classes import LabelledImages, Rankings
from gam_yolo.annotations.data import Array
from gam_yolo.evaluation import statistics
from gam_yolo.evaluation.groups import effective_number
from gam_yolo.evaluation.statistics import Estimate, Samples

__all__ = ["ACCURACY_METRICS", "correct", "difference", "resample"]

ACCURACY_METRICS = ("top1", "top5")
"""What is measured of a classifier, over all images and for each class."""


def correct(truth: LabelledImages, rankings: Rankings) -> Array:
    """Return 1 where an image is classified correctly and 0 elsewhere, shape (images, `ACCURACY_METRICS`)."""
    hits = rankings.best == truth.label[:, None]
    return np.stack([hits[:, 0], hits.any(axis=1)], axis=1).astype(float)


def resample(
    truth: LabelledImages, seeds: Sequence[Rankings], weights: Array, groups: NDArray[np.intp] | None = None
) -> Samples:
    """Measure one variant on the dataset and on each replicate of it.

    Args:
        truth: The images.
        seeds: The rankings of each training seed.
        weights: From `draw_weights`; pass the same for all variants, which is what pairs them.
        groups: The row of `weights` of each image, shape (images,). By default each image is its own group.

    Returns:
        Arrays with rows for all images and then for each class; NaN for a class without images.
    """
    right = np.stack([correct(truth, seed) for seed in seeds])
    n_seeds, _, n_metrics = right.shape
    n_classes, n_columns = len(truth.classes), 1 + weights.shape[1]
    sums, mass = np.zeros((n_seeds, 1 + n_classes, n_metrics, n_columns)), np.zeros((1 + n_classes, n_columns))
    groups = np.arange(len(truth.label)) if groups is None else groups
    for label in range(n_classes):  # class by class, to hold little at once
        own = np.flatnonzero(truth.label == label)
        columns = np.concatenate([np.ones((len(own), 1)), weights[groups[own]]], axis=1)
        sums[:, 1 + label] = np.einsum("snm,nr->smr", right[:, own], columns, optimize=True)
        mass[1 + label] = columns.sum(axis=0)
    sums[:, 0], mass[0] = sums[:, 1:].sum(axis=1), mass[1:].sum(axis=0)
    images = _numbers(truth, groups)
    with np.errstate(invalid="ignore"):
        means = sums / mass[:, None]
    value, replicates = means[..., 0], means[..., 1:]
    scale = np.sqrt(np.where(images > 1, (images + 1) / np.where(images > 1, images - 1, 1), 1.0))[:, None, None]
    replicates = (replicates - replicates.mean(axis=-1, keepdims=True)) * scale + value[..., None]
    counts = np.repeat(images[:, None], n_metrics, axis=1)
    return Samples(value=value, replicates=replicates, images=counts, effective=counts)


def _numbers(truth: LabelledImages, groups: NDArray[np.intp]) -> Array:
    """Return the effective number of groups of all images, and of those of each class."""
    image = np.arange(len(groups))
    whole, _ = effective_number(np.zeros_like(groups), groups, image, 1)
    by_class, _ = effective_number(truth.label, groups, image, len(truth.classes))
    return np.concatenate([whole, by_class])


def difference(
    truth: LabelledImages,
    variant: tuple[Sequence[Rankings], Samples],
    baseline: tuple[Sequence[Rankings], Samples],
    level: float = 0.95,
    *,
    paired: bool = False,
    groups: NDArray[np.intp] | None = None,
) -> Estimate:
    """Estimate variant minus baseline on the same images, with intervals at the given confidence level.

    Args:
        truth: The images.
        variant: The rankings of each training seed, and what `resample` returned for them.
        baseline: The same of the model that is subtracted.
        level: Confidence level.
        paired: As in `statistics.difference`.
        groups: As in `resample`.
    """
    groups = np.arange(len(truth.label)) if groups is None else groups
    ours, theirs = (np.mean([correct(truth, seed) for seed in seeds], axis=0) for seeds, _ in (variant, baseline))
    values = ours - theirs
    rows = [np.full(len(values), True), *(truth.label == label for label in range(len(truth.classes)))]
    freedom = np.array([_degrees_of_freedom(values[row], groups[row]) for row in rows])
    samples = variant[1]
    # `statistics.difference` takes half the number of images for the degrees of freedom, where that is less.
    images = np.minimum(samples.images, np.ceil(2 * freedom))
    found = statistics.difference(replace(samples, images=images), baseline[1], level, paired=paired)
    reach = np.where(found.low == found.high, 1 - (1 - level) ** (1 / np.maximum(samples.images, 1)), 0.0)
    return replace(found, low=np.maximum(found.low - reach, -1), high=np.minimum(found.high + reach, 1))


def _degrees_of_freedom(values: Array, groups: NDArray[np.intp]) -> Array:
    """Degrees of freedom of the variance of a mean over images; the number of groups where all values are equal."""
    names, member = np.unique(groups, return_inverse=True)
    n = max(1, len(names))
    sums = np.zeros((n, values.shape[1]))
    if len(values):
        np.add.at(sums, member, values - values.mean(axis=0))
    deviations = sums**2
    squares, fourth = deviations.sum(axis=0), (deviations**2).sum(axis=0)
    varied = squares > 0
    inverse = np.divide(fourth, squares**2, out=np.full_like(squares, 2.0 / n), where=varied) - 1 / n
    return np.where(varied, np.minimum(n, 2 / np.maximum(inverse, 2.0 / n)), n)
