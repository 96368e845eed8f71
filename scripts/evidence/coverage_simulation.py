"""Does a 95 % interval hold the true difference 95 times in 100? Simulate detectors whose true difference is known.

    python scripts/evidence/coverage_simulation.py --simulations 3000

Each simulation draws new images, objects, false positives and training seeds, and runs them through the evaluator and
the bootstrap as a user's predictions would. Objects and images have a difficulty that all detectors share, so results
are paired; a seed shifts a detector's skill. The truth of a metric is its mean over other data sets of the same size
and over seeds. Prints one Markdown table: for each scenario the share of simulations whose interval held the truth, and
how often the verdict saw a difference.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from gam_yolo.evaluation import (
    METRICS,
    Detections,
    GroundTruth,
    difference,
    draw_weights,
    estimate,
    holm,
    measure,
    resample,
)

SHOWN = ("AP", "AP50", "AP75", "AR100", "VOC2007 AP50", "VOC2010 AP50")
CLASSES = 2
SKILL = 0.8


@dataclass(frozen=True)
class Scenario:
    """One line of the table.

    Attributes:
        name: What it is about.
        images: Images of a simulated data set.
        seeds: Training seeds of each of the two variants.
        seed_noise: Standard deviation of a seed's shift in skill, of the first variant and of the second.
        gain: How much more skilled the second variant is.
    """

    name: str
    images: int
    seeds: int
    seed_noise: tuple[float, float]
    gain: float

    def skills(self, rng: np.random.Generator, seeds: int) -> list[float]:
        """Draw the skills of so many seeds of the first variant, then of the second."""
        pairs = zip((0.0, self.gain), self.seed_noise, strict=True)
        return [SKILL + gain + noise * rng.normal() for gain, noise in pairs for _ in range(seeds)]


SCENARIOS = (
    Scenario("one seed, no seed noise, no difference", 200, 1, (0.0, 0.0), 0.0),
    Scenario("one seed, no seed noise, difference", 200, 1, (0.0, 0.0), 0.25),
    Scenario("one seed, no seed noise, no difference, few images", 30, 1, (0.0, 0.0), 0.0),
    Scenario("three seeds, no seed noise, no difference", 200, 3, (0.0, 0.0), 0.0),
    Scenario("two seeds, seed noise, no difference", 200, 2, (0.1, 0.1), 0.0),
    Scenario("three seeds, seed noise, no difference", 200, 3, (0.1, 0.1), 0.0),
    Scenario("three seeds, seed noise, difference", 200, 3, (0.1, 0.1), 0.25),
    Scenario("five seeds, much seed noise, no difference", 200, 5, (0.3, 0.3), 0.0),
    Scenario("three seeds, much seed noise, difference", 200, 3, (0.3, 0.3), 0.25),
    Scenario("three seeds, one variant noisier, difference", 200, 3, (0.05, 0.3), 0.25),
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


@dataclass(frozen=True)
class Outcome:
    """What came out in one simulation, over all classes, shape (metrics,) each.

    Attributes:
        single: Whether the interval of the first variant holds the truth.
        held: Whether the interval of the difference does.
        p: Of the difference.
        seed_share: The seeds' share in the variance of the difference.
    """

    single: np.ndarray
    held: np.ndarray
    p: np.ndarray
    seed_share: np.ndarray


def measured(scenario: Scenario, seed: int) -> np.ndarray:
    """Measure one seed of both variants on one data set, shape (2, metrics)."""
    rng = np.random.default_rng(seed)
    truth, models = simulate(rng, scenario.images, scenario.skills(rng, 1))
    return np.stack([measure(truth, model, np.ones((scenario.images, 1)))[0, :, 0] for model in models])


def simulation(scenario: Scenario, replicates: int, truths: np.ndarray, seed: int) -> Outcome:
    """Compare the two variants on one data set."""
    rng = np.random.default_rng(seed)
    truth, models = simulate(rng, scenario.images, scenario.skills(rng, scenario.seeds))
    draws = draw_weights(scenario.images, replicates, int(rng.integers(1 << 32)))
    baseline = resample(truth, models[: scenario.seeds], draws)
    variant = resample(truth, models[scenario.seeds :], draws)
    found, single = difference(variant, baseline), estimate(baseline)
    target = truths[1] - truths[0]
    return Outcome(
        single=(single.low[0] <= truths[0]) & (truths[0] <= single.high[0]),
        held=(found.low[0] <= target) & (target <= found.high[0]),
        p=found.p[0],
        seed_share=found.seed_variance[0] / (found.seed_variance[0] + found.image_variance[0]),
    )


def run(scenario: Scenario, simulations: int, replicates: int, truth_sets: int, seed: int) -> str:
    """Simulate one scenario and return its row."""
    truth_seeds, seeds = (s.generate_state(n, np.uint64) for s, n in _streams(seed, truth_sets, simulations))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        truths = np.mean(list(pool.map(partial(measured, scenario), truth_seeds, chunksize=16)), axis=0)
        if not scenario.gain:
            truths[:] = truths.mean(axis=0)
        trial = partial(simulation, scenario, replicates, truths)
        outcomes = list(pool.map(trial, seeds, chunksize=4))
    shown = [METRICS.index(name) for name in SHOWN]
    p = np.stack([outcome.p for outcome in outcomes])
    by_holm = np.mean([(holm(row) < 0.05).any() for row in p])
    shares = (
        np.mean([o.held for o in outcomes], axis=0)[shown],
        np.mean([o.single for o in outcomes], axis=0)[shown],
        (p < 0.05).mean(axis=0)[shown],
    )
    cells = [
        scenario.name,
        *(" ".join(f"{100 * value:.1f}" for value in values) for values in shares),
        f"{100 * by_holm:.1f}",
        f"{100 * np.mean([o.seed_share[METRICS.index('AP')] for o in outcomes]):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _streams(seed: int, *counts: int) -> Iterable[tuple[np.random.SeedSequence, int]]:
    return zip(np.random.SeedSequence(seed).spawn(len(counts)), counts, strict=True)


def main() -> None:
    """Run every scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--truth-sets", type=int, default=5000, help="data sets that a metric's truth is the mean over")
    parser.add_argument("--only", type=int, nargs="+", metavar="LINE", help="lines of the table to make, from 1")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of each of the processes, of which every core has one
    print(f"{arguments.simulations} simulations, {arguments.replicates} replicates; columns: {', '.join(SHOWN)}")
    print("| scenario | difference covered, % | model covered, % | seen, % | any, by Holm, % | seeds' share, % |")
    print("|" + " --- |" * 6)
    for number, scenario in enumerate(SCENARIOS):
        if arguments.only and number + 1 not in arguments.only:
            continue
        row = run(scenario, arguments.simulations, arguments.replicates, arguments.truth_sets, number)
        print(row, flush=True)


if __name__ == "__main__":
    main()
