"""Ground truth and detections in COCO's JSON format (https://cocodataset.org/#format-data)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gam_yolo.errors import UserError
from gam_yolo.evaluation.data import Detections, GroundTruth
from gam_yolo.evaluation.files import boxes_of, image_id_of, number_of, refuse_repeats, shown
from gam_yolo.io import read_json

__all__ = ["parse_detections", "read_coco", "read_detections"]


def read_coco(path: str | Path) -> GroundTruth:
    """Read an annotation file such as `instances_val2017.json`.

    Raises:
        UserError: The file is not whole, or an id is missing, repeated or unknown.
    """
    path = Path(path)
    content = read_json(path)
    lists = [content.get(key) if isinstance(content, dict) else None for key in ("images", "categories", "annotations")]
    for key, value in zip(("images", "categories", "annotations"), lists, strict=True):
        if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
            raise UserError(f"{path}: has no list '{key}' of records; expected a COCO annotation file")
    images, categories, annotations = (value or [] for value in lists)
    if not images:
        raise UserError(f"{path}: lists no images")
    for key, records in (("images", images), ("categories", categories), ("annotations", annotations)):
        kinds = (int, str) if key == "images" else int
        wrong = next((i for i, record in enumerate(records) if not isinstance(record.get("id"), kinds)), None)
        if wrong is not None:
            raise UserError(f"{path}: {key}[{wrong}] has the id {shown([records[wrong].get('id')])}; expected a number")
        refuse_repeats((record["id"] for record in records), f"{path}: {key}", "ids")
    images = sorted(images, key=lambda image: (isinstance(image["id"], str), image["id"]))
    categories = sorted(categories, key=lambda category: category["id"])
    image_index = {image["id"]: i for i, image in enumerate(images)}
    label_index = {category["id"]: i for i, category in enumerate(categories)}
    for key, known in (("image_id", image_index), ("category_id", label_index)):
        unknown = sorted({str(a.get(key)) for a in annotations if _index(a.get(key), known) < 0})
        if unknown:
            raise UserError(f"{path}: annotations name {key} {shown(unknown)}, which the file does not list")
    box = boxes_of(annotations, f"{path}: annotations")
    sides = ("width", "height")
    # As in pycocotools, the size of an object is that of its mask; a file of boxes alone may leave it out.
    area = [
        number_of(a, "area", f"{path}: annotations[{i}]") if "area" in a else float(b[2] * b[3])
        for i, (a, b) in enumerate(zip(annotations, box, strict=True))
    ]
    return GroundTruth(
        source=str(path),
        ids=tuple(image_index),
        files=tuple(str(image.get("file_name", image["id"])) for image in images),
        sizes=np.array(
            [
                [number_of(image, side, f"{path}: image {image['id']}") if side in image else np.nan for side in sides]
                for image in images
            ],
            dtype=float,
        ),
        classes=tuple(str(category.get("name", category["id"])) for category in categories),
        category_ids=tuple(label_index),
        image=np.array([image_index[a["image_id"]] for a in annotations], dtype=np.intp),
        label=np.array([label_index[a["category_id"]] for a in annotations], dtype=np.intp),
        box=box,
        area=np.array(area, dtype=float),
        crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], dtype=bool),
        difficult=np.zeros(len(annotations), dtype=bool),
    )


def read_detections(path: str | Path, truth: GroundTruth, whole: bool = False) -> Detections:
    """Read a COCO result file, or the `predictions.json` that Ultralytics' validation writes with `save_json=True`.

    A record's image is the one its `file_name` names, as Ultralytics writes it, else the one with its `image_id`.

    Args:
        path: The file: a list of records with `image_id`, `category_id`, `bbox` and `score`.
        truth: What the detections are to be compared with.
        whole: Whether they are known to come from all of its images. If not, a file without detections, or with some on
            less than half of the images with objects, is taken for another split's or for an interrupted one.

    Raises:
        UserError: The file is not whole, a number in it is none, or it belongs to another data set.
    """
    path = Path(path)
    records = read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{path}: is not a list of records; expected a COCO result file")
    detections = parse_detections(records, truth, str(path))
    if not whole:
        _refuse_partial(detections, truth)
    return detections


def parse_detections(records: list[dict[str, Any]], truth: GroundTruth, source: str) -> Detections:
    """Turn the records of a COCO result file into `Detections`; see `read_detections`."""
    image_index = _image_finder(truth)
    image = [image_index(record) for record in records]
    strange = sorted({str(r.get("file_name", r.get("image_id"))) for r, i in zip(records, image, strict=True) if i < 0})
    if strange:
        raise UserError(
            f"{source}: {len(strange)} of its images ({shown(strange)}) are not in {truth.source}; "
            "are these predictions of another data set or split?"
        )
    label_index = {category: i for i, category in enumerate(truth.category_ids)}
    label = [_index(record.get("category_id"), label_index) for record in records]
    if -1 in label:
        unknown = sorted({str(r.get("category_id")) for r, k in zip(records, label, strict=True) if k < 0})
        raise UserError(
            f"{source}: category_id {shown(unknown)} are not in {truth.source}, which has "
            f"{min(truth.category_ids)} to {max(truth.category_ids)} ({len(truth.classes)} classes)"
        )
    score = [number_of(record, "score", f"{source}: record {i}") for i, record in enumerate(records)]
    detections = Detections(
        source=source,
        image=np.array(image, dtype=np.intp),
        label=np.array(label, dtype=np.intp),
        box=boxes_of(records, f"{source}: record "),
        score=np.array(score, dtype=float),
    )
    _refuse_beside(detections, truth)
    return detections


def _image_finder(truth: GroundTruth) -> Callable[[dict[str, Any]], int]:
    """Return what finds a record's image: its index, or -1."""
    by_id: dict[Any, int] = {image_id_of(file): i for i, file in enumerate(truth.files)}
    by_id |= dict(zip(truth.ids, range(len(truth.ids)), strict=True))
    names = [Path(file).name for file in truth.files]
    by_name: dict[Any, int] = dict(zip(names, range(len(names)), strict=True))
    repeated = {name for name, count in Counter(names).items() if count > 1}  # in several folders: then the id decides

    def find(record: dict[str, Any]) -> int:
        name = record.get("file_name")
        if name is None or (isinstance(name, str) and name in repeated):
            return _index(record.get("image_id"), by_id)
        return _index(name, by_name)

    return find


