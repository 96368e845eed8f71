"""How often does a 95 % interval hold the true difference when images come in groups, such as frames of videos?

    python scripts/evidence/group_coverage.py --output docs/results/group-coverage.json

Each image has one object, which a detector finds if a latent normal variable is low enough. A share of that variable's
variance, the intra-group correlation, is common to the images of a group. Half of each part is common to both
detectors, which is what pairs them. The second detector is better by `gain`, and the true difference is that of the two
chances of finding an object. The metric is AR100, which is then a mean over classes of means over images. So its
bootstrap replicates can be computed for many simulations at once (`samples`). A test holds the evaluator equal to them.
Intervals are those of `gam_yolo.evaluation`. Each simulation draws new groups, images and detections, and makes two
intervals: groups are resampled, and images as if they were independent. Sizes of groups are equal, or lognormal with a
sigma of 1.
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

from gam_yolo.evaluation import Samples, difference, draw_weights

Array = NDArray[np.float64]
THRESHOLD = 0.3
AT_ONCE = 50  # simulations, which share the bootstrap's weights


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
    gain: float = 0.3

    @property
    def name(self) -> str:
        """What the table calls it."""
        sizes = f"of 1 to many, on average {self.size}" if self.uneven else f"of {self.size}"
        extra = f", {self.classes} classes" if self.classes > 1 else ""
        return f"{self.groups} groups {sizes}, correlation {self.correlation:g}{extra}{'' if self.gain else ', equal'}"

    def sizes(self, rng: np.random.Generator, simulations: int) -> NDArray[np.intp]:
        """Draw the number of images of each group, shape (simulations, groups)."""
        shape = (simulations, self.groups)
        if not self.uneven:
            return np.full(shape, self.size)
        drawn: NDArray[np.intp] = 1 + np.round((self.size - 1) * np.exp(rng.normal(-0.5, 1, shape))).astype(np.intp)
        return drawn


SCENARIOS = (
    Scenario(30, 10, 0.0),
    Scenario(30, 10, 0.1),
    Scenario(30, 10, 0.5),
    Scenario(30, 10, 0.5, gain=0.0),
    Scenario(100, 5, 0.5),
    Scenario(12, 30, 0.5),
    Scenario(40, 10, 0.5, uneven=True),
    Scenario(100, 5, 0.5, uneven=True),
    Scenario(40, 10, 0.5, classes=5),
    Scenario(100, 5, 0.5, uneven=True, classes=5),
)


def samples(found: Array, label: NDArray[np.intp], group: NDArray[np.intp], weights: Array) -> Samples:
    """Return what `resample` returns of AR100 where each image has one object, for many simulations at once.

    Each class must be in two groups or more.

    Args:
        found: Whether the object of each image is found, 0 or 1; shape (images,), all simulations together.
        label: Its class, likewise.
        group: Its simulation and group, likewise, shape (2, images).
        weights: From `draw_weights`.
    """
    shape = (int(group[0].max()) + 1, int(label.max()) + 1, len(weights))
    cell = np.ravel_multi_index((group[0], label, group[1]), shape)
    hits, size = (np.bincount(cell, part, np.prod(shape)).reshape(shape) for part in (found, None))
    value = hits.sum(axis=2) / size.sum(axis=2)
    drawn = (hits @ weights) / (size @ weights)
    n = size.sum(axis=2) ** 2 / (size**2).sum(axis=2)
    drawn = (drawn - drawn.mean(axis=2, keepdims=True)) * np.sqrt((n + 1) / (n - 1))[..., None] + value[..., None]
    sizes = size.sum(axis=1)
    return Samples(
        value=value.mean(axis=1)[None],
        replicates=drawn.mean(axis=1)[None],
        images=sizes.sum(axis=1) ** 2 / (sizes**2).sum(axis=1),
        effective=(1 / n).sum(axis=1) ** 2 / (1 / n**3).sum(axis=1),
    )


def draw(
    scenario: Scenario, rng: np.random.Generator, simulations: int
) -> tuple[list[Array], NDArray[np.intp], NDArray[np.intp]]:
    """Draw datasets: what each of two detectors finds, the labels, and simulation, group and number of each image."""
    sizes = scenario.sizes(rng, simulations)
    index = np.repeat(np.arange(sizes.size), sizes.ravel())
    per_set = sizes.sum(axis=1)
    number = np.arange(len(index)) - np.repeat(np.cumsum(per_set) - per_set, per_set)
    scene = rng.integers(0, scenario.classes, sizes.size)
    label = np.where(rng.random(len(index)) < 0.5, scene[index], rng.integers(0, scenario.classes, len(index)))
    common = rng.normal(size=sizes.size), rng.normal(size=len(index))
    found = []
    for gain in (0.0, scenario.gain):
        of_group, of_image = ((shared + rng.normal(size=len(shared))) / np.sqrt(2) for shared in common)
        latent = np.sqrt(scenario.correlation) * of_group[index] + np.sqrt(1 - scenario.correlation) * of_image
        found.append((latent < THRESHOLD + gain).astype(np.float64))
    return found, label, np.stack([index // scenario.groups, index % scenario.groups, number])


def run(scenario: Scenario, simulations: int, replicates: int) -> dict[str, Any]:
    """Simulate one scenario."""
    rng = np.random.default_rng(list(json.dumps(asdict(scenario)).encode()))
    true = ndtr(THRESHOLD + scenario.gain) - ndtr(THRESHOLD)
    results: dict[str, list[Array]] = {"grouped": [], "ungrouped": []}
    for _ in range(-(-simulations // AT_ONCE)):
        found, label, (simulation, group, number) = draw(scenario, rng, AT_ONCE)
        for kind, unit in (("grouped", group), ("ungrouped", number)):
            weights = draw_weights(int(unit.max()) + 1, replicates, int(rng.integers(1 << 32)))
            first, second = (samples(one, label, np.stack([simulation, unit]), weights) for one in found)
            estimated = difference(second, first)
            results[kind].append(np.stack([estimated.value, estimated.image_variance, estimated.low, estimated.high]))
    row: dict[str, Any] = {"scenario": scenario.name, "simulations": 0, "replicates": replicates}
    for kind, drawn in results.items():
        value, variance, low, high = np.concatenate(drawn, axis=1)
        known = ~np.isnan(low)
        row["simulations"] = len(value)
        row[kind] = {
            "covered": round(100 * float(np.mean((low <= true) & (true <= high), where=known)), 1),
            "se_ratio": round(float(np.sqrt(np.mean(variance, where=known)) / value[known].std()), 2),
            "without_interval": round(100 * float(np.mean(~known)), 1),
        }
    return row


def line(result: dict[str, Any]) -> str:
    """Write one scenario as a row of the table."""
    cells = [f"{result[kind][key]}" for key in ("covered", "se_ratio") for kind in ("grouped", "ungrouped")]
    without = result["grouped"]["without_interval"]
    return f"| {' | '.join([result['scenario'], *cells])} | {without} | {result['simulations']} |"


def main() -> None:
    """Run all scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=10000)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    print("| scenario | groups resampled: covered, % | images resampled: covered, % |", end="")
    print(" groups: estimated / true standard error | images: estimated / true | no interval, % | simulations |")
    print("|" + " --- |" * 7)
    results = []
    for scenario in SCENARIOS:
        results.append(run(scenario, arguments.simulations, arguments.replicates))
        print(line(results[-1]), flush=True)
    if arguments.output:
        lines = ",\n".join(json.dumps(result, separators=(",", ":")) for result in results)
        arguments.output.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
