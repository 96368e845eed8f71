"""Does a 95 % interval hold the true difference 95 times in 100? Simulate detectors whose true difference is known.

    python scripts/evidence/coverage_simulation.py --simulations 1000 --output docs/results/coverage.json
    python scripts/evidence/coverage_simulation.py --only "80 classes" --simulations 300

Each simulation draws new images, objects, false positives and training seeds. It runs them through the evaluator and
the bootstrap as a user's predictions would be. Objects and images have a difficulty that all detectors share, so
results are paired. A seed shifts a detector's skill. With many classes, the frequency of class k is proportional to
1 / k. Half of an image's objects are then of one class, and no two classes are equally difficult or gain equally.

The truth of a class is its mean over other datasets of the same size in which it occurs, and over seeds. The truth of
a mean over classes is the mean of the truths of the classes that are present. The coin flips have a closed form.

Prints a Markdown table: how often intervals held the truth, estimated divided by true standard error, and how often the
p-value fell below 0.05. With n simulations a share of 95 % has a standard error of sqrt(0.95 * 0.05 / n): 0.7 points
for 1,000. That of a ratio of standard errors is about 1 / sqrt(2 n): 0.02 for 1,000.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gam_yolo.evaluation import (
    METRICS,
    Detections,
    Estimate,
    GroundTruth,
    Samples,
    difference,
    draw_weights,
    estimate,
    holm,
    measure,
    resample,
)

SHOWN = ("AP", "AP50", "AP75", "AR100", "VOC2007 AP50", "VOC2010 AP50")
SKILL = 0.8
CLASS_SIZES = (10, 15, 20, 50)
"""Lower bounds of the groups of classes, by number of images, whose own intervals are counted."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """One line of the table.

    Attributes:
        name: What it is about.
        images: Images of a simulated dataset.
        seeds: Training seeds of each of the two variants.
        seed_noise: Standard deviation of a seed's shift in skill, of the first variant and of the second.
        gain: How much more skilled the second variant is.
        classes: Number of classes.
        tail: Frequencies are proportional to rank to the power of minus this; with 0, classes are alike.
    """

    name: str
    images: int
    seeds: int = 1
    seed_noise: tuple[float, float] = (0.0, 0.0)
    gain: float = 0.0
    classes: int = 2
    tail: float = 0.0

    def draw(self, rng: np.random.Generator, seeds: int) -> tuple[GroundTruth, list[Detections]]:
        """Draw a dataset, and detections of so many seeds of the first variant, then of the second."""
        count = 1 + rng.poisson(2.0 if not self.tail else 1.0, self.images)
        image = np.repeat(np.arange(self.images), count)
        scene = self._labels(rng, self.images)
        image_difficulty = rng.normal(0, 0.7, self.images)
        label = self._labels(rng, len(image))
        if self.tail:
            label = np.where(rng.random(len(image)) < 0.5, scene[image], label)
        of_class = np.random.default_rng(self.classes)  # the same in every simulation
        hard = of_class.normal(0, 0.5, self.classes) * bool(self.tail)
        uneven = of_class.normal(0, 0.1, self.classes) * bool(self.tail and self.gain)
        truth = _ground_truth(self.images, self.classes, image, label, side=rng.uniform(20, 60, len(image)))
        difficulty = rng.normal(0, 1, len(image)) + image_difficulty[image] + hard[label]
        models = []
        for gain, noise in zip((np.zeros(self.classes), self.gain + uneven), self.seed_noise, strict=True):
            for _ in range(seeds):
                skill = SKILL + gain + noise * rng.normal()
                ease = skill[label] - difficulty + rng.normal(0, 0.6, len(image))
                hit = ease > 0
                found = truth.box[hit].copy()
                found[:, 0] += found[:, 2] * np.abs(rng.normal(0, 0.12, hit.sum()))
                false = rng.poisson(1.5 * np.exp(image_difficulty / 2 - 0.2 * skill.mean()))
                false_image = np.repeat(np.arange(self.images), false)
                n = len(false_image)
                # Half of the false positives are of any class, the others of one that the images are full of.
                false_label = np.where(rng.random(n) < 0.5, rng.integers(0, self.classes, n), scene[false_image])
                logit = np.concatenate([ease[hit] + rng.normal(0, 0.8, hit.sum()), rng.normal(-0.5, 1, n)])
                models.append(
                    Detections(
                        source="simulation",
                        image=np.concatenate([image[hit], false_image]),
                        label=np.concatenate([label[hit], false_label]),
                        box=np.concatenate([found, np.tile([1500.0, 1500.0, 40.0, 40.0], (n, 1))]),
                        score=1 / (1 + np.exp(-logit)),
                    )
                )
        return truth, models

    def truths(self, seeds: list[int], workers: ProcessPoolExecutor) -> Array:
        """Find the truth of both variants for each class, shape (2, classes, metrics)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a class and size that never occurred has no truth
            found: Array = np.nanmean(list(workers.map(partial(_measured, self), seeds, chunksize=16)), axis=0)
            if not self.gain:
                found[:] = found.mean(axis=0)
            return np.where(np.isnan(found), np.nanmean(found, axis=1, keepdims=True), found)

    def _labels(self, rng: np.random.Generator, n: int) -> NDArray[np.intp]:
        frequency = np.arange(1, self.classes + 1.0) ** -self.tail
        return rng.choice(self.classes, n, p=frequency / frequency.sum())


