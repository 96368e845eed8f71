"""Are the bootstrap's deviations of AP75 too small, and does the factor of 1.05 hold where it was not fitted?

    python scripts/evidence/ap75_factor.py --simulations 800

Draws detectors as `coverage_simulation.py` does, from other scenarios and random numbers than those the factor was
fitted on. Prints a Markdown table for AP50, AP75 and AP at IoU 0.9. It has the estimated standard error of the mean
over classes divided by the true one, and how often a 95 % interval holds the true difference, without and with the
factor.
"""

from __future__ import annotations

import argparse

import numpy as np
from coverage_simulation import Array, Scenario
from scipy.special import stdtrit

from gam_yolo.evaluation import draw_weights
from gam_yolo.evaluation.matching import IOU_THRESHOLDS, MatchTable, match_coco
from gam_yolo.evaluation.metrics import _HUNDREDTHS, _ClassCurves

REPLICATES = 300
FACTOR = 1.05
SETTINGS = {f"AP{100 * iou:.0f}": int(np.searchsorted(IOU_THRESHOLDS, iou - 1e-9)) for iou in (0.5, 0.75, 0.9)}
SCENARIOS = (
    Scenario("1 class, 100 images, difference", 100, gain=0.25, classes=1),
    Scenario("5 classes, 300 images, difference", 300, gain=0.25, classes=5, tail=1.0),
    Scenario("3 classes, 60 images", 60, classes=3),
    Scenario("2 classes, 400 images, large difference", 400, gain=0.4),
    Scenario("10 classes, 150 images, difference", 150, gain=0.25, classes=10, tail=1.0),
    Scenario("1 class, 300 images", 300, classes=1),
)


def average_precision(table: MatchTable, classes: int, weights: Array, setting: int) -> Array:
    """Compute AP at one IoU of each class, shape (classes, replicates); NaN where a class has no object."""
    found = np.full((classes, weights.shape[1]), np.nan)
    for label in range(classes):
        curves = _ClassCurves(table, label, weights)
        if curves.objects[0, 0] > 0:
            found[label] = curves.average_precision(setting, _HUNDREDTHS)
    return found


def simulate(scenario: Scenario, seed: int) -> list[tuple[float, float, float]]:
    """Return the difference of two detectors, its variance by the bootstrap, and degrees of freedom, for each IoU."""
    truth, models = scenario.draw(np.random.default_rng(seed), 1)
    drawn = draw_weights(scenario.images, REPLICATES, seed)
    weights = np.concatenate([np.ones((scenario.images, 1)), drawn], axis=1)
    tables = [match_coco(truth, model) for model in models]
    images = np.array([len(np.unique(truth.image[truth.label == k])) for k in range(scenario.classes)])
    several = images > 1  # a class on one image is another matter
    n = images[several][:, None].astype(np.float64)
    dof = min(scenario.images / 2, (1 / n).sum() ** 2 / (1 / n**3).sum())
    found = []
    for setting in SETTINGS.values():
        first, second = (average_precision(table, scenario.classes, weights, setting)[several] for table in tables)
        difference = second - first
        deviation = difference[:, 1:] - difference[:, 1:].mean(axis=1, keepdims=True)
        variance = (deviation * np.sqrt((n + 1) / (n - 1))).mean(axis=0).var(ddof=1)
        found.append((float(difference[:, 0].mean()), float(variance), 1 / (1 / dof + 1 / REPLICATES)))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=800)
    options = parser.parse_args()
    error = 1 / np.sqrt(2 * options.simulations)
    print(f"Standard error of a ratio: {error:.3f}\n")
    print("| scenario | metric | estimated / true standard error | covered, % | with the factor |")
    print("| --- | --- | --- | --- | --- |")
    for scenario in SCENARIOS:
        measured = np.array([simulate(scenario, 77_000 + i) for i in range(options.simulations)])
        for i, metric in enumerate(SETTINGS):
            value, variance, dof = measured[:, i].T
            half = -stdtrit(dof, 0.025) * np.sqrt(variance)
            error_of = np.abs(value - value.mean())
            plain, wide = (100 * np.mean(error_of <= half * factor) for factor in (1, FACTOR))
            ratio = np.sqrt(variance.mean() / value.var(ddof=1))
            print(f"| {scenario.name} | {metric} | {ratio:.2f} | {plain:.1f} | {wide:.1f} |", flush=True)


if __name__ == "__main__":
    main()
