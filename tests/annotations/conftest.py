"""Small datasets as users have them, and Ultralytics with a datasets folder of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ultralytics.data import utils as data_utils

EXIF_ROTATED, EXIF_UPSIDE_DOWN = 6, 3


@pytest.fixture(autouse=True)
def datasets_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(data_utils, "DATASETS_DIR", tmp_path / "datasets")
    monkeypatch.setattr(data_utils, "check_font", lambda _: None)  # it would look for a font on the network
    return tmp_path / "datasets"


def photograph(path: Path, size: tuple[int, int] = (100, 80), orientation: int = 1, shade: int = 0) -> Path:
    """Write an image; shades tell the content of one from another's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (shade, 90, 30)).save(path, exif=exif)
    return path


def xml(*objects: str, size: tuple[int, int] = (100, 80), filename: str = "") -> str:
    name = f"<filename>{filename}</filename>" if filename else ""
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{name}{sides}{''.join(objects)}</annotation>"


def thing(name: str, xmin: object, ymin: object, xmax: object, ymax: object, extra: str = "") -> str:
    ends = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name>{extra}<bndbox>{ends}</bndbox></object>"


def voc_folder(folder: Path, split: str, annotations: dict[str, str]) -> Path:
    """Write a VOC folder's annotations and list; images are the test's."""
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in annotations))
    for name, text in annotations.items():
        (folder / f"Annotations/{name}.xml").write_text(text)
    return folder


def coco_file(path: Path, images: list[dict[str, Any]], boxes: list[dict[str, Any]], **keys: Any) -> Path:
    """Write a COCO file; ids of annotations are added."""
    content = {
        "images": images,
        "annotations": [{"id": i, "iscrowd": 0, **box} for i, box in enumerate(boxes, 1)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        **keys,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def dataset_yaml(tmp_path: Path) -> Callable[..., str]:
    """Write a dataset YAML of ours, for `cat` and `dog`."""

    def write(protocol: str, source: Path, train: str = "images/train", val: str = "images/val", more: str = "") -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(
            f"source: {source}\npath: mine\ntrain: {train}\nval: {val}\nprotocol: {protocol}\nnames: [cat, dog]\n"
            f"{more}download: |\n  from gam_yolo.datasets import prepare_{protocol}\n  prepare_{protocol}(yaml)\n"
        )
        return str(path)

    return write


def written_boxes(folder: Path, split: str, size: tuple[int, int]) -> dict[str, list[list[float]]]:
    """Return the boxes of a split's label files as left, top, width and height in pixels."""
    found = {}
    for file in sorted((folder / "labels" / split).rglob("*.txt")):
        rows = [[float(value) for value in line.split()] for line in file.read_text().splitlines()]
        found[file.stem] = [
            [(x - w / 2) * size[0], (y - h / 2) * size[1], w * size[0], h * size[1]] for _, x, y, w, h in rows
        ]
    return found
