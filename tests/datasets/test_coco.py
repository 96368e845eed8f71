from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gam_yolo.datasets import prepare_coco
from gam_yolo.datasets.coco import pictures
from gam_yolo.datasets.prepared import Split
from gam_yolo.errors import UserError

from .conftest import check_pictures, dataset, labels

NAMES = ["person", "traffic light", "zebra"]
IDS = itertools.count(1)
CATEGORIES = [{"id": 90, "name": "person"}, {"id": 7, "name": "zebra"}, {"id": 11, "name": "traffic light"}]


def image(number: int, name: str, **keys: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 200, "height": 100, **keys}


def box(number: int, category: int, *xywh: float, **keys: Any) -> dict[str, Any]:
    return {"id": next(IDS), "image_id": number, "category_id": category, "bbox": list(xywh), "iscrowd": 0, **keys}


def document(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def folder(tmp_path: Path, content: object, images: tuple[str, ...] = ("a.jpg",), under: str = "val") -> dict[str, Any]:
    """Write a COCO folder with a split `val`; return the YAML that reads it."""
    (tmp_path / "coco/annotations").mkdir(parents=True, exist_ok=True)
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    (tmp_path / "coco/annotations/instances_val.json").write_bytes(raw)
    for name in images:
        (tmp_path / "coco" / under / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100)).save(tmp_path / "coco" / under / name)
    return dataset(tmp_path / "out/mine", NAMES, train="val.txt", val="val.txt", source=str(tmp_path / "coco"))


def test_labels_and_what_is_left_out(tmp_path: Path) -> None:
    annotations = [
        box(5, 90, 20, 10, 40, 20),
        box(5, 7, 0, 0, 200, 100),
        box(6, 11, 190, 90, 30, 30),  # reaches out
        box(6, 11, -10, -10, 30, 30),  # reaches out
        box(5, 90, 0, 0, 200, 50, iscrowd=1),
        box(6, 7, 3, 3, 0, 10),  # no width
        box(6, 7, 3, 3, 10, -1),  # inverted
        box(6, 7, 200, 3, 10, 10),  # outside, touching
        box(6, 7, 3, -20, 10, 10),  # outside
        box(6, 90, 163.4, 1, 200 - 163.4 + 1e-13, 9),  # ends at the border but for rounding
        box(8, 90, 1, 1, 5, 5),  # its image has no file
    ]
    images = [image(6, "b.png"), image(5, "a.jpg"), image(7, "sub/c.jpg"), image(8, "gone.jpg")]
    prepare_coco(folder(tmp_path, document(images, annotations), ("a.jpg", "b.png", "sub/c.jpg")))
    out = tmp_path / "out/mine"
    written = labels(out, "val")
    assert written["a"] == [[0, 0.2, 0.2, 0.2, 0.2], [2, 0.5, 0.5, 1, 1]]
    assert written["b"][0] == [1, 0.975, 0.95, 0.05, 0.1]
    assert written["b"][1] == [1, 0.05, 0.1, 0.1, 0.2]
    assert written["b"][2] == pytest.approx([0, 0.9085, 0.055, 0.183, 0.09], abs=1e-9)
    assert len(written["b"]) == 3
    assert (out / "labels/val/sub/c.txt").read_text() == ""
    assert (out / "val.txt").read_text().splitlines() == [
        "./images/val/b.png",
        "./images/val/a.jpg",
        "./images/val/sub/c.jpg",
    ]
    assert (out / "summary.txt").read_text().splitlines()[1] == (
        "val: 3 images, 5 boxes written, 0 difficult left out, 1 crowd left out, 4 degenerate left out, "
        "2 clipped to the image, 1 images without boxes, 1 images whose file is missing"
    )
    assert json.loads((out / "annotations/instances_val.json").read_text()) == document(images, annotations)


