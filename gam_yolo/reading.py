"""What others wrote: text, JSON, and the numbers in it and in XML, or one sentence that says what is wrong with it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeGuard
from xml.etree.ElementTree import Element

from gam_yolo.errors import UserError

__all__ = ["is_number", "read_json", "read_text", "xml_number"]


def read_text(path: Path, expected: str) -> str:
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
    text = read_text(path, "a JSON file")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: is not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); "
            "was it cut off while it was written?"
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists nested without end
        raise UserError(f"{path}: cannot be read as JSON ({error})") from None


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value from a file is a finite number; `true` is none."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond what a float can hold
        return False


def xml_number(element: Element, path: str, where: str) -> float:
    """Return the finite number at a path below an element, or say that there is none."""
    text = element.findtext(path)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: <{path.replace('/', '><')}> is {text!r:.80}; expected a number")
    return value
