"""Which images a split has: those that Ultralytics trains on and validates."""

from __future__ import annotations

from pathlib import Path

import pytest
from ultralytics.data.dataset import YOLODataset

from gam_yolo.annotations import read_truth
from gam_yolo.annotations.images import image_files
from gam_yolo.datasets import prepare
from gam_yolo.errors import UserError

from .conftest import photograph


@pytest.mark.parametrize("folder", ["images/val", "images/val [old]", "images/../images/val"])
def test_a_split_has_the_images_that_ultralytics_reads(tmp_path: Path, folder: str) -> None:
    where = tmp_path / folder
    for shade, name in enumerate(("a.jpg", "sub/b.JPG", "sub/.ipynb_checkpoints/b-checkpoint.jpg")):
        photograph(where / name, shade=shade)
    photograph(tmp_path / "other disk/c.png", shade=9)
    (where / "._a.jpg").write_bytes(b"\0\5\x16\7Mac OS X")  # what a Mac leaves on other file systems
    (where / "more").symlink_to(tmp_path / "other disk")
    (tmp_path / "m.yaml").write_text(f"path: {tmp_path}\ntrain: '{folder}'\nval: '{folder}'\nnames: [cat]\n")
    read = YOLODataset(str(where), data={"names": {0: "cat"}, "channels": 3}, augment=False).im_files
    assert len(read) == 3
    assert sorted(map(str, image_files(str(where), "val"))) == sorted(read)
    assert prepare(tmp_path / "m.yaml").splits["val"].images == 3
    assert sorted(read_truth(str(tmp_path / "m.yaml"), None).ids) == ["a", "b", "c"]


def test_a_list_names_images_from_where_ultralytics_looks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Darknet's lists start from the folder in which the training is started; those with `./` from their own."""
    for i, name in enumerate(("data/images/a.jpg", "set/images/b.jpg", "set/images/a.jpg")):
        photograph(tmp_path / name, shade=50 * i)
        label = tmp_path / name.replace("images", "labels").replace("jpg", "txt")
        label.parent.mkdir(exist_ok=True)
        label.write_text(f"0 0.5 0.5 0.{i + 1} 0.5\n")
    (tmp_path / "data/val.txt").write_text("./images/a.jpg\nset/images/b.jpg\n")
    (tmp_path / "data/m.yaml").write_text("path: data\ntrain: val.txt\nval: val.txt\nnames: [cat]\n")
    monkeypatch.chdir(tmp_path)
    read = YOLODataset("data/val.txt", data={"names": {0: "cat"}, "channels": 3}, augment=False)
    assert len(read.im_files) == 2
    truth = read_truth("data/m.yaml", None)
    assert truth.ids == ("a", "b")
    widths = [float(label["bboxes"][0, 2]) * 100 for label in read.labels]
    assert sorted(widths) == pytest.approx([10, 20])
    assert sorted(truth.box[:, 2].tolist()) == pytest.approx([10, 20])


def test_a_split_can_be_scored_where_the_entry_of_the_training_images_is_empty(tmp_path: Path) -> None:
    photograph(tmp_path / "val/a.jpg")
    (tmp_path / "m.yaml").write_text(f"path: {tmp_path}\ntrain:\nval: val\nnames: [cat]\n")
    assert read_truth(str(tmp_path / "m.yaml"), None).ids == ("a",)


@pytest.mark.parametrize("entry", [None, 3, [None], {"a": "b"}, [1.5]])
def test_an_entry_that_is_no_path_is_an_error(tmp_path: Path, entry: object) -> None:
    photograph(tmp_path / "val/a.jpg")
    with pytest.raises(UserError, match=r"m\.yaml, split 'val': is .*Expected a folder of images, or a list of them"):
        image_files(entry, "m.yaml, split 'val'")
