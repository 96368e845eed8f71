from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gam_yolo
from gam_yolo.annotations.images import image_id_of
from gam_yolo.errors import UserError
from gam_yolo.evaluation import match_coco, read_coco, read_detections, read_truth, read_voc, read_yolo

TRUTH = {
    "images": [{"id": 7, "file_name": "b.jpg", "width": 100, "height": 50}, {"id": 3, "file_name": "a.jpg"}],
    "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 30, 40], "area": 600, "iscrowd": 0},
        {"id": 2, "image_id": 3, "category_id": 5, "bbox": [0, 0, 10, 10], "iscrowd": 1},
    ],
}
RESULT = {"image_id": 7, "category_id": 2, "bbox": [1, 2, 30, 40], "score": 0.5}


@pytest.fixture
def truth_file(tmp_path: Path) -> Path:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(TRUTH))
    return path


def test_coco_files_are_ordered_by_id_as_pycocotools_does(truth_file: Path) -> None:
    truth = read_coco(truth_file)
    assert truth.ids == (3, 7)
    assert truth.classes == ("cat", "dog")
    assert truth.category_ids == (2, 5)
    assert truth.image.tolist() == [1, 0]
    assert truth.label.tolist() == [0, 1]
    assert truth.area.tolist() == [600, 100]  # the mask's where there is one
    assert truth.crowd.tolist() == [False, True]


def test_the_digest_changes_with_any_object(truth_file: Path) -> None:
    before = read_coco(truth_file).digest
    assert before == read_coco(truth_file).digest
    changed = json.loads(truth_file.read_text())
    changed["annotations"][0]["bbox"][0] += 1
    truth_file.write_text(json.dumps(changed))
    assert read_coco(truth_file).digest != before


def test_ultralytics_predictions_are_matched_by_file_name(truth_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(
        json.dumps(
            [
                {**RESULT, "image_id": "b", "file_name": "b.jpg", "category_id": 5},
                {**RESULT, "image_id": 3, "category_id": 5, "score": 1},
            ]
        )
    )
    found = read_detections(path, read_coco(truth_file))
    assert found.image.tolist() == [1, 0]
    assert found.score.tolist() == [0.5, 1]


def test_digits_that_are_no_decimals_are_a_name() -> None:
    assert [image_id_of(f"{stem}.jpg") for stem in ("007", "7a", "²", "½")] == [7, "7a", "²", "½"]


def rejected(read: object, match: str) -> None:
    assert callable(read)
    with pytest.raises(UserError, match=match) as caught:
        read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("records", "match"),
    [
        ({"annotations": []}, "not a list of records"),
        (
            [{**RESULT, "image_id": 8}],
            r"truth\.json has no image 8, nor any other of its.*Expected predictions of the same dataset",
        ),
        ([{**RESULT, "file_name": "c.jpg"}], "'c.jpg'.*Expected predictions of the same dataset"),
        ([{**RESULT, "image_id": [7]}], r"no image \[7\].*Expected predictions of the same dataset"),
        ([{**RESULT, "category_id": 1}], r"truth\.json has no category with the id 1\. Expected 2, 5\."),
        ([RESULT, {**RESULT, "score": float("nan")}], r"record 1: 'score' is nan\. Expected a finite number"),
        ([{**RESULT, "score": None}], "'score' is None"),
        ([{**RESULT, "bbox": [1, 2, 3]}], r"record 0: 'bbox' is \[1, 2, 3\]\. Expected four finite numbers"),
        ([{**RESULT, "bbox": [1, 2, -3, 4]}], "four finite numbers"),
        ([{**RESULT, "bbox": [1, float("inf"), 3, 4]}], "four finite numbers"),
        ([{**RESULT, "bbox": [120, 2, 30, 40]}], "beside image 7 of 100 x 50 pixels"),
    ],
)
def test_bad_predictions_are_reported_on_one_line(
    truth_file: Path, tmp_path: Path, records: object, match: str
) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(records))
    rejected(lambda: read_detections(path, read_coco(truth_file)), match)


