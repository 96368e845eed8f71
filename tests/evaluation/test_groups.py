"""Groups of images: how they are declared, what is wrong with them, and that groups take the place of images."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gam_yolo.errors import UserError
from gam_yolo.evaluation import METRICS, Detections, GroundTruth, difference, draw_weights, resample
from gam_yolo.evaluation.groups import read_groups

FILES = ("cam 1/a_1.jpg", "cam 1/a_2.jpg", "cam 2/b_1.PNG", "cam 2/ü b_2.jpeg")
AR = METRICS.index("AR100")


def scene(sizes: list[int], classes: int = 2, seed: int = 0) -> tuple[GroundTruth, list[Detections], NDArray[np.intp]]:
    """Groups of images with one object each, the detections of three detectors, and the group of each image."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    n = len(group)
    image, label = np.arange(n), rng.integers(0, classes, n)
    box = np.tile([0.0, 0.0, 50.0, 50.0], (n, 1))
    none = np.zeros(n, dtype=bool)
    names, ids = tuple(f"c{k}" for k in range(classes)), tuple(range(1, classes + 1))
    files = tuple(f"{i}.jpg" for i in range(n))
    area = np.full(n, 2500.0)
    truth = GroundTruth(
        "t", tuple(range(n)), files, np.full((n, 2), 99.0), names, ids, image, label, box, area, none, none
    )
    detectors = []
    for _ in range(3):
        hit = rng.random(n) < 0.3 + 0.4 * rng.random(len(sizes))[group]
        detectors.append(Detections("d", image[hit], label[hit], box[hit], rng.random(hit.sum())))
    return truth, detectors, group


def test_every_image_its_own_group_gives_the_same_bytes() -> None:
    truth, detectors, _ = scene([1] * 60)
    groups = read_groups(r"\d+", truth.files)
    assert groups is not None
    for given in (groups.index, np.arange(60)):
        weights = draw_weights(60, 100, 0)
        for own, plain in zip(
            (resample(truth, detectors[:2], weights, given), resample(truth, detectors[1:], weights, given)),
            (resample(truth, detectors[:2], weights), resample(truth, detectors[1:], weights)),
            strict=True,
        ):
            assert own.replicates.tobytes() == plain.replicates.tobytes()
            assert own.value.tobytes() == plain.value.tobytes()
            np.testing.assert_array_equal(own.images, plain.images)
            np.testing.assert_array_equal(own.effective, plain.effective)


def test_a_group_counts_as_its_number_of_copies_of_one_image() -> None:
    """Three copies of every image, declared as groups, tell as much as the images alone."""
    truth, detectors, _ = scene([1] * 40, classes=3)
    copies = np.repeat(np.arange(40), 3)
    n = len(copies)

    def repeated(found: Detections) -> Detections:
        image = np.concatenate([3 * found.image + c for c in range(3)])
        return Detections("d", image, np.tile(found.label, 3), np.tile(found.box, (3, 1)), np.tile(found.score, 3))

    tripled = replace(
        truth, ids=tuple(range(n)), files=tuple(map(str, range(n))), sizes=np.full((n, 2), 99.0), image=np.arange(n)
    )
    fields = {key: getattr(truth, key)[copies] for key in ("label", "box", "area", "crowd", "difficult")}
    tripled = replace(tripled, **fields)
    weights = draw_weights(40, 300, 1)
    alone = difference(resample(truth, [detectors[1]], weights), resample(truth, [detectors[0]], weights))
    first, second = (resample(tripled, [repeated(found)], weights, copies) for found in detectors[:2])
    grouped = difference(second, first)
    for part in ("value", "low", "high", "p"):
        np.testing.assert_allclose(getattr(grouped, part)[:, AR], getattr(alone, part)[:, AR], rtol=1e-9)


@pytest.mark.parametrize("sizes", [[4] * 15, [1, 9, 2, 2, 5, 1, 1, 3, 7, 2, 2, 4, 6, 1, 12, 3]])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.checkout
def test_the_evaluator_equals_the_closed_form_of_the_simulation(sizes: list[int], classes: int, root: Path) -> None:
    truth, detectors, group = scene(sizes, classes)
    weights = draw_weights(len(sizes), 50, 3)
    closed: Any = runpy.run_path(str(root / "scripts" / "evidence" / "group_coverage.py"))["samples"]
    found = np.zeros(len(group))
    found[detectors[0].image] = 1.0
    expected = closed(found, truth.label, np.stack([np.zeros_like(group), group]), weights)
    own = resample(truth, [detectors[0]], weights, group)
    np.testing.assert_allclose(own.value[:, 0, AR], expected.value[:, 0], rtol=1e-9)
    np.testing.assert_allclose(own.replicates[:, 0, AR], expected.replicates[:, 0], rtol=1e-9)
    np.testing.assert_allclose(own.images[0][AR], expected.images[0], rtol=1e-12)
    np.testing.assert_allclose(own.effective[0, AR], min(expected.effective[0], expected.images[0]), rtol=1e-12)


