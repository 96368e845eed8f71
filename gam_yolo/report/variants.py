"""What is compared: variants, each with the trained weights or predictions of one or more seeds."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gam_yolo.errors import UserError, brief

__all__ = ["Paths", "Variant", "find_files", "find_variants", "name_arguments"]

Paths = str | Path | Iterable[str | Path]
"""A checkpoint, run folder, prediction file or glob pattern, or several of them."""


@dataclass(frozen=True)
class Variant:
    """One line of the comparison.

    Attributes:
        name: Its name in the report.
        paths: A checkpoint (`.pt`) or prediction file (`.json`) for each training seed.
    """

    name: str
    paths: tuple[Path, ...]


def find_variants(named: Mapping[str, Paths]) -> list[Variant]:
    """Find the files of each variant.

    Args:
        named: Paths by name. A run folder stands for its `weights/best.pt`, a pattern for the files that match it.

    Raises:
        UserError: A path leads nowhere or to something else, a file is given twice, or there are fewer than two
            variants.
    """
    if len(named) < 2:
        number = "is 1 variant" if named else "are no variants"
        raise UserError(f"there {number} to compare", expected="two or more, the baseline first")
    for name in named:
        if not isinstance(name, str):
            raise UserError(f"the name of a variant is {name!r}", expected="a string")
    variants = [Variant(name, find_files(name, paths)) for name, paths in named.items()]
    seen: set[Path] = set()
    for path in (path.resolve() for variant in variants for path in variant.paths):
        if path in seen:
            raise UserError("is given twice", at=path, expected="a different file for each seed and variant")
        seen.add(path)
    return variants


def name_arguments(arguments: Sequence[str | Path]) -> dict[str, Paths]:
    """Read `PATH` or `NAME=PATH` arguments into paths by name; without a name, the run folder or file gives it.

    Raises:
        UserError: Two variants have one name, a path that should give a name leads nowhere, or it is no list of paths.

    Examples:
        >>> name_arguments(["plain=runs/plain-s*", "gam=runs/gam-s*"])
        {'plain': 'runs/plain-s*', 'gam': 'runs/gam-s*'}
    """
    if isinstance(arguments, str) or not isinstance(arguments, Sequence):
        raise UserError(f"the variants are {brief(arguments)}", expected="paths by name, or a list of paths")
    named: dict[str, Paths] = {}
    for argument in map(_text, arguments):
        name, separator, pattern = argument.partition("=")
        if not separator or _exists(argument):
            name, pattern = "", argument
        name = name or _name_of(find_files(argument, pattern)[0])
        if name in named:
            raise UserError(f"two variants are named '{name}'", fix="Name them, as in 'gam=runs/gam-s*'")
        named[name] = pattern
    return named


def find_files(name: str, paths: Paths) -> tuple[Path, ...]:
    """Return the files that a variant's paths stand for.

    Raises:
        UserError: A path leads nowhere or to something else, or the paths are of two kinds.
    """
    entries = [paths] if isinstance(paths, (str, Path)) or not isinstance(paths, Iterable) else list(paths)
    files = tuple(_file_of(path) for entry in entries for path in _matches(name, _text(entry)))
    if not files:
        raise UserError(f"variant '{name}' has no paths", expected="a checkpoint, run folder or prediction file")
    trainings: dict[Path, Path] = {}
    for path in files:
        first = trainings.setdefault(path.resolve().parent, path) if path.parent.name == "weights" else path
        if first is not path and path.suffix == ".pt":
            raise UserError(
                f"variant '{name}': {first} and {path} are of one training", expected="one checkpoint for each seed"
            )
    if len({path.suffix for path in files}) > 1:
        raise UserError(f"variant '{name}' mixes checkpoints and prediction files", expected="files of one kind")
    return files


def _text(path: object) -> str:
    if not isinstance(path, (str, Path)):
        raise UserError(f"a variant's path is {brief(path)}", expected="a string or a Path")
    return str(path)


def _matches(name: str, pattern: str) -> list[Path]:
    found = [pattern] if _exists(pattern) else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  absolute patterns, too
    if not found:
        expected = "a path such as runs/detect/train or best.pt"
        raise UserError(f"variant '{name}': no file or folder matches '{pattern}'", expected=expected)
    return [Path(path) for path in found]


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a name too long for any file
        return False


def _file_of(path: Path) -> Path:
    if path.is_dir():
        best = path / "weights" / "best.pt"
        if not best.is_file():
            raise UserError("has no weights/best.pt", at=path, expected="the folder of a finished training run")
        return best
    if path.suffix not in {".pt", ".json"}:
        raise UserError("is not a checkpoint (.pt), a run folder or a prediction file (.json)", at=path)
    return path


def _name_of(path: Path) -> str:
    """Name a variant after its run folder, else its file."""
    in_run = path.parent.name == "weights" and path.stem in {"best", "last"}
    name = path.resolve().parent.parent.name if in_run else path.stem
    return re.sub(r"[\s=]+", "-", name)
