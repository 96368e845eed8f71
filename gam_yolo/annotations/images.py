"""Image files: which there are, how Ultralytics identifies them, and what size they have."""

from __future__ import annotations

import glob
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from PIL import Image

from gam_yolo import ultralytics_api
from gam_yolo.annotations.data import ImageId
from gam_yolo.errors import UserError, brief
from gam_yolo.io import file_sha256, read_text

__all__ = [
    "Frame",
    "ImageFinder",
    "base_name",
    "composed",
    "exists",
    "image_files",
    "image_id_of",
    "images_shared",
    "images_unused",
    "is_file",
    "is_folder",
    "is_safe_name",
    "is_truncated",
    "read_frame",
    "shared_images",
]


@dataclass(frozen=True)
class Frame:
    """The size of an image file.

    Attributes:
        width: Width in pixels as displayed and trained on, that is after EXIF rotation.
        height: Height likewise.
        stored: Width and height as stored.
        rotated: Whether its EXIF data ask for a rotation or reflection.
    """

    width: int
    height: int
    stored: tuple[int, int]
    rotated: bool


def read_frame(file: Path) -> Frame:
    """Read the size of an image from its header.

    Raises:
        UserError: It cannot be read as an image.
    """
    try:
        status = file.stat()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", at=file, expected="an image") from None
    return _read_frame(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=200_000)
def _read_frame(file: Path, size: int, _changed: int) -> Frame:
    if not size:  # Ultralytics would look for a package that can read it
        raise UserError("is empty (0 bytes)", at=file, expected="an image")
    ultralytics_api.image_formats()  # importing Ultralytics teaches `Image.open` further formats
    try:
        with Image.open(file) as image:
            width, height = ultralytics_api.image_size(image)
            return Frame(width, height, image.size, image.getexif().get(0x0112, 1) != 1)
    except Exception as error:  # Pillow's plug-ins raise what they like; Ultralytics adds ImportError for odd formats
        reason = "too many pixels" if isinstance(error, Image.DecompressionBombError) else "not a known image format"
        raise UserError(f"cannot be read as an image ({reason})", at=file, expected="an image") from None


def is_truncated(file: Path) -> bool:
    """Return whether a JPEG or PNG file lacks the marker that ends its image. Bytes may follow the marker."""
    with file.open("rb") as stream:
        start = stream.read(4)
        end = b"\xff\xd9" if start[:3] == b"\xff\xd8\xff" else b"IEND" if start == b"\x89PNG" else b""
        stream.seek(max(0, file.stat().st_size - 4096))
        return end not in stream.read()


def image_files(entry: object, where: str) -> list[Path]:
    """List the images of a split: folders, searched through, and lists of files, as Ultralytics reads them.

    It follows links to folders, and passes over hidden files and folders, such as `._a.jpg` and `.ipynb_checkpoints`.

    Raises:
        UserError: There are none, the entry is not a path or a list of paths, or a list cannot be read.
    """
    found: list[Path] = []
    for text in entry if isinstance(entry, list) else [entry]:
        if not isinstance(text, (str, Path)):
            raise UserError(f"is {brief(text)}", at=where, expected="a folder of images, or a list of them")
        path = Path(text)
        if is_folder(path):
            if path.resolve() == path.resolve().parent:  # a search that would take minutes
                raise UserError(f"is {path}, the whole file system", at=where, expected="a folder of images")
            found += map(Path, glob.iglob(f"{glob.escape(str(path))}/**/*.*", recursive=True))  # noqa: PTH207  not pathlib's rules
        else:
            lines = filter(None, map(str.strip, read_text(path, "a list of images").split("\n")))
            found += [_listed(path.parent, line) for line in lines]
    images = [path for path in found if path.suffix[1:].lower() in ultralytics_api.image_formats()]
    if not images:
        raise UserError(f"has no images under {entry}", at=where)
    return images


def _listed(folder: Path, line: str) -> Path:
    """Return the image that a line of a list names: from the list's folder after `./`, else from the current folder.

    Where there is none in the current folder, it is looked for from the list's folder.
    """
    return folder / line if line.startswith("./") or not is_file(Path(line)) else Path(line)


def image_id_of(file: str | Path) -> ImageId:
    """Return the image id that Ultralytics gives a file: its stem, as a number where it consists of digits.

    Examples:
        >>> image_id_of("val/000139.jpg"), image_id_of("frame_1.jpg")
        (139, 'frame_1')
    """
    stem = Path(file).stem
    return int(stem) if stem.isdecimal() and len(stem) < 1000 else stem