def test_a_class_in_one_group_borrows_its_variance() -> None:
    """Six images of one group are one unit: its deviation is the distance to the other classes times its weight."""
    truth, detectors, group = scene([6] * 12, classes=2)
    label = np.where(group == 5, 1, 0)
    truth = replace(truth, label=label)
    found = replace(detectors[0], label=label[detectors[0].image])
    weights = draw_weights(12, 200, 0)
    own = resample(truth, [found], weights, group)
    distance = (own.value[0, 2, AR] - own.value[0, 0, AR]) * np.sqrt(2)
    expected = own.value[0, 2, AR] + distance * (weights / weights.mean(axis=0) - 1)[5]
    np.testing.assert_allclose(own.replicates[0, 2, AR], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (r"^[^_\d]*([ab])_", "aabb"),
        (r"[ab](?=_)", "aabb"),
        (r"(cam \d)/", ["cam 1", "cam 1", "cam 2", "cam 2"]),
        ("parent", ["cam 1", "cam 1", "cam 2", "cam 2"]),
        ({"a_1.jpg": "x", "a_2": 3, "cam 2/b_1.PNG": "x", "cam 2\\ü b_2": 3}, "x3x3"),
    ],
)
def test_the_forms(spec: str | Mapping[str, str | int], expected: str | list[str]) -> None:
    groups = read_groups(spec, FILES)
    assert groups is not None
    assert [groups.names[i] for i in groups.index] == list(expected)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["", "image{}group\r\n", "File Name{}video\n"])
def test_a_csv_file_as_spreadsheets_write_it(tmp_path: Path, delimiter: str, header: str) -> None:
    file = tmp_path / "Groups.CSV"
    rows = ["a_1.jpg{}1", ' "a_2.jpg" {} 1', "", "b_1{}2 b", "cam 2/ü b_2.jpeg{}2 b", "other{}9"]
    text = header.format(delimiter) + "\r\n".join(rows).replace("{}", delimiter).replace(' "', '"').replace('" ', '"')
    file.write_text("\ufeff" + text + "\r\n", encoding="utf-8", newline="")
    groups = read_groups(file, FILES, others=("train/other.jpg",))
    assert groups is not None
    assert [groups.names[i] for i in groups.index] == ["1", "1", "2 b", "2 b"]
    assert groups.sizes.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (r"^a_\d", r"groups: 2 of 4 images have no group, the first is b_1\.PNG\. Expected a group for each image\."),
        (r"^(?:a|ü).|(b_1)", "3 of 4 images have no group, the first is a_1.jpg"),
        ("video", r"groups: 'video' matches none of 4 file names, such as 'a_1\.jpg'$"),
        ("_", r"groups: all 4 images are of one group, '_'\. Expected two groups or more"),
        ("(a", r"'\(a' is not a regular expression \(missing \), unterminated subpattern at position 0\)\. Expected a"),
        (
            {"a_1": 1, "a_9": 2},
            r"groups, 'a_9': there is no image 'a_9'\. Expected the file name or stem of an image\.",
        ),
        ({"a_1": 1}, r"3 of 4 images have no group, the first is a_2\.jpg"),
        ({"a_1": True}, "the group is True. Expected a name or number"),
        ({"a_1": 1, "a_1.jpg": 2}, "'a_1.jpg' is in two groups, 1 and 2"),
        (3, "groups: is 3. Expected a regular expression, a CSV file"),
        ("missing.csv", "missing.csv: cannot be read"),
    ],
)
def test_mistakes_are_one_line(spec: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_groups(spec, FILES)
    assert "\n" not in str(error.value)


def test_a_csv_row_that_is_wrong_is_named(tmp_path: Path) -> None:
    file = tmp_path / "g.csv"
    for text, message in (
        ("a_1,1,x\n", "line 1: has 3 cells. Expected two"),
        ("image,group\na_7.jpg,1\n", "line 2: there is no image 'a_7.jpg'"),
        ("a_1,\n", "line 1: the group is ''"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            read_groups(str(file), FILES)
    with pytest.raises(UserError, match=r"'x' is the name of 2 images\. Expected it with its folder or ending"):
        read_groups({"x": 1}, ("a/x.jpg", "b/x.jpg"))


def test_a_folder_is_no_group_where_there_is_none() -> None:
    with pytest.raises(UserError, match=r"2 of 2 images have no group, the first is x\.jpg"):
        read_groups("parent", ("x.jpg", "y.jpg"))


def test_a_catastrophic_expression_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gam_yolo.evaluation.groups._PATIENCE", 0.5)
    with pytest.raises(UserError, match=r"takes longer than 0\.5 s on 2 names\. Write it without repetitions inside"):
        read_groups(r"^(\w+\s?)*$", ["a" * 60 + "!.jpg", "b"])
