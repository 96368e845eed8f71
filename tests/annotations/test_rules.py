from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gam_yolo.annotations import GroundTruth, read_coco, read_truth, read_voc, read_yolo
from gam_yolo.datasets import init_yaml, prepare
from gam_yolo.errors import UserError

from .conftest import (
    EXIF_ROTATED,
    EXIF_UPSIDE_DOWN,
    coco_file,
    photograph,
    thing,
    voc_folder,
    written_boxes,
    xml,
)

WriteYaml = Callable[..., str]


def counted(truth: GroundTruth) -> int:
    return int((~truth.crowd & ~truth.difficult).sum())


@pytest.mark.parametrize(
    ("name", "variable", "folder"),
    [
        ("bccd-local", "GAM_YOLO_BCCD", "BCCD"),
        ("voc-local", "GAM_YOLO_VOC", "VOC2007"),
        ("coco-local", "GAM_YOLO_COCO", "coco"),
    ],
)
def test_preparation_and_evaluator_count_the_same_in_every_split(
    name: str, variable: str, folder: str, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(shared / "data" / folder))
    yaml = f"{name}.yaml"
    found = prepare(yaml)
    for split, counts in zip(("train", "val", "test"), found.splits.values(), strict=False):
        truth, labels = read_truth(yaml, None, split), read_yolo(yaml, split)
        assert len(truth.ids) == len(labels.ids) == counts.images
        assert counted(truth) == len(labels.image) == counts.boxes
        assert int(truth.difficult.sum()) == counts.difficult
        assert int(truth.crowd.sum()) == counts.crowd
        assert counts.images > 50
        # Not only as many: each label is the object's box.
        kept = ~truth.crowd & ~truth.difficult
        rows = [
            sorted(
                (i, c, *b)
                for i, c, b in zip(t.image[k], names[t.label[k]], np.round(t.box[k], 2).tolist(), strict=True)
            )
            for t, k, names in (
                (truth, kept, np.array(truth.classes)),
                (labels, np.ones(len(labels.image), bool), np.array(labels.classes)),
            )
        ]
        assert [row[:2] for row in rows[0]] == [row[:2] for row in rows[1]]
        np.testing.assert_allclose([row[2:] for row in rows[0]], [row[2:] for row in rows[1]], atol=0.011)


def test_bccd_val_has_1137_objects(shared: Path) -> None:
    assert len(read_voc(shared / "data/BCCD").image) == 1137  # one of 1,138 is a point


