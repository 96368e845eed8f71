"""Which image and which class a number in a prediction file stands for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gam_yolo.annotations import Detections, GroundTruth, read_detections, read_truth, read_voc
from gam_yolo.errors import UserError
from gam_yolo.evaluation import coco_metrics, match_coco
from gam_yolo.io import read_json, read_json_parts

from .conftest import coco_file, photograph, thing, voc_folder, xml

N = 12
SIZE = (100, 80)


def ap50(truth: GroundTruth, detections: Detections) -> float:
    return float(np.nanmean(coco_metrics(match_coco(truth, detections), np.ones((len(truth.ids), 1)))[:, 1]))


def records(boxes: list[dict[str, Any]], **changes: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    """Return perfect detections, with some keys of each record replaced."""
    found = []
    for box in boxes:
        record = {**box, "score": 0.9} | {key: change(box) for key, change in changes.items()}
        found.append({key: value for key, value in record.items() if value is not None})
    return found


def write(tmp_path: Path, content: list[dict[str, Any]]) -> Path:
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(content))
    return path


def numbered(tmp_path: Path, present: range = range(N)) -> tuple[Path, list[dict[str, Any]]]:
    """COCO ids from 0 for images called 1.jpg, 2.jpg, ...: id 3 is 4.jpg."""
    images = [{"id": i, "file_name": f"{i + 1}.jpg", "width": 100, "height": 80} for i in range(N)]
    boxes = [{"image_id": i, "category_id": 1 + i % 2, "bbox": [5 * i, 5, 10, 10 + i]} for i in present]
    return coco_file(tmp_path / "truth.json", images, boxes), boxes


def test_ids_of_old_ultralytics_are_file_names(tmp_path: Path) -> None:
    """Up to 8.3.120 it wrote no file_name, and image_id from the file's name."""
    file, boxes = numbered(tmp_path)
    truth = read_truth(None, file)
    by_name = records(boxes, image_id=lambda box: box["image_id"] + 1)
    for content in (by_name, records(boxes)):
        assert ap50(truth, read_detections(write(tmp_path, content), truth)) == pytest.approx(1)


def test_a_name_of_another_system_is_found(tmp_path: Path) -> None:
    """As after `yolo val` on a Mac, which takes an accent apart, or on Windows."""
    images = [{"id": i, "file_name": f"caf\u00e9 {i}.jpg", "width": 100, "height": 80} for i in range(N)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [5 * i, 5, 10, 10 + i]} for i in range(N)]
    truth = read_truth(None, coco_file(tmp_path / "truth.json", images, boxes))
    for name in ("cafe\u0301 {}.jpg", "val\\caf\u00e9 {}.JPG"):
        content = [{**box, "file_name": name.format(box["image_id"])} for box in records(boxes)]
        assert ap50(truth, read_detections(write(tmp_path, content), truth)) == pytest.approx(1)


def test_ids_that_may_be_either_are_rejected(tmp_path: Path) -> None:
    """No detection on the first and the last image: the numbers fit both readings."""
    file, boxes = numbered(tmp_path, range(1, N - 1))
    truth = read_truth(None, file)
    for content in (records(boxes, image_id=lambda box: box["image_id"] + 1), records(boxes)):
        with pytest.raises(
            UserError, match=r"image_id .* may be an id in .* or the name of an image.*Add the 'file_name'"
        ):
            read_detections(write(tmp_path, content), truth)
    named = records(boxes, file_name=lambda box: f"{box['image_id'] + 1}.jpg", image_id=lambda box: box["image_id"] + 1)
    assert ap50(truth, read_detections(write(tmp_path, named), truth)) == pytest.approx(1)


CATEGORIES = [  # as Roboflow exports them: a placeholder first, then by the alphabet
    {"id": 0, "name": "animals", "supercategory": "none"},
    {"id": 1, "name": "cat", "supercategory": "animals"},
    {"id": 2, "name": "dog", "supercategory": "animals"},
    {"id": 3, "name": "hen", "supercategory": "animals"},
]
ORDER = ("hen", "cat", "dog")  # of the model, and of the dataset YAML


