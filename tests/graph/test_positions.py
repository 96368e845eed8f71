from __future__ import annotations

from pathlib import Path

import pytest

from gam_yolo.errors import UserError
from gam_yolo.graph.model import Document
from gam_yolo.graph.positions import NAMES, RECIPES, VERBS, describe, resolve
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
    ("where", "words"),
    [
        ("after SPFP", "no place 'SPFP'.*Did you mean 'SPPF'"),
        ("bakcbone", "Did you mean 'backbone'"),
        ("p7", "no row of stride 128. Expected one of p1, p2, p3, p4, p5.$"),
        ("neck", "no neck"),
        ("", "a place is missing in ''"),
        ("befor SPPF", "no place 'befor SPPF'.*Did you mean 'before SPPF'"),
        ("inside C2F, replace C3PSA", "no place 'C3PSA'"),
        ("before", "no place stands after 'before'. Expected places such as p3"),
        ("yolov8-an", "Did you mean 'yolov8-am'"),
        ("inside ema", "'inside' stands before 'ema'.*Write ema alone"),
        ("backbone-p6", "no backbone row of stride 64"),
        ("3,,4", "a place is missing in '3,,4'"),
    ],
)
def test_a_place_that_is_not_there(models: dict[str, Path], where: str, words: str) -> None:
    document = Document.read(models["yolov8-cls" if where == "neck" else "yolov8"])
    with pytest.raises(UserError, match=words):
        resolve(document.graph, where, shapes_of(document))


VERBS_AND_ROWS = {
    "yolov8": {
        "before SPPF": {"before": [9]},
        "before Detect, inside c2f": {"before": [22], "inside": [2, 4, 6, 8, 12, 15, 18, 21]},
        "Before SPPF, 15, after p5, 2": {"before": [9, 15], "after": [2, 21]},  # a word holds up to the next one
        "replace SPPF, remove 8": {"replace": [9], "remove": [8]},
        "backbone-p2, backbone-p3, backbone-p4, backbone-p5": {"after": [2, 4, 6, 8]},
        # Read off the published files: see the recipes.
        "yolov8-am": {"after": [12, 15, 18, 21]},
        "yolo-research": {"before": [9], "after": [15, 18, 21]},
        "ema": {"after": [6, 8]},
        "inside 2, ema, 4": {"inside": [2, 4], "after": [6, 8]},
    },
    "yolov5": {"ema": {"after": [6, 8]}, "yolo-research": {"before": [9], "after": [17, 20, 23]}},
    "yolo11": {"replace C2PSA": {"replace": [10]}, "ema": {"after": [6, 8]}, "before SPPF": {"before": [9]}},
    "yolov10s": {"ema": {"after": [6, 8]}},
    "yolov9c": {"ema": {"after": [6, 8]}, "before SPPELAN": {"before": [9]}},
    "rtdetr-l": {"backbone-p4": {"after": [7]}},
}  # fmt: skip


@pytest.mark.parametrize("name", VERBS_AND_ROWS)
def test_what_is_done_at_which_rows(models: dict[str, Path], name: str) -> None:
    document = Document.read(models[name])
    shapes = shapes_of(document)
    found = {where: resolve(document.graph, where, shapes) for where in VERBS_AND_ROWS[name]}
    assert found == VERBS_AND_ROWS[name]


def test_the_description_lists_every_place_and_every_source() -> None:
    text = describe()
    for word in (*NAMES, *VERBS, *RECIPES, *(recipe.at for recipe in RECIPES.values())):
        assert word in text, word
    for source in ("RuiyangJu/Fracture_Detection_Improved_YOLOv8", "positive666/yolo_research", "YOLOonMe/EMA"):
        assert f"github.com/{source}" in text
