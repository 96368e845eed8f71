"""The folder that Ultralytics reads, written once and all at once, whatever the format it is read from.

    <path>/images/<split>/       the photographs, linked
    <path>/labels/<split>/       one text file a photograph: class, centre x, centre y, width, height in shares of its
    <path>/annotations/          the original annotations, linked, for evaluators that need what labels leave out
    <path>/<split>.txt           the list of photographs, where the YAML names a split so (as Ultralytics' coco.yaml)
    <path>/summary.txt           where it came from and what was left out

A format is a function that reads one split (`Reader`): it yields pictures and counts what it leaves out. The folder is
written under a temporary name beside its place and renamed when complete, so that two processes may prepare it at once
and an interrupted one leaves nothing that looks ready.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError, nearest

__all__ = ["Box", "Picture", "Reader", "Split", "Tally", "is_safe_name", "link", "prepare", "source_folder"]

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge in pixels from the image's top left corner; right and bottom lie outside the box."""


class Picture(NamedTuple):
    """One image and its labels.

    Attributes:
        name: File name below `images/<split>/`, with its suffix.
        image: The file to link, or an encoded image to write.
        width: Image width in pixels, the unit of the boxes.
        height: Image height in pixels.
        boxes: Class index and box of each label, boxes inside the image.
    """

    name: str
    image: Path | bytes
    width: float
    height: float
    boxes: list[tuple[int, Box]]


@dataclass
class Tally:
    """What became of a split's images and boxes; a box is one of written, difficult, crowd and degenerate."""

    images: int = field(default=0, metadata={"text": "images"})
    boxes: int = field(default=0, metadata={"text": "boxes written"})
    difficult: int = field(default=0, metadata={"text": "difficult left out"})
    crowd: int = field(default=0, metadata={"text": "crowd left out"})
    degenerate: int = field(default=0, metadata={"text": "degenerate left out"})
    clipped: int = field(default=0, metadata={"text": "clipped to the image"})
    empty: int = field(default=0, metadata={"text": "images without boxes"})
    missing: int = field(default=0, metadata={"text": "images whose file is missing"})

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, f.name)} {f.metadata['text']}" for f in fields(self))


@dataclass
class Split:
    """One split on its way in: what a reader is given, and where it counts what it leaves out.

    Attributes:
        name: The split's name, as in `images/<name>` or `<name>.txt` of the dataset YAML.
        classes: Class name to class index, from the YAML's `names`.
        annotations: Folder for the original annotations.
        tally: What became of the images and boxes so far.
    """

    name: str
    classes: Mapping[str, int]
    annotations: Path
    tally: Tally = field(default_factory=Tally)

    def class_index(self, name: str, where: str) -> int:
        """Return the index of a class, or raise a UserError that begins with `where` and names the nearest class."""
        if name not in self.classes:
            raise UserError(
                f"{where}: class '{name}' is none of the {len(self.classes)} 'names' of the dataset YAML"
                f"{nearest(name, self.classes)}"
            )
        return self.classes[name]

    def clip(self, box: Box, width: float, height: float) -> Box | None:
        """Return the part of a box that lies in the image, or None where that has no area; both are counted."""
        left, top, right, bottom = box
        inside = (max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height))
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            self.tally.degenerate += 1
            return None
        # COCO's x + width is a rounded sum: a box that ends 1e-13 beyond the border was not annotated so.
        self.tally.clipped += max(abs(a - b) for a, b in zip(box, inside, strict=True)) > 1e-6
        return inside


Reader = Callable[[Split], Iterable[Picture]]


def prepare(data: Mapping[str, Any], read: Reader, origin: str) -> None:
    """Write the folder of a dataset YAML, every split of it, and log one summary line a split.

    Args:
        data: The YAML as `ultralytics.data.utils.check_det_dataset` hands it to a `download:` key: splits are absolute
            paths, `names` is a mapping from index to name.
        read: Reads one split.
        origin: Where the data comes from, in words, for the summary.

    Raises:
        UserError: If the YAML names a split otherwise than `images/<split>` or `<split>.txt`, if a split holds no
            image, if a file cannot be read or written, or if another folder is in the way.
    """
    yaml = yaml_name(data)
    target = Path(data["path"]).resolve()
    entries = _entries(data, target)
    classes = {name: index for index, name in data["names"].items()}
    lines = [f"source: {origin}"]
    with _staged(target, entries, yaml) as folder:
        if folder is None:
            return
        for split in {entry.stem: None for entry in entries}:  # a set that keeps the YAML's order
            job = Split(split, classes, folder / "annotations")
            listed = [f"./images/{split}/{_write(folder, split, picture, job.tally)}" for picture in read(job)]
            if not listed:
                raise UserError(f"{yaml}: split '{split}' has no image in {origin} ({job.tally})")
            if target / f"{split}.txt" in entries:
                (folder / f"{split}.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")
            lines.append(f"{split}: {job.tally}")
        (folder / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for line in lines[1:]:
        ultralytics_api.info(f"{yaml}: {line}")


def yaml_name(data: Mapping[str, Any]) -> str:
    """Return the dataset YAML's file name, for messages."""
    return Path(str(data.get("yaml_file", "dataset YAML"))).name


def source_folder(data: Mapping[str, Any], expected: str) -> Path:
    """Return the folder that the YAML's `source:` key names; `~` and environment variables in it are expanded.

    Args:
        data: The dataset YAML.
        expected: What the folder has to be, in words, for messages.

    Raises:
        UserError: If the key or a variable in it is not set, or if there is no such folder.
    """
    yaml, text = yaml_name(data), data.get("source")
    if not isinstance(text, str) or not text:
        raise UserError(f"{yaml}: key 'source' is {text!r}; expected the path of {expected}")
    expanded = os.path.expandvars(text)
    if unset := re.search(r"\$\{?(\w+)", expanded or text):  # an empty variable counts as one not set
        raise UserError(
            f"{yaml}: 'source: {text}' is not set; set the environment variable {unset[1]} to the path of {expected}, "
            "or write that path into your own copy of the YAML"
        )
    folder = Path(expanded).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"{yaml}: 'source: {text}' names {folder}, where there is no folder; expected {expected}")
    return folder


