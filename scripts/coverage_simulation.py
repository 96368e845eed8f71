"""Does a 95 % interval hold the true difference 95 times in 100? Simulate detectors whose true difference is known.

    python scripts/coverage_simulation.py --simulations 1000

Each simulation draws new images, objects, false positives and training seeds, and runs them through the evaluator and
the bootstrap as a user's predictions would. Objects and images have a difficulty that all detectors share, so results
are paired; a seed shifts a detector's skill. The truth of a metric is its value on a very large draw, averaged over
seeds; of VOC2007's 11-point AP, which on a large draw is a step function of the recall that is reached, it is the
mean over data sets of the scenario's size. Prints one Markdown table: for each scenario the share of simulations
whose interval held the truth, and how often the verdict saw a difference.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from gam_yolo.evaluation import (
    METRICS,
    Detections,
    GroundTruth,
    difference,
    estimate,
    holm,
    measure,
    multiplicities,
    resample,
)

SHOWN = ("AP", "AP50", "AP75", "AR100", "VOC2007 AP50", "VOC2010 AP50")
CLASSES = 2
SKILL = 0.8
GRID = np.linspace(-1.2, 2.6, 9)  # skills at which the truth is computed


@dataclass(frozen=True)
class Scenario:
    """One line of the table.

    Attributes:
        name: What it is about.
        images: Images of a simulated data set.
        seeds: Training seeds of each of the two variants.
        seed_noise: Standard deviation of a seed's shift in skill.
        gain: How much more skilled the second variant is.
    """

    name: str
    images: int
    seeds: int
    seed_noise: float
    gain: float


SCENARIOS = (
    Scenario("one seed, no seed noise, no difference", 200, 1, 0.0, 0.0),
    Scenario("one seed, no seed noise, difference", 200, 1, 0.0, 0.25),
    Scenario("one seed, no seed noise, no difference, few images", 30, 1, 0.0, 0.0),
    Scenario("three seeds, no seed noise, no difference", 200, 3, 0.0, 0.0),
    Scenario("two seeds, seed noise, no difference", 200, 2, 0.1, 0.0),
    Scenario("three seeds, seed noise, no difference", 200, 3, 0.1, 0.0),
    Scenario("three seeds, seed noise, difference", 200, 3, 0.1, 0.25),
    Scenario("five seeds, much seed noise, no difference", 200, 5, 0.3, 0.0),
    Scenario("three seeds, much seed noise, difference", 200, 3, 0.3, 0.25),
)


def simulate(rng: np.random.Generator, n_images: int, skills: list[float]) -> tuple[GroundTruth, list[Detections]]:
    """Draw a data set and the detections of one detector for each skill."""
    image_difficulty = rng.normal(0, 0.7, n_images)
    count = 1 + rng.poisson(2.0, n_images)
    image = np.repeat(np.arange(n_images), count)
    place = np.arange(len(image)) - np.repeat(np.cumsum(count) - count, count)
    label = rng.integers(0, CLASSES, len(image))
    side = rng.uniform(20, 60, len(image))
    corner = np.stack([place % 8, place // 8], axis=1) * 100.0
    box = np.concatenate([corner, side[:, None], side[:, None]], axis=1)
    difficulty = rng.normal(0, 1, len(image)) + image_difficulty[image]
    truth = GroundTruth(
        source="simulation",
        ids=tuple(range(n_images)),
        files=tuple(f"{i}.jpg" for i in range(n_images)),
        sizes=np.full((n_images, 2), 2000.0),
        classes=tuple(f"class {k}" for k in range(CLASSES)),
        category_ids=tuple(range(1, CLASSES + 1)),
        image=image,
        label=label,
        box=box,
        area=box[:, 2] * box[:, 3],
        crowd=np.zeros(len(image), dtype=bool),
        difficult=np.zeros(len(image), dtype=bool),
    )
    models = []
    for skill in skills:
        ease = skill - difficulty + rng.normal(0, 0.6, len(image))
        hit = ease > 0
        found = box[hit].copy()
        found[:, 0] += found[:, 2] * np.abs(rng.normal(0, 0.12, hit.sum()))
        false = rng.poisson(1.5 * np.exp(image_difficulty / 2 - 0.2 * skill))
        false_image = np.repeat(np.arange(n_images), false)
        n = len(false_image)
        logit = np.concatenate([ease[hit] + rng.normal(0, 0.8, hit.sum()), rng.normal(-0.5, 1, n)])
        models.append(
            Detections(
                source="simulation",
                image=np.concatenate([image[hit], false_image]),
                label=np.concatenate([label[hit], rng.integers(0, CLASSES, n)]),
                box=np.concatenate([found, np.tile([1500.0, 1500.0, 40.0, 40.0], (n, 1))]),
                score=1 / (1 + np.exp(-logit)),
            )
        )
    return truth, models


def true_values(rng: np.random.Generator, n_images: int) -> np.ndarray:
    """Compute each metric's coefficients as a polynomial in skill, shape (degree + 1, metrics)."""
    values = np.zeros((len(GRID), len(METRICS)))
    for i, skill in enumerate(GRID):
        truth, (model,) = simulate(np.random.default_rng(rng.integers(1 << 32)), n_images, [float(skill)])
        values[i] = measure(truth, model, np.ones((n_images, 1)))[0, :, 0]
    return np.polyfit(GRID, np.nan_to_num(values), 6)