@pytest.mark.parametrize(
    ("flag", "difficult"),
    [
        ("", 0),
        ("<difficult/>", 0),
        ("<difficult> </difficult>", 0),
        ("<difficult>Unspecified</difficult>", 0),
        ("<difficult>0</difficult>", 0),
        ("<difficult>1</difficult>", 1),
        ("<difficult>1.0</difficult>", 1),
        ("<difficult>True</difficult>", 1),
        ("<difficult>FALSE</difficult>", 0),
        ("<difficult>yes</difficult>", 1),
        ("<difficult>no</difficult>", 0),
    ],
)
def test_difficult_is_read_the_same_by_both(flag: str, difficult: int, tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    folder = voc_folder(tmp_path / "kit", "train", {"a": xml(thing("cat", 1, 1, 9, 9, flag), thing("dog", 5, 5, 9, 9))})
    photograph(folder / "JPEGImages/a.jpg")
    yaml = dataset_yaml("voc", folder, val="images/train")
    assert prepare(yaml).splits["train"].difficult == difficult
    assert prepare(yaml).splits["train"].boxes == 2 - difficult
    assert read_truth(yaml, None).difficult.tolist() == [bool(difficult), False]


def test_a_size_of_zero_is_no_size(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    """Tools write it that do not know the size: both readers take the image's own."""
    text = xml(thing("cat", 11, 21, 60, 60), thing("dog", 5, 5, 9, 9))
    zero = re.sub(r"<(width|height)>\d+<", r"<\1>0<", text)
    assert zero != text
    folder = voc_folder(tmp_path / "kit", "train", {"a": zero})
    photograph(folder / "JPEGImages/a.jpg")
    yaml = dataset_yaml("voc", folder, val="images/train")
    found = prepare(yaml)
    np.testing.assert_allclose(written_boxes(found.folder, "train", (100, 80))["a"][0], [10, 20, 50, 40], atol=1e-5)
    np.testing.assert_allclose(read_truth(yaml, None).box[0], [10, 20, 50, 40])


def test_boxes_are_clipped_and_left_out_the_same_by_both(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    boxes = [(0, 0, 50, 40), (90, 70, 30, 30), (-10, 5, 20, 20), (100, 5, 9, 9), (5, 5, 0, 9), (9, 9, -3, 4)]
    records = [{"image_id": 1, "category_id": 1, "bbox": list(box)} for box in boxes]
    coco_file(
        tmp_path / "src/annotations/instances_val.json",
        [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        records,
    )
    photograph(tmp_path / "src/val/a.jpg")
    yaml = dataset_yaml("coco", tmp_path / "src", train="images/val")
    found = prepare(yaml)
    counts = found.splits["val"]
    assert (counts.boxes, counts.degenerate, counts.clipped) == (3, 3, 2)
    expected = [[0, 0, 50, 40], [90, 70, 10, 10], [0, 5, 10, 20]]
    truth = read_truth(yaml, None)
    np.testing.assert_allclose(written_boxes(found.folder, "val", (100, 80))["a"], expected, atol=1e-5)
    np.testing.assert_array_equal(truth.box, expected)
    assert truth.area.tolist() == [2000, 100, 200]
    assert truth.notes[:2] == ("3 degenerate boxes left out", "2 boxes clipped to their image")


def small(tmp_path: Path, size: tuple[int, int], orientation: int = 1) -> tuple[Path, Path]:
    """Write a VOC and a COCO folder that declare 100 x 80; the image is of another size."""
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 11, 21, 30, 60))})
    photograph(folder / "JPEGImages/a.jpg", size, orientation)
    coco_file(
        tmp_path / "src/annotations/instances_val.json",
        [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        [{"image_id": 1, "category_id": 1, "bbox": [10, 20, 20, 40], "area": 500}],
    )
    photograph(tmp_path / "src/val/a.jpg", size, orientation)
    return folder, tmp_path / "src"


@pytest.mark.parametrize("protocol", ["voc", "coco"])
def test_images_saved_at_another_size_have_their_boxes_scaled(
    protocol: str, tmp_path: Path, dataset_yaml: WriteYaml
) -> None:
    voc, coco = small(tmp_path, (50, 40))
    yaml = dataset_yaml(protocol, voc if protocol == "voc" else coco, train="images/val")
    found = prepare(yaml)
    assert found.splits["val"].scaled == 1
    assert "another size" in found.warnings[0]
    np.testing.assert_allclose(written_boxes(found.folder, "val", (50, 40))["a"], [[5, 10, 10, 20]], atol=1e-5)
    gt = voc if protocol == "voc" else coco / "annotations/instances_val.json"
    for truth in (read_truth(yaml, None), read_truth(None, gt)):
        assert truth.box.tolist() == [[5, 10, 10, 20]]
        assert truth.sizes.tolist() == [[50, 40]]
        assert truth.area.tolist() == ([125] if protocol == "coco" else [200])
        assert "another size" in truth.notes[0]


@pytest.mark.parametrize(
    ("size", "orientation", "kind"),
    [
        ((100, 80), EXIF_ROTATED, "1 annotated without the rotation in the image's EXIF data"),
        ((80, 100), 1, "1 with width and height swapped"),
        ((100, 100), 1, "1 of another shape"),
    ],
)
@pytest.mark.parametrize("protocol", ["voc", "coco"])
def test_images_in_another_frame_are_rejected_with_counts(
    protocol: str, size: tuple[int, int], orientation: int, kind: str, tmp_path: Path, dataset_yaml: WriteYaml
) -> None:
    voc, coco = small(tmp_path, size, orientation)
    yaml = dataset_yaml(protocol, voc if protocol == "voc" else coco, train="images/val")
    gt = voc if protocol == "voc" else coco / "annotations/instances_val.json"
    for read in (lambda: prepare(yaml), lambda: read_truth(None, gt)):
        with pytest.raises(UserError, match=rf"1 image differs in shape .*\({kind}\).*a\.jpg: .*annotated as 100 x 80"):
            read()
    assert not list((tmp_path / "datasets").iterdir())  # nothing half-prepared


def test_a_box_in_the_displayed_frame_of_a_rotated_image_is_right(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 11, 21, 30, 60))})
    photograph(folder / "JPEGImages/a.jpg", (80, 100), EXIF_ROTATED)  # displayed as 100 x 80
    found = prepare(dataset_yaml("voc", folder, train="images/val"))
    np.testing.assert_allclose(written_boxes(found.folder, "val", (100, 80))["a"], [[10, 20, 20, 40]], atol=1e-5)
    assert found.warnings == ()


def test_a_rotation_that_the_size_does_not_show_is_a_warning(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 11, 21, 30, 60))})
    photograph(folder / "JPEGImages/a.jpg", (100, 80), EXIF_UPSIDE_DOWN)
    found = prepare(dataset_yaml("voc", folder, train="images/val"))
    assert found.splits["val"].unproven == 1
    assert "EXIF" in found.warnings[0]


@pytest.mark.parametrize("kind", ["voc", "coco", "labels"])
def test_a_rotation_without_an_annotated_size_is_a_warning(kind: str, tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    if kind == "voc":
        text = re.sub("<size>.*</size>", "", xml(thing("cat", 1, 1, 9, 9)))
        image = voc_folder(tmp_path / "src", "val", {"a": text}) / "JPEGImages/a.jpg"
        yaml = dataset_yaml("voc", tmp_path / "src", train="images/val")
    elif kind == "coco":
        boxes = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]
        coco_file(tmp_path / "src/annotations/instances_val.json", [{"id": 1, "file_name": "a.jpg"}], boxes)
        yaml, image = dataset_yaml("coco", tmp_path / "src", train="images/val"), tmp_path / "src/val/a.jpg"
    else:
        (tmp_path / "set/labels/val").mkdir(parents=True)
        (tmp_path / "set/labels/val/a.txt").write_text("0 .5 .5 .1 .1\n")
        yaml, image = str(tmp_path / "mine.yaml"), tmp_path / "set/images/val/a.jpg"
        Path(yaml).write_text(f"path: {tmp_path / 'set'}\ntrain: images/val\nval: images/val\nnames: [cat, dog]\n")
    photograph(image, (100, 80), EXIF_ROTATED)
    found = prepare(yaml)
    assert found.splits["val"].unproven == 1
    assert any("1 images with an EXIF rotation" in warning for warning in found.warnings)
    assert any("1 images with an EXIF rotation" in note for note in read_truth(yaml, None).notes)