def is_safe_name(name: str) -> bool:
    """Return whether a file name read from an annotation stays below the folder it is joined to, on any system."""
    return (
        bool(name)
        and "\0" not in name
        and not any(p.anchor or ".." in p.parts or not p.name for p in (PurePosixPath(name), PureWindowsPath(name)))
    )


def link(source: Path, target: Path) -> None:
    """Make a file appear at a second place: hard link, else symbolic link, else copy.

    A hard link needs no rights on Windows and outlives the original; a symbolic link reaches another disk. JPEGs
    without their end marker are copied: Ultralytics mends those where they lie, and might mend the original with them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix.lower() in {".jpg", ".jpeg"} and not _ends_as_jpeg(source):
        shutil.copyfile(source, target)
        return
    for make in (os.link, os.symlink):
        try:
            make(source, target)
        except (OSError, NotImplementedError):
            continue
        return
    shutil.copyfile(source, target)


def _ends_as_jpeg(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 2))
        return stream.read() == b"\xff\xd9"


def _entries(data: Mapping[str, Any], target: Path) -> list[Path]:
    """Return every train, val and test entry, an absolute path to `images/<split>` or `<split>.txt` below target."""
    entries = []
    for key in ("train", "val", "test"):
        values = data.get(key) or []
        for entry in map(Path, [values] if isinstance(values, str) else values):
            is_list = entry.suffix == ".txt" and entry.parent == target
            if not is_list and entry.parent != target / "images":
                raise UserError(
                    f"{yaml_name(data)}: '{key}: {os.path.relpath(entry, target)}' cannot be prepared; "
                    "expected 'images/<split>' or '<split>.txt'"
                )
            entries.append(entry if is_list else entry.parent / entry.name)
    return entries


def _write(folder: Path, split: str, picture: Picture, tally: Tally) -> str:
    """Write one image and its label file; return the image's name."""
    image = folder / "images" / split / picture.name
    label = (folder / "labels" / split / picture.name).with_suffix(".txt")
    label.parent.mkdir(parents=True, exist_ok=True)
    image.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, (left, top, right, bottom) in picture.boxes:
        x, y = (left + right) / 2 / picture.width, (top + bottom) / 2 / picture.height
        w, h = (right - left) / picture.width, (bottom - top) / picture.height
        rows.append(f"{index} {x:.9g} {y:.9g} {w:.9g} {h:.9g}\n")
    try:
        with label.open("x", encoding="utf-8") as stream:
            stream.writelines(rows)
    except FileExistsError:
        raise UserError(
            f"split '{split}': two images are called '{picture.name}' but for the suffix; "
            "Ultralytics would give both the same labels"
        ) from None
    if isinstance(picture.image, bytes):
        image.write_bytes(picture.image)
    else:
        link(picture.image, image)
    tally.images += 1
    tally.boxes += len(rows)
    tally.empty += not rows
    return picture.name


@contextmanager
def _staged(target: Path, entries: list[Path], yaml: str) -> Iterator[Path | None]:
    """Give a folder that takes target's place when the block ends well; None where another process has been faster."""
    try:
        if _is_ready(target, entries, yaml):
            yield None
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent, ignore_cleanup_errors=True) as private:
            folder = Path(private) / target.name  # the temporary folder itself is readable by its owner alone
            folder.mkdir()
            yield folder
            try:
                folder.replace(target)
            except OSError:
                if not _is_ready(target, entries, yaml):
                    raise
    except OSError as error:
        raise UserError(f"{yaml}: {error.filename or target} cannot be read or written: {error.strerror}") from error


def _is_ready(target: Path, entries: list[Path], yaml: str) -> bool:
    """Return whether target holds every split; raise a UserError where it holds something else."""
    if not target.exists():
        return False
    absent = [entry for entry in entries if not entry.exists()]
    if not absent:
        return True
    if target.is_dir() and not any(target.iterdir()):
        return False
    raise UserError(
        f"{yaml}: {target} is there already but has no {absent[0].relative_to(target)}; "
        "move it away to have it prepared anew, or give the YAML another 'path:'"
    )
