from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import YAML

from gam_yolo.annotations.images import is_safe_name
from gam_yolo.datasets.prepared import Picture, Split, link, write_dataset
from gam_yolo.errors import UserError

from .conftest import dataset, labels

PIXELS = b"not looked at"


def pictures(split: Split) -> Iterator[Picture]:
    split.annotations.mkdir(exist_ok=True)
    yield Picture("a.jpg", PIXELS, 10, 10, [(0, (0.0, 0.0, 10.0, 5.0))])


def mine(tmp_path: Path) -> dict[str, Any]:
    return dataset(tmp_path / "out/mine", ["thing"], train="images/train", val="images/val")


def test_a_second_preparation_changes_nothing(tmp_path: Path) -> None:
    write_dataset(mine(tmp_path), pictures, "here")
    before = (tmp_path / "out/mine").stat().st_ino
    write_dataset(mine(tmp_path), lambda split: pytest.fail(f"read {split.name} again"), "here")
    assert (tmp_path / "out/mine").stat().st_ino == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), UserError("bad")])
def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def read(split: Split) -> Iterator[Picture]:
        yield from pictures(split)
        if split.name == "val":
            raise error

    with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
        write_dataset(mine(tmp_path), read, "here")
    assert not list((tmp_path / "out").iterdir())


def test_a_killed_preparation_leaves_nothing_that_looks_ready(tmp_path: Path) -> None:
    def read(split: Split) -> Iterator[Picture]:
        yield from pictures(split)
        if split.name == "val":
            os._exit(9)

    child = os.fork()
    if not child:
        write_dataset(mine(tmp_path), read, "here")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (tmp_path / "out/mine").exists()
    write_dataset(mine(tmp_path), pictures, "here")
    assert labels(tmp_path / "out/mine", "val") == {"a": [[0, 0.5, 0.25, 1, 0.5]]}


def test_the_slower_of_two_preparations_leaves_the_faster_ones(tmp_path: Path) -> None:
    def read(split: Split) -> Iterator[Picture]:
        yield from pictures(split)
        if split.name == "val":  # another process is done by now
            write_dataset(mine(tmp_path), lambda _: [Picture("other.jpg", PIXELS, 10, 10, [])], "elsewhere")

    write_dataset(mine(tmp_path), read, "here")
    assert list(labels(tmp_path / "out/mine", "train")) == ["other"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_folder_in_the_way_is_reported_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out/mine/images/train").mkdir(parents=True)
    with pytest.raises(UserError, match=r"out/mine exists but has no images/val\. Move it away"):
        write_dataset(mine(tmp_path), pictures, "here")
    assert [p.name for p in (tmp_path / "out/mine").rglob("*")] == ["images", "train"]


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(UserError, match=r"^mine\.yaml: .*out cannot be read or written \("):
        write_dataset(mine(tmp_path), pictures, "here")


def test_others_may_read_what_is_prepared(tmp_path: Path) -> None:
    (tmp_path / "ordinary").mkdir()
    write_dataset(mine(tmp_path), pictures, "here")
    assert (tmp_path / "out/mine").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("without", [[], ["link"], ["link", "symlink"]])
def test_link_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: list[str]) -> None:
    def fail(*_: object) -> None:
        raise OSError("not on this disk")

    for name in without:
        monkeypatch.setattr(os, name, fail)
    source, target = tmp_path / "a.png", tmp_path / "sub" / "b.png"
    source.write_bytes(PIXELS)
    link(source, target)
    assert target.read_bytes() == PIXELS
    assert target.samefile(source) == (len(without) < 2)
    assert target.is_symlink() == (without == ["link"])


@pytest.mark.parametrize("name", ["", "..", "a/../../b", "/a", "\\a", "C:\\a", "C:a", "//host/share/a", "a\0b", "."])
def test_names_that_leave_the_folder(name: str) -> None:
    assert not is_safe_name(name)


@pytest.mark.parametrize("name", ["a.jpg", "val2017/a.jpg", "2007_000001", "a..b.jpg", "...jpg"])
def test_names_that_stay(name: str) -> None:
    assert is_safe_name(name)


def xml_boxes(folder: Path, split: str) -> dict[str, int]:
    """Count a split's boxes by what becomes of them, straight from the XML."""
    count = {"all": 0, "difficult": 0, "degenerate": 0}
    for name in (folder / f"ImageSets/Main/{split}.txt").read_text().split():
        for item in ElementTree.parse(folder / f"Annotations/{name}.xml").iter("object"):  # noqa: S314 - known files
            at = {e.tag: float(e.text or "nan") for e in item.find("bndbox")}
            count["all"] += 1
            if item.findtext("difficult") == "1":
                count["difficult"] += 1
            elif at["xmin"] >= at["xmax"] or at["ymin"] >= at["ymax"]:
                count["degenerate"] += 1
    return count


