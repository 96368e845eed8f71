"""Classified images: the folder of a split with one folder per class, and the classes that a model ranks first."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError, brief, one_line, similar
from gam_yolo.io import read_json, text_sha256

__all__ = [
    "TOP",
    "LabelledImages",
    "Rankings",
    "is_ranking_file",
    "map_classes",
    "ranking_records",
    "read_labelled_images",
    "read_rankings",
    "resolve_folder",
    "split_folder",
]

TOP = 5
"""The most classes kept of an image."""

_SPLITS = {"train": ("train",), "val": ("val", "validation", "valid", "test"), "test": ("test", "val")}
"""The folders that Ultralytics takes for a split; the first that exists. (It also takes `validation` for a test.)"""


@dataclass(frozen=True)
class LabelledImages:
    """The images of one split, each of one class.

    Attributes:
        source: The dataset's folder, for messages and reports.
        root: The folder of the split.
        split: The split's name; that of the folder used in its place where the dataset lacks it.
        files: Path of each image below `root`, with `/`: the class folder, then the name.
        classes: Names of the class folders of `train`, in Ultralytics' order.
        label: Each image's class, an index into `classes`, shape (images,).
        notes: What a reader has to know, a sentence each.
    """

    source: str
    root: Path
    split: str
    files: tuple[str, ...]
    classes: tuple[str, ...]
    label: NDArray[np.intp]
    notes: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """The images' names: their paths."""
        return self.files

    @property
    def image(self) -> NDArray[np.intp]:
        """The image of each label, an index into `files`; an image has one."""
        return np.arange(len(self.files))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the images' paths and the class names: two results are comparable where it is equal."""
        return text_sha256([list(self.files), list(self.classes)])


@dataclass(frozen=True)
class Rankings:
    """The classes that one model finds most probable for each image of a `LabelledImages`.

    Attributes:
        source: Where they were read, for messages and reports.
        best: Indices into the classes, the most probable first, shape (images, up to `TOP`).
    """

    source: str
    best: NDArray[np.intp]


def resolve_folder(data: str | Path) -> Path:
    """Return a classification dataset's folder, here or in the `datasets_dir` of `yolo settings`.

    Environment variables and `~` are expanded. Nothing is downloaded.

    Raises:
        UserError: There is no such folder, or it has no `train` folder.
    """
    text = str(data)
    unset = [name for name in re.findall(r"\$\{?(\w+)", text) if not os.environ.get(name)]
    folder = ultralytics_api.dataset_folder(text if unset else Path(os.path.expandvars(text)).expanduser())
    expected = "a folder with train/ and val/, and in each a folder of images per class"
    if not folder.is_dir():
        fix = f"Set the environment variable {unset[0]} to the folder" if unset else ""
        raise UserError("is not a folder", at=text, expected=expected, fix=fix)
    if not (folder / "train").is_dir():
        raise UserError("has no folder 'train'", at=folder, expected=expected)
    return folder


def split_folder(folder: Path, split: str) -> Path:
    """Return the folder that Ultralytics takes for a split.

    Raises:
        UserError: There is none, or no such split.
    """
    if split not in _SPLITS:
        raise UserError(f"split is {brief(split)}", expected=f"one of {', '.join(_SPLITS)}")
    root = next((folder / name for name in _SPLITS[split] if (folder / name).is_dir()), None)
    if root is None:
        raise UserError(f"has no folder '{split}'", at=folder)
    return root


def read_labelled_images(data: str | Path, split: str = "val") -> LabelledImages:
    """Read one split of a classification dataset, as Ultralytics does.

    The classes are the folders of `train`. Images that Ultralytics cannot read are left out.

    Args:
        data: The folder, as Ultralytics' `data=` takes it; `train` is in it.
        split: `train`, `val` or `test`.

    Raises:
        UserError: A folder is missing, the split has no images, or it has a class that `train` lacks.
    """
    folder = resolve_folder(data)
    root = split_folder(folder, split)
    classes = tuple(sorted(path.name for path in (folder / "train").iterdir() if path.is_dir()))
    with ultralytics_api.quiet(), contextlib.redirect_stdout(io.StringIO()):  # its progress bar
        try:
            dataset = ultralytics_api.get("ClassificationDataset")(
                str(root), ultralytics_api.validated_arguments(), prefix=root.name
            )
        except Exception as error:
            raise UserError(f"cannot be read ({one_line(error, 200)})", at=root) from None
    listed = [PurePath(os.path.relpath(sample[0], root)).as_posix() for sample in dataset.samples]
    files = tuple(sorted(listed))
    if not files:
        raise UserError("has no images", at=root, expected="a folder of images per class")
    number = {name: i for i, name in enumerate(classes)}
    names = [file.partition("/")[0] for file in files]
    unknown = sorted(set(names) - number.keys())
    if unknown:
        raise UserError(
            f"has a class '{unknown[0]}', which train lacks",
            at=root,
            expected=f"the {len(classes)} classes of {folder / 'train'}",
            similar=similar(unknown[0], classes),
        )
    notes = []
    if root.name != split and (split, root.name) not in {("val", "validation"), ("val", "valid")}:
        notes.append(f"The dataset has no '{split}'. As in Ultralytics, the images of '{root.name}' took its place.")
    if broken := len(dataset.base.samples) - len(files):
        notes.append(f"Ultralytics could not read {broken} image(s) of {root}; they are left out.")
    missing = [name for name in classes if name not in names]
    if missing:
        notes.append(f"{len(missing)} of {len(classes)} classes have no image in '{root.name}', such as {missing[0]}.")
    label = np.array([number[name] for name in names], dtype=np.intp)
    return LabelledImages(str(data), root, root.name, files, classes, label, tuple(notes))


