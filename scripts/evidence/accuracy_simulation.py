"""Simulate classifiers, and count how often intervals for their difference hold the true one.

An image is classified correctly where a sum of five parts is above a threshold: how easy the image is, how easy it is
for the variant, how good this seed of the variant is, chance, and the variant's skill. The parts are normal, so the
true accuracy is known. Each repetition has new images and new seeds. Where images are in groups, those of a group are
equally easy.

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

# Images, seeds, skill of both, what the second has more, the spread of variant, seed and chance (images: 1), and the
# number of groups of unequal size that the images are in; 0 where they are independent.
CASES = {
    "500 images, 1 seed, alike": (500, 1, 1.0, 0.0, 0.05, 0.0, 0.05, 0),
    "500 images, 1 seed": (500, 1, 0.5, 0.0, 0.5, 0.0, 0.5, 0),
    "500 images, 3 seeds": (500, 3, 0.5, 0.1, 0.3, 0.05, 0.5, 0),
    "500 images, 5 seeds, seeds dominate": (500, 5, 0.5, 0.0, 0.1, 0.2, 0.3, 0),
    "2000 images, 5 seeds": (2000, 5, 0.5, 0.1, 0.3, 0.02, 0.5, 0),
    "600 images in 60 groups, 1 seed": (600, 1, 0.5, 0.0, 0.5, 0.0, 0.5, 60),
    "600 images in 60 groups, 3 seeds": (600, 3, 0.5, 0.1, 0.3, 0.05, 0.5, 60),
    "2000 images in 40 groups, 3 seeds": (2000, 3, 0.5, 0.1, 0.3, 0.05, 0.5, 40),
}


Case = tuple[int, int, float, float, float, float, float, int]


def simulate(case: Case, repetitions: int, draws: Array, declared: bool = True) -> list[Array]:
    """Return for each repetition: true difference, its estimate, the ends of its interval, and p."""
    n, k, skill, more, variant, seed, chance, n_groups = case
    truth = LabelledImages("", Path(), "val", tuple(map(str, range(n))), ("a", "b"), np.zeros(n, dtype=np.intp))
    found = []
    for repetition in range(repetitions):
        rng = np.random.default_rng(repetition)
        groups = rng.permuted(np.arange(n) % (3 * n_groups // 2) % n_groups) if n_groups else np.arange(n)
        easy, special = rng.normal(size=n)[groups], rng.normal(size=(2, n))[:, groups]
        seeds, expected = [], []
        for own, suits in zip((skill, skill + more), special, strict=True):
            quality = own + seed * rng.normal(size=(k, 1))
            right = quality + easy + variant * suits + chance * rng.normal(size=(k, n)) > 0
            # Of one seed, only other images are in the interval.
            others = np.sqrt(1 + variant**2 + chance**2 + (seed**2 if k > 1 else 0))
            expected.append(ndtr((own if k > 1 else quality[0, 0]) / others))
            seeds.append([Rankings("", np.stack([~r, r], axis=1).astype(np.intp)) for r in right])
        index = groups if declared else None
        base, other = ((s, resample(truth, s, draws, index)) for s in seeds)
        e = difference(truth, other, base, groups=index)
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
        for declared in (True, False) if case[-1] else (False,):
            draws = draw_weights(case[-1] if declared else case[0], 1000, 0)
            true, _, low, high, _ = np.stack(simulate(case, repetitions, draws, declared), axis=1)
            covered = 100 * np.mean((low <= true) & (true <= high))
            said = f"{name}{', not declared' if case[-1] and not declared else ''}"
            print(f"| {said} | {covered:.1f} | {100 * np.median(high - low):.1f} |", flush=True)


if __name__ == "__main__":
    main()
