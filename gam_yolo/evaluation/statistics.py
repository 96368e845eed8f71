"""How certain an estimate is: variance by source, intervals, p-values, Holm's correction, verdicts.

An estimate here is a metric averaged over a variant's training seeds, or the difference of two such averages. Other
images and other seeds would change it. The bootstrap replicates the images. Seeds are few: resampling k of them
understates their variance by (k - 1) / k and ignores Student's factor. What it would yield has a closed form, so the
seeds' part is computed. With k seeds per variant:

    V = variance of the estimate over image replicates
    S = sum over variants of the sample variance of the seeds' own values / k
    I = sum over variants of the residual mean square of the replicate-by-seed layout / k

I is how differently the seeds respond to the images. It is part of V and of S alike, so V + S - I is unbiased for the
variance of the estimate: V is what other images would change, S - I what other seeds would. With T = max(0, V - I) + S
(where that is nothing, as with seeds of one value that err on different images, the larger of V and I takes its place)
and r the share of S in T, the half-width of the interval is

    sqrt(T (z^2 + (t_V^2 - z^2) (1 - r)^1.75 + (t_S^2 - z^2) r^1.75))

with the normal quantile z and the Student quantiles t_V and t_S. Each part adds the excess of its Student quantile by
its share, which is exact where one part is alone. (With 2 for the exponent it is Welch's solution to first order in 1 /
degrees of freedom. With 1 it would be Zou and Donner's, Statistics in Medicine 27, 2008, which is too wide in between.)

The degrees of freedom of V were found by simulation. With n images that hold a counted object, and the class c on n_c
of them, they are

    min(n / 2, n_eff) for a difference, n_eff / 2 for a variant's own value, and
    n_eff = (sum over c of 1 / n_c)^2 / (sum over c of 1 / n_c^3) for a mean over classes, n_c for one class.

n_eff is the effective number of images (Satterthwaite's formula for a sum of variances, each in proportion to 1 / n_c
with n_c degrees of freedom). It is n where all classes are equally frequent. It is small where the mean depends on a
few images of one rare class. The degrees of freedom of S are the mean of Welch's two formulas (Biometrika 29, 1938, and
34, 1947) for a sum of variances. One is too small and one too large, as two variants may vary differently by seed.

For normal variables the 95 % interval covers 93.5 to 96.0 % with three seeds or more, whatever the shares of images and
of either variant's seeds. With two seeds it covers 93.4 to 97.0 %, unless one variant's seeds vary ten times as much as
the other's (then 91.3 and more). `docs/evaluation.md` has the simulation with detectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtrit

from gam_yolo.annotations.data import Array

__all__ = [
    "MIN_IMAGES",
    "Estimate",
    "Samples",
    "Verdict",
    "critical_squared",
    "difference",
    "estimate",
    "holm",
    "sum_dof",
    "verdict",
]

MIN_IMAGES = 10
"""Below this effective number of images no interval is given: their spread says too little about other images."""

_ROUNDING = 1e-20  # a variance that is nothing but rounding
_EQUAL = 1e-10  # two metrics that differ by nothing but rounding
_MIN_IDENTICAL = 20
"""Below this number of images no interval is given where all replicates are equal.

