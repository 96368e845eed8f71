"""What a folder was prepared from: keys of its YAML, and annotations. Labels written from others would be wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from gam_yolo.annotations.images import is_file
from gam_yolo.errors import UserError
from gam_yolo.io import file_sha256, read_text, text_sha256

__all__ = ["SUMMARY", "annotations_line", "first_pixel", "is_provenance", "provenance", "reject_other_keys"]

SUMMARY = "summary.txt"
"""The file in a prepared folder that says what was written."""

_MARK = "prepared with: "
_ANNOTATIONS = "digest of the annotations: "


def first_pixel(content: Mapping[str, Any], data: str) -> int:
    """Return the dataset YAML's `first_pixel`: the number of the first pixel in VOC's XML, 1 if not given.

    Raises:
        UserError: It is neither 0 nor 1.
    """
    value = content.get("first_pixel", 1)
    if type(value) is not int or value not in (0, 1):
        raise UserError(f"key 'first_pixel' is {value!r:.80}", at=data, expected="0 or 1")
    return value


def provenance(data: Mapping[str, Any], at: str | Path = "") -> str:
    """Return the line of the summary that records the keys on which the labels depend.

    Args:
        data: The dataset YAML, with names by index.
        at: Its name, for messages.

    Examples:
        >>> provenance({"names": {0: "cat"}})
        'prepared with: {"names": ["cat"], "first_pixel": 1}'
    """
    names = [str(name).strip() for _, name in sorted(data["names"].items())]
    keys = {"names": names, "first_pixel": first_pixel(data, str(at))}
    return _MARK + json.dumps(keys, ensure_ascii=False)


def annotations_line(folder: Path) -> str:
    """Return the line of the summary that records the content of the original annotations in a prepared folder."""
    files = sorted((path.relative_to(folder).as_posix(), path) for path in (folder / "annotations").rglob("*.*"))
    return _ANNOTATIONS + text_sha256([(name, file_sha256(path)) for name, path in files if is_file(path)])


def is_provenance(line: str) -> bool:
    """Return whether a line of a summary is that of `provenance` or of `annotations_line`."""
    return line.startswith((_MARK, _ANNOTATIONS))


def reject_other_keys(content: Mapping[str, Any], data: str | Path) -> None:
    """Reject a folder that was prepared before its YAML or its source was edited: that does not change its labels.

    A class may be renamed, but not get another index. `first_pixel` matters where VOC's annotations are read again. The
    annotations are links where that is possible, so that an edit of the source changes what is evaluated.

    Args:
        content: The dataset YAML, with absolute paths and names by index.
        data: The YAML, for messages.

    Raises:
        UserError: A key has another value than when the folder was prepared.
    """
    summary = Path(content["path"]) / SUMMARY
    if not is_file(summary):
        return
    for line in read_text(summary, "the summary of a prepared dataset").splitlines():
        if line.startswith(_ANNOTATIONS) and (newest := _edited(summary)) and line != _line_now(summary.parent, newest):
            raise UserError(
                f"its annotations have changed since {summary.parent} was prepared, and the labels there have not",
                at=data,
                fix=f"Move that folder away and prepare it again: gam-yolo prepare {data}",
            )
        if line.startswith(_MARK):
            now = json.loads(provenance(content, data).removeprefix(_MARK))
            keys = now if content.get("protocol") == "voc" else ["names"]
            try:
                before = json.loads(line.removeprefix(_MARK))
                key = next((key for key in keys if _other(before[key], now[key])), None)
            except (ValueError, LookupError, TypeError):  # written by another version or hand
                return
            if key:
                raise UserError(
                    f"has changed since {summary.parent} was prepared, and the labels there have not",
                    at=f"{data}, key '{key}'",
                    fix=f"Move that folder away and prepare it again: gam-yolo prepare {data}",
                )


def _edited(summary: Path) -> int:
    """Return when the newest of the annotations was written, if that is later than the summary; else 0."""
    files = (summary.parent / "annotations").rglob("*.*")
    newest = max((file.stat().st_mtime_ns for file in files if is_file(file)), default=0)
    return newest if newest > summary.stat().st_mtime_ns else 0


@lru_cache(maxsize=16)
def _line_now(folder: Path, _newest: int) -> str:
    """Return `annotations_line`; a copied folder is new, and would be digested again and again."""
    return annotations_line(folder)


def _other(before: Any, now: Any) -> bool:
    """Return whether a value changes the labels: of class names, whether one has another place. A new name does not."""
    if isinstance(before, list):
        return any(name in now and now.index(name) != place for place, name in enumerate(before))
    return bool(before != now)
