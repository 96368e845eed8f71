from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gam_yolo.evaluation import coco_metrics, draw_weights, match_coco, match_voc, metrics, precision_curve, voc_metrics

from .problems import Problem, coco_stats, matlab_range, problems, pycocotools_stats, voc_ap, voc_by_the_book, voc_stats

# EXAMPLES=5000 for a longer search than every run can afford.
thorough = settings(
    max_examples=int(os.environ.get("EXAMPLES", "200")), deadline=None, suppress_health_check=list(HealthCheck)
)


@thorough
@given(problems(), st.sampled_from([1, 300]))  # few and many replicates are summed in different ways
def test_coco_metrics_equal_pycocotools(problem: Problem, columns: int) -> None:
    summary, per_class = pycocotools_stats(problem)
    ours, ours_per_class = coco_stats(problem, columns=columns)
    np.testing.assert_allclose(ours, summary, atol=1e-9, rtol=0)
    np.testing.assert_allclose(ours_per_class, per_class, atol=1e-9, rtol=0)


@thorough
@given(problems(distinct_scores=True), st.data())
def test_integer_weights_equal_pycocotools_on_images_really_repeated(problem: Problem, data: st.DataObject) -> None:
    times = data.draw(st.lists(st.integers(0, 3), min_size=problem.n_images, max_size=problem.n_images).filter(any))
    summary, per_class = pycocotools_stats(problem.repeated(times))
    ours, ours_per_class = coco_stats(problem, times)
    np.testing.assert_allclose(ours, summary, atol=1e-9, rtol=0)
    np.testing.assert_allclose(ours_per_class, per_class, atol=1e-9, rtol=0)


@thorough
@given(problems())
def test_voc_metrics_equal_the_definitions(problem: Problem) -> None:
    expected = [voc_by_the_book(problem, label) for label in range(1, problem.n_classes + 1)]
    np.testing.assert_allclose(voc_stats(problem), expected, atol=1e-9, rtol=0)


