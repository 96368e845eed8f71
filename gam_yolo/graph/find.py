"""Find a model YAML by the name that a user gives it, as `yolo model=` does, and read the scale letter in it."""

from __future__ import annotations

import re
from pathlib import Path

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError
from gam_yolo.graph.model import Document

__all__ = ["load", "scale_letter", "without_letter"]


def load(name: str) -> Document:
    """Read the model YAML of that name: a path, or the name of a file that Ultralytics or this package ships.

    A file whose name has a scale letter (`yolov8n-gam.yaml`) and that is not there is read from the one that serves all
    scales (`yolov8-gam.yaml`).

    Raises:
        UserError: If there is no such file, or it is no model YAML.
    """
    if Path(name).suffix not in {".yaml", ".yml"}:
        raise UserError(f"'{name}' is not the name of a model YAML, expected one that ends in .yaml")
    if Path(name).is_file():
        return Document.read(Path(name))
    for spelling in (name, without_letter(name)):
        if found := ultralytics_api.find_yaml(spelling):
            return Document.read(found)
    raise UserError(f"there is no file '{name}', here or among the models that Ultralytics and gam_yolo ship")


def scale_letter(name: str) -> str:
    """Return the scale letter that Ultralytics reads in a file's name, or an empty string."""
    return str(ultralytics_api.get("guess_model_scale")(name))


def without_letter(name: str) -> str:
    """Return the path that Ultralytics tries where `name` is not there.

    The first letter n, s, l, m or x that follows a digit is dropped, be it in the name of a folder.
    """
    return re.sub(r"(?<=\d)[nslmx]", "", name, count=1)
