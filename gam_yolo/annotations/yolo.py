"""Read what Ultralytics reads: a dataset YAML, image folders, and label files beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gam_yolo import ultralytics_api
from gam_yolo.annotations.data import GroundTruth
from gam_yolo.annotations.images import composed, exists, image_files, image_id_of, is_file, is_folder, read_frame
from gam_yolo.annotations.provenance import reject_other_keys
from gam_yolo.annotations.records import reject_repeats
from gam_yolo.annotations.rules import AnnotatedImage, Object, Tally, ground_truth, unique_names
from gam_yolo.errors import UserError, brief, similar
from gam_yolo.io import read_text, read_yaml
from gam_yolo.resources import shipped_names

__all__ = ["class_names", "dataset", "entries", "missing_images", "read_labels", "read_yolo", "unread_labels"]


def read_yolo(data: str | Path, split: str = "val") -> GroundTruth:
    """Read one split of a dataset YAML.

    As in Ultralytics, an image without a label file has no objects, a row of more than five numbers is a polygon of
    which the enclosing box counts, and a row that occurs twice counts once. An object's area is its box's, since the
    format has no masks; it has neither crowds nor difficult objects.

    Raises:
        UserError: The YAML, an image or a label file is missing or broken.
    """
    content = dataset(data, split)
    classes = class_names(content, data)
    at = f"{data}, split '{split}'"
    files = image_files(content[split], at)
    reject_repeats((image_id_of(path) for path in files), at, "image name (without folder and ending)")
    files.sort(key=lambda path: (isinstance(image_id_of(path), str), image_id_of(path)))
    shape = content.get("kpt_shape")
    keypoints = math.prod(shape) if isinstance(shape, list) and all(type(n) is int for n in shape) else 0
    truth = ground_truth(read_labels(files, classes, keypoints), classes, str(data), tally=Tally(), names=classes)
    return replace(truth, notes=(*truth.notes, *unread_labels(files)))


def read_labels(files: Sequence[Path], classes: tuple[str, ...], keypoints: int = 0) -> Iterator[AnnotatedImage]:
    """Yield images with the objects in their label files.

    Args:
        files: The images.
        classes: Class names.
        keypoints: How many numbers of keypoints follow the box in a row; they are not read.

    Raises:
        UserError: An image or a label file is broken.
    """
    labels = ultralytics_api.label_files([str(file) for file in files])
    return (_read_image(file, Path(label), classes, keypoints) for file, label in zip(files, labels, strict=True))


def unread_labels(files: Sequence[Path]) -> list[str]:
    """Return a warning if label files are not found.

    Case, accents or blanks in their names are then not the images', or they are links to files that are not there.
    """
    labels = [Path(label) for label in ultralytics_api.label_files([str(file) for file in files])]
    missing = [label for label in labels if not is_file(label)]
    folders = {label.parent for label in missing if is_folder(label.parent)}
    there = {folder: {_plain(file.name): file.name for file in folder.iterdir()} for folder in folders}
    unread = [(found, label) for label in missing if (found := there.get(label.parent, {}).get(_plain(label.name)))]
    if not unread:
        return []
    found, label = unread[0]
    number = "1 label file is" if len(unread) == 1 else f"{len(unread)} label files are"
    if found == label.name:
        return [f"{number} not read, as the link {label} leads nowhere"]
    return [f"{number} not read, as Ultralytics expects another spelling: {label.name!r:.80}, not {found!r:.80}"]


def _plain(name: str) -> str:
    return "".join(composed(name).casefold().split())


def no_dataset_yaml(data: str | Path) -> UserError:
    """Return the error for a dataset YAML that is neither here nor shipped, with the nearest name of a shipped one."""
    known = [*shipped_names(("data",)), *(path.name for path in ultralytics_api.dataset_yamls())]
    return UserError("no such dataset YAML", at=data, similar=similar(Path(data).name, known))


def dataset(data: str | Path, split: str) -> dict[str, Any]:
    """Read a dataset YAML as Ultralytics does, but never download: that may run a script that the YAML names.

    Raises:
        UserError: It cannot be read, or the split's images are missing.
    """
    try:
        content = ultralytics_api.load_dataset_yaml(str(data))
    except UserError:
        raise
    except Exception as error:
        if ultralytics_api.find_yaml(str(data)) is None:
            raise no_dataset_yaml(data) from None
        if lost := missing_images(data):
            raise UserError(lost, fix=f"Prepare it with: gam-yolo prepare {data}") from None
        reason = " ".join(str(error).split())
        raise UserError(f"cannot be read ({reason})", at=data, expected="a dataset YAML of Ultralytics") from None
    if not content.get(split):
        known = [key for key in ("train", "val", "test") if content.get(key)]
        raise UserError(f"has no split '{split}'", at=data, expected=f"one of {', '.join(known)}")
    missing = [path for path in entries(content[split]) if not exists(path)]
    if missing:
        raise UserError(
            f"there is no {missing[0]}", at=f"{data}, key '{split}'", fix=f"Prepare it with: gam-yolo prepare {data}"
        )
    reject_other_keys(content, data)
    return content


def missing_images(data: str | Path) -> str:
    """Say which key of a dataset YAML leads nowhere, where Ultralytics cannot read the YAML; empty if none does.

    Raises:
        UserError: A key is no path.
    """
    file = ultralytics_api.find_yaml(str(data))
    content = read_yaml(file, "a dataset YAML") if file else None
    if not file or not isinstance(content, dict):
        return ""
    for key in ("path", "train", "val", "test"):
        value = content.get(key) or ""
        paths = value if isinstance(value, list) and key != "path" else [value]
        if not all(isinstance(path, str) for path in paths):
            expected = "a path" if key == "path" else "a path or a list of paths"
            raise UserError(f"is {brief(value)}", at=f"{data}, key '{key}'", expected=expected)
    folder = ultralytics_api.dataset_folder(content.get("path") or file.parent)
    for key in ("val", "train"):
        for path in entries(content.get(key) or []):
            if not exists(folder / path):
                return f"{data}, key '{key}': there is no {folder / path}"
    return ""


def entries(value: str | list[str]) -> list[Path]:
    """Return the paths of a split: folders of images and lists of images."""
    return [Path(entry) for entry in ([value] if isinstance(value, str) else value)]


def class_names(content: dict[str, Any], data: str | Path) -> tuple[str, ...]:
    """Return the class names of a dataset YAML in the model's order.

    Raises:
        UserError: Two classes have one name.
    """
    return unique_names((name for _, name in sorted(content["names"].items())), f"{data}, key 'names'")


def _read_image(file: Path, label: Path, classes: tuple[str, ...], keypoints: int) -> AnnotatedImage:
    """Read an image's size and its label file."""
    frame = read_frame(file)
    width, height = frame.width, frame.height
    objects = []
    for row, (index, x, y, w, h) in enumerate(_read_labels(label, len(classes), keypoints)):
        box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
        objects.append(Object(row, classes[int(index)], box))
    # Labels are relative: they do not say whether the image was rotated when it was annotated.
    size = (math.nan, math.nan) if frame.rotated else (width, height)
    return AnnotatedImage(image_id_of(file), str(file), size, objects, f"{label}, row", file)


