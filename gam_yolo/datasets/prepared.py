"""The folder that Ultralytics reads, written completely or not at all, whatever the format it is read from.

    <path>/images/<split>/       the photographs, linked
    <path>/labels/<split>/       one text file per photograph: class, then centre and size relative to the image
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
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from gam_yolo import ultralytics_api
from gam_yolo.annotations.images import is_folder, is_safe_name, shared_images
from gam_yolo.annotations.provenance import SUMMARY, annotations_line, is_provenance, provenance
from gam_yolo.annotations.rules import AnnotatedImage, Box, Tally, apply_rules, class_index, unique_names
from gam_yolo.errors import UserError

__all__ = [
    "Picture",
    "Reader",
    "Split",
    "link",
    "read_summary",
    "source_folder",
    "splits_of",
    "write_dataset",
    "yaml_name",
]


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
class Split:
    """One split that is being prepared: what a reader is given, and where it counts what it leaves out.

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

    def picture(self, image: AnnotatedImage) -> Picture:
        """Apply the rules to an image whose file is known, and return its labels.

        Raises:
            UserError: Its file cannot be read, or a class is not one of the YAML's.
        """
        if image.file is None:
            raise ValueError(f"the file of {image.name} is not known")
        indices = {o.row: class_index(o.name, self.classes, f"{image.at}[{o.row}]") for o in image.objects}
        found = apply_rules(image, self.tally)
        boxes = [(indices[o.row], o.box) for o in found.objects if not (o.crowd or o.difficult)]
        return Picture(image.name, image.file, *found.size, boxes)


Reader = Callable[[Split], Iterable[Picture]]


def write_dataset(data: Mapping[str, Any], read: Reader, origin: str) -> None:
    """Write the folder of a dataset YAML, every split of it, and log one summary line per split.

    Args:
        data: The YAML as `ultralytics.data.utils.check_det_dataset` hands it to a `download:` key: splits are absolute
            paths, `names` is a mapping from index to name.
        read: Reads one split.
        origin: Where the data comes from, in words, for the summary.

    Raises:
        UserError: The YAML names a split otherwise than `images/<split>` or `<split>.txt`, a split holds no image, an
            image has another frame than its annotation, a file cannot be read or written, or another folder is in the
            way.
    """
    yaml = yaml_name(data)
    target = Path(os.path.realpath(data["path"]))
    entries = _entries(data, target)
    names = unique_names((name for _, name in sorted(data["names"].items())), f"{yaml}, key 'names'")
    classes = dict(zip(names, sorted(data["names"]), strict=True))
    lines, warnings = [], []
    with _staged(target, entries, yaml) as folder:
        if folder is None:
            return
        for split in splits_of(entries):
            job = Split(split, classes, folder / "annotations")
            listed = [f"./images/{split}/{_write(folder, split, picture)}" for picture in read(job)]
            job.tally.reject_wrong_frames(f"{origin}, split '{split}'")
            if not listed:
                raise UserError(f"split '{split}' has no image in {origin} ({job.tally})", at=yaml)
            if target / f"{split}.txt" in entries:
                (folder / f"{split}.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")
            lines.append(f"{split}: {job.tally}")
            warnings += [f"{split}: {warning}" for warning in job.tally.warnings()]
        warnings += shared_images({s: sorted((folder / "images" / s).rglob("*.*")) for s in splits_of(entries)})
        summary = [f"source: {origin}", *lines, *warnings, provenance(data, yaml), annotations_line(folder)]
        (folder / SUMMARY).write_text("\n".join(summary) + "\n", encoding="utf-8")
    for line in lines:
        ultralytics_api.info(f"{yaml}: {line}")
    for warning in warnings:
        ultralytics_api.warn(f"{yaml}: {warning}")


def splits_of(entries: Iterable[Path]) -> list[str]:
    """Return the names of the splits that a YAML's entries name, each once and in order."""
    return list(dict.fromkeys(entry.stem if entry.suffix == ".txt" else entry.name for entry in entries))


def read_summary(folder: Path) -> tuple[dict[str, Tally], list[str]]:
    """Return the counts of each split of a prepared folder, and the warnings, from its summary."""
    tallies, warnings = {}, []
    for line in (folder / SUMMARY).read_text(encoding="utf-8").splitlines()[1:]:
        if is_provenance(line):
            continue
        split, _, text = line.partition(": ")
        if split not in tallies and " images, " in text and "boxes written" in text:
            tallies[split] = Tally.parse(text)
        else:
            warnings.append(line)
    return tallies, warnings


