"""Let Ultralytics find the YAMLs that come with this package by bare name, as it finds its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import wrapt

__all__ = ["patch", "shipped"]

PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = ("cfg", "data")


def shipped(name: str) -> Path | None:
    """Return the file of that name among our model, study and dataset YAMLs, or None.

    A wheel carries the folders inside the package; in a checkout, which an editable install uses, they lie beside it.
    """
    for folder in FOLDERS:
        for base in (PACKAGE, PACKAGE.parent):
            found = sorted((base / folder).rglob(name)) if (base / folder).is_dir() else []
            if found:
                return found[0]
    return None


def patch(checks: ModuleType) -> None:
    """Wrap `check_file` of `ultralytics.utils.checks`, for the modules too that have imported it by name already."""
    original = checks.check_file

    def check_file(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        file = str(args[0] if args else kwargs.get("file", "")).strip()
        bare_yaml = file == PurePath(file).name and PurePath(file).suffix in {".yaml", ".yml"}
        try:
            found = wrapped(*args, **kwargs)
        except FileNotFoundError:
            if bare_yaml and (ours := shipped(file)):
                return str(ours)
            raise
        if not found and bare_yaml and (ours := shipped(file)):
            return str(ours)
        return found

    wrapper = wrapt.FunctionWrapper(original, check_file)
    for module in [m for name, m in sys.modules.items() if name.startswith("ultralytics")]:
        if getattr(module, "check_file", None) is original:
            module.check_file = wrapper  # type: ignore[attr-defined]  # a name some of its modules have
