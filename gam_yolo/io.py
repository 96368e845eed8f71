"""Read and write files: text, JSON, YAML, numbers in them, digests. Every failure is one line that names the file."""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard
from xml.etree.ElementTree import Element

import yaml

from gam_yolo.errors import UserError, brief, one_line

__all__ = [
    "YamlLoader",
    "file_sha256",
    "is_number",
    "output_path",
    "parse_yaml",
    "read_json",
    "read_json_parts",
    "read_text",
    "read_yaml",
    "text_sha256",
    "write",
    "xml_number",
    "yaml_error",
]


_MOST_OF_A_DEVICE = 1 << 26  # characters
_FILES = frozenset([".csv", ".html", ".jpg", ".json", ".md", ".pdf", ".png", ".pt", ".svg", ".tex", ".yaml", ".yml"])


def read_text(path: Path, expected: str) -> str:
    """Read a text file.

    Args:
        path: The file.
        expected: What it should be, for the error message: "a list of images".

    Raises:
        UserError: It cannot be read, or is not text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            # A device such as /dev/zero does not end.
            text = file.read() if path.is_file() else file.read(_MOST_OF_A_DEVICE + 1)
        if len(text) > _MOST_OF_A_DEVICE and not path.is_file():
            raise UserError("does not end", at=path, expected=expected)
        return text
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else "is not UTF-8 text"
        raise UserError(problem, at=path, expected=expected) from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: It is missing, unreadable or incomplete.
    """
    text = read_text(path, "a JSON file")
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        at, fix = f"{path}, line {error.lineno}, column {error.colno}", "Was the file cut off while it was written?"
        raise UserError(f"is not valid JSON ({error.msg})", at=at, fix=fix) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists nested without end
        raise UserError(f"{path}: cannot be read as JSON ({error}).") from None


def read_json_parts(path: Path, characters: int = 1 << 22) -> Iterator[list[Any]]:
    """Read a JSON file that holds a list, and yield the list in parts, so that it is never in memory as a whole.

    A part ends where an object ends and a comma follows. If that is not between two values of the list, as in a nested
    object or in a string, the part is not valid JSON.

    Args:
        path: The file.
        characters: Length of a part in characters, about.

    Raises:
        ValueError: It is not a list, or not valid, or can be read as a whole only. `read_json` knows which.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "list.json")
        ...     _ = path.write_text('[{"a": 1}, {"a": 2}, {"a": 3}]')
        ...     list(read_json_parts(path, 12))
        [[{'a': 1}, {'a': 2}], [{'a': 3}]]
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            rest = file.read(characters).lstrip(" \t\r\n")
            if not rest.startswith("["):
                raise ValueError("not a list")
            rest, begun = rest[1:], False
            while more := file.read(characters):
                rest += more
                end = rest.rfind("},") + 1
                if end:
                    yield _decode(f"[{rest[:end]}]")
                    rest, begun = rest[end + 1 :], True
            last = _decode("[" + rest)
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if begun and not last:
        raise ValueError("a comma at the end")
    yield last


def _decode(text: str) -> Any:
    """Decode JSON without garbage collection, which takes a third of the time and finds nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return json.loads(text)
    finally:
        if enabled:
            gc.enable()


def read_yaml(path: Path, expected: str) -> Any:
    """Read a YAML file; no tag in it creates anything but plain data.

    Args:
        path: The file.
        expected: What it should be, for the error message: "a study file".

    Raises:
        UserError: It cannot be read, or is not YAML.
    """
    return parse_yaml(read_text(path, expected), str(path), expected)


class YamlLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which would take the last of several equal keys without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a mapping.

        Raises:
            yaml.composer.ComposerError: A key occurs twice.
        """
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                if (key.tag, key.value) in seen:
                    raise yaml.composer.ComposerError(
                        problem=f"key {brief(key.value)} occurs twice", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node


def parse_yaml(text: str, name: str, expected: str) -> Any:
    """Parse YAML text; `name` and `expected` are for the error message, as in `read_yaml`.

    Raises:
        UserError: It is not YAML.
    """
    try:
        return yaml.load(text, Loader=YamlLoader)  # noqa: S506  it is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise yaml_error(error, name, expected) from None


def yaml_error(error: Exception, name: str, expected: str) -> UserError:
    """Return the one-line error for what PyYAML raised."""
    at = reason = ""
    if isinstance(error, yaml.MarkedYAMLError):
        at = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = error.problem or ""
    return UserError(f"is not valid YAML ({reason or one_line(error, 80)})", at=f"{name}{at}", expected=expected)


def output_path(path: str | Path, what: str, *endings: str) -> Path:
    """Return the path that something will be written to, after a check of its name alone.

    Args:
        path: The path.
        what: What will be written, for the error message: "the drawing".
        endings: Of which the name of a file must have one; none for a folder. What exists and is no regular file, such
            as a device or a pipe, can have any name.

    Raises:
        UserError: The path is empty, or the name is that of a file of another kind.

    Examples:
        >>> output_path("graph.png", "the drawing", ".svg")
        Traceback (most recent call last):
        ...
        gam_yolo.errors.UserError: graph.png: is not a name for the drawing. Expected a name that ends in .svg.
    """
    if not str(path).strip():  # Path("") would be the current folder
        raise UserError(f"the path of {what} is empty", fix="Is a variable of the shell not set?")
    path = Path(path)
    ending = path.suffix.lower()
    wrong = ending not in endings if endings else ending in _FILES
    if wrong and (not os.path.exists(path) or os.path.isfile(path)):  # noqa: PTH110, PTH113  which never raise
        expected = f"a name that ends in {' or '.join(endings)}" if endings else "a folder"
        raise UserError(f"is not a name for {what}", at=path, expected=expected)
    return path


def write(path: Path, text: str) -> None:
    """Write a file completely or not at all, with the text's own line ends.

    The text goes to a temporary file in the same folder, which then takes the file's name. A device or pipe is written
    to as it is, and a link to a file stays a link.

    Raises:
        UserError: It cannot be written.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            path.write_bytes(text.encode("utf-8"))
            return
        path = Path(os.path.realpath(path))
        if path.is_symlink():  # only a loop of links is still a link
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".gam-yolo-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode("utf-8"))
            Path(temporary).chmod(0o666 & ~_umask())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}).") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        UserError: It cannot be read.
    """
    digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    return digest.hexdigest()


def text_sha256(value: Any) -> str:
    """Return the SHA-256 of plain data, in hexadecimal: of its JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value from a file is a finite number. `true` is not a number."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond what a float can hold
        return False


def xml_number(element: Element, path: str, where: str) -> float:
    """Return the finite number at a path below an XML element.

    Raises:
        UserError: There is none.
    """
    text = element.findtext(path)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: <{path.replace('/', '><')}> is {text!r:.80}. Expected a number.")
    return value