@pytest.mark.parametrize("boxes", [[(0, 5, 10, 20)], [(1.5, 5, 10, 20)]])
def test_voc_that_counts_from_0_is_warned_of_and_read_by_a_key(
    boxes: list[tuple[float, float, float, float]], tmp_path: Path, dataset_yaml: WriteYaml
) -> None:
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(*(thing("cat", *box) for box in boxes))})
    photograph(folder / "JPEGImages/a.jpg")
    (warning,) = prepare(dataset_yaml("voc", folder, train="images/val")).warnings
    assert "1 boxes with coordinates of 0 or fractions" in warning
    assert "first_pixel: 0" in warning
    (tmp_path / "datasets/mine").rename(tmp_path / "before")
    yaml = dataset_yaml("voc", folder, train="images/val", more="first_pixel: 0\n")
    found = prepare(yaml)
    assert found.warnings == ()
    expected = [[left, top, right - left, bottom - top] for left, top, right, bottom in boxes]
    np.testing.assert_allclose(written_boxes(found.folder, "val", (100, 80))["a"], expected, atol=1e-5)
    assert read_truth(yaml, None).box.tolist() == expected
    with pytest.raises(UserError, match=r"key 'first_pixel': is 2|key 'first_pixel' is 2"):
        read_truth(dataset_yaml("voc", folder, train="images/val", more="first_pixel: 2\n"), None)


@pytest.mark.parametrize("key", ["names", "first_pixel"])
def test_a_key_that_was_edited_after_the_preparation_is_reported(
    key: str, tmp_path: Path, dataset_yaml: WriteYaml
) -> None:
    """What is prepared does not change with the YAML: training and evaluation would read different labels."""
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 0, 5, 10, 20))})
    photograph(folder / "JPEGImages/a.jpg")
    yaml = dataset_yaml("voc", folder, train="images/val")
    before = prepare(yaml)
    assert prepare(yaml) == before
    text = Path(yaml).read_text()
    Path(yaml).write_text(text.replace("[cat, dog]", "[dog, cat]") if key == "names" else f"{text}first_pixel: 0\n")
    for read in (lambda: prepare(yaml), lambda: read_truth(yaml, None)):
        with pytest.raises(UserError, match=rf"mine.yaml, key '{key}': has changed since .*mine was prepared, .* Move"):
            read()
    Path(yaml).write_text(text.replace("[cat, dog]", "[cat, hound]"))  # a new name moves no class
    assert prepare(yaml).splits == before.splits
    Path(yaml).write_text(text.replace("[cat, dog]", "[dog, cat]"))
    before.folder.rename(tmp_path / "away")
    assert prepare(yaml).splits["val"].boxes == len(read_truth(yaml, None).image) == 1


@pytest.mark.parametrize("protocol", ["voc", "coco"])
def test_annotations_that_were_edited_after_the_preparation_are_reported(
    protocol: str, tmp_path: Path, dataset_yaml: WriteYaml
) -> None:
    """They are links to the source: evaluation would read the new objects, and training the labels of the old ones."""
    images = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}]
    box = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]
    if protocol == "voc":
        folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 1, 5, 10, 20))})
        photograph(folder / "JPEGImages/a.jpg")
        source = folder / "Annotations/a.xml"
    else:
        source = coco_file(tmp_path / "kit/annotations/instances_val.json", images, box)
        photograph(tmp_path / "kit/val/a.jpg")
    yaml = dataset_yaml(protocol, tmp_path / "kit", train="images/val")
    before = prepare(yaml)
    source.write_text(text := source.read_text())  # a new time, and nothing else
    shutil.copytree(before.folder, tmp_path / "copy", copy_function=shutil.copy)
    before.folder.rename(tmp_path / "away")
    (tmp_path / "copy").rename(before.folder)  # all of its times are new
    assert prepare(yaml) == before
    assert len(read_truth(yaml, None).image) == 1
    shutil.rmtree(before.folder)
    (tmp_path / "away").rename(before.folder)
    source.write_text(text.replace("cat", "dog") if protocol == "voc" else text.replace("[1, 1, 9, 9]", "[9, 9, 9, 9]"))
    assert source.read_text() != text
    for read in (lambda: prepare(yaml), lambda: read_truth(yaml, None)):
        with pytest.raises(UserError, match=r"mine\.yaml: its annotations have changed since .* prepared, .* Move"):
            read()
    before.folder.rename(tmp_path / "old")
    assert prepare(yaml).splits["val"].boxes == len(read_truth(yaml, None).image) == 1


def test_class_indices_that_do_not_start_at_0_prepare_nothing(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 1, 5, 10, 20))})
    photograph(folder / "JPEGImages/a.jpg")
    yaml = Path(dataset_yaml("voc", folder, train="images/val"))
    yaml.write_text(yaml.read_text().replace("[cat, dog]", "{1: cat, 2: dog}"))
    with pytest.raises(UserError, match=r"key 'names': has the indices 1, 2\. Expected all from 0 on"):
        prepare(yaml)
    assert not (tmp_path / "datasets").exists()


