"""How sure an estimate is: variance by source, intervals, p-values, Holm's correction, verdicts.

An estimate here is a metric averaged over a variant's training seeds, or the difference of two such averages. It would
come out differently with other images and with other seeds. Images are what the bootstrap resamples. Seeds are few, and
resampling k of them is known to understate their variance by (k - 1) / k and to know nothing of Student's factor; what
it would yield has a closed form, so the seed part is computed rather than drawn:

    images   V = max(0, variance of the estimate over replicates - interaction / k)      n - 1 degrees of freedom
    seeds    S = (sample variance of the seeds' own values) / k, summed over variants    sum of k - 1 degrees of freedom

`interaction` is the part of the seeds' spread that changes with the images, from the same replicates (the residual mean
square of the replicate-by-seed layout). It is in both sums and is counted once, so V + S is unbiased for the variance
of the estimate. The half-width of the interval is

    sqrt(t_V^2 V + t_S^2 S)

with the Student quantile of each source's own degrees of freedom: exact where one source is alone, slightly wide
between (the construction of Zou and Donner, "Construction of confidence limits about effect measures", Statistics in
Medicine 27, 2008). `docs/evaluation.md` has the simulation that shows its coverage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from gam_yolo.evaluation.data import Array

__all__ = ["Estimate", "Samples", "Verdict", "difference", "estimate", "holm", "verdict"]

Verdict = Literal["better", "worse", "no detectable difference", "not measurable"]


@dataclass(frozen=True)
class Samples:
    """One variant's metrics: on the data set as it is, and on each bootstrap replicate of its images.

    Attributes:
        value: Shape (seeds, ...); NaN where a metric does not exist.
        replicates: Shape (seeds, ..., replicates); the same replicate has the same images for every seed and variant.
        support: How many images hold an object that the metric counts, shape (...).
    """

    value: Array
    replicates: Array
    support: NDArray[np.intp]


@dataclass(frozen=True)
class Estimate:
    """Metrics or differences of metrics, with what is known of their error; arrays are shaped as `Samples.support`.

    Attributes:
        value: The estimate; NaN where there is none.
        low: Lower end of the interval; NaN where there are too few images to tell.
        high: Upper end of the interval.
        p: Two-sided p-value against zero.
        image_variance: The part of the estimate's variance that another set of images would bring.
        seed_variance: The part that other training seeds would bring; 0 where each variant has one seed only.
        seeded: Whether every variant in the estimate has more than one seed; if not, the estimate and its interval speak
            of these trained weights, not of the architecture.
    """

    value: Array
    low: Array
    high: Array
    p: Array
    image_variance: Array
    seed_variance: Array
    seeded: bool


def estimate(variant: Samples, level: float = 0.95) -> Estimate:
    """Estimate a variant's metrics, with intervals at the given confidence level, kept within 0 and 1."""
    return _estimate([(1.0, variant)], level, bounds=(0.0, 1.0))


def difference(variant: Samples, baseline: Samples, level: float = 0.95) -> Estimate:
    """Estimate variant minus baseline on the same images, with intervals at the given confidence level."""
    return _estimate([(1.0, variant), (-1.0, baseline)], level, bounds=(-1.0, 1.0))


def _estimate(terms: list[tuple[float, Samples]], level: float, bounds: tuple[float, float]) -> Estimate:
    value = np.sum([sign * samples.value.mean(axis=0) for sign, samples in terms], axis=0)
    resampled = np.sum([sign * samples.replicates.mean(axis=0) for sign, samples in terms], axis=0)
    support = np.min([samples.support for _, samples in terms], axis=0)
    image_dof = np.maximum(support - 1, 1)
    small_sample = support / image_dof  # a bootstrap of n images understates a variance by (n - 1) / n
    images = small_sample * _variance(resampled)
    seeds = np.zeros_like(value)
    seed_dof = 0
    for _, samples in terms:
        k = len(samples.value)
        if k > 1:
            seeds += samples.value.var(axis=0, ddof=1) / k
            images -= small_sample * _interaction(samples.replicates) / k
            seed_dof += k - 1
    images = np.maximum(images, 0.0)
    unknown = (support < 2) | np.isnan(value)
    images[unknown] = seeds[unknown] = np.nan

    def half_width(alpha: Array) -> Array:
        seed_quantile = student.isf(alpha / 2, seed_dof) if seed_dof else np.zeros_like(alpha)
        return np.sqrt(student.isf(alpha / 2, image_dof) ** 2 * images + seed_quantile**2 * seeds)

    half = half_width(np.full(value.shape, 1 - level))
    return Estimate(
        value=value,
        low=np.maximum(value - half, bounds[0]),
        high=np.minimum(value + half, bounds[1]),
        p=_invert(half_width, np.abs(value)),
        image_variance=images,
        seed_variance=seeds,
        seeded=all(len(samples.value) > 1 for _, samples in terms),
    )


def _variance(replicates: Array) -> Array:
    """Variance over the last axis, of the replicates that have a value; NaN for fewer than two of them."""
    known = ~np.isnan(replicates)
    n = known.sum(axis=-1)
    filled = np.where(known, replicates, 0.0)
    mean = filled.sum(axis=-1) / np.maximum(n, 1)
    squares = (np.where(known, replicates - mean[..., None], 0.0) ** 2).sum(axis=-1)
    return np.where(n > 1, squares / np.maximum(n - 1, 1), np.nan)


def _interaction(replicates: Array) -> Array:
    """Residual mean square of the replicate-by-seed layout: how differently the seeds respond to the images."""
    k = len(replicates)
    return _variance(replicates - replicates.mean(axis=0)).sum(axis=0) / (k - 1)


def _invert(half_width: Callable[[Array], Array], distance: Array) -> Array:
    """Find the alpha at which the interval just reaches the distance, by bisection of its logarithm."""
    low, high = np.full(distance.shape, -300.0), np.zeros(distance.shape)
    for _ in range(50):
        middle = (low + high) / 2
        wide = half_width(10**middle) >= distance  # so that no difference without variance has p = 1
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return np.where(np.isnan(distance) | np.isnan(half_width(np.full(distance.shape, 0.5))), np.nan, 10**high)


def holm(p: Array) -> Array:
    """Adjust a family of p-values by Holm's step-down rule, which holds the chance of any false finding at the level.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
        1979.

    Args:
        p: P-values of any shape; NaN marks a test that was not made and does not count.
    """
    flat = p.ravel()
    made = np.flatnonzero(~np.isnan(flat))
    order = made[np.argsort(flat[made], kind="stable")]
    adjusted = np.full(flat.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(flat[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted.reshape(p.shape)


def verdict(value: float, p: float, level: float = 0.95) -> Verdict:
    """Say what a difference and its (corrected) p-value amount to at the given confidence level."""
    if np.isnan(value) or np.isnan(p):
        return "not measurable"
    if p >= 1 - level:
        return "no detectable difference"
    return "better" if value > 0 else "worse"
