"""Read COCO's JSON format (https://cocodataset.org/#format-data), as COCO and Roboflow lay it out."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gam_yolo.annotations.data import GroundTruth, ImageId
from gam_yolo.annotations.images import ImageFinder, base_name, is_file, is_safe_name
from gam_yolo.annotations.records import box_of, is_id, number_of, reject_repeats, shown
from gam_yolo.annotations.rules import AnnotatedImage, Box, Object, Tally, ground_truth
from gam_yolo.errors import UserError, similar
from gam_yolo.io import read_json

__all__ = [
    "ROBOFLOW",
    "CocoFile",
    "annotation_file",
    "image_places",
    "read_coco",
    "read_coco_file",
    "split_files",
    "split_of",
]

ROBOFLOW = "_annotations.coco.json"

Json = dict[str, Any]

_MOST_AREA = 1.5  # times the box's; boxes are rounded, and masks are drawn with their outline

_CROWD = {"": False, "0": False, "0.0": False, "false": False, "none": False, "1": True, "1.0": True, "true": True}


@dataclass(frozen=True)
class CocoFile:
    """A COCO annotation file.

    Attributes:
        path: The file.
        images: Its images in the order of the file. The name of one without `file_name` is empty.
        categories: Category names by id, in the order of the ids.
        placeholder: The id of a category that no annotation has and that others name as their supercategory, as in
            Roboflow's exports; None where there is none.
    """

    path: Path
    images: tuple[AnnotatedImage, ...]
    categories: dict[int, str]
    placeholder: int | None = None


def split_files(source: Path) -> dict[str, Path]:
    """Return the annotation files of a folder by split.

    `annotations/instances_<split>.json` is COCO's layout, `<split>/_annotations.coco.json` Roboflow's;
    `annotations/<split>.json` and `<split>.json` are also read.
    """
    found: dict[str, Path] = {}
    for pattern in (f"*/{ROBOFLOW}", "*.json", "annotations/*.json"):
        for file in sorted(source.glob(pattern)):
            found[split_of(file)] = file
    return found


def split_of(file: Path) -> str:
    """Return the split that an annotation file is of, by its name."""
    return file.parent.name if file.name == ROBOFLOW else file.stem.removeprefix("instances_")


def annotation_file(source: Path, split: str) -> Path:
    """Return the annotation file of a split; see `split_files`.

    Raises:
        UserError: There is none.
    """
    known = split_files(source)
    if split not in known:
        raise UserError(
            f"has no annotations for split '{split}'",
            at=source,
            expected=f"annotations/instances_{split}.json or {split}/{ROBOFLOW}",
            similar=similar(split, known),
        )
    return known[split]


def image_places(file: Path, split: str, name: str) -> list[Path]:
    """Return where an image of a split may lie: the images of COCO's, Ultralytics' and Roboflow's layouts.

    The name as it is written comes first, in each folder. Then come those that other systems take for the same: with
    slashes, with accents composed or not, and with the ending in another case.
    """
    root = file.parent.parent if file.parent.name == "annotations" or file.name == ROBOFLOW else file.parent
    folders = (root / split, root / "images" / split, root, root / "images")
    slashed = name.replace("\\", "/")
    stem, dot, ending = slashed.rpartition(".")
    endings = [slashed, *(f"{stem}{dot}{e}" for e in (ending.lower(), ending.upper()))]
    alike = [name, *(unicodedata.normalize(form, n) for n in endings for form in ("NFC", "NFD"))]
    return [folder / n for n in dict.fromkeys(alike) for folder in folders] if is_safe_name(name) else []


def read_coco(
    path: str | Path, *, images: Iterable[Path] | None = None, names: Sequence[str] = (), leave_out: bool = False
) -> GroundTruth:
    """Read an annotation file such as `instances_val2017.json`.

    Args:
        path: The file.
        images: The image files of the split, for their sizes; if not given, they are looked for in COCO's layout.
        names: Class names in the model's order.
        leave_out: Whether images that are not among `images` are left out.

    Raises:
        UserError: The file is not complete; an id is missing, repeated or unknown; or sizes differ from the images'.
    """
    path = Path(path)
    content = read_coco_file(path)
    tally = Tally()
    located = list(_located(content, None if images is None else ImageFinder(images), leave_out, tally))
    if not located:
        raise UserError(
            f"none of its images ({shown([i.name for i in content.images])}) is among those of the dataset YAML",
            at=path,
            expected="annotations of the same split",
        )
    truth = ground_truth(
        sorted(located, key=lambda image: (isinstance(image.id, str), image.id)),
        tuple(content.categories.values()),
        str(path),
        tally=tally,
        category_ids=tuple(content.categories),
        names=names,
        by_row=True,
    )
    without = sum(thing.area is None for image in located for thing in image.objects)
    counted = (
        "1 object has no valid 'area': its size is its"
        if without == 1
        else f"{without} objects have no valid 'area': their size is their"
    )
    return replace(truth, notes=(*truth.notes, f"{counted} box's")) if without else truth


def _located(content: CocoFile, finder: ImageFinder | None, leave_out: bool, tally: Tally) -> Iterator[AnnotatedImage]:
    """Yield the images with their files, where known."""
    stems = Counter(Path(base_name(image.name)).stem for image in content.images)
    for image in content.images:
        if finder is None:
            places = image_places(content.path, split_of(content.path), image.name)
            yield replace(image, file=next(filter(is_file, places), None))
            continue
        file = finder.find(image.name, exactly=stems[Path(base_name(image.name)).stem] > 1)
        tally.missing += file is None
        if file or not leave_out:
            yield replace(image, file=file)


def read_coco_file(path: Path) -> CocoFile:
    """Read an annotation file and check its records.

    Raises:
        UserError: A record is missing, or not what it should be.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"the document is a {type(content).__name__}", at=path, expected="COCO's mapping")
    images, categories, annotations = (_records(content, key, path) for key in ("images", "categories", "annotations"))
    if not images:
        raise UserError("lists no images", at=path)
    used = {a["category_id"] for a in annotations if is_id(a.get("category_id"), (int,))}
    names = _category_names(categories, used, path)
    objects: dict[ImageId, list[Object]] = {image["id"]: [] for image in images}
    for row, annotation in enumerate(annotations):
        at = f"{path}, annotations[{row}]"
        for key, known in (("image_id", objects), ("category_id", names)):
            value = annotation.get(key)
            if not is_id(value) or value not in known:
                raise UserError(f"{key} {shown([value])} is not the id of one of the file's records", at=at)
        box = box_of(annotation, at, inverted=True)
        objects[annotation["image_id"]].append(
            Object(
                row,
                names[annotation["category_id"]],
                box,
                area=_mask_area(annotation, box, at),
                crowd=_is_crowd(annotation.get("iscrowd", 0), at),
            )
        )
    where = f"{path}, annotations"
    read = tuple(
        AnnotatedImage(
            image["id"],
            _file_name(image, f"{path}, images[{row}]"),
            _size(image, f"{path}, images[{row}]"),
            objects[image["id"]],
            where,
        )
        for row, image in enumerate(images)
    )
    parents = {str(c.get("supercategory")) for c in categories}
    placeholder = next((i for i, name in names.items() if i not in used and name in parents and len(names) > 1), None)
    return CocoFile(path, read, names, placeholder)