def test_images_without_a_file_are_left_out_by_both(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    coco_file(
        tmp_path / "src/annotations/instances_val.json",
        [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in (1, 2)],
        [{"image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in (1, 2)],
    )
    photograph(tmp_path / "src/val/1.jpg")
    yaml = dataset_yaml("coco", tmp_path / "src", train="images/val")
    assert prepare(yaml).splits["val"].missing == 1
    truth = read_truth(yaml, None)
    assert (truth.ids, len(truth.image)) == ((1,), 1)
    assert "1 images whose file is missing" in truth.notes


def test_voc_images_are_found_by_the_name_of_the_annotation(tmp_path: Path) -> None:
    names = ["x", "y.png", "C:\\scans\\z.jpg", "all.jpg", "all.jpg"]
    stems = [f"img {i}" for i in range(5)]
    folder = voc_folder(
        tmp_path / "kit",
        "val",
        {s: xml(thing("cat", 1, 1, 9, 9), filename=n) for s, n in zip(stems, names, strict=True)},
    )
    for stem in stems:
        photograph(folder / f"JPEGImages/{stem}.png")
    truth = read_voc(folder)
    assert truth.files == tuple(f"{stem}.png" for stem in stems)


@pytest.mark.parametrize(
    ("listed", "image", "annotation"),
    [("caf\u00e9", "cafe\u0301", "caf\u00e9"), ("cafe\u0301", "caf\u00e9", "cafe\u0301"),
     ("caf\u00e9", "caf\u00e9", "cafe\u0301"), ("a.b", "a.b", "a.b")],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["xml", "XML"])
def test_voc_files_match_however_accents_and_endings_are_written(
    listed: str, image: str, annotation: str, ending: str, tmp_path: Path, dataset_yaml: WriteYaml
) -> None:
    """A Mac writes an accent and its letter as two characters, a tool for Windows as one."""
    folder = voc_folder(tmp_path / "VOC", "val", {listed: xml(thing("cat", 11, 21, 30, 60))})
    (folder / f"Annotations/{listed}.xml").replace(folder / f"Annotations/{annotation}.{ending}")
    photograph(folder / f"JPEGImages/{image}.JPG", (50, 40))
    found = prepare(dataset_yaml("voc", folder, train="images/val"))
    assert (found.splits["val"].images, found.splits["val"].missing, found.splits["val"].boxes) == (1, 0, 1)
    assert len(list((found.folder / "labels/val").iterdir())) == 1
    bare = folder / "Annotations"
    for truth in (
        read_truth(str(found.yaml), None), read_truth(None, folder), read_truth(str(found.yaml), bare)
    ):  # fmt: skip
        assert truth.sizes.tolist() == [[50, 40]]
        assert truth.box.tolist() == [[5, 10, 10, 20]]  # the image was saved at half its size


@pytest.mark.parametrize(
    ("written", "file"),
    [("val\\a.jpg", "a.jpg"), ("caf\u00e9.jpg", "cafe\u0301.jpg"), ("cafe\u0301.jpg", "caf\u00e9.jpg"),
     ("a.jpg", "a.JPG"), ("a.JPG", "a.jpg")],
)  # fmt: skip
def test_coco_images_are_found_however_their_names_are_written(
    written: str, file: str, tmp_path: Path, dataset_yaml: WriteYaml
) -> None:
    """As on Windows or a Mac."""
    path = coco_file(
        tmp_path / "src/annotations/instances_val.json",
        [{"id": 1, "file_name": written, "width": 100, "height": 80}],
        [{"image_id": 1, "category_id": 1, "bbox": [10, 20, 20, 40]}],
    )
    photograph(tmp_path / "src/val" / file, (50, 40))
    found = prepare(dataset_yaml("coco", tmp_path / "src", train="images/val"))
    assert (found.splits["val"].images, found.splits["val"].missing, found.splits["val"].boxes) == (1, 0, 1)
    plain = tmp_path / "plain.yaml"
    plain.write_text(f"path: {tmp_path}\ntrain: src/val\nval: src/val\nnames: [cat, dog]\n")
    for truth in (read_truth(str(found.yaml), None), read_truth(None, path), read_truth(str(plain), path)):
        assert truth.box.tolist() == [[5, 10, 10, 20]]  # the image was saved at half its size


def test_images_saved_in_another_format_are_those_of_the_annotation(tmp_path: Path) -> None:
    boxes = [{"image_id": i, "category_id": 1, "bbox": [10, 20, 20, 40]} for i in (1, 2, 3)]
    names = ["a.jpg", "b.jpg", "b.gif"]
    images = [{"id": i, "file_name": name, "width": 100, "height": 80} for i, name in enumerate(names, 1)]
    path = coco_file(tmp_path / "truth.json", images, boxes)
    for name in "ab":
        photograph(tmp_path / f"images/val/{name}.png", (50, 40))
    yaml = label_set(tmp_path, {})
    truth = read_truth(str(yaml), path, leave_out=True)
    assert truth.ids == (1,)  # b.png may be either of two
    assert truth.box.tolist() == [[5, 10, 10, 20]]


def test_a_voc_folder_without_any_image_says_where_they_should_be(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 1, 1, 9, 9))})
    photograph(folder / "images/a.jpg")
    with pytest.raises(UserError, match=r"none of the 1 images of split 'val'; the first would be .*JPEGImages/a\.jpg"):
        prepare(dataset_yaml("voc", folder, train="images/val"))