def test_predictions_of_a_part_of_the_split_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in range(1, 4)]
    annotations = [{**TRUTH["annotations"][0], "id": i, "image_id": i} for i in range(1, 4)]
    path.write_text(json.dumps({**TRUTH, "images": images, "annotations": annotations}))
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps([{**RESULT, "image_id": 1}]))
    rejected(lambda: read_detections(predictions, read_coco(path)), "on only 1 of the 3 images with objects")
    predictions.write_text("[]")  # a detector that finds nothing
    assert not len(read_detections(predictions, read_coco(path)).image)


def test_a_truncated_file_is_distinguished_from_a_complete_one(truth_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps([RESULT] * 3)[:-20])
    rejected(lambda: read_detections(path, read_coco(truth_file)), "line 1, column [0-9]+: is not valid JSON.*cut off")
    rejected(lambda: read_detections(tmp_path / "none.json", read_coco(truth_file)), "No such file")
    path.write_bytes(b"\xff\xfe\x00")
    rejected(lambda: read_coco(path), "not UTF-8 text")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": [TRUTH["images"][0]] * 2}, r"images: several have the id 7\. Expected each id once"),
        ({"annotations": [TRUTH["annotations"][0]] * 2}, r"annotations: several have the id 1\. Expected each id once"),
        ({"images": TRUTH["images"][:1]}, r"annotations\[1\]: image_id 3 is not the id of one of the file's records"),
        ({"categories": TRUTH["categories"][:1]}, r"annotations\[0\]: category_id 2 is not the id of"),
        ({"images": []}, "lists no images"),
        ({"categories": None}, "key 'categories' is None. Expected a list of records"),
        ({"annotations": [{**TRUTH["annotations"][0], "area": float("nan")}]}, "'area' is nan"),
        (
            {"annotations": [{k: v for k, v in TRUTH["annotations"][0].items() if k != "id"}]},
            "has the id None. Expected a whole number\\.",
        ),
        ({"images": [{**TRUTH["images"][0], "id": [7]}]}, r"images\[0\]: has the id \[7\]"),
        ({"images": [{**TRUTH["images"][0], "width": "x"}, TRUTH["images"][1]]}, r"images\[0\]: 'width' is 'x'"),
        (
            {"annotations": [{**TRUTH["annotations"][0], "image_id": {}}]},
            r"annotations\[0\]: image_id \{\} is not the id of",
        ),
    ],
)
def test_bad_annotations_are_reported_on_one_line(truth_file: Path, change: dict[str, Any], match: str) -> None:
    truth_file.write_text(json.dumps({**TRUTH, **change}))
    rejected(lambda: read_coco(truth_file), match)


VOC = """<annotation><filename>000005.jpg</filename><size><width>50</width><height>40</height></size>
<object><name>cat</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10</xmax><ymax>40</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>8</xmax><ymax>9</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>10</xmax><ymax>10</ymax></bndbox></object></annotation>"""


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("000005\n")
    (tmp_path / "Annotations" / "000005.xml").write_text(VOC)
    return tmp_path


def test_voc_pixels_count_from_one_and_include_the_last(voc: Path) -> None:
    truth = read_voc(voc)
    assert truth.ids == (5,)
    assert truth.classes == ("cat", "dog")
    assert truth.box.tolist() == [[0, 1, 10, 39], [8, 8, 2, 2]]  # those without extent are left out
    assert truth.difficult.tolist() == [True, False]


