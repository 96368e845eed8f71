"""Find the modules in which users register blocks of their own, in every process that asks for blocks.

Two places name them, both under the control of whoever runs the process:

- the entry-point group `gam_yolo.blocks` of installed packages: each entry names a module, `my_package.blocks`;
- the environment variable `GAM_YOLO_BLOCKS`: paths of Python files, separated as in `PATH`. The processes that a
  training starts inherit it.

Importing them runs their code, so no model YAML, dataset or checkpoint can name one. See `docs/own-block.md`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

__all__ = ["FILES", "GROUP", "discover"]

GROUP = "gam_yolo.blocks"
FILES = "GAM_YOLO_BLOCKS"


def discover() -> list[str]:
    """Import every module that a package or the environment names.

    A broken one neither ends the process nor hides the others. It is reported as a warning and in the result.

    Returns:
        One line for each module that could not be imported.
    """
    failures = []
    for source, load in _sources():
        try:
            load()
        except (Exception, SystemExit) as error:  # a user's module may do anything
            where = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
            reason = " ".join(str(error).split())  # one line, as every message of ours
            failure = f"{source} could not be imported ({type(error).__name__}{where}: {reason})"
            # As text: neither a name nor a message moves the cursor of a terminal.
            failures.append("".join(c if c.isprintable() else ascii(c)[1:-1] for c in failure))
    for failure in failures:
        warnings.warn(f"gam_yolo: {failure}", stacklevel=2)
    return failures


def _sources() -> Iterator[tuple[str, Callable[[], object]]]:
    for entry in entry_points(group=GROUP):
        yield f"'{entry.value}' (entry point '{entry.name}' of {GROUP})", entry.load
    for file in filter(None, os.environ.get(FILES, "").split(os.pathsep)):
        yield f"'{file}' (of {FILES})", partial(_import_file, Path(file))


def _import_file(file: Path) -> None:
    """Import a file under its stem, the name that its classes have in checkpoints."""
    file = file.resolve()
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise ImportError("expected the path of a file whose name is a Python name and ends in .py")
    if not file.is_file():
        raise ImportError(f"there is no file {file}")
    spec = importlib.util.find_spec(file.stem)
    if spec and (spec.origin is None or Path(spec.origin).resolve() != file):
        raise ImportError(f"the name {file.stem} belongs to {spec.origin or 'a folder'} already; rename the file")
    if not spec:
        sys.path.append(str(file.parent))  # last: it may import what lies beside it, and shadows nothing installed
    importlib.import_module(file.stem)
