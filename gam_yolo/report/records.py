"""Frozen dataclasses: read back from plain data, with errors that name the place; and changed in all their texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from gam_yolo.errors import UserError, brief
from gam_yolo.io import is_number

__all__ = ["map_text", "read_record"]

T = TypeVar("T")


def read_record(kind: type[T], value: Any, where: str) -> T:
    """Make a dataclass of what `json.loads` returned for `dataclasses.asdict` of it. Unknown keys are ignored.

    Args:
        kind: The dataclass. Its fields are texts, numbers, literals, tuples of one kind, mappings from text, other such
            dataclasses, or one of these or None.
        value: The plain data.
        where: Where it was read, for the error message.

    Raises:
        UserError: A key without default is missing, or a value is of another kind.

    Examples:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Size:
        ...     width: int
        >>> read_record(Size, {"width": "640"}, "size.json")
        Traceback (most recent call last):
        gam_yolo.errors.UserError: size.json, width: is '640'. Expected a whole number.
    """
    result: T = _read(kind, value, where)
    return result


def map_text(value: T, change: Callable[[str], str]) -> T:
    """Return a copy of a dataclass with every text in it changed, keys of mappings included.

    Examples:
        >>> map_text(("a", {"b": 1}), str.upper)
        ('A', {'B': 1})
    """
    result: Any = value
    if isinstance(value, str):
        result = change(value)
    elif isinstance(value, tuple):
        result = tuple(map_text(item, change) for item in value)
    elif isinstance(value, Mapping):
        result = {change(key): map_text(item, change) for key, item in value.items()}
    elif is_dataclass(value) and not isinstance(value, type):
        result = replace(value, **{f.name: map_text(getattr(value, f.name), change) for f in fields(value)})
    return cast("T", result)


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        (kind,) = (k for k in inner if k is not NoneType)
        return _read(kind, value, where)
    if origin is tuple:
        _expect(isinstance(value, list), value, where, "a list")
        return tuple(_read(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        _expect(isinstance(value, dict), value, where, "an object")
        return {key: _read(inner[1], item, f"{where}, {key}") for key, item in value.items()}
    if origin is Literal:
        _expect(value in inner, value, where, f"one of {', '.join(inner)}")
    elif isinstance(kind, type) and is_dataclass(kind):
        return value if isinstance(value, kind) else _dataclass(kind, value, where)
    elif kind is bool:
        _expect(isinstance(value, bool), value, where, "true or false")
    elif kind is int:
        _expect(isinstance(value, int) and not isinstance(value, bool), value, where, "a whole number")
    elif kind is float:
        _expect(is_number(value), value, where, "a finite number")
    else:
        _expect(isinstance(value, str), value, where, "a text")
    return value


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), value, where, "an object")
    kinds = get_type_hints(kind)
    found = {}
    for f in fields(kind):
        if f.name in value:
            found[f.name] = _read(kinds[f.name], value[f.name], f"{where}, {f.name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise UserError(f"has no '{f.name}'", at=where)
    return kind(**found)


def _expect(holds: bool, value: Any, where: str, expected: str) -> None:
    if not holds:
        raise UserError(f"is {brief(value)}", at=where, expected=expected)