def test_bad_voc_is_reported_on_one_line(voc: Path) -> None:
    rejected(
        lambda: read_voc(voc, classes=["cat", "dogs"]),
        r"000005.xml, object\[1\]: class 'dog' is not one of the 2 .*Did you mean 'dogs'",
    )
    rejected(lambda: read_voc(voc, "test"), "test.txt: cannot be read")
    path = voc / "Annotations" / "000005.xml"
    path.write_text(VOC.replace("<xmin>1</xmin>", "<xmin>one</xmin>"))
    rejected(lambda: read_voc(voc), "<bndbox><xmin> is 'one'")
    path.write_text(VOC[:-30])
    rejected(lambda: read_voc(voc), "not valid XML")
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    rejected(lambda: read_voc(voc), "not valid XML")
    path.unlink()
    rejected(lambda: read_voc(voc), "000005.xml: cannot be read")
    (voc / "ImageSets/Main/val.txt").write_bytes(b"\xff\xfe\x00")
    rejected(lambda: read_voc(voc), "val.txt: is not UTF-8 text. Expected a list of image names")


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    for folder in ("images/val", "labels/val"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("10", "9", "x"):
        Image.new("RGB", (200, 100)).save(tmp_path / "images/val" / f"{name}.jpg")
    (tmp_path / "labels/val/10.txt").write_text("0 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.4\n\n")
    (tmp_path / "labels/val/x.txt").write_text("1 0.1 0.1 0.3 0.1 0.3 0.5 0.1 0.5\n")
    (tmp_path / "labels/val/9.txt").write_text("")
    path = tmp_path / "data.yaml"
    path.write_text(f"path: {tmp_path}\ntrain: images/val\nval: images/val\nnames: [cat, dog]\n")
    return path


def test_yolo_labels_become_pixels(yolo: Path) -> None:
    truth = read_yolo(yolo)
    assert truth.ids == (9, 10, "x")
    assert truth.classes == ("cat", "dog")
    np.testing.assert_allclose(
        truth.box, [[80, 30, 40, 40], [20, 10, 40, 40]]
    )  # the second row once, the polygon's box
    assert truth.image.tolist() == [1, 2]
    np.testing.assert_allclose(truth.area, [1600, 1600])


@pytest.mark.parametrize("shape", [[2, 2], [3, 3]])
def test_keypoints_after_a_box_are_no_polygon(yolo: Path, shape: list[int]) -> None:
    """An even count of numbers would pass for one. Detectors are trained on the box alone."""
    yolo.write_text(f"{yolo.read_text()}kpt_shape: {shape}\n")
    points = " 0.9 0.9" * 2 if shape == [2, 2] else " 0.9 0.9 2" * 3
    (yolo.parent / "labels/val/10.txt").write_text(f"0 0.5 0.5 0.2 0.4{points}\n")
    (yolo.parent / "labels/val/x.txt").unlink()
    np.testing.assert_allclose(read_yolo(yolo).box, [[80, 30, 40, 40]])


def test_bad_yolo_data_is_reported_on_one_line(yolo: Path) -> None:
    label = yolo.parent / "labels/val/9.txt"
    for text, match in (
        ("2 0.5 0.5 0.1 0.1", "line 1: has class 2. Expected 0 to 1"),
        ("0 50 50 10 10", "relative to the image"),
        ("0 0.5 0.5 0.1", "has 4 numbers"),
        ("cat 0.5 0.5 0.1 0.1", "reads 'cat 0.5"),
    ):
        label.write_text(text)
        rejected(lambda: read_yolo(yolo), match)
    label.write_bytes(b"\xff\xfe\x00")
    rejected(lambda: read_yolo(yolo), "9.txt: is not UTF-8 text. Expected labels")
    label.write_text("")
    rejected(lambda: read_yolo(yolo.parent / "none.yaml"), "none.yaml: no such dataset YAML")
    rejected(lambda: read_yolo(yolo, "test"), "has no split 'test'. Expected one of train, val")
    (yolo.parent / "images/val/9.png").write_bytes(b"")
    rejected(lambda: read_yolo(yolo), r"several have the image name \(without folder and ending\) 9")
    (yolo.parent / "images/val/9.jpg").unlink()
    rejected(lambda: read_yolo(yolo), "9.png: is empty")


@pytest.mark.parametrize("text", ["names: []", "names: {}", "nc: 0", "nc: 0\nnames: []"])
def test_a_dataset_without_classes_names_file_and_key(yolo: Path, text: str) -> None:
    yolo.write_text(yolo.read_text().replace("names: [cat, dog]", text))
    key = "names" if "names" in text else "nc"
    says = rf"^{re.escape(str(yolo))}, key '{key}': is (0|\[\]|{{}}). Expected one class at least\.$"
    rejected(lambda: read_yolo(yolo), says)
    rejected(lambda: gam_yolo.prepare(yolo), says)


def test_original_annotations_come_before_labels(yolo: Path, voc: Path, truth_file: Path) -> None:
    assert read_truth(str(yolo), None).source == str(yolo)
    assert read_truth(str(yolo), truth_file).source == str(truth_file)
    folder = yolo.parent
    text = yolo.read_text()
    for name, size in {"000005.jpg": (50, 40), "a.jpg": (100, 50), "b.jpg": (100, 50)}.items():
        Image.new("RGB", size).save(folder / "images/val" / name)
    (folder / "annotations/val").mkdir(parents=True)
    (folder / "annotations/val/000005.xml").write_text(VOC)
    yolo.write_text(text + "protocol: voc\n")
    assert read_truth(str(yolo), None).difficult.tolist() == [True, False]
    (folder / "annotations/instances_val.json").write_text(truth_file.read_text())
    yolo.write_text(text + "protocol: coco\n")
    assert read_truth(str(yolo), None).crowd.tolist() == [False, True]
    yolo.write_text(text + "protocol: kitti\n")
    rejected(lambda: read_truth(str(yolo), None), "protocol is 'kitti'. Expected 'coco' or 'voc'")
    rejected(lambda: read_truth(None, None), "no ground truth")
    assert read_truth(None, voc).classes == ("cat", "dog")


JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**400, float("nan"), float("inf"), "", "x" * 500, "7", [], {}, [[1]], [1, 2, 3, 4],
)  # fmt: skip


