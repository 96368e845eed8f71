from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm as normal
from scipy.stats import t as student
from scipy.stats import ttest_ind

from gam_yolo.evaluation import (
    METRICS,
    Detections,
    GroundTruth,
    Samples,
    difference,
    draw_weights,
    estimate,
    holm,
    measure,
    read_coco,
    read_detections,
    resample,
    verdict,
)
from gam_yolo.evaluation.statistics import sum_dof

from .test_real import predict

AR100 = METRICS.index("AR100")


def coin_flips(n: int, hits: np.ndarray, label: np.ndarray | None = None) -> tuple[GroundTruth, Detections]:
    """An object an image, found or missed, and nothing else: average recall is the share of hits."""
    box = np.tile([10.0, 10.0, 100.0, 100.0], (n, 1))
    label = np.zeros(n, dtype=np.intp) if label is None else label
    n_classes = int(label.max()) + 1
    truth = GroundTruth(
        source="flips",
        ids=tuple(range(n)),
        files=tuple(f"{i}.jpg" for i in range(n)),
        sizes=np.full((n, 2), 640.0),
        classes=tuple(f"object {k}" for k in range(n_classes)),
        category_ids=tuple(range(1, n_classes + 1)),
        image=np.arange(n),
        label=label,
        box=box,
        area=np.full(n, 1e4),
        crowd=np.zeros(n, dtype=bool),
        difficult=np.zeros(n, dtype=bool),
    )
    found = np.flatnonzero(hits)
    return truth, Detections("flips", found, label[found], box[found], np.full(len(found), 0.9))


def test_seeds_of_one_value_that_err_on_different_images_have_an_interval() -> None:
    """Then the images' part and the seeds' part are estimated as 0, and what the images change is not."""
    hits = np.arange(60) % 2 == 0
    truth, first = coin_flips(60, hits)
    _, second = coin_flips(60, ~hits)
    found = estimate(resample(truth, [first, second], draw_weights(60, 500, seed=0)))
    assert found.value[0, AR100] == 0.5
    assert found.low[0, AR100] < 0.5 < found.high[0, AR100]


def test_weights_are_positive_and_exponential() -> None:
    weights = draw_weights(57, 4000, seed=3)
    assert weights.shape == (57, 4000)
    assert weights.min() > 0
    assert weights.mean() == pytest.approx(1, rel=0.01)
    assert weights.var() == pytest.approx(1, rel=0.03)
    assert np.mean(weights > 2) == pytest.approx(np.exp(-2), rel=0.02)
    np.testing.assert_array_equal(weights, draw_weights(57, 4000, seed=3))
    assert (weights != draw_weights(57, 4000, seed=4)).any()


