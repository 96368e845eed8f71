from __future__ import annotations

from pathlib import Path

import pytest

from gam_yolo.errors import UserError
from gam_yolo.graph.model import Document
from gam_yolo.graph.positions import resolve
from gam_yolo.graph.shapes import Shape, measure, scales

# Read off the files by hand.
EXPECTED = {
    "yolov8": {
        "p2": [2], "p3": [15], "p4": [18], "p5": [21], "backbone": [4, 6, 9], "neck": [12, 15, 18, 21],
        "head-inputs": [15, 18, 21], "after SPPF": [9], "15, 3": [3, 15], "after 15,18,p5": [15, 18, 21],
        "Concat": [11, 14, 17, 20], "after concat,SPPF": [9, 11, 14, 17, 20],
    },
    "yolov5-p6": {"p6": [32], "backbone": [4, 6, 8, 11], "neck": [12, 16, 20, 23, 26, 29, 32]},
    "yolov3-tiny": {"p3": [6], "p4": [19], "p5": [15], "head-inputs": [15, 19], "backbone": [8, 12]},
    "yolov8-world": {"neck": [12, 15, 19, 22], "head-inputs": [15, 19, 22]},
    "yolov9e": {"backbone": [22, 25, 29], "neck": [32, 35, 38, 41]},
    "yolo26-sem": {"head-inputs": [13, 16], "p5": [10]},
    "yolo11-cls": {"backbone": [9], "head-inputs": [9], "p5": [9]},
    "rtdetr-l": {"backbone": [3, 7, 9], "neck": [12, 17, 21, 24, 27], "p4": [24], "AIFI": [11]},
}  # fmt: skip


def shapes_of(document: Document) -> list[Shape | None]:
    return measure(document.config, document.name, scales(document.config)[0])


@pytest.mark.parametrize("name", EXPECTED)
def test_names_of_places(models: dict[str, Path], name: str) -> None:
    document = Document.read(models[name])
    shapes = shapes_of(document)
    found = {where: resolve(document.graph, where, shapes) for where in EXPECTED[name]}
    assert found == {where: {"after": rows} for where, rows in EXPECTED[name].items()}


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("after SPFP", "no place 'SPFP'.*Did you mean 'SPPF'"),
        ("bakcbone", "Did you mean 'backbone'"),
        ("p7", "no row of stride 128"),
        ("neck", "no neck"),
        ("", "no place ''"),
        ("3,,4", "no place ''"),
    ],
)
def test_a_place_that_is_not_there(models: dict[str, Path], where: str, told: str) -> None:
    document = Document.read(models["yolov8-cls" if where == "neck" else "yolov8"])
    with pytest.raises(UserError, match=told):
        resolve(document.graph, where, shapes_of(document))