def label_set(folder: Path, labels: dict[str, str]) -> Path:
    """Write a dataset of plain label files, with one image `a.jpg`; return its YAML."""
    photograph(folder / "images/val/a b\u00e9.jpg")
    (folder / "labels/val").mkdir(parents=True)
    for name, text in labels.items():
        (folder / "labels/val" / name).write_text(text)
    yaml = folder / "set.yaml"
    yaml.write_text(f"path: {folder}\ntrain: images/val\nval: images/val\nnames: [cat, dog]\n")
    return yaml


def test_a_label_file_of_boxes_and_polygons_is_rejected_as_training_leaves_its_image_out(tmp_path: Path) -> None:
    yaml = label_set(tmp_path, {"a b\u00e9.txt": "0 .5 .5 .1 .1\n1 .1 .1 .5 .1 .5 .5\n"})
    for read in (lambda: prepare(yaml), lambda: read_truth(str(yaml), None)):
        with pytest.raises(UserError, match=r"\.txt, line 2: boxes and polygons are mixed\. Expected one of them"):
            read()


@pytest.mark.parametrize("name", ["a b\u00e9.TXT", "A B\u00e9.txt", "a be\u0301.txt", "a b\u00e9 .txt", "ab\u00e9.txt"])
def test_a_label_file_that_training_does_not_find_is_warned_of(name: str, tmp_path: Path) -> None:
    yaml = label_set(tmp_path, {name: "0 .5 .5 .1 .1\n", "of-no-image.txt": "0 .5 .5 .1 .1\n"})
    expected = f"1 label file is not read, as Ultralytics expects another spelling: 'a b\u00e9.txt', not {name!r}"
    assert f"val: {expected}" in prepare(yaml).warnings
    assert expected in read_truth(str(yaml), None).notes


def test_a_label_file_that_is_a_link_to_nowhere_is_warned_of(tmp_path: Path) -> None:
    """As after `git clone` without the files of DVC or git-annex."""
    yaml = label_set(tmp_path, {})
    link = tmp_path / "labels/val/a b\u00e9.txt"
    link.symlink_to("../../.dvc/cache/0123")
    expected = f"1 label file is not read, as the link {link} leads nowhere"
    assert f"val: {expected}" in prepare(yaml).warnings
    assert expected in read_truth(str(yaml), None).notes


def test_a_set_without_any_object_is_warned_of(tmp_path: Path) -> None:
    """As where the folders are called Images and Labels, and Ultralytics looks for labels beside the images."""
    yaml = label_set(tmp_path, {})
    assert "val: no image has an object" in prepare(yaml).warnings
    assert "no image has an object" in read_truth(str(yaml), None).notes


def test_a_folder_of_xml_files_loses_none_by_its_ending(tmp_path: Path) -> None:
    for name in ("a.xml", "b.XML", "c.Xml"):
        (tmp_path / name).write_text(xml(thing("cat", 11, 21, 30, 60)))
    assert read_truth(None, tmp_path).files == ("a.jpg", "b.jpg", "c.jpg")


def test_voc_lists_may_have_blanks_in_names_and_a_column_of_flags(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    names = ["img 1", "my cat", "plain", "with flag"]
    folder = voc_folder(tmp_path / "kit", "val", {name: xml(thing("cat", 1, 1, 9, 9)) for name in names})
    (folder / "ImageSets/Main/val.txt").write_text("img 1\nmy cat\nplain  1\nwith flag -1\nplain 1\n")
    for shade, name in enumerate(names):
        photograph(folder / f"JPEGImages/{name}.jpg", shade=shade)
    yaml = dataset_yaml("voc", folder, train="images/val")
    counts = prepare(yaml).splits["val"]
    assert (counts.images, counts.missing, counts.repeated) == (4, 0, 1)
    assert read_truth(None, folder).ids == tuple(names)


def test_two_images_of_one_name_are_rejected_by_both(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 1, 1, 9, 9))})
    for suffix in ("jpg", "png"):
        photograph(folder / f"JPEGImages/a.{suffix}")
    yaml = dataset_yaml("voc", folder, train="images/val")
    for read in (lambda: prepare(yaml), lambda: read_truth(None, folder)):
        with pytest.raises(UserError, match=r"a\.jpg and a\.png have the same name but for the suffix"):
            read()


@pytest.mark.parametrize("kind", ["encoding", "bomb", "empty", "text", "loop"])
def test_broken_files_end_in_one_line(
    kind: str, tmp_path: Path, dataset_yaml: WriteYaml, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 1, 1, 9, 9))})
    image, annotation = photograph(folder / "JPEGImages/a.jpg"), folder / "Annotations/a.xml"
    match kind:
        case "encoding":
            annotation.write_text('<?xml version="1.0" encoding="foo"?>' + xml())
            expected = r"a\.xml: is not valid XML \(unknown encoding: foo\)"
        case "bomb":
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
            expected = r"a\.jpg: cannot be read as an image \(too many pixels\)"
        case "empty":
            image.write_bytes(b"")
            expected = r"a\.jpg: is empty \(0 bytes\)"
        case "text":
            image.write_bytes(b"<html>not found</html>")
            expected = r"a\.jpg: cannot be read as an image \(not a known image format\)"
        case _:
            annotation.unlink()
            annotation.symlink_to(annotation)
            expected = r"a\.xml: cannot be read \(Too many levels of symbolic links\)"
    yaml = dataset_yaml("voc", folder, train="images/val")
    for read in (lambda: prepare(yaml), lambda: read_truth(None, folder)):
        with pytest.raises(UserError, match=expected) as caught:
            read()
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "datasets").iterdir())


