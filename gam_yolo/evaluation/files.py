"""What the readers of ground truth and detections share: whole files or one clear sentence."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gam_yolo.errors import UserError
from gam_yolo.evaluation.data import Array, ImageId

__all__ = ["boxes_of", "image_id_of", "number_of", "read_json", "refuse_repeats", "shown"]


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is missing, unreadable or not whole.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a JSON file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text; expected a JSON file") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: is not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); "
            "was it cut off while it was written?"
        ) from None


def number_of(record: dict[str, Any], key: str, where: str) -> float:
    """Return a finite number of a record, or say where it is missing or none."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{where}: '{key}' is {value!r}; expected a finite number")
    return float(value)


def boxes_of(records: Sequence[dict[str, Any]], where: str) -> Array:
    """Return the records' `bbox` as an array of shape (records, 4), or name the first record without a proper one."""
    boxes = [record.get("bbox") for record in records]
    try:
        array = np.array(boxes, dtype=float).reshape(-1, 4)
        if len(array) == len(records) and np.isfinite(array).all() and (array[:, 2:] >= 0).all():
            return array
    except (TypeError, ValueError):
        pass
    for index, box in enumerate(boxes):
        numbers = box if isinstance(box, list) and all(isinstance(v, (int, float)) for v in box) else []
        if len(numbers) != 4 or not np.isfinite(numbers).all() or min(numbers[2:]) < 0:
            raise UserError(
                f"{where}[{index}]: 'bbox' is {box!r}; expected four finite numbers [x, y, width, height] in pixels"
            )
    raise AssertionError("every box is proper by itself, yet together they are not")  # pragma: no cover


def image_id_of(file: str | Path) -> ImageId:
    """Return the image id Ultralytics gives a file: its stem, as a number where it consists of digits."""
    stem = Path(file).stem
    return int(stem) if stem.isnumeric() else stem


def refuse_repeats(values: Iterable[object], where: str, what: str) -> None:
    """Refuse a list in which anything that should be unique occurs twice."""
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise UserError(f"{where}: {what} must be unique, but {shown(repeated)} occur more than once")


def shown(values: Sequence[object], limit: int = 3) -> str:
    """List the first few values for a message."""
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(repr(value) for value in values[:limit]) + more
