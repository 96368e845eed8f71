"""Ground truth as Ultralytics reads it: a dataset YAML, image folders, and label files beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError
from gam_yolo.evaluation.data import GroundTruth
from gam_yolo.evaluation.files import image_id_of, refuse_repeats
from gam_yolo.io import read_text

__all__ = ["dataset", "image_files", "read_yolo"]


def read_yolo(data: str | Path, split: str = "val") -> GroundTruth:
    """Read one split of a dataset YAML.

    As in Ultralytics, an image without a label file has no objects, a row of more than five numbers is a polygon of
    which the enclosing box counts, and a row that occurs twice counts once. An object's area is its box's, since the
    format has no masks; it knows neither crowds nor difficult objects.

    Raises:
        UserError: The YAML, an image or a label file is missing or broken.
    """
    content = dataset(data, split)
    classes = tuple(str(name) for _, name in sorted(content["names"].items()))
    where = f"{data}: {split}"
    images = image_files(content[split], where)
    refuse_repeats((image_id_of(path) for path in images), where, "image names (without folder and ending)")
    images.sort(key=lambda path: (isinstance(image_id_of(path), str), image_id_of(path)))
    sizes = np.array([_size(path) for path in images], dtype=float)
    labels = ultralytics_api.label_files([str(path) for path in images])
    rows = [_read_labels(Path(path), len(classes)) for path in labels]
    image = np.repeat(np.arange(len(images)), [len(r) for r in rows])
    table = np.concatenate([np.zeros((0, 5)), *rows])
    scale = np.tile(sizes[image], 2)
    center, extent = np.split(table[:, 1:] * scale, 2, axis=1)
    return GroundTruth(
        source=str(data),
        ids=tuple(image_id_of(path) for path in images),
        files=tuple(str(path) for path in images),
        sizes=sizes,
        classes=classes,
        category_ids=tuple(range(1, len(classes) + 1)),  # as Ultralytics numbers them in its predictions
        image=image,
        label=table[:, 0].astype(np.intp),
        box=np.concatenate([center - extent / 2, extent], axis=1),
        area=extent.prod(axis=1),
        crowd=np.zeros(len(table), dtype=bool),
        difficult=np.zeros(len(table), dtype=bool),
    )


def dataset(data: str | Path, split: str) -> dict[str, Any]:
    """Read a dataset YAML as Ultralytics does, but never download: that may run a script the YAML names.

    Raises:
        UserError: It cannot be read, or the split's images are not there.
    """
    try:
        content = ultralytics_api.load_dataset_yaml(str(data))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{data}: cannot be read as a dataset YAML with a '{split}' split ({reason}); a set that Ultralytics has "
            f"yet to fetch or prepare is so after `yolo val data={data}`"
        ) from None
    return content


def image_files(entry: str | list[str], where: str) -> list[Path]:
    """List the images of a split: folders, searched through, and lists of files, as Ultralytics reads them."""
    found: list[Path] = []
    for path in map(Path, entry if isinstance(entry, list) else [entry]):
        if path.is_dir():
            found += path.rglob("*.*")
        else:
            lines = read_text(path, "a list of images").split("\n")
            found += [path.parent / line.strip() for line in lines if line.strip()]
    images = [path for path in found if path.suffix[1:].lower() in ultralytics_api.image_formats()]
    if not images:
        raise UserError(f"{where}: has no images under {entry}")
    return images


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return ultralytics_api.image_size(image)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing, though the split lists it") from None
    except (UnidentifiedImageError, OSError, ImportError) as error:  # Ultralytics looks for a plug-in for odd formats
        raise UserError(f"{path}: cannot be read as an image ({error})") from None


def _read_labels(path: Path, n_classes: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Read a label file into rows of class, centre and size relative to the image, shape (objects, 5)."""
    if not path.is_file():
        return np.zeros((0, 5))
    result = []
    for number, line in enumerate(read_text(path, "labels").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            values = [float(value) for value in line.split()]
        except ValueError:
            raise UserError(f"{where}: reads {line.strip()!r}; expected a class and the box's four numbers") from None
        if len(values) > 6 and len(values) % 2:
            points = np.array(values[1:]).reshape(-1, 2)
            low, high = points.min(axis=0), points.max(axis=0)
            values = [values[0], *(low + high) / 2, *(high - low)]
        if len(values) != 5:
            raise UserError(f"{where}: has {len(values)} numbers; expected a class and the box's four")
        if values[0] not in range(n_classes):
            raise UserError(f"{where}: has class {values[0]:g}; expected 0 to {n_classes - 1}")
        if not all(-0.01 <= value <= 1.01 for value in values[1:]) or min(values[3:]) < 0:
            raise UserError(f"{where}: has a box {values[1:]}; expected numbers relative to the image, from 0 to 1")
        result.append(tuple(values))
    return np.array(list(dict.fromkeys(result)), dtype=float).reshape(-1, 5)