Ten images on which two detectors do the same do not show that they would on other images."""

Verdict = Literal["better", "worse", "no detectable difference", "too few images"]


@dataclass(frozen=True)
class Samples:
    """One variant's metrics: on the dataset as it is, and on each bootstrap replicate of its images.

    Attributes:
        value: Shape (seeds, ...); NaN where a metric does not exist.
        replicates: Shape (seeds, ..., replicates); the same replicate has the same images for every seed and variant.
        images: How many images (or groups of them) hold an object that the metric counts, shape (...).
        effective: How many images, equally distributed over the classes, would tell as much; shape (...).
    """

    value: Array
    replicates: Array
    images: Array
    effective: Array


@dataclass(frozen=True)
class Estimate:
    """Metrics or differences of metrics, with what is known of their error; arrays are shaped as `Samples.images`.

    Attributes:
        value: The estimate; NaN where the metric does not exist.
        low: Lower end of the interval; NaN where there are too few images for one, or where no variant's metric varies
            at all, as with detectors that find nothing.
        high: Upper end of the interval.
        p: Two-sided p-value against zero.
        image_variance: The variance of the estimate between sets of images (V); NaN without an interval.
        seed_variance: The variance between training seeds (S - I); 0 where each variant has one seed only.
        interaction: The part of both that is the seeds' different response to the images (I).
        image_dof: Degrees of freedom of V.
        seed_dof: Degrees of freedom of S.
        seeded: Whether every variant in the estimate has more than one seed. If not, the estimate and its interval are
            about these trained weights, not about the architecture.
    """

    value: Array
    low: Array
    high: Array
    p: Array
    image_variance: Array
    seed_variance: Array
    interaction: Array
    image_dof: Array
    seed_dof: Array
    seeded: bool


def estimate(variant: Samples, level: float = 0.95) -> Estimate:
    """Estimate a variant's metrics, with intervals at the given confidence level, kept within 0 and 1.

    The interval is for the mean over datasets of as many images. Interpolated precision is biased upwards on few
    objects, and so a little higher there than on a very large set. In a difference that cancels.
    """
    plain = _estimate([(1.0, variant)], variant.effective / 2, level, [variant])
    return replace(plain, low=np.maximum(plain.low, 0.0), high=np.minimum(plain.high, 1.0))


def difference(variant: Samples, baseline: Samples, level: float = 0.95, *, paired: bool = False) -> Estimate:
    """Estimate variant minus baseline on the same images, with intervals at the given confidence level.

    Args:
        variant: Its metrics.
        baseline: The metrics to subtract.
        level: Confidence level.
        paired: Whether seed i of one has something in common with seed i of the other, such as the order of the
            training data. The seeds' variance is then that of the differences, seed by seed.
    """
    image_dof = np.minimum(variant.images / 2, variant.effective)
    varying = [variant, baseline]
    if paired:
        replicates = variant.replicates - baseline.replicates
        varying = [replace(variant, value=variant.value - baseline.value, replicates=replicates)]
    return _estimate([(1.0, variant), (-1.0, baseline)], image_dof, level, varying)


def _estimate(terms: list[tuple[float, Samples]], image_dof: Array, level: float, varying: list[Samples]) -> Estimate:
    """Estimate a sum of terms; `varying` are the samples whose seeds vary independently of each other."""
    value = np.sum([sign * samples.value.mean(axis=0) for sign, samples in terms], axis=0)
    replicates = np.sum([sign * samples.replicates.mean(axis=0) for sign, samples in terms], axis=0)
    image_dof = 1 / (1 / np.maximum(image_dof, 1) + 1 / replicates.shape[-1])  # the replicates are finite, too
    images = replicates.var(axis=-1, ddof=1)
    by_seeds = np.zeros((len(varying), *value.shape))
    interaction = np.zeros_like(value)
    for part, samples in zip(by_seeds, varying, strict=True):
        if (k := len(samples.value)) > 1:
            part[:] = samples.value.var(axis=0, ddof=1) / k
            interaction += _interaction(samples.replicates) / k
    seeds = by_seeds.sum(axis=0)
    _, samples = terms[0]
    identical = images + seeds < _ROUNDING
    unknown = (samples.effective < MIN_IMAGES) | (identical & (samples.images < _MIN_IDENTICAL))
    images[unknown] = np.nan
    seed_dof = sum_dof(by_seeds, [max(1, len(samples.value) - 1) for samples in varying])
    total = np.maximum(images - interaction, 0.0) + seeds
    total = np.where(total < _ROUNDING, np.maximum(images, interaction), total)  # seeds of one value
    share = np.divide(seeds, total, out=np.zeros_like(total), where=total > 0)

    def half_width(alpha: Array) -> Array:
        squared: Array = total * critical_squared(alpha, share, image_dof, seed_dof)
        return np.sqrt(squared)

    # A metric that is the same on all replicates, such as 0, says nothing about other images.
    constant = np.all([np.ptp(samples.replicates, axis=(0, -1)) < _EQUAL for _, samples in terms], axis=0)
    half = np.where(constant, np.nan, half_width(np.full(value.shape, 1 - level)))
    return Estimate(
        value=value,
        low=value - half,
        high=value + half,
        p=_invert(half_width, np.abs(value)),
        image_variance=images,
        seed_variance=np.where(unknown, np.nan, np.maximum(seeds - interaction, 0.0)),
        interaction=np.where(unknown, np.nan, interaction),
        image_dof=image_dof,
        seed_dof=seed_dof,
        seeded=all(len(samples.value) > 1 for _, samples in terms),
    )


def critical_squared(alpha: Array | float, share: Array, image_dof: Array | float, seed_dof: Array | float) -> Array:
    """Return the square of the half-width of a 1 - alpha interval, in units of the variance T; see the module.

    Args:
        alpha: The chance that the interval misses the truth.
        share: The seeds' share of T.
        image_dof: Degrees of freedom of the images' part.
        seed_dof: Degrees of freedom of the seeds' part.
    """
    normal = ndtri(alpha / 2) ** 2
    by_images, by_seeds = (stdtrit(dof, alpha / 2) ** 2 - normal for dof in (image_dof, seed_dof))
    squared: Array = normal + by_images * (1 - share) ** 1.75 + by_seeds * share**1.75
    return squared


def sum_dof(variances: Array, dofs: Sequence[int]) -> Array:
    """Degrees of freedom of a sum of variances down the first axis: the mean of Welch's two formulas."""
    dof = np.reshape(dofs, (-1, *[1] * (variances.ndim - 1)))
    whole = variances.sum(axis=0) ** 2
    squares = variances**2
    somewhere = whole > 0
    low, high = (
        np.divide(whole, (squares / d).sum(axis=0), out=np.ones_like(whole), where=somewhere) for d in (dof, dof + 2)
    )
    return np.where(somewhere, (low + high - 2) / 2, 1.0)


