"""Simulate classifiers, and count how often intervals for their difference hold the true one.

An image is classified correctly where the sum of five normal variables is above a threshold: how easy the image is, how
easy it is for the variant, how good this seed of the variant is, chance, and the variant's skill. So the true accuracy
is known. Each repetition has new images and new seeds.

    python scripts/evidence/accuracy_simulation.py --repetitions 2000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from gam_yolo.annotations.classes import LabelledImages, Rankings
from gam_yolo.annotations.data import Array
from gam_yolo.evaluation import draw_weights
from gam_yolo.evaluation.accuracy import difference, resample

# Images, seeds, skill of both, what the second has more, and the spread of variant, seed and chance. (Images: 1.)
CASES = {
    "500 images, 1 seed, alike": (500, 1, 1.0, 0.0, 0.05, 0.0, 0.05),
    "500 images, 1 seed": (500, 1, 0.5, 0.0, 0.5, 0.0, 0.5),
    "500 images, 3 seeds": (500, 3, 0.5, 0.1, 0.3, 0.05, 0.5),
    "500 images, 5 seeds, seeds dominate": (500, 5, 0.5, 0.0, 0.1, 0.2, 0.3),
    "2000 images, 5 seeds": (2000, 5, 0.5, 0.1, 0.3, 0.02, 0.5),
}


def simulate(case: tuple[int, int, float, float, float, float, float], repetitions: int, draws: Array) -> list[Array]:
    """Return for each repetition: true difference, its estimate, the ends of its interval, and p."""
    n, k, skill, more, variant, seed, chance = case
    truth = LabelledImages("", Path(), "val", tuple(map(str, range(n))), ("a", "b"), np.zeros(n, dtype=np.intp))
    found = []
    for repetition in range(repetitions):
        rng = np.random.default_rng(repetition)
        easy = rng.normal(size=n)
        seeds, expected = [], []
        for own in (skill, skill + more):
            quality = own + seed * rng.normal(size=(k, 1))
            right = quality + easy + variant * rng.normal(size=n) + chance * rng.normal(size=(k, n)) > 0
            # Of one seed, only other images are in the interval.
            others = np.sqrt(1 + variant**2 + chance**2 + (seed**2 if k > 1 else 0))
            expected.append(ndtr((own if k > 1 else quality[0, 0]) / others))
            seeds.append([Rankings("", np.stack([~r, r], axis=1).astype(np.intp)) for r in right])
        base, other = ((s, resample(truth, s, draws)) for s in seeds)
        e = difference(truth, other, base)
        found.append(
            np.array([expected[1] - expected[0], e.value[0, 0], e.low[0, 0], e.high[0, 0], e.p[0, 0]], dtype=float)
        )
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    repetitions = parser.parse_args().repetitions
    print("| case | covered, % | median width, points |\n| --- | --- | --- |")
    for name, case in CASES.items():
        true, _, low, high, _ = np.stack(simulate(case, repetitions, draw_weights(case[0], 1000, 0)), axis=1)
        covered = 100 * np.mean((low <= true) & (true <= high))
        print(f"| {name} | {covered:.1f} | {100 * np.median(high - low):.1f} |", flush=True)


if __name__ == "__main__":
    main()
