from __future__ import annotations

import filecmp
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as PolygonPath
from numpy.typing import NDArray

from gam_yolo.datasets import prepare_demo
from gam_yolo.datasets.demo import CLASSES, SIZE, VISIBLE_SHARE, Layer, render
from gam_yolo.errors import UserError

from .conftest import dataset, labels


def demo(path: Path, **keys: Any) -> dict[str, Any]:
    given = {"train": "images/train", "val": "images/val", "scenes": {"train": 6, "val": 3}, "seed": 0, **keys}
    return dataset(path, list(CLASSES), **given)


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_same_seed_same_bits(tmp_path: Path) -> None:
    prepare_demo(demo(tmp_path / "a"))
    prepare_demo(demo(tmp_path / "b"))
    names = files(tmp_path / "a")
    assert len(names) == 6 + 3 + 6 + 3 + 2 + 1
    assert names == files(tmp_path / "b")
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", names, shallow=False) == (names, [], [])


def test_splits_and_seeds_differ_and_a_longer_split_begins_with_the_shorter(tmp_path: Path) -> None:
    prepare_demo(demo(tmp_path / "a"))
    prepare_demo(demo(tmp_path / "b", seed=1))
    prepare_demo(demo(tmp_path / "c", scenes={"train": 7, "val": 3}))
    first = {d: (tmp_path / d / "images/train/000000.jpg").read_bytes() for d in "abc"}
    assert first["a"] != (tmp_path / "a/images/val/000000.jpg").read_bytes()
    assert first["a"] != first["b"]
    assert first["a"] == first["c"]


def outline(layer: Layer) -> list[NDArray[np.float64]]:
    """Return a layer's outer outline and holes as polygons in image pixels, from the words that describe the shape."""
    turn = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    turn, half = turn[:, None], np.linspace(0, np.pi, 128)[:, None]
    circle = np.hstack([np.cos(turn), np.sin(turn)])
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    arm = np.array([[0.32, 0.32], [0.95, 0.32], [0.95, -0.32], [0.32, -0.32]])
    quarter = np.array([[0, -1], [1, 0]])
    shapes: dict[str, list[NDArray[np.float64]]] = {
        "ball": [circle],
        "ring": [circle, circle / 2],
        "crate": [square * 0.8],
        "cross": [np.concatenate([(arm @ np.linalg.matrix_power(quarter, k)) for k in range(4)])],
        "star": [
            np.array(
                [(r * np.cos(a), r * np.sin(a)) for r, a in zip([1, 0.45] * 5, np.arange(10) * np.pi / 5, strict=True)]
            )
        ],
        "cone": [np.array([[0, -1], [0.8, 0.8], [-0.8, 0.8]])],
        "slab": [square],
        "dome": [np.hstack([np.cos(half), -np.sin(half)])],
    }
    cos, sin = np.cos(layer.angle), np.sin(layer.angle)
    turned = np.array([[cos, sin], [-sin, cos]])
    return [shape * (layer.rx, layer.ry) @ turned + (layer.x, layer.y) for shape in shapes[layer.kind]]


def mask(layer: Layer) -> NDArray[np.bool_]:
    """Return which pixels have their centre in a layer's outline, on a canvas with room around the image."""
    canvas = np.zeros((3 * SIZE, 3 * SIZE), bool)
    for polygon, value in zip(outline(layer), (True, False), strict=False):
        left, top = np.floor(polygon.min(0)).astype(int)
        right, bottom = np.ceil(polygon.max(0)).astype(int)
        across, down = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
        inside = PolygonPath(polygon, closed=False).contains_points(np.stack([across.ravel(), down.ravel()], 1))
        canvas[top + SIZE : bottom + SIZE, left + SIZE : right + SIZE][inside.reshape(across.shape)] = value
    return canvas


