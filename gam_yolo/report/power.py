"""How many seeds and images does it take to see a difference? Answered from the variances that a report records.

A difference of two variants with k seeds each, on n images, has the variance A / n + B / (n k) + C / k. A is what other
images would change, C what other seeds would change, and B what other seeds would change on each image. A report on n'
images and k' seeds records V = A / n' + B / (n' k'), I = B / (n' k') and C / k' (`gam_yolo.evaluation.statistics`).

The chance to detect a difference is computed for normal variables: draws of the difference and of the estimated
variances go through the interval of the report, which has to exclude zero on the right side. The draws are the points
of a Sobol sequence, so the answer does not vary. Where several variants are compared with the baseline, each is tested
at (1 - level) / number, because Holm's rule demands that of the smallest p-value.

A variance from few seeds is uncertain, and so is the answer. Its interval comes from the chi-square distributions of
both variances: they are drawn again, given the estimates, and the draws at which the number is at its quantiles are
solved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from scipy.special import gammaincinv, ndtri

from gam_yolo.annotations.data import Array
from gam_yolo.errors import UserError, option
from gam_yolo.evaluation.statistics import critical_squared, sum_dof
from gam_yolo.io import is_number
from gam_yolo.report.formatting import METRIC_NAMES, points
from gam_yolo.report.result import Comparison
from gam_yolo.report.schema import VariantResult

__all__ = ["Need", "Noise", "Plan", "Power", "power"]

POWERS = (0.8, 0.9)
"""The chances to detect the difference that are asked for."""

_MOST = 10_000  # seeds, or times the images of the pilot
_LEAST_IMAGES = 20
_DRAWS = 12  # 2 to the power of it


@dataclass(frozen=True)
class Noise:
    """The variance of a difference of two variants, by source; a report's metrics are shares, not points.

    Attributes:
        images: A / n', what other images would change.
        both: B / n', what other images and seeds would change together, for one seed.
        seeds: C, what other seeds would change, for one seed.
        images_dof: Degrees of freedom of the estimate of `images`.
        seeds_dof: Degrees of freedom of the estimate of `seeds`.
        paired: Whether the seeds of the two variants are paired.
    """

    images: float
    both: float
    seeds: float
    images_dof: float
    seeds_dof: float
    paired: bool = False

    def detection(self, difference: float, images: float, seeds: int, level: float) -> float:
        """Return the chance that the interval of a difference excludes zero, on the right side.

        Args:
            difference: The true difference, as a share.
            images: Number of images, in units of the pilot's.
            seeds: Training seeds of each variant, two or more.
            level: Confidence level.
        """
        normal, by_images, *by_seeds = _uniform(4).T
        mixed, dof = self.both / images / seeds, self.images_dof * images
        v = (self.images / images + mixed) * _chi_square(by_images, dof)
        terms = by_seeds[:1] if self.paired else by_seeds
        each = np.stack([(self.seeds / seeds + mixed) / len(terms) * _chi_square(u, seeds - 1) for u in terms])
        s = each.sum(axis=0)
        total = np.maximum(v - mixed, 0.0) + s
        share = np.divide(s, total, out=np.zeros_like(s), where=total > 0)
        critical = critical_squared(1 - level, share, dof, sum_dof(each, [seeds - 1] * len(terms)))
        true = self.images / images + mixed + self.seeds / seeds
        found = difference + np.sqrt(true) * ndtri(normal)
        return float(np.mean((found > 0) & (found**2 > total * critical)))

    def redrawn(self, seeds: int, draws: int) -> list[Noise]:
        """Return what the variances may be, given the estimates from so many seeds."""
        by_images, by_seeds = (
            1 / _chi_square(u, dof)
            for u, dof in zip(_uniform(2, draws).T, (self.images_dof, self.seeds_dof), strict=True)
        )
        mixed = self.both / seeds
        images = np.maximum((self.images + mixed) * by_images - mixed, 0.0)
        spread = np.maximum((self.seeds + self.both) * by_seeds - self.both, 0.0)
        return [replace(self, images=float(a), seeds=float(c)) for a, c in zip(images, spread, strict=True)]


@dataclass(frozen=True)
class Need:
    """A number of seeds or images.

    Attributes:
        power: The chance to detect the difference with it.
        number: The number; None where none is enough, because the other source of noise is too large.
        low: Lower end of its 95 % interval; None where none is enough.
        high: Upper end.
    """

    power: float
    number: int | None
    low: int | None
    high: int | None


@dataclass(frozen=True)
class Plan:
    """A comparison to be made.

    Attributes:
        difference: The true difference, as a share.
        level: Confidence level.
        pilot: Number of images of the pilot.
        images: Number of images planned.
        seeds: Training seeds planned.
    """

    difference: float
    level: float
    pilot: int
    images: int
    seeds: int

    def seeds_needed(self, noise: Noise, power: float) -> int | None:
        """Return the number of seeds that detects the difference with this power."""
        d, ratio = self.difference, self.images / self.pilot
        return _smallest(lambda k: noise.detection(d, ratio, k, self.level) >= power, 2, _MOST)

    def images_needed(self, noise: Noise, power: float) -> int | None:
        """Return the number of images that detects the difference with this power."""
        d, n, k = self.difference, self.pilot, self.seeds
        return _smallest(lambda m: noise.detection(d, m / n, k, self.level) >= power, _LEAST_IMAGES, _MOST * n)

    def detectable(self, noise: Noise, power: float) -> float:
        """Return the smallest difference, in points, that the plan detects with this power; at most 100."""
        ratio = self.images / self.pilot
        found = _smallest(lambda d: noise.detection(d / 1e4, ratio, self.seeds, self.level) >= power, 1, 10_000)
        return (found or 10_000) / 100

    def need_seeds(self, noise: Noise, power: float, drawn: Sequence[Noise]) -> Need:
        """Return the number of seeds needed, with an interval from drawn noises."""

        def rough(one: Noise) -> float:
            ratio = self.images / self.pilot
            return _ratio(one.seeds + one.both / ratio, self._variance(power) - one.images / ratio)

        low, high = _quantiles(drawn, rough)
        return Need(power, *(self.seeds_needed(one, power) for one in (noise, low, high)))

    def need_images(self, noise: Noise, power: float, drawn: Sequence[Noise]) -> Need:
        """Return the number of images needed, likewise."""

        def rough(one: Noise) -> float:
            return _ratio(one.images + one.both / self.seeds, self._variance(power) - one.seeds / self.seeds)

        low, high = _quantiles(drawn, rough)
        return Need(power, *(self.images_needed(one, power) for one in (noise, low, high)))

    def _variance(self, power: float) -> float:
        """Return the variance with which the difference would have this power, if the variance were known."""
        return float((self.difference / (ndtri(power) - ndtri((1 - self.level) / 2))) ** 2)


def _quantiles(drawn: Sequence[Noise], key: Callable[[Noise], float]) -> tuple[Noise, Noise]:
    ordered = sorted(drawn, key=key)
    low, high = (ordered[int(q * len(ordered))] for q in (0.025, 0.975))
    return low, high


@dataclass(frozen=True)
class Power:
    """What it takes to see a difference; `print` shows it as text.

    Attributes:
        metric: The metric.
        detect: The difference in points.
        level: Confidence level of the intervals.
        comparisons: How many variants are compared with the baseline.
        images: Number of images planned.
        groups: Number of groups of the pilot's images, where these are not independent.
        seeds: Training seeds planned for each variant.
        noise: The variances of the pilot, pooled over its differences to the baseline.
        seeds_needed: Seeds needed on that number of images, for each of 80 % and 90 % power.
        images_needed: Images needed with that number of seeds, likewise.
        detectable: The smallest difference in points that the plan detects, likewise.
    """

    metric: str
    detect: float
    level: float
    comparisons: int
    images: int
    groups: int | None
    seeds: int
    noise: Noise
    seeds_needed: tuple[Need, ...]
    images_needed: tuple[Need, ...]
    detectable: tuple[float, ...]

    def __str__(self) -> str:
        tested = f"{self.comparisons} variants compared by Holm's rule, " if self.comparisons > 1 else ""
        unit = "images, in groups as those of the pilot" if self.groups else "images"
        lines = [
            f"To detect a difference of {self.detect:g} points of {METRIC_NAMES[self.metric]} "
            f"({tested}{100 * self.level:g} % confidence), with a power of {' or '.join(f'{p:.0%}' for p in POWERS)}:",
            f"  seeds of each variant, on {self.images} images: {_listed(self.seeds_needed)}",
            f"  {unit}, with {self.seeds} seeds: {_listed(self.images_needed)}",
            f"{self.images} images and {self.seeds} seeds detect a difference of "
            f"{' or '.join(f'{d:.1f}' for d in self.detectable)} points.",
            f"One difference has a standard error of {self._part(self.noise.images)} points from the images, "
            f"{self._part(self.noise.seeds / self.seeds)} from the seeds, and "
            f"{self._part(self.noise.both / self.seeds)} from what the seeds change on single images. Numbers in "
            "brackets are 95 % intervals, from the uncertainty of the first two; - is where no number is enough.",
        ]
        return "\n".join(lines)

    @staticmethod
    def _part(variance: float) -> str:
        return points(math.sqrt(variance))


def power(
    pilot: str | Path | Comparison,
    *,
    detect: float = 1.0,
    metric: str = "",
    seeds: int | None = None,
    images: int | None = None,
    comparisons: int | None = None,
) -> Power:
    """Say how many seeds and images a difference needs to be detected, from the noise in a finished report.

    Args:
        pilot: A `report.json` of `compare` or `run_study`, its folder, or the comparison itself.
        detect: The true difference, in points of 100.
        metric: One of the metrics of the report; by default its main one, AP or top-1.
        seeds: Seeds planned for each variant; by default those of the pilot.
        images: Images planned; by default those of the pilot.
        comparisons: How many variants will be compared with the baseline; by default as many as in the pilot.

    Raises:
        UserError: The report cannot be read, or does not record both variances; or an argument is not positive.
    """
    for name, value in (("detect", detect), ("seeds", seeds), ("images", images), ("comparisons", comparisons)):
        least = 2 if name == "seeds" else 0
        if value is not None and not (is_number(value) and value > 0 and value >= least):
            raise UserError(f"{option(name)} is {value}", expected="2 or more" if least else "more than 0")
    if detect > 100:
        raise UserError(f"{option('detect')} is {detect:g}", expected="points, at most 100")
    file = "" if isinstance(pilot, Comparison) else _file(Path(pilot))
    report = pilot if isinstance(pilot, Comparison) else Comparison.load(Path(file))
    metric = metric or report.about.main
    others = [variant for variant in report.variants.values() if report.baseline in variant.differences]
    noise, known_seeds = _noise(report, others, metric, file)
    number = comparisons or len(others)
    level = 1 - (1 - report.statistics.level) / number
    plan = Plan(detect / 100, level, report.data.images, images or report.data.images, seeds or known_seeds)
    drawn = noise.redrawn(known_seeds, 256)
    return Power(
        metric=metric,
        detect=detect,
        level=report.statistics.level,
        comparisons=number,
        images=plan.images,
        groups=report.data.groups.number if report.data.groups else None,
        seeds=plan.seeds,
        noise=noise,
        seeds_needed=tuple(plan.need_seeds(noise, p, drawn) for p in POWERS),
        images_needed=tuple(plan.need_images(noise, p, drawn) for p in POWERS),
        detectable=tuple(plan.detectable(noise, p) for p in POWERS),
    )


def _file(path: Path) -> Path:
    """Return the report of a folder: of a comparison, or of a study."""
    if not path.is_dir():
        return path
    found = [file for file in (path / "report.json", path / "report" / "report.json") if file.is_file()]
    if not found:
        raise UserError("has no report.json", at=path, expected="the folder of a comparison or study")
    return found[0]


def _noise(report: Comparison, others: list[VariantResult], metric: str, at: str | Path) -> tuple[Noise, int]:
    """Pool the variances of all differences to the baseline; return them and the number of seeds."""
    base = report.variants[report.baseline]
    found = [(variant, variant.differences[report.baseline][metric]) for variant in others]
    if all(difference.low is None for _, difference in found):
        raise UserError(
            "its differences have no interval, so their noise is not known",
            at=at,
            fix="Take a pilot with more images, or one that finds objects",
        )
    if not any(difference.image_variance is not None for _, difference in found):
        raise UserError(
            "the report does not record the variances of its differences",
            at=at,
            fix="Run compare or the study again with this version; stored predictions are used again",
        )
    seeded = [(variant, d) for variant, d in found if d.seed_share is not None and d.image_variance is not None]
    if not seeded:
        raise UserError(
            "the report has one training seed, so the seeds' variance is not known",
            at=at,
            expected="two or more of the baseline and of another variant",
        )
    first, paired = _seeds(base, metric), report.statistics.pair_seeds
    rows, spreads, dofs = [], [], []
    for variant, d in seeded:
        own = _seeds(variant, metric)
        per_seed = (1 / len(first) + 1 / len(own)) / 2
        rows.append(
            (_known(d.image_variance), _known(d.interaction), _known(d.seed_variance), _known(d.image_dof), per_seed)
        )
        spreads.append((own - first if paired else own).var(ddof=1) / len(seeded))
        dofs.append(len(own) - 1)
    v, i, s, image_dof, per_seed = np.array(rows).T
    if not paired:
        spreads, dofs = [first.var(ddof=1), *spreads], [len(first) - 1, *dofs]
    parts = np.array(spreads) ** 2
    # Differences to one baseline share its seeds' noise, so pairs count once.
    dof = min(dofs) if paired else float(sum(spreads) ** 2 / (parts / dofs).sum()) if parts.sum() else float(sum(dofs))
    noise = Noise(
        images=float(np.maximum(v - i, 0.0).mean()),
        both=float((i / per_seed).mean()),
        seeds=float((s / per_seed).mean()),
        images_dof=float(image_dof.mean()),
        seeds_dof=dof,
        paired=paired,
    )
    return noise, len(first)


def _seeds(variant: VariantResult, metric: str) -> Array:
    return np.array([value for value in variant.metrics[metric].seeds if value is not None])


def _known(value: float | None) -> float:
    return 0.0 if value is None else value


@cache
def _uniform(columns: int, draws: int = 1 << _DRAWS) -> Array:
    from scipy.stats.qmc import Sobol  # takes half a second

    found: Array = Sobol(columns, rng=0).random(draws)
    return np.clip(found, 1e-9, 1 - 1e-9)


def _chi_square(uniform: Array, dof: float) -> Array:
    """Return quantiles of the chi-square distribution, divided by its degrees of freedom."""
    found: Array = gammaincinv(dof / 2, uniform) * 2 / dof
    return found


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.inf


def _smallest(enough: Callable[[int], bool], least: int, most: int) -> int | None:
    """Return the smallest number that is enough; None where not even the largest is."""
    low, high = least - 1, least
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _listed(needs: tuple[Need, ...]) -> str:
    def text(number: int | None) -> str:
        return "-" if number is None else f"{number}"

    return " or ".join(f"{text(n.number)} ({text(n.low)} to {text(n.high)})" for n in needs)