NOISE, MUCH = (0.1, 0.1), (0.3, 0.3)
SCENARIOS: tuple[Scenario, ...] = (
    Scenario("2 classes, 200 images", 200),
    Scenario("2 classes, 200 images, difference", 200, gain=0.25),
    Scenario("2 classes, 30 images", 30),
    Scenario("2 classes, 200 images, 3 seeds without noise", 200, 3),
    Scenario("2 classes, 200 images, 2 seeds", 200, 2, NOISE),
    Scenario("2 classes, 200 images, 3 seeds", 200, 3, NOISE),
    Scenario("2 classes, 200 images, 3 seeds, difference", 200, 3, NOISE, gain=0.25),
    Scenario("2 classes, 200 images, 5 seeds, much noise", 200, 5, MUCH),
    Scenario("2 classes, 200 images, 3 seeds, much noise, difference", 200, 3, MUCH, gain=0.25),
    Scenario("2 classes, 200 images, 3 seeds, one variant noisier, difference", 200, 3, (0.05, 0.3), gain=0.25),
    *(
        Scenario(f"{classes} classes, {images} images{what}", images, seeds, noise, gain, classes, 1.0)
        for images in (100, 500, 5000)
        for classes in (20, 80)
        for what, seeds, noise, gain in (
            ("", 1, (0.0, 0.0), 0.0),
            (", difference", 1, (0.0, 0.0), 0.25),
            (", 3 seeds", 3, NOISE, 0.0),
            (", 3 seeds, difference", 3, NOISE, 0.25),
        )
    ),
)

COIN_FLIPS = {f"coin flips, 60 images, {60 // k} classes of {k}": k for k in (1, 2, 4, 10, 60)}
"""Closed forms, by name: the images of each class."""

ORDER = [*COIN_FLIPS, *(scenario.name for scenario in SCENARIOS)]
"""All names, in the order of the table."""


