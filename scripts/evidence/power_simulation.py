"""Does a comparison of the size that `gam_yolo.power` names detect the difference as often as it says?

    python scripts/evidence/power_simulation.py --output docs/results/power.json

Each image has one object. A detector finds it if a latent normal variable is below a threshold. The variable has parts
that are common to all detectors, to the seeds of a variant, and of one seed alone. Each seed shifts the threshold. The
metric is AR100, whose replicates have a closed form (`group_coverage.samples`, to which a test holds the evaluator
equal); intervals and p-values are those of `gam_yolo.evaluation`.

First the variances are found: that of the seeds is known, the others are means over many pilots. `Plan` then names the
seeds for the images of the pilot, and the images for its seeds. Comparisons of these sizes are simulated, and those
counted whose interval excludes zero on the right side. Then single pilots name a number each from their own variances:
how many detections that number gives, and how often the named interval holds the right number.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from group_coverage import samples
from scipy.special import ndtr

from gam_yolo.evaluation import Estimate, Samples, difference, draw_weights
from gam_yolo.report.power import Noise, Plan

THRESHOLD = 0.3
LEVEL = 0.95
REPLICATES = 300
AT_ONCE = 50


@dataclass(frozen=True)
class Scenario:
    """Pilots and the difference to detect.

    Attributes:
        images: Images of a pilot.
        seeds: Seeds of each of its two variants.
        shift: Standard deviation of a seed's shift of the threshold.
        gain: Shift of the second variant.
    """

    images: int
    seeds: int
    shift: float
    gain: float

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"pilot of {self.images} images, {self.seeds} seeds; shift {self.shift:g}"

    @property
    def difference(self) -> float:
        """The true difference."""
        wide = np.sqrt(1 + self.shift**2)
        return float(ndtr((THRESHOLD + self.gain) / wide) - ndtr(THRESHOLD / wide))

    @property
    def seed_variance(self) -> float:
        """The variance that seeds add to a difference, with one seed of each variant."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        values = [ndtr(THRESHOLD + gain + self.shift * nodes) for gain in (0.0, self.gain)]
        means = [np.average(value, weights=weights) for value in values]
        return float(sum(np.average((v - m) ** 2, weights=weights) for v, m in zip(values, means, strict=True)))

    def simulate(self, rng: np.random.Generator, images: int, seeds: int, simulations: int) -> Estimate:
        """Compare the variants in so many datasets at once."""
        n = simulations * images
        place = np.stack([np.arange(n) // images, np.arange(n) % images])
        label = np.zeros(n, dtype=np.intp)
        weights = draw_weights(images, REPLICATES, int(rng.integers(1 << 32)))
        common, variants = rng.normal(size=n), []
        for gain in (0.0, self.gain):
            own = (common + rng.normal(size=n)) / np.sqrt(2)
            found: list[Samples] = []
            for _ in range(seeds):
                latent = np.sqrt(0.7) * own + np.sqrt(0.3) * rng.normal(size=n)
                shift = THRESHOLD + gain + self.shift * rng.normal(size=simulations)
                found.append(samples((latent < shift[place[0]]).astype(np.float64), label, place, weights))
            value, replicates = (
                np.concatenate([getattr(one, key) for one in found]) for key in ("value", "replicates")
            )
            variants.append(Samples(value, replicates, found[0].images, found[0].effective))
        return difference(variants[1], variants[0], LEVEL)


SCENARIOS = (
    Scenario(300, 3, 0.0, 0.2),
    Scenario(300, 3, 0.1, 0.25),
    Scenario(1000, 3, 0.1, 0.18),
    Scenario(1000, 5, 0.2, 0.22),
    Scenario(200, 4, 0.05, 0.25),
)


def noises(estimated: Estimate, scenario: Scenario) -> list[Noise]:
    """Return the noise as each comparison estimates it."""
    columns = (estimated.image_variance, estimated.interaction, estimated.seed_variance, estimated.image_dof)
    k = scenario.seeds
    return [
        Noise(max(float(v - i), 0.0), float(i) * k, float(s) * k, float(dof), 2.0 * (k - 1))
        for v, i, s, dof in zip(*columns, strict=True)
    ]


def detected(scenario: Scenario, rng: np.random.Generator, images: int, seeds: int, simulations: int) -> float:
    """Return the share of comparisons whose interval excludes zero on the right side."""
    hits = [scenario.simulate(rng, images, seeds, AT_ONCE).low > 0 for _ in range(-(-simulations // AT_ONCE))]
    return round(100 * float(np.mean(hits)), 1)


def run(scenario: Scenario, simulations: int, pilots: int) -> dict[str, Any]:
    """Simulate one scenario."""
    rng = np.random.default_rng([scenario.images, scenario.seeds, int(1000 * scenario.shift)])
    runs = -(-simulations // AT_ONCE)
    many = [
        noise
        for _ in range(runs)
        for noise in noises(scenario.simulate(rng, scenario.images, scenario.seeds, AT_ONCE), scenario)
    ]
    images, both, dof = np.mean([(one.images, one.both, one.images_dof) for one in many], axis=0).tolist()
    # The seeds' variance is exact, because each pilot's estimate is cut off at zero.
    known = Noise(images, both, scenario.seed_variance, images_dof=dof, seeds_dof=2.0 * (scenario.seeds - 1))
    plan = Plan(scenario.difference, LEVEL, scenario.images, scenario.images, scenario.seeds)
    row: dict[str, Any] = {
        "scenario": scenario.name,
        "difference": round(100 * scenario.difference, 2),
        "simulations": simulations,
    }
    for what in ("seeds", "images"):
        needed = plan.seeds_needed if what == "seeds" else plan.images_needed
        need = plan.need_seeds if what == "seeds" else plan.need_images
        for power in (0.8, 0.9):
            number = needed(known, power)
            if number is None or number > (40 if what == "seeds" else 8000):
                continue
            size = (scenario.images, number) if what == "seeds" else (number, scenario.seeds)
            row[f"{what} for {100 * power:.0f} %"] = {
                "number": number,
                "named": round(
                    100 * known.detection(scenario.difference, size[0] / scenario.images, size[1], LEVEL), 1
                ),
                "detected": detected(scenario, rng, *size, simulations),
            }
        right = needed(known, 0.8)
        if right is None or not pilots:
            continue
        held, rates = [], []
        for noise in many[:pilots]:
            found = need(noise, 0.8, noise.redrawn(scenario.seeds, 256))
            low, high = (np.inf if n is None else n for n in (found.low, found.high))
            held.append(bool(low <= right <= high))
            if (number := found.number) is None:
                rates.append(np.nan)
            elif what == "seeds":
                rates.append(known.detection(scenario.difference, 1.0, number, LEVEL))
            else:
                rates.append(known.detection(scenario.difference, number / scenario.images, scenario.seeds, LEVEL))
        row[f"{what}, by single pilots"] = {
            "pilots": len(held),
            "interval_held": round(100 * float(np.mean(held)), 1),
            "mean_detection": round(100 * float(np.nanmean(rates)), 1),
            "no_number": round(100 * float(np.mean(np.isnan(rates))), 1),
        }
    return row


def lines(result: dict[str, Any]) -> list[str]:
    """Write one scenario as rows of the table, one for each number named."""
    rows = []
    for what in ("seeds", "images"):
        pilots = result.get(f"{what}, by single pilots", {})
        for power in (80, 90):
            if found := result.get(f"{what} for {power} %"):
                cells = [result["scenario"], result["difference"], f"{found['number']} {what} for {power} %"]
                cells += [found["named"], found["detected"]]
                last = [pilots.get(key, "-") if power == 80 else "" for key in ("mean_detection", "interval_held")]
                rows.append(f"| {' | '.join(map(str, [*cells, *last]))} |")
    return rows


def main() -> None:
    """Run all scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1500)
    parser.add_argument("--pilots", type=int, default=40)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    print("| simulation | difference, points | named | predicted, % | detected, % | by one pilot, % | interval, % |")
    print("|" + " --- |" * 7)
    results = []
    for scenario in SCENARIOS:
        results.append(run(scenario, arguments.simulations, arguments.pilots))
        print("\n".join(lines(results[-1])), flush=True)
        if arguments.output:
            text = ",\n".join(json.dumps(result, separators=(",", ":")) for result in results)
            arguments.output.write_text(f"[\n{text}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
