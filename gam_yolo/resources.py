"""Find the YAMLs that come with this package: model, study and dataset YAMLs."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["MODELS_AND_DATA", "STUDIES", "shipped", "shipped_names", "without_letter"]

MODELS_AND_DATA = ("cfg", "data")
STUDIES = ("cfg/studies",)
PACKAGE = Path(__file__).resolve().parent


def shipped(name: str, folders: tuple[str, ...] = MODELS_AND_DATA) -> Path | None:
    """Return the YAML of that name in one of our folders, or None."""
    return _files(folders).get(name)


def shipped_names(folders: tuple[str, ...]) -> list[str]:
    """Return the names of the YAMLs in our folders."""
    return sorted(_files(folders))


def without_letter(name: str) -> str:
    """Return the path of the YAML that serves all scales: the first scale letter after a digit in the name is dropped.

    Ultralytics drops the first one of the whole path, which may be in the name of a folder.

    Examples:
        >>> without_letter("run2s/yolov8n-gam.yaml")
        'run2s/yolov8-gam.yaml'
    """
    return re.sub(r"(?<=\d)[nslmx](?=[^\\/]*$)", "", name, count=1)


def _files(folders: tuple[str, ...]) -> dict[str, Path]:
    """Return YAMLs by name.

    A wheel carries the folders inside the package. In a checkout, which an editable install uses, they lie beside it.
    """
    base = PACKAGE if (PACKAGE / "cfg").is_dir() else PACKAGE.parent
    return {path.name: path for folder in folders for path in sorted((base / folder).glob("*.yaml"))}
