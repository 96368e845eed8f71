"""Folders of classified images, class names, and files of rankings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ultralytics.nn.autobackend import check_class_names

from gam_yolo.annotations.classes import (
    LabelledImages,
    Rankings,
    map_classes,
    ranking_records,
    read_labelled_images,
    read_rankings,
)
from gam_yolo.errors import UserError


def images(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12)).save(folder / file)


def labelled(*classes: str) -> LabelledImages:
    files = tuple(f"{name}/{i}.jpg" for i, name in enumerate(classes))
    return LabelledImages("data", Path("data/val"), "val", files, classes, np.arange(len(classes)))


def test_a_missing_split_is_replaced_as_in_ultralytics(tmp_path: Path) -> None:
    images(tmp_path, "train/b/1.jpg", "train/a/1.jpg", "train/c d/1.jpg", "test/a/sub/2.JPG", "test/c d/ü.png")
    for split in ("val", "test"):
        found = read_labelled_images(tmp_path, split)
        assert found.classes == ("a", "b", "c d")
        assert found.files == ("a/sub/2.JPG", "c d/ü.png")
        assert found.label.tolist() == [0, 2]
        assert found.split == "test"
        assert any("no image in 'test', such as b" in note for note in found.notes)
        assert any("has no 'val'" in note for note in found.notes) == (split == "val")
    images(tmp_path, "valid/a/3.jpg", "valid/cat/3.jpg")
    with pytest.raises(UserError, match=r"valid: has a class 'cat', which train lacks\. Expected the 3 classes"):
        read_labelled_images(tmp_path)


def test_classes_are_matched_by_names_alone() -> None:
    truth = labelled("cat", "dog", "hen")
    assert map_classes({0: "hen", 1: "cat", 2: "dog"}, truth, "m.pt").tolist() == [2, 0, 1]
    for names, expected in (
        ({0: "cat", 1: "dog"}, "m.pt: has no class 'hen', which data has. Expected exactly the 3 classes of the data."),
        ({0: "cat", 1: "dog", 2: "hne"}, "has no class 'hen', .* Did you mean 'hne'?"),
        ({0: "cat", 1: "dog", 2: "hen", 3: "fox"}, "has a class 'fox', but not data. Expected exactly"),
        ({0: "cat", 1: "dog", 2: "hen", 3: "hen"}, "has two classes named 'hen'"),
    ):
        with pytest.raises(UserError, match=expected):
            map_classes(names, truth, "m.pt")


def test_imagenets_codes_and_words_are_the_same_classes() -> None:
    from ultralytics.utils import ROOT, YAML

    codes = sorted(YAML.load(ROOT / "cfg/datasets/ImageNet.yaml")["map"])
    truth, words = labelled(*codes), check_class_names(codes)
    assert map_classes(words, truth, "m.pt").tolist() == list(range(1000))
    assert map_classes(dict(enumerate(codes[::-1])), truth, "m.pt").tolist() == list(range(1000))[::-1]
    few = labelled(*codes[:3])
    assert map_classes({0: words[2], 1: words[0], 2: words[1]}, few, "m.pt").tolist() == [2, 0, 1]


def test_rankings_are_read_as_written(tmp_path: Path) -> None:
    truth = labelled("cat", "dog", "hen")
    best = np.array([[2, 0, 1], [1, 2, 0], [0, 1, 2]])
    records = ranking_records(Rankings("", best), truth)
    file = tmp_path / "r.json"
    file.write_text(json.dumps(records[::-1]))
    assert (read_rankings(file, truth).best == best).all()
    for changed, expected in (
        (records[:2], r"r\.json: has no record of 1 of 3 images, such as 'hen/2\.jpg'"),
        ([*records, records[0]], r"record 3: the image 'cat/0\.jpg' has a second record"),
        ([{**records[0], "top5": ["cat", "cat", "dog"]}], "Expected 3 different classes"),
        ([{**records[0], "top5": ["cat", "dgo", "hen"]}], r"there is no class 'dgo'\. Did you mean 'dog'"),
        ([{"image": "cat/0.jpg"}], r"record 0: is .* Expected \[\{\"image\""),
        ({"image": []}, r"r\.json: is not a list"),
    ):
        file.write_text(json.dumps(changed))
        with pytest.raises(UserError, match=expected):
            read_rankings(file, truth)
