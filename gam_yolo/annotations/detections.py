"""Read detections: COCO result files, and the `predictions.json` of Ultralytics.

Which image and which class a number stands for is proven, not guessed. Ultralytics numbers classes from 1 in the
model's order, up to release 8.3.120 names images by number alone, and may do both in a set whose COCO file uses the
same numbers for something else.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gam_yolo.annotations.data import Array, Detections, GroundTruth
from gam_yolo.annotations.images import base_name, composed, image_id_of
from gam_yolo.annotations.records import box_of, number_of, shown
from gam_yolo.annotations.rules import BEYOND, MIN_OBJECTS
from gam_yolo.errors import UserError
from gam_yolo.io import read_json, read_json_parts

__all__ = ["parse_detections", "read_detections"]

Records = Sequence[dict[str, Any]]


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
    found = None if proven else _overlapped(truth, unlabelled)
    if found is not None:
        _reject_annotated_size(unlabelled, truth)
        _reject_other_reading(unlabelled, truth)
        _reject_other_unit(unlabelled, truth, found)
        _reject_repeats(unlabelled, records.category_id)
    label = _labels(records, truth, unlabelled, found)
    detections = Detections(source, image, label, unlabelled.box, unlabelled.score)
    _reject_beside(detections, truth)
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
            of_id = _look_up(records.image_id[row], by_id)
            of_id = of_id if of_id >= 0 and base_name(truth.files[of_id]) == base_name(name) else _SEVERAL
            index = by_path.get(name.replace("\\", "/"), of_id)
        found.append(index)
    readings = [_look_up_all([records.image_id[row] for row in numbered], known) for known in (by_id, by_number)]
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
    strange = _distinct(image_id if name is None else name for name, image_id, i in called if i < 0)
    if strange:
        raise UserError(
            f"{truth.source} has no image {shown(strange)}{', nor any other of its images' if max(found) < 0 else ''}",
            at=source,
            expected="predictions of the same dataset and split",
        )
    return found


_SEVERAL = -2
_MOST_BEYOND = 0.2  # of the boxes; detectors that do not clip have a few
_MOST_TWICE = 0.05  # of the records; a detector's scores and boxes have too many digits to agree by chance
_FEWEST = 3  # objects that tell in which pixels boxes are
_SAMPLE = 150  # images with objects that tell what the numbers of a box are
_BETTER = 1.2  # times the overlap, and by so many standard errors, shows another meaning
_SURE = 3.0
_EXPLAINED = 0.3  # mean IoU of a reading that is right; without it, boxes at random may fit another one better

_ORDERS: dict[str, Callable[[Array], Array]] = {
    "corners [x1, y1, x2, y2]": lambda box: np.hstack([box[:, :2], box[:, 2:] - box[:, :2]]),
    "corners [y1, x1, y2, x2]": lambda box: np.hstack([box[:, 1::-1], (box[:, 2:] - box[:, :2])[:, ::-1]]),
    "[centre x, centre y, width, height]": lambda box: np.hstack([box[:, :2] - box[:, 2:] / 2, box[:, 2:]]),
    "[y, x, height, width]": lambda box: box[:, [1, 0, 3, 2]],
}
"""What else the four numbers of a box may be, as `[x, y, width, height]`."""

_INPUTS = (320, 416, 448, 480, 512, 608, 640, 768, 800, 960, 1024, 1280)
"""Sides of network inputs whose pixels boxes may be in, if they were not scaled back."""


def _unique_index(keys: Sequence[Any]) -> dict[Any, int]:
    """Return the index of each key; `_SEVERAL` for one that occurs more than once."""
    count = Counter(keys)
    return {key: i if count[key] == 1 else _SEVERAL for i, key in enumerate(keys)}


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Return each value from a file once, in the order of their text."""
    return [value for _, value in sorted({str(value): value for value in values}.items())]


def _look_up_all(keys: list[Any], known: dict[Any, int]) -> list[int]:
    if {type(key) for key in keys} <= {int, str}:  # as nearly always
        return list(map(known.get, keys, repeat(-1)))
    return [_look_up(key, known) for key in keys]


def _look_up(key: Any, known: dict[Any, int]) -> int:
    """Look up an id from a file, whatever it may be; -1 where it is unknown."""
    return known.get(key, -1) if isinstance(key, (int, str)) and not isinstance(key, bool) else -1