@pytest.fixture
def roboflow(tmp_path: Path) -> tuple[Path, str, list[dict[str, Any]]]:
    images = [{"id": i, "file_name": f"i{i}.jpg", "width": 100, "height": 80} for i in range(N)]
    boxes = [
        {"image_id": i, "category_id": 1 + k, "bbox": [30 * k, 5 + i, 20, 10 + i]} for i in range(N) for k in range(3)
    ]
    file = coco_file(tmp_path / "truth.json", images, boxes, categories=CATEGORIES)
    for image in images:
        photograph(tmp_path / "images/val" / image["file_name"], SIZE)
    yaml = tmp_path / "data.yaml"
    yaml.write_text(f"path: {tmp_path}\ntrain: images/val\nval: images/val\nnames: {list(ORDER)}\n")
    return file, str(yaml), boxes


def by_ultralytics(boxes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {c["id"]: c["name"] for c in CATEGORIES}
    return records(
        boxes,
        file_name=lambda box: f"i{box['image_id']}.jpg",
        category_id=lambda box: 1 + ORDER.index(names[box["category_id"]]),
    )


def test_ultralytics_numbers_classes_in_the_order_of_the_yaml(
    roboflow: tuple[Path, str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    file, yaml, boxes = roboflow
    truth = read_truth(yaml, file)
    assert ap50(truth, read_detections(write(tmp_path, by_ultralytics(boxes)), truth)) == pytest.approx(1)
    # The same file with COCO's ids, with and without names of images.
    for content in (records(boxes), records(boxes, file_name=lambda box: f"i{box['image_id']}.jpg")):
        assert ap50(truth, read_detections(write(tmp_path, content), truth)) == pytest.approx(1)


def test_classes_that_no_yaml_names_are_proven_or_rejected(
    roboflow: tuple[Path, str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    file, _, boxes = roboflow
    truth = read_truth(None, file)
    with pytest.raises(UserError, match=r"category_id numbers .*Name the dataset YAML with --data"):
        read_detections(write(tmp_path, by_ultralytics(boxes)), truth)
    proven = records(boxes, file_name=lambda box: f"i{box['image_id']}.jpg")
    assert ap50(truth, read_detections(write(tmp_path, proven), truth)) == pytest.approx(1)
    # Far from all objects but one, the boxes prove nothing.
    far = [proven[0], *({**record, "bbox": [0, 0, 2, 2]} for record in proven[1:])]
    with pytest.raises(UserError, match=r"category_id numbers may be ids of"):
        read_detections(write(tmp_path, far), truth)


def test_voc_classes_in_another_order_than_the_alphabet_are_rejected_without_the_yaml(tmp_path: Path) -> None:
    """VOC has no class numbers: BCCD's model has RBC, WBC, Platelets."""
    names = ("RBC", "WBC", "Platelets")
    boxes = [(k, (30 * k + 1, 5, 30 * k + 20, 30)) for k in range(3)]
    folder = voc_folder(tmp_path, "val", {f"i{i}": xml(*(thing(names[k], *box) for k, box in boxes)) for i in range(N)})
    found = [
        {"image_id": f"i{i}", "file_name": f"i{i}.jpg", "category_id": k + 1, "bbox": [30 * k, 4, 20, 26], "score": 0.9}
        for i in range(N)
        for k, _ in boxes
    ]
    with pytest.raises(UserError, match="do not fit the classes of the objects"):
        read_detections(write(tmp_path, found), read_voc(folder))
    truth = read_voc(folder, classes=names)
    assert ap50(truth, read_detections(write(tmp_path, found), truth)) == pytest.approx(1)


def test_a_plain_result_file_with_shifted_classes_is_rejected(
    roboflow: tuple[Path, str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Ultralytics before 8.3 numbered classes from 0 and wrote no file_name; here all its numbers are COCO ids too."""
    file, _, boxes = roboflow
    truth = read_truth(None, file)
    with pytest.raises(UserError, match="do not fit the classes of the objects"):
        read_detections(write(tmp_path, records(boxes, category_id=lambda box: box["category_id"] - 1)), truth)


def test_a_weak_detector_is_not_taken_for_wrong_numbers(
    roboflow: tuple[Path, str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    file, yaml, boxes = roboflow
    rng = np.random.default_rng(0)
    everything_is_a_cat = records(boxes, category_id=lambda _: 1)
    by_chance = records(boxes, category_id=lambda _: int(rng.integers(1, 4)))
    for truth in (read_truth(None, file), read_truth(yaml, file)):
        for content in (everything_is_a_cat, by_chance):
            assert len(read_detections(write(tmp_path, content), truth).image) == 3 * N


def test_a_file_without_categories_is_reported(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}]
    truth = read_truth(None, coco_file(tmp_path / "truth.json", images, [], categories=[]))
    found = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}]
    with pytest.raises(UserError, match=r"no category with the id 1\. Expected no detections") as caught:
        read_detections(write(tmp_path, found), truth)
    assert "\n" not in str(caught.value)


def test_a_name_in_several_folders_needs_an_id_of_such_an_image(tmp_path: Path) -> None:
    names = ["x/a.jpg", "y/a.jpg", "b.jpg"]
    images = [{"id": i, "file_name": name, "width": 100, "height": 80} for i, name in enumerate(names)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [5, 5, 10 + 9 * i, 10]} for i in range(3)]
    truth = read_truth(None, coco_file(tmp_path / "truth.json", images, boxes))
    found = records(boxes, file_name=lambda box: Path(names[box["image_id"]]).name)
    assert ap50(truth, read_detections(write(tmp_path, found), truth)) == pytest.approx(1)
    in_folders = records(boxes, image_id=lambda _: "a", file_name=lambda box: names[box["image_id"]])
    assert ap50(truth, read_detections(write(tmp_path, in_folders), truth)) == pytest.approx(1)
    for wrong in ("a", 2):  # what Ultralytics writes; the id of another image
        with pytest.raises(UserError, match=r"truth\.json has several images with the file name 'a\.jpg'"):
            read_detections(write(tmp_path, [{**found[0], "image_id": wrong}, *found[1:]]), truth)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x, y, w, h: [x / 100, y / 80, w / 100, h / 80], f"all {N} boxes lie within one pixel"),
        (lambda x, y, w, h: [x, y, 60 + x + w, 80 + y + h], f"{N} of {N} boxes extend well beyond their image"),
        (lambda x, y, w, h: [x / 2, y / 2, w / 2, h / 2], f"none of its {N} boxes overlaps any of {N} objects"),
    ],
)
def test_detections_in_another_frame_are_rejected(
    change: Callable[..., list[float]], says: str, tmp_path: Path
) -> None:
    file, boxes = numbered(tmp_path)
    truth = read_truth(None, file)
    content = records(boxes, bbox=lambda box: change(*box["bbox"]), file_name=lambda box: f"{box['image_id'] + 1}.jpg")
    with pytest.raises(
        UserError, match=rf"predictions\.json: {says}.*in pixels of the original image.*compare its checkpoint"
    ):
        read_detections(write(tmp_path, content), truth)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.25, 2.0])
@pytest.mark.parametrize("share", [3, N])
def test_boxes_in_pixels_of_the_annotation_are_rejected_where_images_were_resized(
    factor: float, share: int, tmp_path: Path
) -> None:
    """The annotations are of 400 x 320 pixels; some or all of the images were saved at another size."""
    rng = np.random.default_rng(0)
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 400, "height": 320} for i in range(N)]
    boxes = [
        {"image_id": i, "category_id": 1 + i % 2, "bbox": [*rng.uniform(100, 250, 2).round(), 60, 50]}
        for i in range(N)
        for _ in range(2)
    ]
    coco_file(tmp_path / "annotations/instances_val.json", images, boxes)
    for i in range(N):
        size = (round(400 * factor), round(320 * factor)) if i < share else (400, 320)
        photograph(tmp_path / f"images/val/{i}.jpg", size, shade=i)
    truth = read_truth(None, tmp_path / "annotations/instances_val.json")
    assert len(truth.scaled) == share

    def made(in_files: bool) -> Path:
        def box(record: dict[str, Any]) -> list[float]:
            own = factor if in_files and record["image_id"] < share else 1
            return [(value + noise) * own for value, noise in zip(record["bbox"], rng.normal(0, 3, 4), strict=True)]

        return write(tmp_path, records(boxes, bbox=box))

    right = read_detections(made(in_files=True), truth)
    assert ap50(truth, right) > 0.9
    says = rf"json: its boxes are in pixels of the annotated size.*on these {share}, they overlap {2 * share} objects"
    with pytest.raises(UserError, match=says):
        read_detections(made(in_files=False), truth)


def test_sizes_that_differ_by_rounding_reject_nothing(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 400, "height": 267} for i in range(N)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [300, 200, 60, 50]} for i in range(N)]
    coco_file(tmp_path / "annotations/instances_val.json", images, boxes)
    for i in range(N):
        photograph(tmp_path / f"images/val/{i}.jpg", (400, 266), shade=i)
    truth = read_truth(None, tmp_path / "annotations/instances_val.json")
    assert "12 images saved at another size" in truth.notes[0]
    assert ap50(truth, read_detections(write(tmp_path, records(boxes)), truth)) == pytest.approx(1)


def test_one_hit_shows_that_the_frame_is_right(tmp_path: Path) -> None:
    file, boxes = numbered(tmp_path)
    truth = read_truth(None, file)
    content = records(boxes, bbox=lambda box: box["bbox"] if not box["image_id"] else [70, 50, 9, 9])
    content = [{**record, "file_name": f"{record['image_id'] + 1}.jpg"} for record in content]
    assert len(read_detections(write(tmp_path, content), truth).box) == N


@pytest.mark.parametrize("score", [-0.1, 1.5, 97])
def test_scores_outside_0_to_1_are_rejected_with_their_record(score: float, tmp_path: Path) -> None:
    file, boxes = numbered(tmp_path)
    content = records(boxes, file_name=lambda box: f"{box['image_id'] + 1}.jpg")
    content[3]["score"] = score
    with pytest.raises(UserError, match=rf"record 3: 'score' is {score:g}\. Expected a confidence from 0 to 1"):
        read_detections(write(tmp_path, content), read_truth(None, file))


@pytest.mark.parametrize("characters", [1, 7, 30, 1000])
@pytest.mark.parametrize(
    "text",
    [
        '\ufeff [{"a": [1.5, -2e3]},\r\n {"a": null} , {"b": {}}]\n',
        '[{"a": "x},{y"}, {"a": {"b": {"c": 1}, "d": 2}}, {"a": "\\"},"}]',
        "[]",
        '[{"a": 1},]',
        '[{"a": 1},, {"a": 2}]',
        '[{"a": 1}, {"a": 2}',
        '[{"a": 1}] [',
        '{"a": [{"b": 1}, {"b": 2}]}',
        '[[{"a": 1}, {"a": 2}]]',
    ],
)
def test_a_list_in_parts_is_that_of_the_whole_file_or_an_error(text: str, characters: int, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_bytes(text.encode())
    try:
        parts = [record for part in read_json_parts(path, characters) for record in part]
    except ValueError:
        return  # the file is then read as a whole
    assert parts == read_json(path)


def test_plain_records_are_read_in_parts(tmp_path: Path) -> None:
    content = [{"image_id": i, "bbox": [1, 2.5, 3, 4], "score": 0.5} for i in range(50)]
    parts = list(read_json_parts(write(tmp_path, content), 100))
    assert len(parts) > 10
    assert [record for part in parts for record in part] == content


def test_an_error_in_a_later_part_names_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, boxes = numbered(tmp_path)
    found = records(boxes)
    found[9]["score"] = True
    monkeypatch.setattr("gam_yolo.annotations.detections.read_json_parts", lambda path: read_json_parts(path, 90))
    with pytest.raises(UserError, match=r"record 9: 'score' is True"):
        read_detections(write(tmp_path, found), read_truth(None, file))


def test_records_that_occur_twice_are_rejected(tmp_path: Path) -> None:
    """As where the files of several runs were joined; each second detection would count as a false alarm."""
    file, boxes = numbered(tmp_path)
    truth = read_truth(None, file)
    once = [
        {**record, "score": 0.5 + i / 100}
        for i, record in enumerate(records(boxes, file_name=lambda b: f"{b['image_id'] + 1}.jpg"))
    ]
    with pytest.raises(UserError, match=r"12 of 24 records repeat another one\. Expected each detection once"):
        read_detections(write(tmp_path, once + once), truth)
    both = [*once, *({**record, "category_id": 3 - record["category_id"]} for record in once)]
    assert len(read_detections(write(tmp_path, both), truth).score) == 24  # one box may be of two classes


def test_corners_are_rejected_also_where_most_lie_inside_the_image(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in range(N)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [60 if i < 4 else 5, 5, 30, 20 + i]} for i in range(N)]
    truth = read_truth(None, coco_file(tmp_path / "truth.json", images, boxes))

    def corners(box: dict[str, Any]) -> list[int]:
        x, y, w, h = box["bbox"]
        return [x, y, x + w, y + h]

    with pytest.raises(UserError, match=r"4 of 12 boxes extend well beyond their image"):
        read_detections(write(tmp_path, records(boxes, bbox=corners)), truth)


@pytest.mark.parametrize(
    ("order", "change"),
    [
        (r"corners \[x1, y1, x2, y2\]", lambda x, y, w, h: [x, y, x + w, y + h]),
        (r"corners \[y1, x1, y2, x2\]", lambda x, y, w, h: [y, x, y + h, x + w]),
        (r"\[centre x, centre y, width, height\]", lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]),
        (r"\[y, x, height, width\]", lambda x, y, w, h: [y, x, h, w]),
    ],
)
@pytest.mark.parametrize("wrong", ["predictions", "truth"])
def test_numbers_of_boxes_in_another_order_are_rejected_where_the_images_cannot_show_it(
    order: str, change: Callable[..., list[float]], wrong: str, tmp_path: Path
) -> None:
    """All boxes lie inside their images however they are read, and some still find an object."""
    rng = np.random.default_rng(0)
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 1000, "height": 800} for i in range(N)]
    boxes: list[dict[str, Any]] = [
        {"image_id": i, "category_id": 1, "bbox": [*rng.uniform(5, 120, 2), 200, 150]} for i in range(N) for _ in "ab"
    ]
    changed = [{**box, "bbox": change(*box["bbox"])} for box in boxes]
    noise = [{"image_id": i, "category_id": 1, "bbox": [500, 400, 90, 70], "score": 0.1} for i in range(N)]

    def read(annotated: list[dict[str, Any]], found: list[dict[str, Any]]) -> Detections:
        truth = read_truth(None, coco_file(tmp_path / "truth.json", images, annotated))
        return read_detections(write(tmp_path, records(found) + noise), truth)

    assert len(read(boxes, boxes).box) == 3 * N
    either = order.startswith(r"\[y")  # an exchange of x and y undoes itself
    with pytest.raises(
        UserError, match=rf"{'(predictions|truth)' if either else wrong}\.json: its boxes seem to be {order}"
    ):
        read(changed, boxes) if wrong == "truth" else read(boxes, changed)


@pytest.mark.parametrize("side", [512, 640])
@pytest.mark.parametrize("way", ["stretched", "padded", "centred"])
def test_boxes_in_pixels_of_the_network_input_are_rejected(way: str, side: int, tmp_path: Path) -> None:
    """As where the padding was not taken off again. The images are of several sizes."""
    rng = np.random.default_rng(0)
    sizes = [(600, 450), (400, 600), (500, 375)]
    images = [{"id": i, "file_name": f"{i}.jpg", "width": w, "height": h} for i, (w, h) in enumerate(sizes * (N // 3))]
    boxes = [
        {"image_id": i, "category_id": 1, "bbox": [*rng.uniform(10, 200, 2), 120, 90]} for i in range(N) for _ in "ab"
    ]
    truth = read_truth(None, coco_file(tmp_path / "truth.json", images, boxes))

    def into_input(box: dict[str, Any]) -> list[float]:
        (w, h), (x, y, width, height) = sizes[box["image_id"] % 3], box["bbox"]
        across = down = side / max(w, h)
        if way == "stretched":
            across, down = side / w, side / h
        left, top = ((side - w * across) / 2, (side - h * down) / 2) if way == "centred" else (0, 0)
        return [x * across + left, y * down + top, width * across, height * down]

    assert len(read_detections(write(tmp_path, records(boxes)), truth).box) == 2 * N
    with pytest.raises(
        UserError, match=rf"predictions\.json: its boxes seem to be in pixels of a network input of {side}"
    ):
        read_detections(write(tmp_path, records(boxes, bbox=into_input)), truth)


def test_a_detector_that_finds_little_is_not_taken_for_another_order(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in range(50)]
    for seed in range(3):
        rng = np.random.default_rng(seed)

        def boxes(per_image: int, rng: np.random.Generator = rng) -> list[dict[str, Any]]:
            place, extent = rng.uniform(0, 60, (50, per_image, 2)), rng.uniform(5, 40, (50, per_image, 2))
            found = np.concatenate([place, extent], axis=2)
            return [{"image_id": i, "category_id": 1, "bbox": b} for i in range(50) for b in found[i].tolist()]

        truth = read_truth(None, coco_file(tmp_path / "truth.json", images, boxes(3)))
        found = [{**box, "score": float(rng.uniform())} for box in boxes(20)]
        assert len(read_detections(write(tmp_path, found), truth).score) == 1000
