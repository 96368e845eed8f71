"""What the readers of ground truth and detections share: proper records or one clear sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gam_yolo.errors import UserError
from gam_yolo.evaluation.data import Array, ImageId
from gam_yolo.io import is_number

__all__ = ["boxes_of", "image_id_of", "number_of", "refuse_repeats", "shown"]


def number_of(record: dict[str, Any], key: str, where: str) -> float:
    """Return a finite number of a record, or say where it is missing or none."""
    value = record.get(key)
    if not is_number(value):
        raise UserError(f"{where}: '{key}' is {value!r:.80}; expected a finite number")
    return float(value)


def boxes_of(records: Sequence[dict[str, Any]], where: str) -> Array:
    """Return the records' `bbox` as an array of shape (records, 4), or name the first record without a proper one."""
    boxes = [record.get("bbox") for record in records]
    for index, box in enumerate(boxes):
        if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and min(box[2:]) >= 0):
            raise UserError(
                f"{where}[{index}]: 'bbox' is {box!r:.80}; expected four finite numbers [x, y, width, height] in pixels"
            )
    return np.array(boxes, dtype=float).reshape(-1, 4)


def image_id_of(file: str | Path) -> ImageId:
    """Return the image id Ultralytics gives a file: its stem, as a number where it consists of digits."""
    stem = Path(file).stem
    return int(stem) if stem.isdecimal() else stem


def refuse_repeats(values: Iterable[object], where: str, what: str) -> None:
    """Refuse a list in which anything that should be unique occurs twice."""
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise UserError(f"{where}: {what} must be unique, but {shown(repeated)} occur more than once")


def shown(values: Sequence[object], limit: int = 3) -> str:
    """List the first few values for a message."""
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(f"{value!r:.120}" for value in values[:limit]) + more
