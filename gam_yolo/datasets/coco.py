"""COCO on disk (`annotations/instances_<split>.json` and image folders) to what Ultralytics reads.

Rules: annotations with `iscrowd` stand for groups and are left out of training; categories are matched by name, since
ids have gaps in COCO and mean something else in every other dataset.

Ultralytics' own `convert_coco` (8.4.190) is not used: it does not clip, so one box beyond the border makes Ultralytics
drop the whole image as corrupt; it maps ids by COCO's table or as `id - 1`, which writes `None` or a wrong class for
other datasets; it counts nothing it leaves out; and it writes in place, which an interruption spoils.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gam_yolo.datasets.prepared import Box, Picture, Split, is_safe_name, link, prepare, source_folder
from gam_yolo.errors import UserError, nearest
from gam_yolo.io import is_number, read_json

__all__ = ["prepare_coco", "read_coco"]

Json = dict[str, Any]


def prepare_coco(data: Mapping[str, Any]) -> None:
    """Make the dataset of a YAML ready from a local folder in COCO's layout; for the YAML's `download:` key.

    Args:
        data: The YAML as Ultralytics hands it over. `source` names a folder with
            `annotations/instances_<split>.json` and the images in `<split>/` or `images/<split>/`; splits are called as
            in `val2017.txt` or `images/val2017`.

    Raises:
        UserError: If the source or a file in it is missing or is not what it should be.
    """
    source = source_folder(data, "a COCO folder (annotations/instances_<split>.json, <split>/)")
    prepare(data, lambda split: read_coco(source, split), str(source))


def read_coco(source: Path, split: Split) -> Iterator[Picture]:
    """Yield the pictures of one split; see `prepare_coco`.

    Raises:
        UserError: If the split, a record or a class is missing or is not what it should be.
    """
    file = source / "annotations" / f"instances_{split.name}.json"
    if not file.is_file():
        known = {p.stem.removeprefix("instances_") for p in file.parent.glob("instances_*.json")}
        raise UserError(f"{file}: missing, for split '{split.name}'{nearest(split.name, known)}")
    document = _read_document(file)
    images = _records(document, "images", file)
    categories = {
        _field(c, "id", int, f"{file}: categories[{row}]"): _field(c, "name", str, f"{file}: categories[{row}]")
        for row, c in enumerate(_records(document, "categories", file))
    }
    boxes = _boxes_by_image(_records(document, "annotations", file), file)
    link(file, split.annotations / file.name)

    seen = set()
    for row, image in enumerate(images):
        where = f"{file}: images[{row}]"
        name, number = _field(image, "file_name", str, where), _field(image, "id", int, where)
        if not is_safe_name(name):
            raise UserError(f"{where}: file_name {name!r} leaves the image folder; expected a name below it")
        if number in seen:
            raise UserError(f"{where}: id {number} is an earlier image's too")
        seen.add(number)
        own = boxes.pop(number, [])
        path = next(
            (p for p in (source / split.name / name, source / "images" / split.name / name) if p.is_file()), None
        )
        if path is None:
            split.tally.missing += 1
            continue
        width, height = (_number(image.get(side), f"{where}: {side}") for side in ("width", "height"))
        if width <= 0 or height <= 0:
            raise UserError(f"{where}: size is {width:g} x {height:g}; expected the image's width and height in pixels")
        yield Picture(name, path, width, height, _labels(own, categories, width, height, split, file))
    if boxes:
        row = next(iter(boxes.values()))[0][0]
        raise UserError(f"{file}: annotations[{row}]: image_id {next(iter(boxes))} is no image's id")


def _labels(
    own: list[tuple[int, Json]], categories: dict[int, str], width: float, height: float, split: Split, file: Path
) -> list[tuple[int, Box]]:
    """Return the labels of one image's annotations and count those left out."""
    labels = []
    for row, annotation in own:
        where = f"{file}: annotations[{row}]"
        category = _field(annotation, "category_id", int, where)
        if category not in categories:
            raise UserError(f"{where}: category_id {category} is no category's id")
        index = split.class_index(categories[category], where)
        box = _field(annotation, "bbox", list, where)
        if len(box) != 4:
            raise UserError(f"{where}: bbox has {len(box)} numbers; expected x, y, width, height")
        x, y, w, h = (_number(value, f"{where}: bbox") for value in box)
        if annotation.get("iscrowd", 0):
            split.tally.crowd += 1
        elif inside := split.clip((x, y, x + w, y + h), width, height):
            labels.append((index, inside))
    return labels


def _read_document(file: Path) -> Json:
    document = read_json(file)
    if not isinstance(document, dict):
        raise UserError(f"{file}: the document is a {type(document).__name__}; expected COCO's mapping")
    return document


def _records(document: Json, key: str, file: Path) -> list[Json]:
    records: list[Json] = _field(document, key, list, str(file))
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise UserError(f"{file}: {key}[{row}] is a {type(record).__name__}; expected a mapping")
    return records


def _boxes_by_image(annotations: list[Json], file: Path) -> dict[int, list[tuple[int, Json]]]:
    grouped: dict[int, list[tuple[int, Json]]] = {}
    for row, annotation in enumerate(annotations):
        number = _field(annotation, "image_id", int, f"{file}: annotations[{row}]")
        grouped.setdefault(number, []).append((row, annotation))
    return grouped


def _field(record: Json, key: str, kind: type, where: str) -> Any:
    value = record.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        read = f"is {value!r:.80}" if key in record else "is missing"
        raise UserError(f"{where}: key '{key}' {read}; expected {kind.__name__}")
    return value


def _number(value: object, where: str) -> float:
    if not is_number(value):
        raise UserError(f"{where} is {value!r:.80}; expected a number")
    return float(value)