def _interaction(replicates: Array) -> Array:
    """Residual mean square of the replicate-by-seed layout: how differently the seeds respond to the images."""
    residual: Array = (replicates - replicates.mean(axis=0)).var(axis=-1, ddof=1).sum(axis=0)
    return residual / (len(replicates) - 1)


def _invert(half_width: Callable[[Array], Array], distance: Array) -> Array:
    """Find the alpha at which the interval just reaches the distance, by bisection of its logarithm."""
    low, high = np.full(distance.shape, -100.0), np.zeros(distance.shape)
    for _ in range(50):
        middle = (low + high) / 2
        wide = half_width(10**middle) >= distance  # so that no difference without variance has p = 1
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return np.where(np.isnan(distance) | np.isnan(half_width(np.full(distance.shape, 0.5))), np.nan, 10**high)


def holm(p: Array) -> Array:
    """Adjust a family of p-values by Holm's step-down rule, which bounds the chance of any false finding by the level.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
        1979.

    Args:
        p: P-values of any shape; NaN marks a test that was not made. It does not count.
    """
    flat = p.ravel()
    made = np.flatnonzero(~np.isnan(flat))
    order = made[np.argsort(flat[made], kind="stable")]
    adjusted = np.full(flat.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(flat[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted.reshape(p.shape)


def verdict(value: float, p: float, level: float = 0.95) -> Verdict:
    """Name what a difference and its (corrected) p-value mean at the given confidence level."""
    if np.isnan(value) or np.isnan(p):
        return "too few images"
    if p >= 1 - level:
        return "no detectable difference"
    return "better" if value > 0 else "worse"