def test_a_perfect_detector_is_perfect_under_all_weights() -> None:
    # The sums of the weights of all objects and of all hits are equal to the last bit, so recall reaches 1.
    truth, model = coin_flips(500, np.ones(500, dtype=bool))
    measured = measure(truth, model, draw_weights(500, 200, seed=0))[0]
    columns = [METRICS.index(name) for name in ("AP", "AP50", "AR100", "VOC2007 AP50", "VOC2010 AP50")]
    np.testing.assert_allclose(measured[columns], 1.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "frequency", [[60], [10] * 6, [4] * 15, [2] * 30, [1] * 60, [1] * 9 + [2] * 7 + [3] * 4 + [25]]
)
def test_the_variance_of_a_mean_over_classes_is_that_of_stratified_sampling(frequency: list[int]) -> None:
    """Each class adds its sample variance; classes on one image add their spread around the mean."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(len(frequency)), frequency)
    a, b = rng.random(len(label)) < 0.6, rng.random(len(label)) < 0.5
    truth, first = coin_flips(len(label), a, label)
    _, second = coin_flips(len(label), b, label)
    draws = draw_weights(len(label), 3000, seed=0)
    one, two = resample(truth, [first], draws), resample(truth, [second], draws)
    for found, values in ((estimate(one), 1.0 * a), (difference(two, one), 1.0 * b - a)):
        by_class = [values[label == k] for k in range(len(frequency))]
        means = np.array([v.mean() for v in by_class])
        k = len(means)
        expected = sum(v.var(ddof=1) / len(v) for v in by_class if len(v) > 1) / k**2
        alone = np.array([len(v) == 1 for v in by_class])
        expected += (((means - means.mean())[alone] ** 2).sum() * k / (k - 1) / k**2) if alone.any() else 0.0
        assert found.value[0, AR100] == pytest.approx(means.mean())
        assert np.sqrt(found.image_variance[0, AR100]) == pytest.approx(np.sqrt(expected), rel=0.05)


@pytest.mark.parametrize("per_class", [1, 2, 4, 60])
def test_standard_errors_are_right_however_few_images_a_class_has(per_class: int) -> None:
    """60 images; without the correction the ratio is 0.76 for one image a class, 0.91 for two."""
    rng = np.random.default_rng(1)
    label = np.arange(60) // per_class
    variances, errors = [], []
    for seed in range(24):
        a, b = rng.random(60) < 0.6, rng.random(60) < 0.5
        truth, first = coin_flips(60, a, label)
        _, second = coin_flips(60, b, label)
        draws = draw_weights(60, 150, seed=seed)
        found = difference(resample(truth, [second], draws), resample(truth, [first], draws))
        variances.append(found.image_variance[0, AR100])
        errors.append(abs(found.value[0, AR100] + 0.1) <= (found.high - found.low)[0, AR100] / 2)
    # The variance of a single estimate is known to 20 %, the mean of 24 to 4 %, its root to 2 %.
    assert np.sqrt(np.mean(variances)) == pytest.approx(np.sqrt((0.6 * 0.4 + 0.5 * 0.5) / 60), rel=0.06)
    assert np.mean(errors) >= 0.85


def test_the_standard_error_of_ap75_is_widened() -> None:
    """Boxes are exact, so AP75 is AP50 on each replicate; docs/evaluation.md says what the factor rests on."""
    rng = np.random.default_rng(0)
    truth, model = coin_flips(90, rng.random(90) < 0.6, np.arange(90) % 3)
    found = estimate(resample(truth, [model], draw_weights(90, 200, seed=0)))
    at_50, at_75 = METRICS.index("AP50"), METRICS.index("AP75")
    assert (found.value[:, at_50] == found.value[:, at_75]).all()
    assert found.image_variance[:, at_75] == pytest.approx(1.05**2 * found.image_variance[:, at_50])


def test_no_interval_where_the_mean_depends_on_few_images() -> None:
    label = np.repeat([0, 1], [50, 2])
    truth, model = coin_flips(52, np.arange(52) % 2 == 0, label)
    samples = resample(truth, [model], draw_weights(52, 100, seed=0))
    # The second class has 25 / 26 of the variance of the mean, from two images.
    assert samples.effective[0, AR100] == pytest.approx((1 / 50 + 1 / 2) ** 2 / (1 / 50**3 + 1 / 2**3))
    found = estimate(samples)
    assert np.isnan(found.low[:, AR100]).tolist() == [True, False, True]
    assert found.value[:, AR100].tolist() == [0.5, 0.5, 0.5]


def test_no_interval_where_two_detectors_agree_on_fewer_than_twenty_images() -> None:
    for n, known in ((12, False), (20, True)):
        truth, model = coin_flips(n, np.arange(n) % 2 == 0)
        samples = resample(truth, [model], draw_weights(n, 100, seed=0))
        assert np.isnan(difference(samples, samples).low[0, AR100]) == (not known)
        assert not np.isnan(estimate(samples).low[0, AR100])


def test_standard_errors_on_coco_are_those_of_a_permutation_test(shared: Path, tmp_path: Path) -> None:
    """78 classes on 126 images, 13 of them on one. Exchanging two detectors image by image needs no bootstrap."""
    truth = read_coco(shared / "data" / "coco" / "annotations" / "instances_val2017.json")
    n = len(truth.ids)
    models = []
    for name in ("yolov8n", "yolov5nu"):
        records = predict(shared, shared / "data" / "coco" / "val2017", truth, imgsz=224, weights=f"{name}.pt")
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
        models.append(read_detections(tmp_path / f"{name}.json", truth))
    draws = draw_weights(n, 1000, seed=0)
    plain, other = (resample(truth, [model], draws) for model in models)
    found = difference(other, plain)

    # Every image twice, once with the detections of either model; a permutation takes one of the two for each model.
    repeated: dict[str, Any] = {
        name: np.concatenate([getattr(truth, name)] * 2) for name in ("label", "box", "area", "crowd", "difficult")
    }
    twice = replace(
        truth,
        ids=tuple(range(2 * n)),
        files=truth.files * 2,
        sizes=np.tile(truth.sizes, (2, 1)),
        image=np.concatenate([truth.image, truth.image + n]),
        **repeated,
    )
    both = Detections(
        "both",
        image=np.concatenate([models[0].image, models[1].image + n]),
        **{k: np.concatenate([getattr(m, k) for m in models]) for k in ("label", "box", "score")},
    )
    taken = np.random.default_rng(0).random((n, 1000)) < 0.5
    weights = np.concatenate([taken, ~taken]).astype(float)
    permuted = (measure(twice, both, weights) - measure(twice, both, 1 - weights))[0]
    for name in ("AP", "AP50", "AR100"):
        j = METRICS.index(name)
        # One dataset tells a standard error to about 10 %. Without the correction the ratio was 0.7.
        assert np.sqrt(found.image_variance[0, j]) == pytest.approx(permuted[j].std(ddof=1), rel=0.15)
        assert found.p[0, j] == pytest.approx(np.mean(np.abs(permuted[j]) >= abs(found.value[0, j])), abs=0.12)


def test_standard_errors_are_those_of_the_closed_form() -> None:
    n = 1000
    rng = np.random.default_rng(0)
    a, b = rng.random(n) < 0.6, rng.random(n) < 0.5
    truth, first = coin_flips(n, a)
    _, second = coin_flips(n, b)
    draws = draw_weights(n, 2000, seed=0)
    one, two = resample(truth, [first], draws), resample(truth, [second], draws)
    single, paired = estimate(one), difference(two, one)
    assert single.value[0, AR100] == pytest.approx(a.mean())
    assert paired.value[0, AR100] == pytest.approx(b.mean() - a.mean())
    # Within 4 %: the error of a standard deviation of 2,000 replicates is 1.6 %. Dropping repeated images gives 0.76.
    for found, values in ((single, 1.0 * a), (paired, 1.0 * b - a)):
        assert np.sqrt(found.image_variance[0, AR100]) == pytest.approx(values.std(ddof=1) / np.sqrt(n), rel=0.04)
    half = (paired.high - paired.low)[0, AR100] / 2
    assert half == pytest.approx(student.isf(0.025, 400) * np.sqrt(paired.image_variance[0, AR100]), rel=1e-3)


def test_without_image_noise_the_interval_is_students_over_seeds() -> None:
    values_a, values_b = np.array([0.40, 0.42, 0.43]), np.array([0.44, 0.47, 0.46])

    def constant(values: np.ndarray) -> Samples:
        return Samples(
            values[:, None], np.repeat(values[:, None, None], 50, axis=2), np.array([200]), np.array([200.0])
        )

    found = difference(constant(values_b), constant(values_a))
    expected = values_b.mean() - values_a.mean()
    variances = np.array([values_a.var(ddof=1), values_b.var(ddof=1)]) / 3
    by_scipy = ttest_ind(
        values_b, values_a, equal_var=False
    ).df  # Welch's first formula; his second has 2 more and less
    dof = (by_scipy + variances.sum() ** 2 / (variances**2 / 4).sum() - 2) / 2
    half = student.isf(0.025, dof) * np.sqrt(variances.sum())
    assert found.value[0] == pytest.approx(expected)
    assert (found.low[0], found.high[0]) == (pytest.approx(expected - half), pytest.approx(expected + half))
    assert found.p[0] == pytest.approx(2 * student.sf(expected / np.sqrt(variances.sum()), dof), rel=1e-6)
    assert found.image_variance[0] == pytest.approx(0, abs=1e-15)
    assert found.seeded

    alone = estimate(constant(values_a))
    half = student.isf(0.025, 2) * values_a.std(ddof=1) / np.sqrt(3)
    assert alone.high[0] - alone.value[0] == pytest.approx(half)


@pytest.mark.parametrize(
    ("k", "noises"),
    [(k, noises) for k in (2, 3, 5) for noises in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.2, 1.5), (0.0, 1.0))]
    + [(k, (0.0, 5.0)) for k in (3, 5)],  # too much for two seeds, see the module's head
)
def test_intervals_hold_normal_variables_as_often_as_they_promise(k: int, noises: tuple[float, float]) -> None:
    """Two variants whose seeds spread differently; other images move both together, and each seed by itself."""
    rng = np.random.default_rng(0)
    trials, replicates = 8000, 100
    shared, shared_again = rng.normal(0, 0.5, trials), rng.normal(0, 0.5, (trials, replicates))

    def simulated(noise: float) -> Samples:
        own, own_again = rng.normal(0, 0.3, trials), rng.normal(0, 0.3, (trials, replicates))
        value = 0.5 + shared + own + rng.normal(0, 0.4, (k, trials)) + rng.normal(0, noise, (k, trials))
        again = value[..., None] + shared_again + own_again + rng.normal(0, 0.4, (k, trials, replicates))
        return Samples(value, again, np.full(trials, 10_000), np.full(trials, 1e4))

    a, b = map(simulated, noises)
    for found, truth in ((difference(b, a), 0.0), (estimate(a), 0.5), (estimate(b), 0.5)):
        held = np.mean((found.low <= truth) & (truth <= found.high))
        assert 0.93 - 0.005 < held < 0.97 + 0.005  # beyond the aim, twice the error of 8,000 trials


def by_the_definition(a: Samples, b: Samples | None, level: float, *, paired: bool) -> dict[str, float]:
    """The estimate b - a, or that of a alone, from the formulas at the head of the module, number by number."""
    signed = [(1.0, a)] if b is None else [(1.0, b), (-1.0, a)]
    value = sum(sign * float(np.mean(s.value[:, 0])) for sign, s in signed)
    over = sum(sign * s.replicates[:, 0].mean(axis=0) for sign, s in signed)
    n, n_eff, r = float(a.images[0]), float(a.effective[0]), len(over)
    dof_v = n_eff / 2 if b is None else min(n / 2, n_eff)
    dof_v = 1 / (1 / max(dof_v, 1) + 1 / r)
    v = float(np.sum((over - over.mean()) ** 2) / (r - 1))
    seeds = [(s.value[:, 0], s.replicates[:, 0]) for _, s in signed]
    if paired:
        seeds = [(seeds[0][0] - seeds[1][0], seeds[0][1] - seeds[1][1])]
    parts, interaction = [], 0.0
    for values, again in seeds:
        k = len(values)
        if k > 1:
            parts.append((float(np.var(values, ddof=1)) / k, k - 1))
            both = again - again.mean(axis=0) - again.mean(axis=1)[:, None] + again.mean()
            interaction += float((both**2).sum()) / ((k - 1) * (r - 1)) / k
    s = sum(part for part, _ in parts)
    welch = [s**2 / sum(part**2 / (d + more) for part, d in parts) - more for more in (0, 2)] if s else [1.0]
    dof_s = float(np.mean(welch))
    total = max(0.0, v - interaction) + s or max(v, interaction)
    share = s / total

    def half(alpha: float) -> float:
        z, t_v, t_s = (float(f.isf(alpha / 2)) ** 2 for f in (normal, student(dof_v), student(dof_s)))
        return float(np.sqrt(total * (z + (t_v - z) * (1 - share) ** 1.75 + (t_s - z) * share**1.75)))

    p = brentq(lambda log: half(10**log) - abs(value), -30, 0) if abs(value) > half(1.0) else 0.0
    low, high = value - half(1 - level), value + half(1 - level)
    if b is None:
        low, high = max(low, 0.0), min(high, 1.0)
    return {
        "value": value, "low": low, "high": high, "p": 10**p, "image_dof": dof_v, "seed_dof": dof_s,
        "image_variance": v, "seed_variance": max(0.0, s - interaction), "interaction": interaction,
    }  # fmt: skip


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("images", [(200, 30.0), (40, 200.0), (12, 10.0)])
@pytest.mark.parametrize(("k", "level"), [((1, 1), 0.95), ((3, 3), 0.9), ((2, 5), 0.95), ((4, 1), 0.99)])
@pytest.mark.parametrize("noise", [(0.03, 0.01), (0.002, 0.02), (0.0, 0.02)])
def test_an_estimate_is_what_its_definition_says(
    k: tuple[int, int], level: float, images: tuple[int, float], noise: tuple[float, float], paired: bool
) -> None:
    rng = np.random.default_rng(7)

    def drawn(k: int, mean: float) -> Samples:
        value = mean + rng.normal(0, noise[0], (k, 1))
        again = value[..., None] + rng.normal(0, noise[1], (1, 1, 25)) + rng.normal(0, noise[1], (k, 1, 25))
        return Samples(value, again, np.array([images[0]]), np.array([images[1]]))

    a, b = drawn(k[0], 0.97), drawn(k[1], 0.93)
    cases = [(estimate(a, level), by_the_definition(a, None, level, paired=False))]
    if not paired or k[0] == k[1]:
        found = difference(b, a, level, paired=paired)
        cases.append((found, by_the_definition(a, b, level, paired=paired)))
        assert found.seeded == (min(k) > 1)
    for found, expected in cases:
        for name, number in expected.items():
            assert getattr(found, name)[0] == pytest.approx(number, rel=1e-6, abs=1e-12), name


@pytest.mark.parametrize(
    ("images", "effective", "spread", "has_interval"),
    [
        (40, 10.0, 0.01, True),
        (40, 9.9, 0.01, False),
        (20, 20.0, 0.0, True),
        (19, 20.0, 0.0, False),
        (19, 20.0, 0.01, True),
    ],
)
def test_too_few_images_have_no_interval(images: int, effective: float, spread: float, has_interval: bool) -> None:
    """Ten images that tell something, or twenty on which two detectors do the same."""
    again = 0.5 + np.linspace(-0.1, 0.1, 30)
    a = Samples(np.full((2, 1), 0.5), np.tile(again, (2, 1, 1)), np.array([images]), np.array([effective]))
    b = replace(a, replicates=a.replicates + spread * np.sin(np.arange(30)))
    found = difference(b, a)
    for ends in (found.low, found.high, found.p, found.image_variance, found.seed_variance, found.interaction):
        assert np.isfinite(ends[0]) == has_interval
    assert found.value[0] == 0
    assert verdict(found.value[0], found.p[0]) == ("no detectable difference" if has_interval else "too few images")


def test_a_metric_that_no_set_of_images_changes_has_no_interval() -> None:
    """A detector that finds nothing: 0 on every replicate, which says nothing about other images."""
    nothing = Samples(np.zeros((2, 1)), np.zeros((2, 1, 30)), np.array([40]), np.array([40.0]))
    something = replace(nothing, replicates=np.tile(np.linspace(0, 0.1, 30), (2, 1, 1)))
    for found, has_interval in (
        (estimate(nothing), False),
        (difference(nothing, nothing), False),
        (difference(something, nothing), True),
    ):
        assert np.isfinite(found.low[0]) == np.isfinite(found.high[0]) == has_interval


def test_degrees_of_freedom_of_a_sum_are_the_mean_of_welchs_two_formulas() -> None:
    variances = np.array([[1.0, 2.0, 0.0, 0.0], [3.0, 0.0, 5.0, 0.0]])
    expected = [(16 / (1 / 2 + 9 / 4) + 16 / (1 / 4 + 9 / 6) - 2) / 2, (2 + 4 - 2) / 2, (4 + 6 - 2) / 2, 1.0]
    np.testing.assert_allclose(sum_dof(variances, [2, 4]), expected)


def test_spread_that_images_explain_is_not_put_down_to_seeds() -> None:
    # Seeds that respond to the images each in their own way, with no level of their own.
    rng = np.random.default_rng(0)
    k, replicates, noise = 4, 4000, 0.02
    shares = []
    for _ in range(200):
        values = rng.normal(0.5, noise, (k, 1))
        samples = Samples(
            values, values[..., None] + rng.normal(0, noise, (k, 1, replicates)), np.array([10_000]), np.array([1e4])
        )
        found = estimate(samples)
        assert found.image_variance[0] == pytest.approx(noise**2 / k, rel=0.15)
        shares.append(found.seed_variance[0] / (noise**2 / k))
    # E max(0, chi2_3 / 3 - 1) = 0.31: the part that chance leaves over; all of it put down to seeds would be 1.
    assert np.mean(shares) == pytest.approx(0.31, abs=0.09)


def test_equal_models_differ_by_nothing() -> None:
    truth, model = coin_flips(50, np.arange(50) % 2 == 0)
    samples = resample(truth, [model], draw_weights(50, 100, seed=0))
    found = difference(samples, samples)
    assert found.value[0, 0] == found.low[0, 0] == found.high[0, 0] == 0
    assert found.p[0, 0] == 1
    assert not found.seeded
    assert verdict(found.value[0, 0], found.p[0, 0]) == "no detectable difference"


def test_a_metric_without_objects_has_no_value_and_few_images_no_interval() -> None:
    truth, model = coin_flips(9, np.ones(9, dtype=bool))
    found = estimate(resample(truth, [model], draw_weights(9, 100, seed=0)))
    assert np.isnan(found.value[0, METRICS.index("APs")])
    assert found.value[0, AR100] == 1
    assert np.isnan(found.low[0, AR100])
    assert np.isnan(found.high[0, AR100])
    assert verdict(0.5, found.p[0, AR100]) == "too few images"


def test_holm_is_the_step_down_rule() -> None:
    # By hand: sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling.
    adjusted = holm(np.array([[0.01, 0.04], [np.nan, 0.03], [0.005, np.nan]]))
    np.testing.assert_allclose(adjusted, [[0.03, 0.06], [np.nan, 0.06], [0.02, np.nan]])
    assert holm(np.array([0.9, 0.8])).max() == 1.0


def test_verdict_follows_sign_and_level() -> None:
    assert verdict(0.1, 0.01) == "better"
    assert verdict(-0.1, 0.01) == "worse"
    assert verdict(-0.1, 0.01, level=0.999) == "no detectable difference"
    assert verdict(0.1, 0.25, level=0.75) == "no detectable difference"
    assert verdict(0.1, 0.04) == verdict(0.1, 0.1, level=0.8) == "better"
    assert verdict(np.nan, 0.01) == verdict(0.1, np.nan) == "too few images"