CheckDataset = Callable[[Path], dict[str, Any]]


def rows(data: dict[str, Any], split: str) -> list[list[float]]:
    return [row for file in labels(Path(data["path"]), split).values() for row in file]


def read_by_ultralytics(data: dict[str, Any], split: str) -> YOLODataset:
    """Return the split as the trainer would load it."""
    return YOLODataset(img_path=data[split], data=data, task="detect", imgsz=64, augment=False)


@pytest.mark.parametrize(
    ("name", "variable", "folder", "total", "difficult", "degenerate"),
    [
        ("voc-local", "GAM_YOLO_VOC", "VOC2007", 4574, 328, 0),
        ("bccd-local", "GAM_YOLO_BCCD", "BCCD", 4888, 0, 2),
        ("neu-local", "GAM_YOLO_NEU", "NEU-DET", 4126, 79, 0),
    ],
)
def test_real_voc_folders(
    name: str,
    variable: str,
    folder: str,
    total: int,
    difficult: int,
    degenerate: int,
    root: Path,
    shared: Path,
    check_dataset: CheckDataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = shared / "data" / folder
    monkeypatch.setenv(variable, os.path.relpath(source))
    data = check_dataset(root / "data" / f"{name}.yaml")
    splits = [key for key in ("train", "val", "test") if data.get(key)]
    counts = {split: xml_boxes(source, split) for split in splits}
    assert sum(c["all"] for c in counts.values()) == total
    assert sum(c["difficult"] for c in counts.values()) == difficult
    assert sum(c["degenerate"] for c in counts.values()) == degenerate
    said = (Path(data["path"]) / "summary.txt").read_text()
    for split, count in counts.items():
        written = count["all"] - count["difficult"] - count["degenerate"]
        assert len(rows(data, split)) == written
        assert f"{split}: " in said
        assert f"{written} boxes written, {count['difficult']} difficult left out, 0 crowd" in said
    loaded = read_by_ultralytics(data, "val")
    distinct = [{tuple(row) for row in file} for file in labels(Path(data["path"]), "val").values()]
    assert sum(len(label["cls"]) for label in loaded.labels) == sum(map(len, distinct))  # NEU-DET has one box twice
    assert len(loaded) == len((source / "ImageSets/Main/val.txt").read_text().split())


def test_real_coco_folder(
    root: Path, shared: Path, check_dataset: CheckDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shared / "data" / "coco"
    monkeypatch.setenv("GAM_YOLO_COCO", str(source))
    data = check_dataset(root / "data" / "coco-local.yaml")
    for split, images, boxes, crowd in (("train2017", 258, 2148, 23), ("val2017", 128, 987, 10)):
        truth = json.loads((source / f"annotations/instances_{split}.json").read_text())
        assert (len(truth["annotations"]), sum(a["iscrowd"] for a in truth["annotations"])) == (boxes, crowd)
        assert len(rows(data, split)) == boxes - crowd
        assert len(labels(Path(data["path"]), split)) == images
        # Every label again from the JSON, as corners, with the class by its name.
        names = {c["id"]: c["name"] for c in truth["categories"]}
        written = labels(Path(data["path"]), split)
        for image in truth["images"]:
            size = np.array([image["width"], image["height"]] * 2)
            own = [a for a in truth["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
            found = written[Path(image["file_name"]).stem]
            assert [data["names"][int(row[0])] for row in found] == [names[a["category_id"]] for a in own]
            for (_, x, y, w, h), a in zip(found, own, strict=True):
                left, top, width, height = a["bbox"]
                corners = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                np.testing.assert_allclose(corners * size, [left, top, left + width, top + height], atol=1e-5)
    loaded = read_by_ultralytics(data, "val")
    assert len(loaded) == 128
    assert sum(len(label["cls"]) for label in loaded.labels) == 977


def test_coco_classes_are_ultralytics_own(root: Path) -> None:
    from ultralytics.utils import ROOT

    theirs = {"coco-local": "coco", "voc-local": "VOC"}
    for name, other in theirs.items():
        assert YAML.load(root / f"data/{name}.yaml")["names"] == YAML.load(ROOT / f"cfg/datasets/{other}.yaml")["names"]
