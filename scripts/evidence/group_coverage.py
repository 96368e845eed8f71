"""How often does a 95 % interval hold the true difference when images come in groups, such as frames of videos?

    python scripts/evidence/group_coverage.py --output docs/results/group-coverage.json

Each image has one object, which a detector finds if a latent normal variable is low enough. A share of that variable's
variance, the intra-group correlation, is common to the images of a group. Half of each part is common to both detectors,
which is what pairs them. There are false positives, too. Every simulation draws new groups, images and detections, and
passes them through the evaluator twice: with groups resampled, and with images resampled as if they were independent.

The two detectors are equally good, so the true difference is 0 in AP and AR100. With a gain the true difference in AR100
is that of the two chances of finding an object. Sizes of groups are equal, or lognormal with a sigma of 1.

To save time, simulations of one class are passed to the evaluator as the classes of one data set: each has images and
groups of its own, and intervals of classes do not depend on each other.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from gam_yolo.evaluation import METRICS, Detections, GroundTruth, difference, draw_weights, resample

Array = NDArray[np.float64]
AP, AR = METRICS.index("AP"), METRICS.index("AR100")
THRESHOLD = 0.3
AT_ONCE = 50  # simulations of one class passed to the evaluator together


@dataclass(frozen=True)
class Scenario:
    """One row of the table.

    Attributes:
        groups: Number of groups.
        size: Mean number of images of a group.
        correlation: The intra-group correlation.
        uneven: Whether sizes differ.
        classes: Number of classes; half of a group's objects are of one class.
        gain: How much lower the second detector's variable is.
    """

    groups: int
    size: int
    correlation: float
    uneven: bool = False
    classes: int = 1
    gain: float = 0.0

    @property
    def name(self) -> str:
        """What the table calls it."""
        sizes = f"of 1 to many, on average {self.size}" if self.uneven else f"of {self.size}"
        extra = f", {self.classes} classes" if self.classes > 1 else ""
        return f"{self.groups} groups {sizes}, correlation {self.correlation:g}{extra}{', difference' * bool(self.gain)}"

    def sizes(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Draw the number of images of each group."""
        if not self.uneven:
            return np.full(self.groups, self.size)
        drawn = np.exp(rng.normal(0, 1, self.groups))
        return 1 + np.round((self.size - 1) * drawn / np.exp(0.5)).astype(np.intp)


SCENARIOS = (
    Scenario(30, 5, 0.0),
    Scenario(30, 5, 0.2),
    Scenario(30, 5, 0.5),
    Scenario(30, 5, 0.5, gain=0.3),
    Scenario(100, 5, 0.5),
    Scenario(12, 10, 0.5),
    Scenario(40, 5, 0.5, uneven=True),
    Scenario(30, 5, 0.5, classes=5),
    Scenario(60, 5, 0.5, uneven=True, classes=5),
)


def draw(
    scenario: Scenario, rng: np.random.Generator, together: int
) -> tuple[GroundTruth, list[Detections], NDArray[np.intp]]:
    """Draw data sets, each with classes of its own, the detections of both detectors, and the group of each image."""
    sizes = np.concatenate([scenario.sizes(rng) for _ in range(together)])
    n, n_groups = sizes.sum(), len(sizes)
    group = np.repeat(np.arange(n_groups), sizes)
    scene = rng.integers(0, scenario.classes, n_groups)
    label = np.where(rng.random(n) < 0.5, scene[group], rng.integers(0, scenario.classes, n))
    label += group // scenario.groups * scenario.classes
    image = np.arange(n)
    box = np.tile([0.0, 0.0, 50.0, 50.0], (n, 1))
    n_classes = scenario.classes * together
    truth = GroundTruth(
        source="simulation",
        ids=tuple(range(n)),
        files=tuple(f"{i}.jpg" for i in range(n)),
        sizes=np.full((n, 2), 200.0),
        classes=tuple(f"class {k}" for k in range(n_classes)),
        category_ids=tuple(range(1, n_classes + 1)),
        image=image,
        label=label,
        box=box,
        area=np.full(n, 2500.0),
        crowd=np.zeros(n, dtype=bool),
        difficult=np.zeros(n, dtype=bool),
    )
    common = rng.normal(size=n_groups), rng.normal(size=n)
    detectors = []
    for gain in (0.0, scenario.gain):
        of_group, of_image = ((shared + rng.normal(size=len(shared))) / np.sqrt(2) for shared in common)
        latent = np.sqrt(scenario.correlation) * of_group[group] + np.sqrt(1 - scenario.correlation) * of_image
        hit, wrong = latent < THRESHOLD + gain, rng.random(n) < 0.3
        score = np.concatenate([rng.beta(4, 2, hit.sum()), rng.beta(2, 4, wrong.sum())])
        where = np.concatenate([image[hit], image[wrong]])
        false = np.tile([120.0, 120.0, 50.0, 50.0], (wrong.sum(), 1))
        detectors.append(
            Detections("simulation", where, label[where], np.concatenate([box[hit], false]), score)
        )
    return truth, detectors, group