def images_shared(files: Iterable[Path], split: str, other: str) -> str:
    """Say that images of a split are also in another. Images of one name are listed with their folders.

    Examples:
        >>> images_shared([Path("val/a.jpg")], "val", "train")
        "1 image of 'val' is also in 'train': a.jpg"
        >>> images_shared([Path("val/x/a.jpg"), Path("val/y/a.jpg")], "val", "train")
        "2 images of 'val' are also in 'train': x/a.jpg, y/a.jpg"
    """
    files = [*files]
    alike = Counter(file.name for file in files)
    names = sorted(file.name if alike[file.name] == 1 else f"{file.parent.name}/{file.name}" for file in files)
    listed = ", ".join(f"{name:.80}" for name in names[:3]) + (", ..." if len(names) > 3 else "")
    number, verb = ("1 image", "is") if len(names) == 1 else (f"{len(names)} images", "are")
    return f"{number} of '{split}' {verb} also in '{other}': {listed}"


def images_unused(files: Iterable[Path], used: Iterable[str | Path]) -> str:
    """Say that Ultralytics leaves images of a split out, as it cannot read them or their labels; empty if it does not.

    Args:
        files: The images of the split.
        used: The images in Ultralytics' dataset of the split.

    Examples:
        >>> images_unused([Path("a.jpg"), Path("b.jpg")], ["a.jpg"])
        'Ultralytics leaves out 1 of the 2 images, as it cannot use the image or its labels; the first is b.jpg'
    """
    files, known = {*files}, {Path(file) for file in used}
    if len(known) >= len(files):
        return ""
    return (
        f"Ultralytics leaves out {len(files) - len(known)} of the {len(files)} images, as it cannot use the image or "
        f"its labels; the first is {min(files - known)}"
    )


def shared_images(splits: Mapping[str, Iterable[Path]]) -> list[str]:
    """Return a warning for each pair of splits that have images in common, by content.

    Images of one size in bytes are compared by their last 4 kB, and what then still agrees completely.
    """
    by_size: dict[int, list[tuple[str, Path]]] = {}
    for split, files in splits.items():
        for file in filter(is_file, files):
            by_size.setdefault(file.stat().st_size, []).append((split, file))
    suspects = [one for group in by_size.values() if len({split for split, _ in group}) > 1 for one in group]
    for key in (_ending, file_sha256):
        groups: dict[Any, list[tuple[str, Path]]] = {}
        for split, file in suspects:
            groups.setdefault((file.stat().st_size, key(file)), []).append((split, file))
        suspects = [one for group in groups.values() if len({split for split, _ in group}) > 1 for one in group]
    content = {split: {file_sha256(file): file for s, file in suspects if s == split} for split in splits}
    return [
        images_shared((content[a][key] for key in shared), a, b)
        for a, b in combinations(splits, 2)
        if (shared := content[a].keys() & content[b].keys())
    ]


def _ending(file: Path) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 4096))
        return stream.read()


def base_name(name: str) -> str:
    r"""Return a file name without its folders, whichever system wrote it.

    Examples:
        >>> base_name(r"C:\images\a.jpg"), base_name("val2017/a.jpg")
        ('a.jpg', 'a.jpg')
    """
    return re.split(r"[\\/]", name)[-1]


def is_safe_name(name: str) -> bool:
    """Return whether a file name read from an annotation stays below the folder it is joined to, on any system."""
    return (
        bool(name)
        and name.isprintable()
        and not any(p.anchor or ".." in p.parts or not p.name for p in (PurePosixPath(name), PureWindowsPath(name)))
    )


def is_file(path: Path) -> bool:
    """Return whether a path leads to a file. A path that no system can hold leads nowhere."""
    return _test(path.is_file)


def is_folder(path: Path) -> bool:
    """Return whether a path leads to a folder."""
    return _test(path.is_dir)


def exists(path: Path) -> bool:
    """Return whether a path leads to anything."""
    return _test(path.exists)


def _test(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except (OSError, ValueError):
        return False


class ImageFinder:
    """Finds the file of an annotation's image among the files of a split.

    A file fits by its name without folders. Where several files have that name, its folders decide. Where none has, it
    fits by its stem, if only one has that: images may have been saved in another format. An accent may be one character
    in one name and two in the other, as on a Mac.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for file in files:
            self._by_name.setdefault(composed(file.name), []).append(file)
            self._by_stem.setdefault(composed(file.stem), []).append(file)

    def find(self, name: str, *, exactly: bool = False) -> Path | None:
        """Return the file of an image, or None; `exactly` to look for nothing but its name."""
        base = composed(base_name(name))
        known: Sequence[Path] = self._by_name.get(base, ())
        if len(known) > 1:
            parts = tuple(re.split(r"[\\/]", name))
            known = [file for file in known if file.parts[-len(parts) :] == parts]
        elif not known and not exactly:
            known = self._by_stem.get(Path(base).stem, ())
        return known[0] if len(known) == 1 else None


def composed(name: str) -> str:
    """Return a name with each accent and its letter as one character, as another system may write them as two."""
    return unicodedata.normalize("NFC", name)
