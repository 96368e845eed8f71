"""Find the YAMLs that come with this package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["shipped"]

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