def outcomes(scenario: Scenario, rng: np.random.Generator, replicates: int) -> Array:
    """Simulate; return value, variance, low and high of AP and AR100, shape (ways, 4, simulations, 2)."""
    together = AT_ONCE if scenario.classes == 1 else 1
    truth, (first, second), group = draw(scenario, rng, together)
    found = []
    for groups in (group, np.arange(len(group))):
        weights = draw_weights(groups.max() + 1, replicates, int(rng.integers(1 << 32)))
        one, two = (resample(truth, [detections], weights, groups) for detections in (first, second))
        result = difference(two, one)
        rows = slice(1, None) if together > 1 else slice(0, 1)
        parts = (result.value, result.image_variance, result.low, result.high)
        found.append([part[rows][:, [AP, AR]] for part in parts])
    return np.array(found)


def run(scenario: Scenario, simulations: int, replicates: int) -> dict[str, Any]:
    """Simulate one scenario."""
    rng = np.random.default_rng(list(map(int, json.dumps(asdict(scenario)).encode())))
    drawn: list[Array] = []
    while sum(part.shape[2] for part in drawn) < simulations:
        drawn.append(outcomes(scenario, rng, replicates))
    results = np.concatenate(drawn, axis=2)
    metrics: dict[str, Any] = {}
    for j, metric in enumerate(("AP", "AR100")):
        if scenario.gain and metric == "AP":
            continue
        true = ndtr(THRESHOLD + scenario.gain) - ndtr(THRESHOLD) if metric == "AR100" else 0.0
        for way, (value, variance, low, high) in zip(("grouped", "ungrouped"), results[..., j], strict=True):
            known = ~np.isnan(low)
            metrics.setdefault(metric, {})[way] = {
                "covered": round(100 * float(np.mean((low <= true) & (true <= high), where=known)), 1),
                "se_ratio": round(float(np.sqrt(np.mean(variance, where=known)) / value[known].std()), 2),
                "without_interval": round(100 * float(np.mean(~known)), 1),
            }
    return {"scenario": scenario.name, "simulations": results.shape[2], "replicates": replicates, "metrics": metrics}


def row(result: dict[str, Any]) -> str:
    """Write one scenario as a row of the table."""
    cells = [
        " ".join(f"{found[way][key]:{form}}" for found in result["metrics"].values())
        for key, form in (("covered", ".1f"), ("se_ratio", ".2f"))
        for way in ("grouped", "ungrouped")
    ]
    without = max(found["grouped"]["without_interval"] for found in result["metrics"].values())
    return f"| {' | '.join([result['scenario'], *cells])} | {without:.1f} | {result['simulations']} |"


def main() -> None:
    """Run all scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=150)
    parser.add_argument("--only", default="", metavar="TEXT", help="run only scenarios whose name has it")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    print("| scenario | grouped covered, % | ungrouped covered, % | grouped: estimated / true standard error |", end="")
    print(" ungrouped | grouped without interval, % | simulations |")
    print("|" + " --- |" * 7)
    results = []
    for scenario in SCENARIOS:
        if arguments.only in scenario.name:
            results.append(run(scenario, arguments.simulations, arguments.replicates))
            print(row(results[-1]), flush=True)
            if arguments.output:
                lines = ",\n".join(json.dumps(result, separators=(",", ":")) for result in results)
                arguments.output.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
