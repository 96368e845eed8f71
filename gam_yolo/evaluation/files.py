"""What the readers of ground truth and detections share: whole files or one clear sentence."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeGuard

import numpy as np

from gam_yolo.errors import UserError
from gam_yolo.evaluation.data import Array, ImageId

__all__ = ["boxes_of", "image_id_of", "is_number", "number_of", "read_json", "refuse_repeats", "shown", "text_of"]

_BRIEF = Repr()  # whatever a file holds fits into a sentence
_BRIEF.maxstring = _BRIEF.maxother = 120  # a path stays whole


def text_of(path: Path, expected: str) -> str:
    """Read a text file, or say that it is not what was expected."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text; expected {expected}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is missing, unreadable or not whole.
    """
    text = text_of(path, "a JSON file")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: is not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); "
            "was it cut off while it was written?"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists nested without end
        raise UserError(f"{path}: cannot be read as JSON ({error})") from None


def number_of(record: dict[str, Any], key: str, where: str) -> float:
    """Return a finite number of a record, or say where it is missing or none."""
    value = record.get(key)
    if not is_number(value):
        raise UserError(f"{where}: '{key}' is {_BRIEF.repr(value)}; expected a finite number")
    return float(value)


def boxes_of(records: Sequence[dict[str, Any]], where: str) -> Array:
    """Return the records' `bbox` as an array of shape (records, 4), or name the first record without a proper one."""
    boxes = [record.get("bbox") for record in records]
    for index, box in enumerate(boxes):
        if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and min(box[2:]) >= 0):
            raise UserError(
                f"{where}[{index}]: 'bbox' is {_BRIEF.repr(box)}; expected four finite numbers [x, y, width, height] "
                "in pixels"
            )
    return np.array(boxes, dtype=float).reshape(-1, 4)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value from a file is a finite number; `true` is none."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond what a float can hold
        return False


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
    return ", ".join(_BRIEF.repr(value) for value in values[:limit]) + more