def _records(content: Json, key: str, path: Path) -> list[Json]:
    """Return a list of records with proper, unique ids."""
    records = content.get(key)
    if not isinstance(records, list):
        read = f"is {records!r:.80}" if key in content else "is missing"
        raise UserError(f"key '{key}' {read}", at=path, expected="a list of records")
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise UserError(f"is a {type(record).__name__}", at=f"{path}, {key}[{row}]", expected="a mapping")
        if not is_id(record.get("id"), (int, str) if key == "images" else (int,)):
            kinds = "a whole number or a text" if key == "images" else "a whole number"
            raise UserError(f"has the id {shown([record.get('id')])}", at=f"{path}, {key}[{row}]", expected=kinds)
    reject_repeats((record["id"] for record in records), f"{path}, {key}", "id")
    return records


def _category_names(categories: list[Json], used: set[int], path: Path) -> dict[int, str]:
    """Return category names by id; of two with one name, one that no annotation has is left out."""
    names = {c["id"]: str(c.get("name", c["id"])).strip() for c in sorted(categories, key=lambda c: c["id"])}
    count = Counter(names.values())
    names = {i: name for i, name in names.items() if count[name] == 1 or i in used}
    repeated = [name for name, number in Counter(names.values()).items() if number > 1]
    if repeated:
        raise UserError(f"several categories have the name {shown(repeated)}", at=path, expected="each name once")
    return names


def _file_name(image: Json, at: str) -> str:
    name = image.get("file_name", "")
    if not is_id(name):
        raise UserError(f"'file_name' is {name!r:.80}", at=at, expected="a file name")
    return str(name)


def _is_crowd(value: object, at: str) -> bool:
    """Read `iscrowd`; some tools write it as text, and the text "0" is no 0."""
    text = str(value).strip().lower()
    if text not in _CROWD:
        raise UserError(f"'iscrowd' is {value!r:.80}", at=at, expected="0 or 1")
    return _CROWD[text]


def _mask_area(annotation: Json, box: Box, at: str) -> float | None:
    """Return `area`, by which pycocotools too takes an object for small, medium or large; None if no mask has it.

    A file of boxes alone may leave it out, or have 0 in each place; a resized one may have those of other pixels.
    """
    if "area" not in annotation:
        return None
    area, of_box = number_of(annotation, "area", at), box[2] * box[3]
    return area if min(1, of_box / 2) <= area <= _MOST_AREA * of_box and area > 0 else None


def _size(image: Json, at: str) -> tuple[float, float]:
    width, height = (number_of(image, side, at) if side in image else float("nan") for side in ("width", "height"))
    if width <= 0 or height <= 0:
        raise UserError(f"size is {width:g} x {height:g}", at=at, expected="the image's width and height in pixels")
    return width, height