def test_names_that_no_file_can_have_are_missing_images(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    file = coco_file(
        tmp_path / "src/annotations/instances_val.json",
        [
            {"id": 1, "file_name": "x" * 300 + ".jpg", "width": 100, "height": 80},
            {"id": 2, "file_name": "b.jpg", "width": 100, "height": 80},
        ],
        [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
    )
    photograph(tmp_path / "src/val/b.jpg")
    assert prepare(dataset_yaml("coco", tmp_path / "src", train="images/val")).splits["val"].missing == 1
    assert len(read_coco(file).ids) == 2
    with pytest.raises(UserError, match=r"cannot be read \(File name too long\)"):
        read_truth(None, tmp_path / ("x" * 300 + ".json"))


def test_two_classes_of_one_name_are_rejected(tmp_path: Path) -> None:
    photograph(tmp_path / "set/images/val/a.jpg")
    yaml = tmp_path / "set/data.yaml"
    yaml.write_text(f"path: {tmp_path}/set\ntrain: images/val\nval: images/val\nnames: [a, b, a]\n")
    for read in (lambda: read_yolo(yaml), lambda: read_truth(str(yaml), None), lambda: prepare(yaml)):
        with pytest.raises(UserError, match=r"data\.yaml, key 'names': 2 classes have the name 'a'"):
            read()
    images = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}]
    boxes = [{"image_id": 1, "category_id": i, "bbox": [1, 1, 9, 9]} for i in (1, 2)]
    same = [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]
    with pytest.raises(UserError, match=r"several categories have the name 'a'"):
        read_coco(coco_file(tmp_path / "a.json", images, boxes, categories=same))
    # A placeholder, which no annotation has, may be called like a class.
    assert read_coco(coco_file(tmp_path / "b.json", images, boxes[1:], categories=same)).category_ids == (2,)


def test_string_ids_are_read_by_both(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    coco_file(
        tmp_path / "src/annotations/instances_val.json",
        [{"id": "a1", "file_name": "a.jpg", "width": 100, "height": 80}],
        [{"image_id": "a1", "category_id": 1, "bbox": [1, 1, 9, 9]}],
    )
    photograph(tmp_path / "src/val/a.jpg")
    yaml = dataset_yaml("coco", tmp_path / "src", train="images/val")
    assert prepare(yaml).splits["val"].boxes == 1
    assert read_truth(yaml, None).ids == ("a1",)


def test_a_source_may_have_a_dollar_in_its_name(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    folder = voc_folder(tmp_path / "a$HOME_b", "val", {"a": xml(thing("cat", 1, 1, 9, 9))})
    photograph(folder / "JPEGImages/a.jpg")
    assert prepare(dataset_yaml("voc", folder, train="images/val")).splits["val"].boxes == 1


def test_file_names_with_the_folder_of_the_images_are_found(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    coco_file(
        tmp_path / "src/annotations/instances_val.json",
        [{"id": 1, "file_name": "val/a.jpg", "width": 100, "height": 80}],
        [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
    )
    photograph(tmp_path / "src/val/a.jpg")
    yaml = dataset_yaml("coco", tmp_path / "src", train="images/val")
    assert prepare(yaml).splits["val"].images == 1
    assert len(read_truth(yaml, None).ids) == 1


@pytest.mark.parametrize(
    ("value", "crowd"),
    [("0", False), ("false", False), (None, False), ("", False), (0.0, False), ("1", True), (True, True), (1, True)],
)
def test_iscrowd_may_be_written_as_text(value: object, crowd: bool, tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}]
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": value}]
    assert read_coco(coco_file(tmp_path / "a.json", images, boxes)).crowd.tolist() == [crowd]


@pytest.mark.parametrize("value", ["maybe", [], {}, 2, -1, "0.5"])
def test_iscrowd_of_another_value_is_reported(value: object, tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}]
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": value}]
    with pytest.raises(UserError, match=r"annotations\[0\]: 'iscrowd' is .*\. Expected 0 or 1"):
        read_coco(coco_file(tmp_path / "a.json", images, boxes))


@pytest.mark.parametrize("what", ["images", "annotations"])
@pytest.mark.parametrize("hard_links", [True, False])
def test_relative_links_in_a_source_become_files(
    what: str, hard_links: bool, tmp_path: Path, dataset_yaml: WriteYaml, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 1, 1, 9, 9))})
    photograph(folder / "JPEGImages/a.jpg")
    file = folder / ("JPEGImages/a.jpg" if what == "images" else "Annotations/a.xml")
    store = tmp_path / "kit/.cache/0123"
    store.parent.mkdir()
    file.rename(store)
    file.symlink_to(os.path.relpath(store, file.parent))
    if not hard_links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("another disk")))
    yaml = dataset_yaml("voc", folder, train="images/val")
    found = prepare(yaml)
    for path in found.folder.rglob("*"):
        assert path.is_dir() or path.is_file(), path
    assert found.splits["val"].boxes == len(read_truth(yaml, None).image) == 1


