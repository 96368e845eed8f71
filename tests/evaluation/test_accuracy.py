"""Accuracy, its bootstrap and the differences of classifiers, against torchmetrics, resampling and closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gam_yolo.annotations.classes import LabelledImages, Rankings
from gam_yolo.evaluation import accuracy, draw_weights, estimate
from gam_yolo.evaluation.accuracy import correct, difference, resample


def problem(n: int, classes: int, seed: int) -> tuple[LabelledImages, list[Rankings], list[Any]]:
    """Images with unequal classes, one without any; three classifiers of one variant, and their probabilities."""
    rng = np.random.default_rng(seed)
    label = np.sort(rng.choice(classes - 1, n, p=(weights := np.arange(1.0, classes)) / weights.sum()))
    names = tuple(f"class {i}" for i in range(classes))
    files = tuple(f"{names[c]}/{i}.jpg" for i, c in enumerate(label))
    truth = LabelledImages("data", Path("data/val"), "val", files, names, label.astype(np.intp))
    logits = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[label]  # what the seeds share
    scores = [torch.tensor(logits + rng.normal(0, 0.7, size=(n, classes))).softmax(1) for _ in range(3)]
    best = [score.argsort(1, descending=True)[:, : min(5, classes)].numpy().astype(np.intp) for score in scores]
    return truth, [Rankings("", b) for b in best], scores


def test_accuracy_under_whole_weights_is_that_of_the_repeated_images() -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    truth, seeds, scores = problem(300, 8, 0)
    times = np.random.default_rng(1).integers(1, 4, size=(300, 3))
    found = resample(truth, seeds, times.astype(float))
    target = torch.tensor(truth.label)
    for i, score in enumerate(scores):
        for j, k in enumerate((1, 5)):

            def theirs(rows: Any, k: int = k, score: Any = score) -> float:
                options = {"num_classes": 8, "top_k": k, "average": "micro"}
                return float(functional.multiclass_accuracy(score[rows], target[rows], **options).double())

            # torchmetrics divides whole numbers in single precision.
            rows = torch.arange(300)
            assert round(300 * theirs(rows)) / 300 == pytest.approx(found.value[i, 0, j], abs=1e-9)
            for column in range(3):  # the replicates are stretched about their mean, by what is known
                stretch = np.sqrt(301 / 299)
                drawn = np.repeat(np.arange(300), times[:, column])
                plain = round(len(drawn) * theirs(torch.tensor(drawn))) / len(drawn)
                means = [correct(truth, seeds[i])[:, j] @ times[:, c] / times[:, c].sum() for c in range(3)]
                assert means[column] == pytest.approx(plain, abs=1e-9)
                expected = (plain - np.mean(means)) * stretch + found.value[i, 0, j]
                assert found.replicates[i, 0, j, column] == pytest.approx(expected, abs=1e-12)
            for label in range(7):
                own = torch.tensor(np.flatnonzero(truth.label == label))
                assert round(len(own) * theirs(own)) / len(own) == pytest.approx(found.value[i, 1 + label, j], abs=1e-9)
    assert np.isnan(found.value[:, 8]).all()
    assert found.images[:, 0].tolist() == [300, *np.bincount(truth.label, minlength=8)]


def test_the_variance_of_a_paired_difference_is_that_of_resampled_images_and_seeds() -> None:
    truth, ours, _ = problem(400, 6, 2)
    _, theirs, _ = problem(400, 6, 2)
    rng = np.random.default_rng(3)
    for ranking in theirs:  # another variant: some answers differ
        rows = rng.choice(400, 60, replace=False)
        ranking.best[rows] = rng.permuted(ranking.best[rows], axis=1)
    draws = draw_weights(400, 20_000, 0)
    a, b = resample(truth, ours, draws), resample(truth, theirs, draws)
    found = difference(truth, (ours, a), (theirs, b))

    right = [np.stack([correct(truth, seed)[:, 0] for seed in seeds]) for seeds in (ours, theirs)]
    d = right[0].mean(axis=0) - right[1].mean(axis=0)
    assert found.value[0, 0] == pytest.approx(d.mean(), abs=1e-12)
    # The closed form, and images drawn with replacement one by one.
    assert found.image_variance[0, 0] == pytest.approx(d.var(ddof=1) / 400, rel=0.05)
    drawn = d[rng.integers(400, size=(20_000, 400))].mean(axis=1).var() * 400 / 399
    assert found.image_variance[0, 0] == pytest.approx(drawn, rel=0.05)
    # Seeds: the variance of their means, less what the images already explain of it.
    means = [r.mean(axis=1).var(ddof=1) / 3 for r in right]
    residual = [(r - r.mean(axis=0) - r.mean(axis=1, keepdims=True) + r.mean()) for r in right]
    interaction = [(x**2).sum() / (400 * 2 * 399) / 3 for x in residual]
    assert found.seed_variance[0, 0] == pytest.approx(max(0.0, sum(means) - sum(interaction)), rel=0.05, abs=1e-7)
    own = right[0].mean(axis=0)
    assert estimate(a).image_variance[0, 0] == pytest.approx(own.var(ddof=1) / 400, rel=0.05)


def repeated(truth: LabelledImages, rankings: list[Rankings], times: int) -> tuple[LabelledImages, list[Rankings]]:
    """Every image several times, one after the other."""
    files = tuple(f"{file}-{k}" for file in truth.files for k in range(times))
    again = LabelledImages("", Path(), "val", files, truth.classes, np.repeat(truth.label, times))
    return again, [Rankings("", np.repeat(r.best, times, axis=0)) for r in rankings]


def test_repeated_images_in_groups_tell_what_one_of_each_tells() -> None:
    truth, ours, _ = problem(200, 5, 6)
    theirs = [Rankings("", np.random.default_rng(7).permuted(r.best, axis=1)) for r in ours]
    draws = draw_weights(200, 300, 0)
    seeds = ours, theirs
    once = [(s, resample(truth, s, draws)) for s in seeds]
    many, groups = repeated(truth, [], 3)[0], np.repeat(np.arange(200), 3)
    thrice = [(r, resample(many, r, draws, groups)) for s in seeds if (r := repeated(truth, s, 3)[1])]
    for (_, a), (_, b) in zip(once, thrice, strict=True):
        for key in ("value", "replicates", "images", "effective"):
            np.testing.assert_allclose(getattr(b, key), getattr(a, key), atol=1e-12)
    expected = difference(truth, once[0], once[1])
    found = difference(many, thrice[0], thrice[1], groups=groups)
    alone = [(r, resample(many, r, draw_weights(600, 300, 0))) for r, _ in thrice]
    independent = difference(many, alone[0], alone[1])
    for key in ("value", "low", "high", "p", "image_dof"):
        np.testing.assert_allclose(getattr(found, key), getattr(expected, key), atol=1e-9)
    assert independent.image_variance[0, 0] == pytest.approx(found.image_variance[0, 0] / 3, rel=0.4)


def test_groups_of_unequal_size_have_the_variance_of_their_sums() -> None:
    truth, _, _ = problem(600, 4, 8)
    rng = np.random.default_rng(9)
    groups = rng.choice(60, 600, p=rng.dirichlet(np.full(60, 3.0)))
    groups = np.unique(groups, return_inverse=True)[1]
    n = groups.max() + 1
    right = rng.random(n)[groups] + 0.3 * rng.random(600) > 0.6  # alike within a group
    best = np.stack([np.where(right, truth.label, (truth.label + 1) % 4), np.full(600, 3)], axis=1)
    found = resample(truth, [Rankings("", best)], draw_weights(n, 20_000, 0), groups)
    sums = np.bincount(groups, right - right.mean())
    effective = 600**2 / (np.bincount(groups) ** 2).sum()
    assert found.images[0, 0] == pytest.approx(effective)
    linear = (sums**2).sum() / 600**2 * effective / (effective - 1)
    assert found.replicates[0, 0, 0].var() == pytest.approx(linear, rel=0.06)
    assert found.replicates[0, 0, 0].var() > 3 * right.var() / 600


def test_few_images_that_differ_give_few_degrees_of_freedom() -> None:
    rng = np.random.default_rng(4)
    normal = rng.normal(size=(5000, 1))
    assert accuracy._degrees_of_freedom(normal, np.arange(5000))[0] == pytest.approx(5000, rel=0.1)
    sparse = np.zeros((1000, 1))
    sparse[:8] = [[1], [-1]] * 4
    assert accuracy._degrees_of_freedom(sparse, np.arange(1000))[0] == pytest.approx(16 / (1 - 8 / 1000))
    assert accuracy._degrees_of_freedom(np.zeros((50, 2)), np.arange(50)).tolist() == [50, 50]


def test_classifiers_that_agree_on_all_images_may_differ_on_as_many_as_chance_hides() -> None:
    truth, (a, *_), _ = problem(36, 4, 10)
    draws = draw_weights(36, 100, 0)
    same = [Rankings("", a.best.copy())]
    found = difference(truth, ([a], resample(truth, [a], draws)), (same, resample(truth, same, draws)))
    reach = found.high[0, 0]
    assert (1 - reach) ** 36 == pytest.approx(0.05)
    assert (found.value[0, 0], found.low[0, 0], found.p[0, 0]) == (0, -reach, 1)
    assert np.isnan(found.low[1:4][np.bincount(truth.label, minlength=3) < 20]).all()


@pytest.mark.parametrize("disagree", [10, 60])
def test_equal_classifiers_are_called_different_in_one_of_twenty_comparisons_at_most(disagree: int) -> None:
    """On `disagree` of 400 images exactly one of two is right, each with the same chance: McNemar's null hypothesis."""
    rng = np.random.default_rng(5)
    n, runs = 400, 400
    truth = LabelledImages("", Path(), "val", tuple(map(str, range(n))), ("a", "b"), np.zeros(n, dtype=np.intp))
    draws = draw_weights(n, 200, 0)
    rejected = 0
    for _ in range(runs):
        answers = np.zeros((2, n), dtype=np.intp)
        where = rng.choice(n, rng.binomial(n, disagree / n), replace=False)
        answers[rng.integers(2, size=len(where)), where] = 1
        seeds = [[Rankings("", np.stack([a, 1 - a], axis=1))] for a in answers]
        samples = [resample(truth, s, draws) for s in seeds]
        rejected += difference(truth, (seeds[0], samples[0]), (seeds[1], samples[1])).p[0, 0] < 0.05
    assert 0.01 * runs <= rejected <= 0.075 * runs