def _labels(
    records: _Columns, truth: GroundTruth, detections: Detections, found: NDArray[np.intp] | None
) -> NDArray[np.intp]:
    """Return the class of each record.

    A `category_id` is one of two things: the id in the COCO file, as COCO's format has it, or the class's place in the
    model's order, counted from 1, as Ultralytics writes it. Ultralytics' records bear a `file_name`, and the dataset
    YAML's `names` tell the model's order. What that leaves open, the objects decide that the detections overlap
    (`found`, of `_overlapped`; None where `category_id` is known to be the id in the COCO file).
    """
    ids = records.category_id
    as_coco = _classes(ids, {category: i for i, category in enumerate(truth.category_ids)})
    if found is not None:
        index = {name: i for i, name in enumerate(truth.classes)}
        order = enumerate(truth.names or truth.classes, 1)
        as_model = _classes(ids, {place: index.get(name, -1) for place, name in order})
        chosen = _choose(as_coco, as_model, records, truth, found)
        if chosen is not None:
            return chosen
    if (as_coco < 0).any():
        unknown = _distinct(value for value, label in zip(ids, as_coco, strict=True) if label < 0)
        raise UserError(
            f"{truth.source} has no category with the id {shown(unknown)}",
            at=detections.source,
            expected=shown(sorted(truth.category_ids), limit=10) or "no detections, as that file has no categories",
        )
    return as_coco


def _choose(
    as_coco: NDArray[np.intp],
    as_model: NDArray[np.intp],
    records: _Columns,
    truth: GroundTruth,
    found: NDArray[np.intp],
) -> NDArray[np.intp] | None:
    """Return the one of two readings of the class numbers that is right; None if neither can be.

    Raises:
        UserError: Neither is certain.
    """
    by_ultralytics = any(name is not None for name in records.file_name)
    pair = (as_model, as_coco) if by_ultralytics and truth.names else (as_coco, as_model)
    possible = [reading for reading in pair if (reading >= 0).all()]
    if len(possible) == 2 and (as_coco == as_model).all():
        possible = [as_coco]
    evidence = [_evidence(reading, truth, found) for reading in possible]
    if evidence.count(True) == 1:
        return possible[evidence.index(True)]
    if not possible or (possible[0] is as_model and not (by_ultralytics and truth.names)):
        return None
    # Which numbers Ultralytics writes for COCO's own classes depends on a path.
    has_both = len(truth.classes) == 80 and max(truth.category_ids) == 90
    settled = len(possible) == 1 or (not by_ultralytics or (truth.names and not has_both))
    if settled and evidence[0] is not False:
        return possible[0]
    raise UserError(
        "its category_id numbers do not fit the classes of the objects that its boxes overlap"
        if False in evidence
        else f"its category_id numbers may be ids of {truth.source} or places in the model's order",
        at=records.source,
        fix="Name the dataset YAML with --data, or compare the checkpoint instead of its predictions",
    )


def _classes(ids: list[Any], known: dict[int, int]) -> NDArray[np.intp]:
    return np.array(_look_up_all(ids, known), dtype=np.intp)


def _evidence(label: NDArray[np.intp], truth: GroundTruth, found: NDArray[np.intp]) -> bool | None:
    """Return whether detections have the classes of the objects that they overlap; None where that is not known.

    Of each class with five objects found or more, the winner is the class that most of their detections have. A weak
    detector confuses classes, but takes several for one that it knows. Wrong numbers swap or shift: each class has
    another winner, and none wins its own class.
    """
    winner = {}
    for own in np.unique(truth.label[found >= 0]):
        seen = label[found[(truth.label == own) & (found >= 0)]]
        count = np.bincount(seen)
        if len(seen) >= 5 and 2 * count.max() > len(seen):
            winner[int(own)] = int(count.argmax())
    if not winner:
        return None
    right = {own for own, other in winner.items() if own == other}
    moved = [other for own, other in winner.items() if own != other and other not in right]
    if len(set(moved)) == len(moved) and (len(moved) > 1 or (moved and not right)):
        return False
    return True if right and not moved else None


