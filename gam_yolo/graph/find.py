"""Find a model YAML by the name that a user gives, as `yolo model=` does, and read the scale letter in the name."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError, brief, similar
from gam_yolo.graph.model import Document, Graph
from gam_yolo.resources import shipped_names, without_letter

__all__ = ["load", "model_files", "same_modules", "scale_letter"]


def load(name: str | Path) -> Document:
    """Read a model YAML.

    If `name` has a scale letter (`yolov8n-gam.yaml`) and no such file exists, the file that serves all scales is read
    (`yolov8-gam.yaml`).

    Args:
        name: A path, or the name of a file that Ultralytics or this package ships.

    Raises:
        UserError: There is no such file, or it is not a model YAML.
    """
    name = str(name)
    if Path(name).suffix not in {".yaml", ".yml"}:
        raise UserError(f"{brief(name)} is not the name of a model YAML", expected="a name that ends in .yaml or .yml")
    try:
        if Path(name).is_file():
            return Document.read(Path(name))
        for spelling in (name, without_letter(name)):
            if found := ultralytics_api.find_yaml(spelling):
                return Document.read(found)
    except OSError as error:  # such as a name of more than 255 bytes
        raise UserError(f"{brief(name)} cannot be read ({error.strerror})", expected="a model YAML") from None
    raise UserError(
        f"there is no file '{name}', here or among the models that Ultralytics and gam_yolo ship",
        similar=_nearest(Path(name).name),
    )


def _nearest(name: str) -> str:
    """Return the nearest name of a shipped model, with the scale letter of `name`."""
    known = [*shipped_names(("cfg",)), *(path.name for path in ultralytics_api.model_yamls())]
    near = similar(without_letter(name), known)
    return near if scale_letter(near) else re.sub(r"(?<=\d)(?!\d)", scale_letter(name), near, count=1)


def model_files(names: Iterable[str]) -> list[str]:
    """Return names with each folder replaced by the model YAMLs in it, those with a key `backbone` or `head`.

    Raises:
        UserError: A folder holds no model YAML, or cannot be read.
    """
    found: list[str] = []
    for name in names:
        if not Path(name).is_dir():
            found.append(name)
            continue
        yamls = [path for path in sorted(Path(name).iterdir()) if path.suffix in {".yaml", ".yml"} and path.is_file()]
        models = [str(path) for path in yamls if re.search(rb"^(backbone|head)\b", path.read_bytes(), re.M)]
        if not models:
            raise UserError(
                "the folder holds no model YAML", at=name, expected="files with the key 'backbone' or 'head'"
            )
        found += models
    return found


def same_modules(modules: Sequence[str]) -> dict[str, Graph]:
    """Return the models of Ultralytics that have these modules in their rows, by file name.

    Examples:
        >>> [*same_modules([layer.module for layer in load("yolov8n.yaml").graph.layers])]
        ['yolov8.yaml']
    """
    found = {}
    for path in _by_modules().get(tuple(modules), ()):
        with contextlib.suppress(UserError):  # a file that someone put there
            graph = Document.read(path).graph
            if [layer.module for layer in graph.layers] == [*modules]:
                found[path.name] = graph
    return found


@functools.cache
def _by_modules() -> dict[tuple[str, ...], list[Path]]:
    """Return Ultralytics' model YAMLs by their modules, which are found without parsing: that would take a second."""
    found: dict[tuple[str, ...], list[Path]] = {}
    for path in ultralytics_api.model_yamls():
        modules = re.findall(r"^\s*- \[.*?,\s*\d+,\s*([\w.]+),\s*\[", path.read_text("utf-8", "replace"), re.M)
        found.setdefault(tuple(modules), []).append(path)
    return found


def scale_letter(name: str) -> str:
    """Return the scale letter that Ultralytics reads in a file's name, or an empty string."""
    return str(ultralytics_api.get("guess_model_scale")(name))