def test_a_dangling_link_is_a_missing_image(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    names = {"a": xml(thing("cat", 1, 1, 9, 9)), "b": xml(thing("cat", 1, 1, 9, 9))}
    folder = voc_folder(tmp_path / "kit", "val", names)
    photograph(folder / "JPEGImages/a.jpg")
    (folder / "JPEGImages/b.jpg").symlink_to("nowhere.jpg")
    counts = prepare(dataset_yaml("voc", folder, train="images/val")).splits["val"]
    assert (counts.images, counts.missing) == (1, 1)


def test_images_that_splits_share_are_counted(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    images = {f"{i}": xml(thing("cat", 1, 1, 9, 9)) for i in range(4)}
    folder = voc_folder(tmp_path / "kit", "train", images)
    voc_folder(folder, "val", {"3": images["3"], "copy": images["0"], "4": images["0"]})
    for i in range(5):
        photograph(folder / f"JPEGImages/{i}.jpg", shade=40 * i)
    (folder / "JPEGImages/copy.jpg").write_bytes((folder / "JPEGImages/0.jpg").read_bytes())
    found = prepare(dataset_yaml("voc", folder))
    assert (
        "2 images of 'train' are also in 'val': 0.jpg, 3.jpg" in found.warnings
    )  # one by its name, one copied under another
    assert prepare(tmp_path / "mine.yaml") == found  # a set that is ready says the same
    notes = read_truth(str(tmp_path / "mine.yaml"), None).notes
    assert "2 images of 'val' are also in 'train': 3.jpg, copy.jpg" in notes  # and so does the evaluator


def test_shared_images_of_one_name_are_named_with_their_folders(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    names = ["left/a.jpg", "right/a.jpg", "b.jpg"]
    images = [{"id": i, "file_name": name, "width": 100, "height": 80} for i, name in enumerate(names)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [5, 5, 10, 10]} for i in range(3)]
    for split in ("train", "val"):
        coco_file(tmp_path / f"src/annotations/instances_{split}.json", images, boxes)
        for i, name in enumerate(names):
            photograph(tmp_path / "src" / split / name, shade=40 * i)
    warnings = prepare(dataset_yaml("coco", tmp_path / "src")).warnings
    assert "3 images of 'train' are also in 'val': b.jpg, left/a.jpg, right/a.jpg" in warnings


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        ([(0.1, 0.2, 0.5, 0.4), (0.82, 0.5, 0.1800001, 0.5)], "all 2 boxes lie within one pixel"),
        ([(50, 40, 40 + i, 60) for i in range(6)] + [(5, 5, 10, 10)] * 5, "6 of 11 boxes extend well beyond"),
        ([(60, 40, 90, 60)] * 2 + [(5, 5, 10 + i, 10) for i in range(10)], "2 of 12 boxes .*none would as corners"),
        ([(9, 9, -4, 5), (120, 9, 5, 5)], "all 2 objects have no extent or lie outside their image"),
    ],
)
def test_coco_boxes_in_another_unit_are_rejected_with_counts(
    boxes: list[tuple[float, ...]], says: str, tmp_path: Path, dataset_yaml: WriteYaml
) -> None:
    records = [{"image_id": 1, "category_id": 1, "bbox": list(box)} for box in boxes]
    images = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}]
    file = coco_file(tmp_path / "src/annotations/instances_val.json", images, records)
    photograph(tmp_path / "src/val/a.jpg")
    yaml = dataset_yaml("coco", tmp_path / "src", train="images/val")
    for read in (lambda: prepare(yaml), lambda: read_truth(None, file)):
        with pytest.raises(UserError, match=rf"{says}.*Expected boxes in pixels"):
            read()


@pytest.mark.parametrize("origin", [0, 1])
def test_voc_boxes_relative_to_the_image_are_rejected(origin: int, tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(thing("cat", 0, 0.2, 0.5, 0.9), thing("dog", 0.1, 0, 1, 1))})
    photograph(folder / "JPEGImages/a.jpg")
    yaml = dataset_yaml("voc", folder, train="images/val", more=f"first_pixel: {origin}\n")
    for read in (lambda: prepare(yaml), lambda: read_truth(None, folder)):
        with pytest.raises(UserError, match="all 2 boxes lie within one pixel"):
            read()
    assert "first_pixel" not in init_yaml(folder)


def test_a_few_large_boxes_are_clipped_not_rejected(tmp_path: Path) -> None:
    """Nine boxes beyond the image are too few for a verdict, and five of eleven are not most."""
    images = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}]
    for beyond, inside in ((9, 0), (5, 6)):
        boxes = [(50, 40, 60, 60)] * beyond + [(30, 5, 10, 10)] * inside
        records = [{"image_id": 1, "category_id": 1, "bbox": list(box)} for box in boxes]
        truth = read_truth(None, coco_file(tmp_path / "truth.json", images, records))
        assert truth.notes[0] == f"{beyond} boxes clipped to their image"


def test_mostly_swapped_corners_are_warned_of(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    swapped = [thing("cat", 30, 21, 11, 60), thing("cat", 40, 60, 50, 20)]
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(*swapped, thing("cat", 11, 21, 30, 60))})
    photograph(folder / "JPEGImages/a.jpg")
    yaml = dataset_yaml("voc", folder, train="images/val")
    says = "2 of 3 objects have no extent or lie outside their image"
    assert prepare(yaml).warnings == (f"val: {says}",)
    assert says in read_truth(yaml, None).notes
    (folder / "Annotations/a.xml").write_text(xml(*swapped))
    with pytest.raises(UserError, match=r"all 2 objects have no extent .*xmin < xmax and ymin < ymax in VOC"):
        read_truth(None, folder)


