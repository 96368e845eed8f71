"""Images that are not independent, such as frames of one video or tiles of one photograph: which belong together.

An interval from independent images is too narrow for such data. So groups are resampled instead of images.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gam_yolo.annotations.data import Array
from gam_yolo.annotations.images import base_name
from gam_yolo.errors import UserError, brief
from gam_yolo.io import read_text

__all__ = ["EXPECTED", "GroupSpec", "Groups", "effective_number", "read_groups"]

GroupSpec = str | Path | Mapping[str, str | int] | None
"""How groups are declared; see `read_groups`."""

EXPECTED = "a regular expression, a CSV file (image, group), 'parent', 'none', or a mapping of images to groups"

_PATIENCE = 20  # seconds for an expression on all names; a catastrophic one takes longer than the universe is old
_HEADERS = {"file", "file name", "file_name", "filename", "image", "name", "stem"}

# A process of its own, because Python cannot interrupt a match.
_MATCH = """
import json, re, sys
expression, names = json.load(sys.stdin)
found = (re.search(expression, name) for name in names)
json.dump([match and match[min(1, match.re.groups)] for match in found], sys.stdout)
"""


@dataclass(frozen=True)
class Groups:
    """The groups of a set of images.

    Attributes:
        by: How they were declared, for the report.
        index: The group of each image, numbered in the order of the images, shape (images,).
        names: Name of each group.
    """

    by: str
    index: NDArray[np.intp]
    names: tuple[str, ...]

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Number of images of each group."""
        return np.bincount(self.index)


def effective_number(
    label: NDArray[np.intp], group: NDArray[np.intp], image: NDArray[np.intp], n_labels: int
) -> tuple[Array, NDArray[np.intp]]:
    """Count how many groups of equal size would tell as much as those of each label (Kish's formula).

    The size of a group is its number of images with the label. Where each image is a group, it is their number.

    Args:
        label: Of each object.
        group: Likewise.
        image: Likewise.
        n_labels: Number of labels.

    Returns:
        That number and the first group of each label.
    """
    n_groups, n_images = (int(values.max(initial=0)) + 1 for values in (group, image))
    members = np.unique((label * n_groups + group) * n_images + image) // n_images
    pairs, size = np.unique(members, return_counts=True)
    label, group = np.divmod(pairs, n_groups)
    total, squares = (np.bincount(label, size**power, n_labels) for power in (1, 2))
    first = np.zeros(n_labels, dtype=np.intp)
    present, begin = np.unique(label, return_index=True)
    first[present] = group[begin]
    return total**2 / np.maximum(squares, 1), first


def read_groups(
    spec: GroupSpec, files: Sequence[str], at: str = "groups", others: Collection[str] = ()
) -> Groups | None:
    r"""Find the group of each image.

    Args:
        spec: A regular expression, whose first group (or else its whole match) in the file name names the image's
            group. With a `/` in it, it is matched against the whole path. Or a CSV file of two columns, file name or
            stem and group; or a mapping of these; or `parent` for the folder of each image. `none` or None if each
            image is a group of its own.
        files: File name or path of each image.
        at: Where `spec` was given, for the error message.
        others: Files that are no images of this split, but may be listed.

    Returns:
        The groups; None if each image is its own.

    Raises:
        UserError: An image has no group, all are of one group, or `spec` or what it names is wrong.

    Examples:
        >>> read_groups(r"^(.+)_\d+", ["dock_1.jpg", "dock_2.jpg", "quay_1.jpg"]).names
        ('dock', 'quay')
    """
    if spec is None or spec == "none":
        return None
    paths = [file.replace("\\", "/") for file in files]
    if isinstance(spec, Mapping):
        rows = ((f"{at}, {brief(name)}", name, group) for name, group in spec.items())
        by, found = "a mapping", _from_rows(rows, paths, others)
    elif not isinstance(spec, (str, Path)) or not str(spec):
        raise UserError(f"is {brief(spec)}", at=at, expected=EXPECTED)
    elif str(spec) == "parent":
        by, found = "the folder of each image", [path.rpartition("/")[0] for path in paths]
    elif str(spec).lower().endswith(".csv"):
        by, found = f"the file {Path(spec).name}", _from_rows(_csv_rows(Path(spec)), paths, others)
    else:
        by, found = f"the expression {spec}", _matched(str(spec), paths, at)
    return _numbered(by, found, files, at)