def expected(coefficients: np.ndarray, skill: float, noise: float) -> np.ndarray:
    """Average the metrics over the seeds of a variant, shape (metrics,)."""
    points, weights = np.polynomial.hermite_e.hermegauss(15)
    powers = np.vander(skill + noise * points, len(coefficients))
    return weights @ (powers @ coefficients) / weights.sum()


def mean_at_size(scenario: Scenario, metric: int, sets: int, seed: int) -> list[float]:
    """Average a metric of the two variants over data sets of the scenario's size and over seeds."""
    rng = np.random.default_rng(seed)
    found = np.zeros((sets, 2))
    for i in range(sets):
        skills = [SKILL + gain + scenario.seed_noise * rng.normal() for gain in (0.0, scenario.gain)]
        truth, models = simulate(rng, scenario.images, skills)
        found[i] = [measure(truth, model, np.ones((scenario.images, 1)))[0, metric, 0] for model in models]
    means = found.mean(axis=0)
    return [float(mean) for mean in (means if scenario.gain else np.full(2, means.mean()))]


def run(scenario: Scenario, simulations: int, replicates: int, coefficients: np.ndarray, seed: int) -> str:
    """Simulate one scenario and return its row."""
    rng = np.random.default_rng(seed)
    shown = [METRICS.index(name) for name in SHOWN]
    truths = [expected(coefficients, SKILL + gain, scenario.seed_noise) for gain in (0.0, scenario.gain)]
    stepwise = METRICS.index("VOC2007 AP50")
    for values, mean in zip(truths, mean_at_size(scenario, stepwise, 4000, 1000 + seed), strict=True):
        values[stepwise] = mean
    held, held_single, seen, seen_by_holm = np.zeros(len(shown)), np.zeros(len(shown)), np.zeros(len(shown)), 0
    share = 0.0
    for _ in range(simulations):
        skills = [
            SKILL + gain + scenario.seed_noise * rng.normal()
            for gain in (0.0, scenario.gain)
            for _ in range(scenario.seeds)
        ]
        truth, models = simulate(rng, scenario.images, skills)
        draws = multiplicities(scenario.images, replicates, int(rng.integers(1 << 32)))
        baseline = resample(truth, models[: scenario.seeds], draws)
        variant = resample(truth, models[scenario.seeds :], draws)
        found, single = difference(variant, baseline), estimate(baseline)
        target = truths[1] - truths[0]
        held += ((found.low[0] <= target) & (target <= found.high[0]))[shown]
        held_single += ((single.low[0] <= truths[0]) & (truths[0] <= single.high[0]))[shown]
        seen += found.p[0, shown] < 0.05
        seen_by_holm += bool((holm(found.p[0]) < 0.05).any())
        share += found.seed_variance[0, 0] / (found.seed_variance[0, 0] + found.image_variance[0, 0])
    percent = "; ".join(" ".join(f"{100 * v / simulations:.1f}" for v in x) for x in (held, held_single, seen))
    cells = [
        scenario.name,
        *percent.split("; "),
        f"{100 * seen_by_holm / simulations:.1f}",
        f"{100 * share / simulations:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run every scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--truth-images", type=int, default=200_000)
    parser.add_argument("--only", type=int, nargs="+", metavar="LINE", help="lines of the table to make, from 1")
    arguments = parser.parse_args()
    coefficients = true_values(np.random.default_rng(1), arguments.truth_images)
    print(f"{arguments.simulations} simulations, {arguments.replicates} replicates; columns: {', '.join(SHOWN)}")
    print("| scenario | difference covered, % | model covered, % | seen, % | any, by Holm, % | seeds' share, % |")
    print("|" + " --- |" * 6)
    for number, scenario in enumerate(SCENARIOS):
        if arguments.only and number + 1 not in arguments.only:
            continue
        print(run(scenario, arguments.simulations, arguments.replicates, coefficients, number), flush=True)


if __name__ == "__main__":
    main()