def test_voc_boxes_of_a_corner_and_an_extent_are_rejected(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    """Most of them look like boxes: they would be trained with another extent, and the others left out."""
    rows = [(60, 5 + i, 20, 15 + i) if i < 2 else (5, 5 + i, 30, 20 + i) for i in range(11)]
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(*(thing("cat", *row) for row in rows))})
    photograph(folder / "JPEGImages/a.jpg")
    yaml = dataset_yaml("voc", folder, train="images/val")
    for read in (lambda: prepare(yaml), lambda: read_truth(None, folder)):
        with pytest.raises(UserError, match=r"2 of 11 boxes end before they begin, but not as \[x, y, width"):
            read()
    # Swapped corners are no extents: the sums reach beyond the image.
    swapped = [*rows[2:], (90, 60, 60, 50), (95, 70, 50, 40)]
    (folder / "Annotations/a.xml").write_text(xml(*(thing("cat", *row) for row in swapped)))
    assert prepare(yaml).splits["val"].degenerate == 2


def test_an_object_has_one_box(tmp_path: Path) -> None:
    box = thing("cat", 1, 1, 9, 9).partition("<bndbox>")[2].partition("</bndbox>")[0]
    two = f"<object><name>cat</name><bndbox>{box}</bndbox><bndbox>{box}</bndbox></object>"
    folder = voc_folder(tmp_path / "kit", "val", {"a": xml(two)})
    with pytest.raises(UserError, match=r"a\.xml, object\[0\]: has several <bndbox>\. Expected one for each object"):
        read_truth(None, folder)


@pytest.mark.parametrize("protocol", ["voc", "coco", "yolo"])
def test_truncated_images_are_counted_by_both(protocol: str, tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    voc, coco = small(tmp_path, (100, 80))
    for suffix, folder in (("jpg", voc / "JPEGImages"), ("jpg", coco / "val"), ("png", tmp_path / "images/val")):
        image = photograph(folder / f"a.{suffix}")
        image.write_bytes(image.read_bytes()[:-20])
        photograph(tmp_path / f"images/val/{folder.parent.name}.{suffix}", shade=9).open("ab").write(
            b"\0\0"
        )  # complete, with more bytes after it
    yaml = dataset_yaml(protocol, voc if protocol == "voc" else coco, train="images/val")
    if protocol == "yolo":
        (tmp_path / "mine.yaml").write_text(f"path: {tmp_path}\ntrain: images/val\nval: images/val\nnames: [cat]\n")
    says = "1 images are truncated: the end of their file is missing"
    assert f"val: {says}" in prepare(yaml).warnings
    assert says in read_truth(yaml, None).notes


@pytest.mark.parametrize("area", [None, 0, -40, 0.005, 40 * 64])
def test_objects_without_the_area_of_a_mask_are_as_large_as_their_box(area: float | None, tmp_path: Path) -> None:
    """Tools that know no masks leave it out or write 0, some for relative or for other pixels."""
    records = [{"image_id": 1, "category_id": 1, "bbox": [5, 5, 40, 30]} for _ in range(3)]
    wrong = {} if area is None else {"area": area}
    images = [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}]
    says = "{} objects have no valid 'area': their size is their box's"
    one = "1 object has no valid 'area': its size is its box's"
    for without in (3, 2, 1, 0):
        boxes = [{**record, **(wrong if i < without else {"area": 40})} for i, record in enumerate(records)]
        truth = read_truth(None, coco_file(tmp_path / "truth.json", images, boxes))
        assert truth.notes == ((one if without == 1 else says.format(without),) if without else ())
        assert truth.area.tolist() == [1200] * without + [40] * (3 - without)


def test_voc_without_size_takes_the_files(tmp_path: Path, dataset_yaml: WriteYaml) -> None:
    plain = f"<annotation>{thing('cat', 11, 21, 30, 200)}</annotation>"
    folder = voc_folder(tmp_path / "kit", "val", {"a": plain})
    photograph(folder / "JPEGImages/a.jpg")
    yaml = dataset_yaml("voc", folder, train="images/val")
    np.testing.assert_allclose(
        written_boxes(prepare(yaml).folder, "val", (100, 80))["a"], [[10, 20, 20, 60]], atol=1e-5
    )
    truth = read_truth(yaml, None)
    assert (truth.sizes.tolist(), truth.box.tolist()) == ([[100, 80]], [[10, 20, 20, 60]])
    warning = "1 images without a size in their annotation, so boxes are taken for pixels of the files"
    assert warning in truth.notes
    assert f"val: {warning}" in prepare(yaml).warnings


def test_listed_names_with_a_suffix_are_rejected(tmp_path: Path) -> None:
    folder = voc_folder(
        tmp_path / "kit", "val", {name: xml(thing("cat", 1, 1, 9, 9)) for name in ("a", "b.v2", "c.jpg")}
    )
    assert len(read_truth(None, folder).ids) == 3  # what looks like a suffix belongs to these names
    (folder / "ImageSets/Main/val.txt").write_text("b.v2\na.JPG\n")
    with pytest.raises(UserError, match=r"val\.txt, name 2: 'a\.JPG' has a suffix\. Expected 'a', without suffix"):
        read_truth(None, folder)