def _read_labels(path: Path, n_classes: int, keypoints: int) -> list[tuple[float, float, float, float, float]]:
    """Read the distinct rows of a label file: class, then centre and size relative to the image."""
    rows: dict[tuple[float, float, float, float, float], None] = {}
    boxes = polygons = False
    lines = read_text(path, "labels").splitlines() if is_file(path) else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        at = f"{path}, line {number}"
        try:
            label, *values = map(float, line.split())
        except ValueError:
            raise UserError(
                f"reads {line.strip()!r:.120}", at=at, expected="a class and the box's four numbers"
            ) from None
        if keypoints and len(values) == 4 + keypoints:
            values = values[:4]
        boxes, polygons = boxes or len(values) == 4, polygons or len(values) > 5
        if boxes and polygons:
            raise UserError("boxes and polygons are mixed", at=at, expected="one of them in a file")
        if len(values) > 5 and len(values) % 2 == 0:
            xs, ys = values[::2], values[1::2]
            low, high = (min(xs), min(ys)), (max(xs), max(ys))
            values = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[0] - low[0], high[1] - low[1]]
        if len(values) != 4:
            raise UserError(f"has {len(values) + 1} numbers", at=at, expected="a class and the box's four")
        if label not in range(n_classes):
            raise UserError(f"has class {label:g}", at=at, expected=f"0 to {n_classes - 1}")
        if not all(-0.01 <= value <= 1.01 for value in values) or min(values[2:]) < 0:
            raise UserError(f"has a box {values}", at=at, expected="numbers relative to the image, from 0 to 1")
        rows[label, values[0], values[1], values[2], values[3]] = None
    return list(rows)