def _index(key: Any, known: dict[Any, int]) -> int:
    """Look an id from a file up, whatever it may be; -1 where it is none of the known."""
    return known.get(key, -1) if isinstance(key, (int, str)) else -1


def _refuse_beside(detections: Detections, truth: GroundTruth) -> None:
    """Refuse what the ids do not betray: boxes beside their images."""
    width, height = truth.sizes[detections.image].T
    x, y, w, h = detections.box.T
    beside = np.flatnonzero((x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0))
    beside = beside[(w[beside] > 0) & (h[beside] > 0)]
    if len(beside):
        i = int(beside[0])
        image = int(detections.image[i])
        raise UserError(
            f"{detections.source}: record {i} has its box {np.round(detections.box[i], 1).tolist()} beside image "
            f"{truth.ids[image]!r} of {width[i]:g} x {height[i]:g} pixels ({len(beside)} such records); "
            "expected pixels of the original image"
        )


def _refuse_partial(detections: Detections, truth: GroundTruth) -> None:
    """Refuse detections of images most of which were never looked at."""
    if not len(detections.image):
        raise UserError(f"{detections.source}: holds no detections")
    without, images = detections.left_out(truth)
    if 2 * without > images:
        raise UserError(
            f"{detections.source}: has detections on {images - without} of the {images} images with objects in "
            f"{truth.source}; expected predictions of the whole split"
        )
