"""The dataset of a study: make it ready, and digest everything in it that a training reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gam_yolo import ultralytics_api
from gam_yolo.annotations.caches import settle_caches
from gam_yolo.annotations.images import image_files, images_unused
from gam_yolo.annotations.truth import read_truth
from gam_yolo.annotations.yolo import missing_images, no_dataset_yaml
from gam_yolo.errors import UserError, find_cause
from gam_yolo.file_digests import FileDigests
from gam_yolo.io import read_yaml, text_sha256
from gam_yolo.report.tasks import TaskName
from gam_yolo.study.classification import is_dataset_name, read_classes, task_of
from gam_yolo.study.folder import StudyFolder

__all__ = ["Data", "find_yaml", "needs_preparation", "read_data", "unprepared"]

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Data:
    """A dataset.

    Attributes:
        yaml: The dataset YAML; for classifiers, the folder.
        classes: How many classes it has; 0 where that is not known yet.
        parts: What a training reads of it, as digests by name: the class names, and of both splits the images and
            the labels. Folders are not part of it, so the set may move. Empty where the set is not prepared.
        task: What models learn from it.
    """

    yaml: Path
    classes: int
    parts: dict[str, Any]
    task: TaskName = "detect"


def read_data(data: str | Path, study: StudyFolder, *, prepare: bool) -> Data:
    """Read what a training reads of a dataset.

    Args:
        data: The dataset YAML, as Ultralytics' `data=` takes it.
        study: Its folder keeps digests of the files.
        prepare: Run the YAML's `download:` entry where images are missing, and write Ultralytics' label caches, which
            several runs would otherwise write at once. Otherwise nothing is run and nothing is written.

    Raises:
        UserError: The YAML, or an image list that it names, cannot be read; or a split has no usable image.
    """
    if task_of(data) == "classify":
        return Data(*read_classes(str(data), study, prepare=prepare), task="classify")
    try:
        content = ultralytics_api.load_dataset_yaml(str(data), download=prepare)
    except Exception as error:
        missing = missing_images(data)
        fix = f"Prepare it with: gam-yolo prepare {data}" if missing else ""
        raise find_cause(error, UserError) or UserError(missing or " ".join(str(error).split()), fix=fix) from None
    yaml = Path(content["yaml_file"]).resolve()
    digests = FileDigests(study.digests)
    names = {int(key): str(name) for key, name in content["names"].items()}
    parts: dict[str, Any] = {"names": list(names.values()), "channels": content.get("channels", 3)}
    for split in SPLITS:
        where = f"{yaml}, key '{split}'"
        if not content[split]:
            raise UserError("is empty", at=where, expected="a folder of images, or a list of them")
        try:
            images = sorted(image_files(content[split], where), key=str)  # Ultralytics' order
        except UserError as error:
            raise error if str(error).startswith(where) else UserError(error, at=where) from None
        labels = [Path(file) for file in ultralytics_api.label_files([str(image) for image in images])]
        if prepare:
            _cache_labels(content, split, images, labels, where)
        named = zip((image.name for image in images), digests.of(images), strict=True)
        parts[f"{split} images"] = text_sha256(list(named))
        parts[f"{split} labels"] = text_sha256(digests.of(labels))
    if prepare:
        read_truth(str(yaml), None, log=False)  # every run is evaluated against it
        digests.save()
    return Data(yaml, int(content["nc"]), parts)


def find_yaml(data: str) -> Path:
    """Return the dataset YAML of that name, here or among those of Ultralytics and this package; of a folder, its name.

    Raises:
        UserError: There is none.
    """
    if task_of(data) == "classify":
        return Path(data)
    file = ultralytics_api.find_yaml(data) if Path(data).suffix in {".yaml", ".yml"} else None
    if file is None:
        raise no_dataset_yaml(data)
    return file


def needs_preparation(file: Path) -> bool:
    """Return whether a dataset YAML has a `download:` entry that Ultralytics would run, as images are missing."""
    if task_of(file) == "classify":
        return is_dataset_name(str(file))
    try:
        with ultralytics_api.quiet():
            ultralytics_api.load_dataset_yaml(str(file))
    except Exception:
        return bool(_entries(file).get("download"))
    return False


def unprepared(file: Path) -> Data:
    """Return what a dataset YAML alone says.

    Raises:
        UserError: It names no classes.
    """
    if task_of(file) == "classify":
        return Data(file, 0, {}, "classify")
    content = _entries(file)
    names = content.get("names")
    classes = len(names) if isinstance(names, (list, dict)) else content.get("nc")
    if type(classes) is not int or classes < 1:
        raise UserError("has no class", at=f"{file}, key 'names'", expected="the names of the classes")
    return Data(file.resolve(), classes, {})


def _entries(file: Path) -> dict[str, Any]:
    content = read_yaml(file, "a dataset YAML")
    return content if isinstance(content, dict) else {}


def _cache_labels(content: dict[str, Any], split: str, images: list[Path], labels: list[Path], where: str) -> None:
    """Have Ultralytics read the labels and cache them."""
    settle_caches(images, labels)
    build: Any = ultralytics_api.get("build_yolo_dataset")
    try:
        dataset = build(ultralytics_api.validated_arguments(), content[split], 1, content, mode="val")
    except Exception as error:
        raise find_cause(error, UserError) or UserError(" ".join(str(error).split())[:300], at=where) from error
    if unused := images_unused(images, dataset.im_files):
        if split == "val":  # no result would count all images
            raise UserError(unused, at=where, fix="Correct these files, or take the images out of the split")
        ultralytics_api.warn(f"{where}: {unused}")