def broken(document: Any) -> Iterator[Any]:
    """Yield a JSON document with junk in each place in turn, whatever that place is for."""
    yield from JUNK
    if isinstance(document, (dict, list)):
        for place in document if isinstance(document, dict) else range(len(document)):
            for part in broken(document[place]):
                copy = document.copy()
                copy[place] = part
                yield copy


def line_or_value(read: Callable[[], Any]) -> Any:
    """What `read` returns, if it does; an error must be one line."""
    try:
        return read()
    except UserError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 600
    return None


def test_junk_anywhere_is_rejected_on_one_line_or_does_no_harm(tmp_path: Path) -> None:
    path, result = tmp_path / "truth.json", tmp_path / "result.json"
    results = [RESULT, {**RESULT, "image_id": "a", "file_name": "a.jpg", "category_id": 5}]
    path.write_text(json.dumps(TRUTH))
    whole = read_coco(path)
    read, held = 0, 0
    for document in broken(TRUTH):
        path.write_text(json.dumps(document))
        if truth := line_or_value(lambda: read_coco(path)):
            assert np.isfinite(truth.box).all()
            assert np.isfinite(truth.area).all()
            assert len(truth.digest) == 64
            read += 1
    for document in broken(results):
        result.write_text(json.dumps(document))
        if found := line_or_value(lambda: read_detections(result, whole)):
            assert np.isfinite(found.box).all()
            assert np.isfinite(found.score).all()
            match_coco(whole, found)
            held += 1
    assert read > 50  # extents, names and ids may well be other numbers or texts
    assert held > 20


@pytest.mark.parametrize(
    ("text", "match"),
    [("[" * 100_000, "cannot be read as JSON"), ("1" * 5000, "cannot be read as JSON"), ("", "not valid JSON")],
)
def test_json_beyond_all_bounds_is_rejected(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(text)
    rejected(lambda: read_coco(path), match)


@pytest.mark.parametrize("box", [["1", "2", "3", "4"], [True, False, 3, 4], [[1, 2, 3, 4]], [1, 2, 10**400, 4]])
def test_boxes_are_of_numbers(truth_file: Path, tmp_path: Path, box: list[Any]) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps([{**RESULT, "bbox": box}]))  # by itself: what all boxes have in common is no excuse
    rejected(lambda: read_detections(path, read_coco(truth_file)), "four finite numbers")