def test_boxes_enclose_what_is_visible_by_a_second_renderer() -> None:
    """Labels come from distance functions; here polygons of the same layers are filled, hidden and measured."""
    seen, dropped, differences = [], 0, []
    for number in range(50):
        scene = render(np.random.default_rng(number))
        boxes = iter(scene.boxes)
        free = np.ones((3 * SIZE, 3 * SIZE), bool)  # from the top layer down: where nothing lies above
        found = []
        for layer in reversed(scene.layers):
            shape = mask(layer)
            visible = (shape & free)[SIZE : 2 * SIZE, SIZE : 2 * SIZE]
            free &= ~shape
            share = visible.sum() / shape.sum()
            assert abs(share - VISIBLE_SHARE) > 1e-3, "too near the threshold for this test: choose other seeds"
            if layer.kind in CLASSES and share > VISIBLE_SHARE:
                found.append((layer.kind, visible))
            dropped += layer.kind in CLASSES and share < VISIBLE_SHARE
        assert len(found) == len(scene.boxes)
        for (kind, visible), (name, box, area) in zip(reversed(found), boxes, strict=True):
            rows, columns = np.nonzero(visible)
            expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert name == kind
            assert area == pytest.approx(visible.sum(), rel=0.01, abs=2)
            differences.append(np.abs(np.subtract(box, expected)).max())
            seen.append(kind)
    assert set(seen) == set(CLASSES)
    assert len(seen) > 200
    assert dropped > 5  # the rule is at work
    assert max(differences) <= 1  # a pixel centre on a circle, which is a polygon here
    assert np.mean(np.array(differences) == 0) > 0.95


def test_labels_and_coco_truth_say_the_same(tmp_path: Path) -> None:
    prepare_demo(demo(tmp_path / "a"))
    truth = json.loads((tmp_path / "a/annotations/instances_train.json").read_text())
    names = {c["id"]: c["name"] for c in truth["categories"]}
    from_json: dict[str, list[list[float]]] = {image["file_name"][:-4]: [] for image in truth["images"]}
    for a in truth["annotations"]:
        x, y, w, h = a["bbox"]
        row = [CLASSES.index(names[a["category_id"]]), (x + w / 2) / SIZE, (y + h / 2) / SIZE, w / SIZE, h / SIZE]
        from_json[f"{a['image_id']:06d}"].append(row)
    written = labels(tmp_path / "a", "train")
    assert written.keys() == from_json.keys()
    for name, rows in written.items():
        np.testing.assert_allclose(rows, from_json[name], atol=1e-8)


def test_colour_does_not_tell_the_class() -> None:
    """The mean colour inside the boxes of each class lies close to that of all, against the spread of objects."""
    colours: dict[str, list[NDArray[np.float64]]] = {name: [] for name in CLASSES}
    for number in range(60):
        scene = render(np.random.default_rng(number))
        for kind, (left, top, right, bottom), _ in scene.boxes:
            inside = scene.image[int(top) : int(bottom), int(left) : int(right)]
            hue = inside.mean((0, 1))
            colours[kind].append(hue / hue.sum())  # chromaticity: how light a class is follows from its texture
    everything = np.concatenate([np.array(c) for c in colours.values()])
    for name, chosen in colours.items():
        assert np.abs(np.mean(chosen, 0) - everything.mean(0)).max() < 0.5 * everything.std(0).min(), name


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"seed": None}, "mine.yaml, key 'seed': is None. Expected a whole number"),
        ({"seed": -1}, "key 'seed': is -1"),
        ({"seed": True}, "key 'seed': is True"),
        ({"scenes": 5}, "key 'scenes': is 5. Expected a number of images for split 'train'"),
        ({"scenes": {"train": 2}}, "for split 'val'"),
        ({"scenes": {"train": 0, "val": 1}}, "for split 'train'"),
    ],
)
def test_bad_keys_are_reported(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        prepare_demo(demo(tmp_path / "a", **keys))
    assert not list(tmp_path.iterdir())


def test_yaml_end_to_end(root: Path, tmp_path: Path, check_dataset: Callable[[Path], dict[str, Any]]) -> None:
    shortened = tmp_path / "gam-demo.yaml"
    text = (root / "data" / "gam-demo.yaml").read_text()
    shortened.write_text(text.replace("train: 320", "train: 4").replace("val: 96", "val: 2"))
    data = check_dataset(shortened)
    assert Path(data["path"]) == tmp_path / "datasets" / "gam-demo"
    assert tuple(data["names"].values()) == CLASSES
    assert len(list(Path(data["train"]).iterdir())) == 4
    assert len(list(Path(data["val"]).iterdir())) == 2