def _numbered(by: str, found: Sequence[str | None], files: Sequence[str], at: str) -> Groups:
    without = [file for file, group in zip(files, found, strict=True) if not group]
    if without:
        names = "image has no group:" if len(without) == 1 else f"of {len(files)} images have no group, the first is"
        raise UserError(f"{len(without)} {names} {base_name(without[0])}", at=at, expected="a group for each image")
    number = {str(group): 0 for group in found}
    for i, group in enumerate(number):
        number[group] = i
    if len(number) < 2:
        whole = f"all {len(files)} images are of one group, {brief(next(iter(number), ''))}"
        raise UserError(whole, at=at, expected="two groups or more: no interval follows from one")
    return Groups(by, np.array([number[str(group)] for group in found], dtype=np.intp), tuple(number))


def _matched(expression: str, paths: Sequence[str], at: str) -> list[str | None]:
    """Return what an expression finds in each name; nothing where it does not match."""
    names = list(paths) if "/" in expression else [base_name(path) for path in paths]
    try:
        re.compile(expression)
        done = subprocess.run(  # noqa: S603  our own program; the expression is its input
            [sys.executable, "-I", "-S", "-c", _MATCH],
            input=json.dumps([expression, names]),
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(
            f"{brief(expression)} is not a regular expression ({error})", at=at, expected=EXPECTED
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{brief(expression)} takes longer than {_PATIENCE} s on {len(names)} names",
            at=at,
            fix="Write it without repetitions inside repetitions, such as (a+)+",
        ) from None
    found: list[str | None] = json.loads(done.stdout)
    if not any(found):
        example = f", such as {brief(names[0])}" if names else ""
        raise UserError(f"{brief(expression)} matches none of {len(names)} file names{example}", at=at)
    return found


def _csv_rows(path: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield place, image and group of each row; the delimiter may be a comma, a semicolon or a tab."""
    lines = read_text(path, "a CSV file of images and groups").splitlines()
    head = lines[0] if lines else ""
    delimiter = next((mark for mark in ",;\t" if mark in head), ",")
    for number, row in enumerate(csv.reader(lines, delimiter=delimiter), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and cells[0].lower() in _HEADERS):
            continue
        at = f"{path}, line {number}"
        if len(cells) != 2:
            raise UserError(f"has {len(cells)} cells", at=at, expected="two: the file name or stem, and the group")
        yield at, cells[0], cells[1]


def _from_rows(rows: Iterable[tuple[str, Any, Any]], paths: Sequence[str], others: Collection[str]) -> list[str | None]:
    """Return the group of each image according to rows of place, image and group."""
    find, elsewhere = _finder(paths), _finder([file.replace("\\", "/") for file in others])
    groups: list[str | None] = [None] * len(paths)
    for at, name, group in rows:
        if not isinstance(group, (str, int)) or isinstance(group, bool) or group == "":
            raise UserError(f"the group is {brief(group)}", at=at, expected="a name or number")
        images = find(str(name))
        if not images and not elsewhere(str(name)):
            raise UserError(f"there is no image {brief(name)}", at=at, expected="the file name or stem of an image")
        if len(images) > 1:
            raise UserError(
                f"{brief(name)} is the name of {len(images)} images", at=at, expected="it with its folder or ending"
            )
        for image in images:
            if groups[image] not in (None, str(group)):
                raise UserError(f"{brief(name)} is in two groups, {groups[image]} and {group}", at=at)
            groups[image] = str(group)
    return groups


def _finder(paths: Sequence[str]) -> Callable[[str], list[int]]:
    """Return a function that finds images by file name or stem, and by as many folders as are given with it."""
    known: dict[str, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        for name in {path, path.rpartition(".")[0]}:
            known[name.rpartition("/")[2]].append(i)

    def find(name: str) -> list[int]:
        tail = "/" + name.replace("\\", "/").removeprefix("./")
        candidates = known.get(tail.rpartition("/")[2], [])
        return [
            i for i in candidates if f"/{paths[i]}".endswith(tail) or f"/{paths[i]}".rpartition(".")[0].endswith(tail)
        ]

    return find