@settings(max_examples=50, deadline=None)
@given(problems(), st.integers(2, 20))
def test_only_relative_weight_matters(problem: Problem, factor: int) -> None:
    np.testing.assert_allclose(coco_stats(problem, [factor] * problem.n_images)[0], coco_stats(problem)[0], atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(problems())
def test_the_mean_of_the_precision_curve_is_average_precision(problem: Problem) -> None:
    table = match_coco(problem.truth, problem.detections)
    _, per_class = pycocotools_stats(problem)
    mean = np.mean([precision_curve(table, t).mean(axis=1) for t in range(10)], axis=0)
    np.testing.assert_allclose(mean, per_class, atol=1e-9)


@pytest.mark.parametrize(("limit", "at"), [(1, 6), (10, 7), (100, 8)])  # AR1, AR10 and AR100
def test_the_last_detection_of_the_limit_counts_and_the_next_does_not(limit: int, at: int) -> None:
    box = [10.0, 10.0, 20.0, 20.0]
    annotation = {"category_id": 1, "bbox": box, "area": 400.0, "iscrowd": 0, "difficult": False}
    annotations = [{**annotation, "id": i, "image_id": i} for i in (1, 2)]
    results = [
        {"image_id": image, "category_id": 1, "bbox": box if n == hit else [500.0, *box[1:]], "score": 1 - n / 1000}
        for image, hit in ((1, limit - 1), (2, limit))
        for n in range(102)
    ]
    problem = Problem(2, 1, annotations, results)
    ours, _ = coco_stats(problem)
    np.testing.assert_allclose(ours, pycocotools_stats(problem)[0], atol=1e-9, rtol=0)
    assert ours[at] == 0.5


def _problem(objects: list[list[float]], found: list[tuple[list[float], float]], classes: int = 1) -> Problem:
    """One image with objects of the first class, and detections with a score each."""
    annotation = {"image_id": 1, "category_id": 1, "iscrowd": 0, "difficult": False}
    annotations = [
        {**annotation, "id": i, "bbox": box, "area": box[2] * box[3]} for i, box in enumerate(objects, start=1)
    ]
    results = [{"image_id": 1, "category_id": 1, "bbox": box, "score": score} for box, score in found]
    return Problem(1, classes, annotations, results)


@pytest.mark.parametrize("side", [32.0, 96.0])
@pytest.mark.parametrize("width", [1.0, 0.5, 0.75])
def test_an_object_of_a_limiting_area_is_of_both_sizes_and_an_iou_on_a_threshold_is_enough(
    side: float, width: float
) -> None:
    box = [8.0, 8.0, side, side]
    problem = _problem([box], [([8.0, 8.0, side * width, side], 0.9)])  # the IoU is `width`, exactly
    ours, _ = coco_stats(problem)
    np.testing.assert_allclose(ours, pycocotools_stats(problem)[0], atol=1e-9, rtol=0)
    thresholds = {1.0: 10, 0.5: 1, 0.75: 6}[width] / 10
    assert ours[0] == pytest.approx(thresholds)
    both = [3, 4] if side == 32 else [4, 5]  # AP of small, medium and large objects
    assert [ours[i] for i in both] == pytest.approx([thresholds] * 2)


@pytest.mark.parametrize("reverse", [False, True])
def test_voc_gives_a_detection_to_the_object_that_it_overlaps_most(reverse: bool) -> None:
    near, far = [100.0, 100.0, 40.0, 40.0], [108.0, 100.0, 40.0, 40.0]
    # The first overlaps both objects by more than a half, and `near` most. The second overlaps `near` alone so much.
    found = [([101.0, 100.0, 40.0, 40.0], 0.9), ([90.0, 100.0, 40.0, 40.0], 0.8)]
    problem = _problem([far, near] if reverse else [near, far], found)
    expected = voc_by_the_book(problem, 1)
    np.testing.assert_allclose(voc_stats(problem)[0], expected, atol=1e-9)
    assert expected[1] == pytest.approx(0.5)


@pytest.mark.parametrize("found", [[], [([20.5, 20.0, 0.4, 0.4], 0.9)]])
def test_no_detection_and_one_beside_an_object_of_less_than_a_pixel_find_nothing(
    found: list[tuple[list[float], float]],
) -> None:
    problem = _problem([[20.0, 20.0, 0.4, 0.4]], found)
    np.testing.assert_allclose(coco_stats(problem)[0], pycocotools_stats(problem)[0], atol=1e-9, rtol=0)
    assert coco_stats(problem)[0][0] == 0
    np.testing.assert_allclose(voc_stats(problem)[0], [0, 0])


def test_a_precision_curve_is_read_at_101_recalls() -> None:
    first, second, aside = [10.0, 10.0, 20.0, 20.0], [60.0, 10.0, 20.0, 20.0], [200.0, 10.0, 20.0, 20.0]
    problem = _problem([first, second], [(first, 0.9), (aside, 0.8), (second, 0.7)], classes=2)
    curve = precision_curve(match_coco(problem.truth, problem.detections))
    np.testing.assert_allclose(curve[0], [1.0] * 51 + [2 / 3] * 50, atol=1e-9)
    assert np.isnan(curve[1]).all()


@pytest.mark.parametrize("objects", [*range(1, 21), 30, 70])
def test_voc_2007_reads_the_recall_points_of_the_development_kit(objects: int) -> None:
    """Every number of hits among so many objects, and false positives between them: recall meets tenths exactly."""
    box = [10.0, 10.0, 20.0, 20.0]
    annotation = {"category_id": 1, "bbox": box, "area": 400.0, "iscrowd": 0, "difficult": False}
    annotations = [{**annotation, "id": i, "image_id": i} for i in range(1, objects + 1)]
    rng = np.random.default_rng(objects)
    for hits in range(1, objects + 1):
        hit = rng.permutation(np.repeat([True, False], [hits, hits // 2]))
        images = np.where(hit, np.cumsum(hit), 1)
        results = [
            {"image_id": int(i), "category_id": 1, "bbox": box if h else [500.0, *box[1:]], "score": 1 - n / 1000}
            for n, (i, h) in enumerate(zip(images, hit, strict=True))
        ]
        found = np.cumsum(hit)
        expected = voc_ap(list(found / objects), list(found / np.arange(1, len(hit) + 1)))
        np.testing.assert_allclose(voc_stats(Problem(objects, 1, annotations, results))[0], expected, atol=1e-9, rtol=0)


def test_matlab_counts_a_range_from_both_ends() -> None:
    # As documented: `0:0.1:1 == 0.3` is false everywhere, and `0:0.1:0.3` differs from the start of `0:0.1:0.4`.
    tenths = matlab_range(0.0, 0.1, 1.0)
    assert 0.3 not in tenths
    assert tenths == [0.0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert matlab_range(0.0, 0.1, 0.3) != matlab_range(0.0, 0.1, 0.4)[:4]


@pytest.mark.parametrize(("cells_in_cache", "cells_at_once"), [(1, 1 << 23), (700, 2000), (1 << 15, 900)])
def test_the_size_of_the_parts_does_not_change_a_bit(
    cells_in_cache: int, cells_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """120 objects of two classes and sizes, with false positives between: many rows, and parts that end anywhere."""
    rng = np.random.default_rng(0)
    boxes = rng.uniform(1, 60, (120, 4)).round().tolist()
    annotations = [
        {"id": i, "image_id": i % 40 + 1, "category_id": i % 2 + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        | {"difficult": False}
        for i, box in enumerate(boxes, 1)
    ]
    results = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": float(score)}
        | {"bbox": [a["bbox"][0] + shift, *a["bbox"][1:]]}
        for a in annotations
        for score, shift in zip(rng.random(3).round(2), (0, 2, 9), strict=True)
    ]
    problem = Problem(40, 2, annotations, results)
    coco, voc = match_coco(problem.truth, problem.detections), match_voc(problem.truth, problem.detections)
    weights = draw_weights(40, 301, seed=0)
    expected = coco_metrics(coco, weights), voc_metrics(voc, weights)
    monkeypatch.setattr(metrics, "_CELLS_IN_CACHE", cells_in_cache)
    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", cells_at_once)
    np.testing.assert_array_equal(coco_metrics(coco, weights), expected[0])
    np.testing.assert_array_equal(voc_metrics(voc, weights), expected[1])


def test_the_grid_is_what_its_points_are_computed_as() -> None:
    np.testing.assert_array_equal(np.arange(101) * metrics._HUNDREDTHS[1], metrics._HUNDREDTHS)