def _overlapped(truth: GroundTruth, detections: Detections) -> NDArray[np.intp]:
    """Return, for each object, the most confident detection with an IoU of 0.5 or more, whatever its class; else -1."""
    found = np.full(len(truth.image), -1, dtype=np.intp)
    by_score = np.lexsort((-detections.score, detections.image))
    bounds = np.searchsorted(detections.image[by_score], np.arange(len(truth.ids) + 1))
    objects = np.flatnonzero(~truth.crowd)
    objects = objects[np.argsort(truth.image[objects], kind="stable")]
    images, begin = np.unique(truth.image[objects], return_index=True)
    for image, rows in zip(images, np.split(objects, begin)[1:], strict=True):
        own = by_score[bounds[image] : bounds[image + 1]]
        hit, place = np.nonzero(_iou(truth.box[rows][:, None], detections.box[own]) >= 0.5)
        hit, first = np.unique(hit, return_index=True)
        found[rows[hit]] = own[place[first]]
    return found


def _iou(a: Array, b: Array) -> Array:
    """Return the IoU of boxes, 0 where neither has an extent."""
    (x, y, w, h), (left, top, width, height) = np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)
    across = np.minimum(left + width, x + w) - np.maximum(left, x)
    down = np.minimum(top + height, y + h) - np.maximum(top, y)
    shared = np.clip(across, 0, None) * np.clip(down, 0, None)
    union: Array = np.asarray(w * h + width * height - shared)
    result: Array = np.divide(shared, union, out=np.zeros_like(union), where=union > 0)
    return result


def _reject_annotated_size(detections: Detections, truth: GroundTruth) -> None:
    """Reject boxes in pixels of the annotation where images were saved at another size.

    The objects decide: which of the two readings overlaps them more.
    """
    if not truth.scaled:
        return
    factors = np.ones((len(truth.ids), 2))
    factors[[*truth.scaled]] = [*truth.scaled.values()]
    scaled = replace(detections, box=detections.box * np.tile(factors[detections.image], 2))
    resized = np.isin(truth.image, [*truth.scaled])
    as_files, as_annotated = (_agreement(truth, reading)[resized] for reading in (detections, scaled))
    objects = [(reading > 0).sum() for reading in (as_files, as_annotated)]
    if objects[1] >= _FEWEST and as_annotated.sum() > 1.02 * as_files.sum():
        raise UserError(
            f"its boxes are in pixels of the annotated size on images that were saved at another size: on these "
            f"{len(truth.scaled)}, they overlap {objects[1]} objects with an IoU of 0.5 if so, and {objects[0]} if not",
            at=detections.source,
            expected="pixels of the image files",
            fix="Scale the boxes of these images, or compare the checkpoint instead of its predictions",
        )


def _reject_other_unit(detections: Detections, truth: GroundTruth, found: NDArray[np.intp]) -> None:
    """Reject boxes that are not in pixels of the original images, or not `[x, y, width, height]`."""
    total, objects = len(detections.box), int((~truth.crowd).sum())
    sizes = truth.sizes[detections.image]
    beyond = (detections.box[:, :2] + detections.box[:, 2:] > (1 + BEYOND) * sizes).any(axis=1).sum()
    wrong = ""
    if total and (detections.box[:, :2] + detections.box[:, 2:] <= 1 + BEYOND).all():
        wrong = f"all {total} boxes lie within one pixel, as numbers relative to the image do"
    elif total >= MIN_OBJECTS and _MOST_BEYOND * total < beyond:
        wrong = f"{beyond} of {total} boxes extend well beyond their image, as in another unit or order"
    elif total >= objects >= MIN_OBJECTS and (found < 0).all():
        wrong = f"none of its {total} boxes overlaps any of {objects} objects with an IoU of 0.5, whatever its class"
    if wrong:
        raise UserError(
            wrong,
            at=detections.source,
            expected="boxes [x, y, width, height] in pixels of the original image",
            fix="If the boxes are right and the detector finds nothing, compare its checkpoint",
        )