def map_classes(names: Mapping[int, str], truth: LabelledImages, at: str | Path) -> NDArray[np.intp]:
    """Return the index in `truth.classes` of each of a model's classes, proved by their names.

    ImageNet's folders have codes for names. A model may have the words that Ultralytics has for them.

    Args:
        names: The model's class names by number.
        truth: The images.
        at: The checkpoint, for the error message.

    Raises:
        UserError: The model's classes are not those of the dataset, or cannot be told apart.
    """
    own = [str(names[i]) for i in sorted(names)]
    in_words = list(ultralytics_api.get("check_class_names")(list(truth.classes)).values())
    for known in (list(truth.classes), in_words):
        if sorted(own) == sorted(known) and len(set(own)) == len(own):
            return np.array([known.index(name) for name in own], dtype=np.intp)
    repeated = [name for name, count in Counter(own).items() if count > 1]
    if repeated:
        raise UserError(f"has two classes named '{repeated[0]}'", at=at, expected="a name of its own for each class")
    missing, more = sorted(set(truth.classes) - set(own)), sorted(set(own) - set(truth.classes))
    problem = f"has no class '{missing[0]}'" if missing else f"has a class '{more[0]}'"
    raise UserError(
        f"{problem}, {'which' if missing else 'but not'} {truth.source}{' has' if missing else ''}",
        at=at,
        expected=f"exactly the {len(truth.classes)} classes of the data",
        similar=similar(missing[0], own) if missing else "",
    )


def is_ranking_file(path: Path) -> bool:
    """Return whether a JSON file begins like rankings, and not like detections in COCO's result format."""
    try:
        head = path.open(encoding="utf-8", errors="replace").read(4096)
    except OSError:
        return False
    return '"image"' in head and '"image_id"' not in head


def ranking_records(rankings: Rankings, truth: LabelledImages) -> list[dict[str, Any]]:
    """Return what `read_rankings` reads: a record per image, with its path below the split and its classes."""
    return [
        {"image": file, f"top{TOP}": [truth.classes[i] for i in best]}
        for file, best in zip(truth.files, rankings.best, strict=True)
    ]


def read_rankings(path: Path, truth: LabelledImages) -> Rankings:
    """Read a file of rankings: `[{"image": "cat/1.jpg", "top5": ["cat", "dog", ...]}, ...]`.

    Raises:
        UserError: It is something else, an image is missing, unknown or repeated, or a class is unknown.
    """
    records = read_json(path)
    k = min(TOP, len(truth.classes))
    shape = f'[{{"image": "class/file.jpg", "top{TOP}": [{k} class names]}}, ...]'
    if not isinstance(records, list):
        raise UserError("is not a list", at=path, expected=shape)
    row = {file: i for i, file in enumerate(truth.files)}
    number = {name: i for i, name in enumerate(truth.classes)}
    best = np.full((len(row), k), -1, dtype=np.intp)
    for i, record in enumerate(records):
        at = f"{path}, record {i}"
        image, names = (record.get("image"), record.get(f"top{TOP}")) if isinstance(record, dict) else (None, None)
        if not isinstance(image, str) or not isinstance(names, list):
            raise UserError(f"is {brief(record)}", at=at, expected=shape)
        if image not in row:
            raise UserError(
                f"there is no image '{image}' in {truth.root}",
                at=at,
                expected="the path below the split's folder",
                similar=similar(image, row),
            )
        if best[row[image], 0] >= 0:
            raise UserError(f"the image '{image}' has a second record", at=at)
        best[row[image]] = _numbers(names, number, k, at)
    left_out = np.flatnonzero(best[:, 0] < 0)
    if len(left_out):
        raise UserError(
            f"has no record of {len(left_out)} of {len(row)} images, such as '{truth.files[left_out[0]]}'", at=path
        )
    return Rankings(str(path), best)


def _numbers(names: Sequence[Any], number: Mapping[str, int], k: int, at: str) -> list[int]:
    for name in names:
        if name not in number:
            raise UserError(f"there is no class {brief(name)}", at=at, similar=similar(str(name), number))
    if len(names) != k or len(set(names)) != k:
        raise UserError(f"'top{TOP}' is {brief(names)}", at=at, expected=f"{k} different classes")
    return [number[name] for name in names]
