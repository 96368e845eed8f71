"""How often do the intervals over datasets cover the truth? Written to docs/results/dataset-coverage.json.

Example usage: python scripts/evidence/dataset_coverage.py --simulations 2000

Each simulated study has k datasets with true differences from a normal distribution of mean 0 and standard deviation
tau. On each dataset, two variants are trained with a few seeds and evaluated on images. The estimates vary by images:
the standard deviation of a difference is 1, times the dataset's scale. They vary as much by each seed, and half as much
by how seeds respond to images. The differences, their errors and intervals come from `gam_yolo.evaluation.statistics`,
so they are as imprecise as in a study. For comparison, the usual weights of 1 / (v + tau²) with Paule and Mandel's tau²
are simulated as well, with the modified interval of Hartung, Knapp, Sidik and Jonkman.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from gam_yolo.evaluation.meta_analysis import over_datasets
from gam_yolo.evaluation.statistics import Estimate, Samples, difference

IMAGES, REPLICATES = 100, 100
SCALES: tuple[tuple[float, ...], ...] = (
    (1, 1),
    (1, 1, 1),
    (1,) * 5,
    (1,) * 8,
    (0.3, 1),
    (0.5, 1, 1.5),
    (0.3, 1, 3),
    (0.3, 0.5, 1, 2, 3),
    (0.2, 1, 1, 1, 1),
)
SCENARIOS = [(scales, 3, tau) for scales in SCALES for tau in (0, 1, 3)]
SCENARIOS += [((1,) * 5, seeds, tau) for seeds in (2, 5) for tau in (0, 1, 3)]

Array = NDArray[np.float64]


def estimated(true: Array, scale: float, seeds: int, rng: np.random.Generator) -> Estimate:
    """Return the estimated differences of many studies on one dataset, of true differences of shape (studies,)."""

    def variant(shift: Array) -> Samples:
        by_seed = rng.normal(0, scale, (seeds, len(true)))
        value = shift + by_seed + drawn(0.5**0.5, 1)[..., 0] + drawn(0.5, seeds)[..., 0]
        replicates = value[..., None] + drawn(0.5**0.5, 1, REPLICATES) + drawn(0.5, seeds, REPLICATES)
        images = np.full(len(true), IMAGES)
        return Samples(value, replicates, images, images.astype(float))

    def drawn(size: float, first: int, last: int = 1) -> Array:
        return rng.normal(0, size * scale, (first, len(true), last))

    return difference(variant(true), variant(np.zeros_like(true)))


def paule_mandel(d: Array, v: Array) -> tuple[float, float]:
    """Return mean and half-width by the usual weights."""

    def fit(tau2: float) -> tuple[float, float, float]:
        w = 1 / (v + tau2)
        mean = float(w @ d / w.sum())
        return mean, float(w.sum() ** -0.5), float(w @ (d - mean) ** 2)

    low, high = 0.0, float(np.square(d - d.mean()).sum())
    for _ in range(40 if fit(0.0)[2] > len(d) - 1 else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if fit(middle)[2] > len(d) - 1 else (low, middle)
    mean, error, _ = fit(low)
    return mean, float(-stdtrit(len(d) - 1, 0.025)) * error


def coverage(
    scales: Sequence[float], seeds: int, tau: float, studies: int, rng: np.random.Generator
) -> dict[str, float]:
    """Return how often each interval covers its truth, in percent, and median widths."""
    true = rng.normal(0, tau, (len(scales), studies))
    found = [estimated(t, scale, seeds, rng) for t, scale in zip(true, scales, strict=True)]
    values = np.array([e.value for e in found])
    errors = np.array([np.sqrt(e.image_variance + e.seed_variance) for e in found])
    halves = np.array([(e.high - e.low) / 2 for e in found])
    new = rng.normal(0, tau, studies)
    rows = []
    for i in range(studies):
        overall = over_datasets(values[:, i].tolist(), halves[:, i].tolist())
        mean, half = paule_mandel(values[:, i], errors[:, i] ** 2)
        predicted = np.nan
        if overall.new_low is not None and overall.new_high is not None:
            predicted = overall.new_low <= new[i] <= overall.new_high
        here = overall.here_low <= true[:, i].mean() <= overall.here_high
        covered = (overall.low <= 0 <= overall.high, here, predicted, abs(mean) <= half)
        rows.append([*(100 * c for c in covered), overall.high - overall.low, 2 * half])
    table = np.array(rows, float)
    keys = ("overall", "here", "new", "weighted")
    result = {key: round(float(column.mean()), 1) for key, column in zip(keys, table.T, strict=False)}
    widths = {"width": 4, "weighted_width": 5}
    return result | {key: round(float(np.median(table[:, j])), 2) for key, j in widths.items()}


def main() -> None:
    """Simulate every scenario, and write the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000, help="studies per scenario")
    parser.add_argument("--output", type=Path, default=Path("docs/results/dataset-coverage.json"))
    options = parser.parse_args()
    lines = []
    for number, (scales, seeds, tau) in enumerate(SCENARIOS):
        found = coverage(scales, seeds, tau, options.simulations, np.random.default_rng(number))
        found = {key: value for key, value in found.items() if not np.isnan(value)}
        lines.append(json.dumps({"scales": scales, "seeds": seeds, "tau": tau, **found}))
        print(lines[-1], flush=True)
    content = f'{{"simulations": {options.simulations}, "scenarios": [\n' + ",\n".join(lines) + "\n]}\n"
    options.output.write_text(content)


if __name__ == "__main__":
    main()