def _reject_other_reading(detections: Detections, truth: GroundTruth) -> None:
    """Reject boxes, of either file, that agree with the other's clearly better if their numbers mean something else.

    In part of the datasets, most boxes remain inside their image whatever they mean.
    """
    images = np.unique(truth.image[~truth.crowd])[:_SAMPLE]
    rows, own = np.isin(truth.image, images), np.isin(detections.image, images)
    truth = replace(truth, image=truth.image[rows], box=truth.box[rows], crowd=truth.crowd[rows])
    detections = Detections(
        detections.source, detections.image[own], detections.label[own], detections.box[own], detections.score[own]
    )
    plain = _agreement(truth, detections)
    sizes = truth.sizes[detections.image]
    readings = [
        (detections.source, truth.source, how, _agreement(truth, replace(detections, box=box)))
        for how, box in chain(
            ((order, read(detections.box)) for order, read in _ORDERS.items()),
            (
                (f"in pixels of a network input of {side}", box)
                for side in _INPUTS
                for box in _unscaled(detections.box, sizes, side)
            ),
        )
    ]
    readings += [
        (truth.source, detections.source, order, _agreement(replace(truth, box=read(truth.box)), detections))
        for order, read in _ORDERS.items()
    ]
    at, other, how, best = max(readings, key=lambda reading: reading[3].sum())
    gain = best - plain
    better = best.sum() > _BETTER * plain.sum() and gain.sum() > _SURE * np.sqrt((gain**2).sum())
    if better and best.mean() > _EXPLAINED:
        raise UserError(
            f"its boxes seem to be {how}: the mean IoU of objects with the detections that find them is then "
            f"{best.mean():.2f}, not {plain.mean():.2f}",
            at=at,
            expected="boxes [x, y, width, height] in pixels of the original image",
            fix=f"Correct them, or those of {other}",
        )


def _unscaled(box: Array, sizes: Array, side: int) -> Iterator[Array]:
    """Yield boxes in pixels of the images, if they are in pixels of a square network input.

    The image was stretched to the input, or scaled and padded: at the right and the bottom, or at both sides.
    """
    yield box / np.tile(side / sizes, 2)
    scale = side / sizes.max(axis=1, keepdims=True)
    for share in (0, 0.5):
        yield (box - np.pad(share * (side - scale * sizes), ((0, 0), (0, 2)))) / scale


def _agreement(truth: GroundTruth, detections: Detections) -> Array:
    """Return the IoU of each object and the detection that `_overlapped` finds; 0 where it finds none."""
    found, result = _overlapped(truth, detections), np.zeros(len(truth.box))
    hit = found >= 0
    result[hit] = _iou(truth.box[hit], detections.box[found[hit]])
    return result


def _reject_repeats(detections: Detections, categories: Sequence[Any]) -> None:
    """Reject a file in which records occur twice, as when files of several runs were joined."""
    columns = (detections.image, detections.score, *detections.box.T)
    mixed = np.sort(sum(column * factor for column, factor in zip(columns, np.sqrt([2, 3, 5, 7, 11, 13]), strict=True)))
    if (mixed[1:] == mixed[:-1]).sum() <= _MOST_TWICE * len(mixed):  # equal records have equal sums
        return
    order = np.lexsort((detections.box[:, 0], detections.score, detections.image))
    equal = np.ones(len(order) - 1, dtype=bool)
    for column in columns:  # one at a time, as a file may have millions of records
        equal &= column[order[1:]] == column[order[:-1]]
    repeats = sum(categories[order[i]] == categories[order[i + 1]] for i in np.flatnonzero(equal))
    if repeats >= MIN_OBJECTS and repeats > _MOST_TWICE * len(order):
        raise UserError(
            f"{repeats} of {len(order)} records repeat another one",
            at=detections.source,
            expected="each detection once",
        )


def _reject_beside(detections: Detections, truth: GroundTruth) -> None:
    """Reject what the ids do not show: boxes beside their images."""
    width, height = truth.sizes[detections.image].T
    x, y, w, h = detections.box.T
    beside = np.flatnonzero((x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0))
    beside = beside[(w[beside] > 0) & (h[beside] > 0)]
    if len(beside):
        i = int(beside[0])
        image = int(detections.image[i])
        others = f", as in {len(beside) - 1} more" if len(beside) > 1 else ""
        raise UserError(
            f"its box {np.round(detections.box[i], 1).tolist()} is beside image {truth.ids[image]!r:.120} of "
            f"{width[i]:g} x {height[i]:g} pixels{others}",
            at=f"{detections.source}, record {i}",
            expected="pixels of the original image",
        )


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
