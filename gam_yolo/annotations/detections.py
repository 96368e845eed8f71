"""Read detections: COCO result files, and the `predictions.json` of Ultralytics.

Which image and which class a number stands for is proven, not guessed. Ultralytics numbers classes from 1 in the
model's order, up to release 8.3.120 names images by number alone, and may do both in a set whose COCO file uses the
same numbers for something else.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gam_yolo.annotations.category_numbers import class_indices
from gam_yolo.annotations.data import Array, Detections, GroundTruth
from gam_yolo.annotations.images import base_name, composed, image_id_of
from gam_yolo.annotations.plausibility import reject_beside, reject_implausible
from gam_yolo.annotations.records import box_of, distinct, look_up, look_up_all, number_of, shown
from gam_yolo.errors import UserError
from gam_yolo.io import read_json, read_json_parts

__all__ = ["parse_detections", "read_detections"]

Records = Sequence[dict[str, Any]]

_SEVERAL = -2  # in place of the index of an image whose name several have


class _Columns:
    """The records of a result file, key by key. A record takes a tenth of the memory that its mapping does.

    Attributes:
        source: The file, for messages.
        image_id: As in the file.
        file_name: As in the file; None where there is none.
        category_id: As in the file.
        error: What is wrong with a score, else with a box; None if nothing is.
    """

    def __init__(self, source: str, parts: Iterable[Records]) -> None:
        self.source = source
        self.image_id: list[Any] = []
        self.file_name: list[Any] = []
        self.category_id: list[Any] = []
        scores, boxes = [np.zeros(0)], [np.zeros((0, 4))]
        errors: list[UserError | None] = [None, None]
        for records in parts:
            row = len(self.image_id)
            self.image_id += [record.get("image_id") for record in records]
            names = (record.get("file_name") for record in records)
            self.file_name += [sys.intern(name) if type(name) is str else name for name in names]
            self.category_id += [record.get("category_id") for record in records]
            try:
                scores.append(_scores(records, source, row))
            except UserError as error:
                errors[0] = errors[0] or error
            try:
                boxes.append(_boxes(records, source, row))
            except UserError as error:
                errors[1] = errors[1] or error
        self.error = errors[0] or errors[1]
        self._scores, self._boxes = scores, boxes

    def arrays(self) -> tuple[Array, Array]:
        """Return the boxes, shape (records, 4), and the scores, shape (records,).

        Raises:
            UserError: A value is no score or no box.
        """
        if self.error:
            raise self.error
        return np.concatenate(self._boxes), np.concatenate(self._scores)


def read_detections(path: str | Path, truth: GroundTruth, whole: bool = False) -> Detections:
    """Read a COCO result file, or the `predictions.json` that Ultralytics' validation writes with `save_json=True`.

    A record's image is the one that its `file_name` names, as Ultralytics writes it, else the one with its `image_id`.

    Args:
        path: The file: a list of records with `image_id`, `category_id`, `bbox` and `score`.
        truth: What the detections are compared with.
        whole: Whether `gam_yolo` wrote the file: it then covers all images, and its numbers are those of `truth`. If
            not, a file with detections on less than half of the images with objects is rejected, but not an empty one.

    Raises:
        UserError: The file is incomplete, a value in it is wrong, or it belongs to another dataset.
    """
    detections = _parse(_read(Path(path)), truth, proven=whole)
    if not whole:
        _reject_partial(detections, truth)
    return detections


def parse_detections(records: Records, truth: GroundTruth, source: str) -> Detections:
    """Turn records whose `category_id` is known to be that of `truth` into `Detections`; see `read_detections`.

    Args:
        records: The records.
        truth: What the detections are compared with.
        source: Where the records are from, for messages.

    Raises:
        UserError: As in `read_detections`.
    """
    return _parse(_Columns(source, [records]), truth, proven=True)


def _read(path: Path) -> _Columns:
    try:
        return _Columns(str(path), read_json_parts(path))
    except (ValueError, AttributeError):  # not a plain list of mappings: read as a whole, which says what is wrong
        records = read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError("is not a list of records", at=path, expected="a COCO result file")
    return _Columns(str(path), [records])


def _parse(records: _Columns, truth: GroundTruth, proven: bool) -> Detections:
    source = records.source
    image = np.array(_images(records, truth), dtype=np.intp)
    unlabelled = Detections(source, image, np.zeros_like(image), *records.arrays())
    found = None if proven else reject_implausible(unlabelled, records.category_id, truth)
    by_ultralytics = any(name is not None for name in records.file_name)
    label = class_indices(source, records.category_id, by_ultralytics, truth, found)
    detections = Detections(source, image, label, unlabelled.box, unlabelled.score)
    reject_beside(detections, truth)
    return detections


def _scores(records: Records, source: str, row: int) -> Array:
    """Return the scores of records of which the first is record `row` of its file."""
    found = _finite([record.get("score") for record in records])
    if found is not None and (found >= 0).all() and (found <= 1).all():
        return found
    return np.array([_score(record, f"{source}, record {i}") for i, record in enumerate(records, row)], dtype=float)


def _boxes(records: Records, source: str, row: int) -> Array:
    """Return the boxes of records of which the first is record `row` of its file."""
    boxes: list[Any] = [record.get("bbox") for record in records]
    if {type(box) for box in boxes} == {list} and {len(box) for box in boxes} == {4}:
        found = _finite(list(chain.from_iterable(boxes)))
        if found is not None and (found := found.reshape(-1, 4))[:, 2:].min() >= 0:
            return found
    checked = [box_of(record, f"{source}, record {i}") for i, record in enumerate(records, row)]
    return np.array(checked, dtype=float).reshape(-1, 4)


def _finite(values: list[Any]) -> Array | None:
    """Return values as an array if all are finite numbers; None if that has to be found out one by one."""
    if not {type(value) for value in values} <= {float, int}:
        return None
    try:
        found = np.array(values, dtype=float)
    except OverflowError:
        return None
    return found if np.isfinite(found).all() else None


def _score(record: dict[str, Any], at: str) -> float:
    score = number_of(record, "score", at)
    if not 0 <= score <= 1:
        raise UserError(f"'score' is {score:g}", at=at, expected="a confidence from 0 to 1")
    return score


def _images(records: _Columns, truth: GroundTruth) -> list[int]:
    """Return the index of each record's image."""
    source = records.source
    by_path = _unique_index([file.replace("\\", "/") for file in truth.files])
    names = [composed(base_name(file)) for file in truth.files]  # an accent may be apart from its letter, as on a Mac
    by_name = _unique_index(names)
    by_stem = _unique_index([Path(name).stem for name in names])
    by_id = {image_id: i for i, image_id in enumerate(truth.ids)}
    by_number = _unique_index([image_id_of(base_name(file)) for file in truth.files])
    named: dict[str, int] = {}  # the names that were looked up already
    found: list[int] = []
    numbered: list[int] = []  # records that bear an id alone
    for row, name in enumerate(records.file_name):
        index = -1
        if isinstance(name, str):
            if name not in named:
                base = composed(base_name(name))
                named[name] = by_name[base] if base in by_name else by_stem.get(Path(base).stem, -1)
            index = named[name]
        elif name is None:
            numbered.append(row)
        if index == _SEVERAL:  # in several folders: these decide, or the id, if it is that of an image of this name
            of_id = look_up(records.image_id[row], by_id)
            of_id = of_id if of_id >= 0 and base_name(truth.files[of_id]) == base_name(name) else _SEVERAL
            index = by_path.get(name.replace("\\", "/"), of_id)
        found.append(index)
    readings = [look_up_all([records.image_id[row] for row in numbered], known) for known in (by_id, by_number)]
    complete = [reading for reading in readings if min(reading, default=0) >= 0]
    if len(complete) == 2 and complete[0] != complete[1]:
        row = next(row for row, a, b in zip(numbered, *complete, strict=True) if a != b)
        raise UserError(
            f"image_id {shown([records.image_id[row]])} may be an id in {truth.source} or the name of an image, "
            "and these are different images",
            at=f"{source}, record {row}",
            fix="Add the 'file_name' to each record, as Ultralytics after 8.3.120 writes it, or compare the checkpoint",
        )
    for row, index in zip(numbered, (complete or readings)[0], strict=True):
        found[row] = index
    several = sorted({str(name) for name, i in zip(records.file_name, found, strict=True) if i == _SEVERAL})
    if several:
        raise UserError(
            f"{truth.source} has several images with the file name {shown(several)}",
            at=source,
            expected="image names that differ, whatever their folder",
        )
    called = zip(records.file_name, records.image_id, found, strict=True)
    strange = distinct(image_id if name is None else name for name, image_id, i in called if i < 0)
    if strange:
        raise UserError(
            f"{truth.source} has no image {shown(strange)}{', nor any other of its images' if max(found) < 0 else ''}",
            at=source,
            expected="predictions of the same dataset and split",
        )
    return found


def _unique_index(keys: Sequence[Any]) -> dict[Any, int]:
    """Return the index of each key; `_SEVERAL` for one that occurs more than once."""
    count = Counter(keys)
    return {key: i if count[key] == 1 else _SEVERAL for i, key in enumerate(keys)}


def _reject_partial(detections: Detections, truth: GroundTruth) -> None:
    """Reject detections of images most of which were never looked at.

    A file without any detection is what a detector writes that finds nothing; the report warns of it.
    """
    without, images = detections.left_out(truth)
    if len(detections.image) and 2 * without > images:
        raise UserError(
            f"has detections on only {images - without} of the {images} images with objects in {truth.source}",
            at=detections.source,
            expected="predictions of the whole split",
        )