def test_images_may_lie_where_ultralytics_puts_them(tmp_path: Path) -> None:
    prepare_coco(folder(tmp_path, document([image(5, "a.jpg")], []), under="images/val"))
    assert labels(tmp_path / "out/mine", "val") == {"a": []}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            json.dumps(document([image(5, "a.jpg")], [])).encode()[:-9],
            r"instances_val\.json, line 1, column \d+: is not valid JSON .*Was the file cut off",
        ),
        (b"", "not valid JSON"),
        (b"\xff\xfe\x00", "is not UTF-8 text. Expected a JSON file"),
        (b"[" * 200_000, "cannot be read as JSON"),
        ([], "the document is a list. Expected COCO's mapping"),
        ({"images": []}, "instances_val.json: key 'categories' is missing. Expected a list of records"),
        ({"images": {}, "categories": []}, "key 'images' is {}. Expected a list of records"),
        (
            document([image(5, "a.jpg"), image(5, "b.jpg")], []),
            r"images: several have the id 5\. Expected each id once",
        ),
        (document([image(5, "../a.jpg")], []), r"images\[0\]: file_name '\.\./a\.jpg' leaves the image folder"),
        (document([image(5, "/etc/a.jpg")], []), "leaves the image folder"),
        (document([image(5, "C:\\a.jpg")], []), "leaves the image folder"),
        (document([image(5, "a.jpg", width=0)], []), r"images\[0\]: size is 0 x 100"),
        (document([image(5, "a.jpg", height="100")], []), r"images\[0\]: 'height' is '100'\. Expected a finite number"),
        (document([{"id": 5}], []), r"images\[0\]: key 'file_name' is missing"),
        (document([image(5, "a.jpg")], [box(6, 90, 1, 1, 1, 1)]), r"annotations\[0\]: image_id 6 is not the id of"),
        (
            document([image(5, "a.jpg")], [box(5, 1, 1, 1, 1, 1)]),
            r"annotations\[0\]: category_id 1 is not the id of",
        ),
        (
            document([image(5, "a.jpg")], [box(5, 90, 1, 1, 1)]),
            r"\'bbox\' is \[1, 1, 1\]\. Expected four finite numbers \[x, y, width, height\]",
        ),
        (
            document([image(5, "a.jpg")], [box(5, 90, 1, 1, float("nan"), 1)]),
            r"\'bbox\' is \[1, 1, nan, 1\]\. Expected four finite numbers",
        ),
        (document([image(5, "a.jpg")], [box(5, 90, 1, 1, 10**400, 1)]), r"annotations\[0\]: 'bbox' is \[1, 1, 1000"),
        (document([image(5, "a.jpg"), image(6, "a.png")], []), "two images have the name 'a.png' but for the suffix"),
        (document([image(5, "a.jpg"), image(6, "a.jpg")], []), r"two images have the name 'a.jpg'\. Ultralytics"),
        (
            document([image(6, "gone.jpg")], []),
            "none of the 1 images of .*instances_val.json: .* neither at .*coco/val/gone.jpg nor at .*images/val/gone",
        ),
        (
            {
                **document([image(5, "a.jpg")], [box(5, 1, 1, 1, 1, 1)]),
                "categories": [{"id": 1, "name": "traficlight"}],
            },
            r"annotations\[0\]: class 'traficlight' is not one of the 3 'names' .*Did you mean 'traffic light'\?",
        ),
    ],
)
def test_bad_documents_are_reported(tmp_path: Path, content: object, says: str) -> None:
    data = folder(tmp_path, content, ("a.jpg", "a.png"))
    with pytest.raises(UserError) as caught:
        prepare_coco(data)
    assert re.search(says, str(caught.value))
    assert not list((tmp_path / "out").iterdir())


def test_missing_split_is_reported(tmp_path: Path) -> None:
    data = folder(tmp_path, document([image(5, "a.jpg")], []))
    data["train"] = str(tmp_path / "out/mine/vall.txt")
    with pytest.raises(
        UserError,
        match=r"coco: has no annotations for split 'vall'\. Expected annotations/instances_vall.*Did you mean 'val'\?",
    ):
        prepare_coco(data)


VALID = document([image(5, "a.jpg")], [box(5, 90, 20, 10, 40, 20), box(5, 7, 1, 1, 9, 9, iscrowd=1)])
LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(10**400))
JSON = st.recursive(
    LEAF, lambda s: st.lists(s, max_size=4) | st.dictionaries(st.text(max_size=5), s, max_size=3), max_leaves=5
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path to every value of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in places(item, (*path, key)))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_malformed_documents_end_in_a_user_error_or_in_valid_labels(tmp_path: Path, data: st.DataObject) -> None:
    if data.draw(st.booleans(), label="cut bytes"):
        raw = bytearray(json.dumps(VALID).encode())
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        content: object = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    else:
        content = json.loads(json.dumps(VALID))
        *way, last = data.draw(st.sampled_from(places(content)[1:]))
        place: Any = content
        for step in way:
            place = place[step]
        place[last] = data.draw(JSON)
    folder(tmp_path, content)
    (tmp_path / "annotations/instances_val.json").unlink(missing_ok=True)
    split = Split("val", {name: i for i, name in enumerate(NAMES)}, tmp_path / "annotations")
    check_pictures(pictures(tmp_path / "coco", split), "instances_val.json")