def coin_flips(name: str, simulations: int) -> dict[str, Any]:
    """Simulate AR100 where each image has one object, which two detectors find with chance 0.6 and 0.5.

    Here AR100 is a mean over images, so its bootstrap variance has a closed form, to which a test holds the evaluator
    equal. That is put in place of the evaluator; intervals and p-values are its own.
    """
    rng = np.random.default_rng(0)
    per_class = COIN_FLIPS[name]
    shape = (simulations, 60 // per_class, per_class)
    first, second = ((rng.random(shape) < p).astype(np.float64) for p in (0.6, 0.5))
    found, single = difference(_linear(second - first), _linear(0 * first)), estimate(_linear(first))
    cell = {
        "covered": 100 * _held(found, -0.1).mean(),
        "single_covered": 100 * _held(single, 0.6).mean(),
        "se_ratio": np.sqrt(found.image_variance.mean()) / found.value.std(),
        "seen": 100 * np.mean(found.p < 0.05),
        "without_interval": 100 * np.isnan(found.low).mean(),
    }
    return {
        "scenario": name,
        "simulations": simulations,
        "difference": True,
        "metrics": {"AR100": {key: round(float(value), 3) for key, value in cell.items()}},
    }


def _linear(values: Array) -> Samples:
    """Make the samples of a mean over classes of means over images, from one value per image."""
    means, (_, classes, n) = values.mean(axis=2), values.shape
    mean = means.mean(axis=1)
    if n > 1:
        variance = values.var(axis=2, ddof=1).sum(axis=1) / n / classes**2
    else:
        variance = ((means - mean[:, None]) ** 2).sum(axis=1) / (classes - 1) / classes
    spread = np.tile([1.0, -1.0], 500) * np.sqrt(999 / 1000)  # replicates of variance 1
    images = np.full(len(mean), classes * n)
    return Samples(mean[None], (mean[:, None] + np.sqrt(variance)[:, None] * spread)[None], images, 1.0 * images)


def _ground_truth(
    n_images: int, n_classes: int, image: NDArray[np.intp], label: NDArray[np.intp], side: Array
) -> GroundTruth:
    """Make a dataset of square objects that do not overlap."""
    place = np.arange(len(image)) - np.searchsorted(image, image)
    box = np.stack([place % 8 * 100.0, place // 8 * 100.0, side, side], axis=1)
    return GroundTruth(
        source="simulation",
        ids=tuple(range(n_images)),
        files=tuple(f"{i}.jpg" for i in range(n_images)),
        sizes=np.full((n_images, 2), 2000.0),
        classes=tuple(f"class {k}" for k in range(n_classes)),
        category_ids=tuple(range(1, n_classes + 1)),
        image=image,
        label=label,
        box=box,
        area=side**2,
        crowd=np.zeros(len(image), dtype=bool),
        difficult=np.zeros(len(image), dtype=bool),
    )


def _measured(scenario: Scenario, seed: int) -> Array:
    """Measure one seed of both variants on one dataset, shape (2, classes, metrics)."""
    truth, models = scenario.draw(np.random.default_rng(seed), 1)
    return np.stack([measure(truth, model, np.ones((scenario.images, 1)))[1:, :, 0] for model in models])


@dataclass(frozen=True)
class Outcome:
    """What one simulation gave; arrays have shape (metrics,), NaN where there is no interval.

    Attributes:
        error: Estimated minus true difference.
        variance: Its estimated variance.
        held: Whether the interval of the difference holds the truth.
        single: Whether the interval of the first variant holds the truth.
        p: Of the difference.
        seed_share: The seeds' share in the variance of the difference.
        by_class: For each group of `CLASS_SIZES`, how many intervals of AP and of AR100 there were and how many held
            the truth, shape (groups, 2, 2).
    """

    error: Array
    variance: Array
    held: Array
    single: Array
    p: Array
    seed_share: Array
    by_class: Array


def _simulation(scenario: Scenario, replicates: int, truths: Array, seed: int) -> Outcome:
    """Compare the two variants on one dataset."""
    rng = np.random.default_rng(seed)
    truth, models = scenario.draw(rng, scenario.seeds)
    weights = draw_weights(scenario.images, replicates, int(rng.integers(1 << 32)))
    baseline = resample(truth, models[: scenario.seeds], weights)
    variant = resample(truth, models[scenario.seeds :], weights)
    found, single = difference(variant, baseline), estimate(baseline)
    present = ~np.isnan(baseline.value[0, 1:])
    first, second = (np.where(present, t, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1) for t in truths)
    variance = found.image_variance[0] + found.seed_variance[0]
    columns = [METRICS.index("AP"), METRICS.index("AR100")]
    held = _held(found, np.concatenate([(second - first)[None], truths[1] - truths[0]]))
    group = np.searchsorted(CLASS_SIZES, baseline.images[1:, columns[0]], side="right") - 1
    by_class = np.zeros((len(CLASS_SIZES), 2, 2))
    for g in range(len(CLASS_SIZES)):
        cells = held[1:][group == g][:, columns]
        by_class[g] = np.stack([(~np.isnan(cells)).sum(axis=0), np.nansum(cells, axis=0)])
    return Outcome(
        error=np.where(np.isnan(variance), np.nan, found.value[0] - (second - first)),
        variance=variance,
        held=held[0],
        single=_held(single, np.concatenate([first[None], truths[0]]))[0],
        p=found.p[0],
        seed_share=np.divide(found.seed_variance[0], variance, out=np.zeros(len(METRICS)), where=variance > 0),
        by_class=by_class,
    )


def _held(found: Estimate, truth: Array | float) -> Array:
    """Say whether intervals hold the truth, up to rounding: 1, 0, or NaN where there is no interval."""
    inside = (found.low <= truth + 1e-12) & (truth - 1e-12 <= found.high)
    return np.where(np.isnan(found.low), np.nan, inside)


def run(scenario: Scenario, simulations: int, replicates: int, truth_sets: int, processes: int) -> dict[str, Any]:
    """Simulate one scenario."""
    streams = np.random.SeedSequence(SCENARIOS.index(scenario)).spawn(2)
    truth_seeds, seeds = (
        s.generate_state(n, np.uint64).tolist() for s, n in zip(streams, (truth_sets, simulations), strict=True)
    )
    with ProcessPoolExecutor(processes) as workers:
        trial = partial(_simulation, scenario, replicates, scenario.truths(truth_seeds, workers))
        outcomes = list(workers.map(trial, seeds, chunksize=4))
    metrics: dict[str, Any] = {}
    for name in SHOWN:
        j = METRICS.index(name)
        error, variance, held, single, p = np.array(
            [[o.error[j], o.variance[j], o.held[j], o.single[j], o.p[j]] for o in outcomes]
        ).T
        if np.isnan(held).all():
            metrics[name] = None
            continue
        metrics[name] = {
            "covered": round(100 * np.nanmean(held), 1),
            "single_covered": round(100 * np.nanmean(single), 1),
            "se_ratio": round(np.sqrt(np.nanmean(variance)) / np.nanstd(error), 3),
            "seen": round(100 * np.mean(p[~np.isnan(p)] < 0.05), 1),
            "without_interval": round(100 * np.isnan(held).mean(), 1),
        }
    by_class = np.sum([o.by_class for o in outcomes], axis=0)
    return {
        "scenario": scenario.name,
        "simulations": simulations,
        "replicates": replicates,
        "difference": bool(scenario.gain),
        "metrics": metrics,
        "any_by_holm": round(100 * np.mean([(holm(o.p) < 0.05).any() for o in outcomes]), 1),
        "seed_share": round(100 * np.nanmean([o.seed_share[METRICS.index("AP")] for o in outcomes])),
        "classes": {
            f"from {size} images": {
                metric: {"intervals": int(n), "covered": round(100 * k / n, 1)}
                for metric, n, k in zip(("AP", "AR100"), *counts, strict=True)
            }
            for size, counts in zip(CLASS_SIZES, by_class, strict=True)
            if counts[0].all()
        },
    }


def row(result: dict[str, Any]) -> str:
    """Write one scenario as a row of the table."""

    def cells(key: str, form: str) -> str:
        return " ".join("-" if m is None else format(m[key], form) for m in result["metrics"].values())

    values = [cells("covered", ".1f"), cells("se_ratio", ".2f"), cells("single_covered", ".1f"), cells("seen", ".1f")]
    without = max((100.0 if m is None else m["without_interval"]) for m in result["metrics"].values())
    rest = (
        str(result.get("any_by_holm", "-")),
        str(result.get("seed_share", 0)),
        f"{without:.1f}",
        str(result["simulations"]),
    )
    return "| " + " | ".join((result["scenario"], *values, *rest)) + " |"


def main() -> None:
    """Run the chosen scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--truth-sets", type=int, default=1000, help="datasets that a metric's truth is the mean over")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="run only scenarios whose name has it")
    parser.add_argument("--exact", action="store_true", help="--only gives whole names")
    parser.add_argument("--output", type=Path, help="JSON file to add the results to; replaces those of equal name")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--nice", type=int, default=0, metavar="N", help="lower the priority by N")
    arguments = parser.parse_args()
    os.nice(arguments.nice)
    print("| scenario | difference covered, % | estimated / true standard error | model covered, % | seen, % |", end="")
    print(" any, by Holm, % | seeds' share, % | without interval, % | simulations |")
    print("|" + " --- |" * 9, flush=True)
    for name in ORDER:
        if not any(text == name if arguments.exact else text in name for text in arguments.only):
            continue
        if name in COIN_FLIPS:
            result = coin_flips(name, 20 * arguments.simulations)
        else:
            scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
            counts = (arguments.simulations, arguments.replicates, arguments.truth_sets, arguments.processes)
            result = run(scenario, *counts)
        print(row(result), flush=True)
        if arguments.output:
            save(arguments.output, result)


def save(path: Path, result: dict[str, Any]) -> None:
    """Add a result to the file, in the order of the scenarios, one per line."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    results = [*(r for r in known if r["scenario"] != result["scenario"]), result]
    results.sort(key=lambda r: ORDER.index(r["scenario"]))
    lines = (json.dumps(r, separators=(",", ":")) for r in results)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