def yaml_name(data: Mapping[str, Any]) -> str:
    """Return the dataset YAML's file name, for messages."""
    return Path(str(data.get("yaml_file", "dataset YAML"))).name


def source_folder(data: Mapping[str, Any], expected: str) -> Path:
    """Return the folder that the YAML's `source:` key names; `~` and environment variables in it are expanded.

    Args:
        data: The dataset YAML.
        expected: What the folder has to be, in words, for messages.

    Raises:
        UserError: The key or a variable in it is not set, or there is no such folder.
    """
    at, text = f"{yaml_name(data)}, key 'source'", data.get("source")
    if not isinstance(text, str) or not text:
        raise UserError(f"is {text!r}", at=at, expected=f"the path of {expected}")
    for path in (text, os.path.expandvars(text)):  # a folder may have a '$' in its name
        folder = Path(path).expanduser()
        if path and is_folder(folder):
            return folder.resolve()
    unset = [name for name in re.findall(r"\$\{?(\w+)", text) if not os.environ.get(name)]
    if unset:
        raise UserError(
            f"'{text}' is not set",
            at=at,
            expected=f"the path of {expected}",
            fix=f"Set the environment variable {unset[0]} to it, or write it into your own copy of the YAML",
        )
    raise UserError(f"'{text}' names {folder.absolute()}, where there is no folder", at=at, expected=expected)


def link(source: Path, target: Path) -> None:
    """Make a file appear at a second place: hard link, else symbolic link, else copy.

    A hard link needs no rights on Windows and outlives the original; a symbolic link reaches another disk. Where the
    source is itself a link, the file that it leads to is linked. JPEGs without their end marker are copied: Ultralytics
    repairs those where they lie, and older releases would repair the original with them.
    """
    source = source.resolve(strict=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix.lower() in {".jpg", ".jpeg"} and not _ends_as_jpeg(source):
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
                    f"'{os.path.relpath(entry, target)}' cannot be prepared",
                    at=f"{yaml_name(data)}, key '{key}'",
                    expected="'images/<split>' or '<split>.txt'",
                )
            entries.append(entry)
    return entries


def _write(folder: Path, split: str, picture: Picture) -> str:
    """Write one image and its label file; return the image's name."""
    if not is_safe_name(picture.name):
        raise UserError(f"the image name {picture.name!r:.120} leaves the image folder", expected="a name below it")
    image = folder / "images" / split / picture.name
    label = (folder / "labels" / split / picture.name).with_suffix(".txt")
    label.parent.mkdir(parents=True, exist_ok=True)
    image.parent.mkdir(parents=True, exist_ok=True)
    try:
        with label.open("x", encoding="utf-8") as stream:
            for index, (x, y, w, h) in picture.boxes:
                # Within rounding a box may still reach beyond its image; Ultralytics drops images with such labels.
                left, top = max(x, 0.0), max(y, 0.0)
                right, bottom = min(x + w, picture.width), min(y + h, picture.height)
                shares = (
                    (left + right) / 2 / picture.width,
                    (top + bottom) / 2 / picture.height,
                    (right - left) / picture.width,
                    (bottom - top) / picture.height,
                )
                stream.write(f"{index} {' '.join(f'{share:.9g}' for share in shares)}\n")
    except FileExistsError:
        alike = "" if image.exists() else " but for the suffix"
        raise UserError(
            f"split '{split}': two images have the name {picture.name!r:.120}{alike}. "
            "Ultralytics would give both the same labels."
        ) from None
    if isinstance(picture.image, bytes):
        image.write_bytes(picture.image)
    else:
        link(picture.image, image)
    return picture.name


@contextmanager
def _staged(target: Path, entries: list[Path], yaml: str) -> Iterator[Path | None]:
    """Yield a folder that takes target's place when the block ends well; None where target is already complete."""
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
        raise UserError(f"{error.filename or target} cannot be read or written ({error.strerror})", at=yaml) from error


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
        f"{target} exists but has no {absent[0].relative_to(target)}",
        at=yaml,
        fix="Move it away to have it prepared again, or give the YAML another 'path:'",
    )
