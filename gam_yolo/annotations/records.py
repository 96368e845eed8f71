"""Checks of the records in a JSON file: each is right, or a one-line error names it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

from gam_yolo.annotations.rules import Box
from gam_yolo.errors import UserError
from gam_yolo.io import is_number

__all__ = ["box_of", "distinct", "is_id", "look_up", "look_up_all", "number_of", "reject_repeats", "shown"]


def number_of(record: dict[str, Any], key: str, at: str) -> float:
    """Return a finite number of a record.

    Raises:
        UserError: There is none.
    """
    value = record.get(key)
    if not is_number(value):
        raise UserError(f"'{key}' is {value!r:.80}", at=at, expected="a finite number")
    return float(value)


def box_of(record: dict[str, Any], at: str, inverted: bool = False) -> Box:
    """Return a record's `bbox`.

    Args:
        record: The record.
        at: Where it is, for messages.
        inverted: Whether a negative width or height passes, for a rule to deal with.

    Raises:
        UserError: It is not a box.
    """
    box = record.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and (inverted or min(box[2:]) >= 0):
        return float(box[0]), float(box[1]), float(box[2]), float(box[3])
    raise UserError(f"'bbox' is {box!r:.80}", at=at, expected="four finite numbers [x, y, width, height] in pixels")


def is_id(value: object, kinds: tuple[type, ...] = (int, str)) -> bool:
    """Return whether a value from a JSON file may be an id."""
    return isinstance(value, kinds) and not isinstance(value, bool)


def look_up_all(keys: list[Any], known: Mapping[Any, int]) -> list[int]:
    """Look up values of a JSON file that should be ids, as `look_up` does."""
    if {type(key) for key in keys} <= {int, str}:  # as nearly always
        return list(map(known.get, keys, repeat(-1)))
    return [look_up(key, known) for key in keys]


def look_up(key: object, known: Mapping[Any, int]) -> int:
    """Look up a value that should be an id; -1 where it is none, or unknown."""
    return known.get(key, -1) if is_id(key) else -1


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return each value once, in the order of their text."""
    return [value for _, value in sorted({str(value): value for value in values}.items())]


def reject_repeats(values: Iterable[object], at: str, what: str) -> None:
    """Reject a list in which something occurs twice; `what` names it in the singular."""
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise UserError(f"several have the {what} {shown(repeated)}", at=at, expected=f"each {what} once")


def shown(values: Sequence[object], limit: int = 3) -> str:
    """List the first few values for a message.

    Examples:
        >>> shown([1, 2, 3, 4, 5])
        '1, 2, 3 and 2 more'
    """
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(f"{value!r:.120}" for value in values[:limit]) + more
