"""What is compared: variants, each with the trained weights or predictions of one or more seeds."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from gam_yolo.errors import UserError

__all__ = ["Variant", "parse_variants"]


@dataclass(frozen=True)
class Variant:
    """One line of the comparison.

    Attributes:
        name: As the report calls it.
        paths: A checkpoint (`.pt`) or prediction file (`.json`) for each training seed.
    """

    name: str
    paths: tuple[Path, ...]


def parse_variants(arguments: list[str]) -> list[Variant]:
    """Read the command's arguments: `PATH` or `NAME=PATH`, where a pattern may stand for the files of several seeds.

    A path is a checkpoint, a prediction file, or a run folder, which stands for its `weights/best.pt`.

    Raises:
        UserError: A path leads nowhere or to something else, two variants have one name, or there are fewer than two.
    """
    variants = [_parse(argument) for argument in arguments]
    if len(variants) < 2:
        raise UserError(f"a comparison needs two variants or more, but {len(variants)} is given")
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two variants are named '{name}'; name them as in 'gam=runs/gam-s*'")
    paths = [path.resolve() for variant in variants for path in variant.paths]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"{path}: is given twice; a file compared with itself says nothing")
    return variants


def _parse(argument: str) -> Variant:
    name, separator, pattern = argument.partition("=")
    if not separator or Path(argument).exists():
        name, pattern = "", argument
    found = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  absolute patterns, too
    if not found:
        raise UserError(f"'{argument}': no file or folder matches '{pattern}'")
    paths = tuple(_file_of(Path(path)) for path in found)
    if len({path.suffix for path in paths}) > 1:
        raise UserError(f"'{argument}': mixes checkpoints and prediction files; give one kind for a variant")
    return Variant(name or _name_of(paths[0]), paths)


def _file_of(path: Path) -> Path:
    if path.is_dir():
        best = path / "weights" / "best.pt"
        if not best.is_file():
            raise UserError(f"{path}: has no weights/best.pt; expected the folder of a finished training run")
        return best
    if path.suffix not in {".pt", ".json"}:
        raise UserError(f"{path}: is neither a checkpoint (.pt), a run folder nor a prediction file (.json)")
    return path


def _name_of(path: Path) -> str:
    """Name a variant after its run folder, else its file."""
    in_run = path.parent.name == "weights" and path.stem in {"best", "last"}
    name = path.resolve().parent.parent.name if in_run else path.stem
    return re.sub(r"[\s=]+", "-", name)
