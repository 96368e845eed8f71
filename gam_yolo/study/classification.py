"""What differs where a study trains classifiers: the data is a folder with a folder per class, not a YAML."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gam_yolo import ultralytics_api
from gam_yolo.annotations.classes import read_labelled_images, resolve_folder, split_folder
from gam_yolo.arguments import RESNET
from gam_yolo.errors import UserError, brief, one_line
from gam_yolo.file_digests import FileDigests
from gam_yolo.io import text_sha256
from gam_yolo.report.tasks import TaskName
from gam_yolo.study.folder import StudyFolder

__all__ = [
    "attended",
    "check_model",
    "is_dataset_name",
    "is_resnet",
    "read_classes",
    "task_of",
]

_RESIDUAL = "residual-blocks"
_BEFORE_BLOCK = 2  # positional arguments of an AttentionResNet before its block: nc and model


def task_of(data: str | Path) -> TaskName:
    """Return what models learn from a dataset: boxes from a YAML, classes from a folder.

    Examples:
        >>> task_of("coco.yaml"), task_of("$GAM_YOLO_CIFAR10")
        ('detect', 'classify')
    """
    return "detect" if Path(data).suffix.lower() in {".yaml", ".yml", ".ndjson"} else "classify"


def check_model(config: Mapping[str, Any], task: TaskName, where: str) -> None:
    """Check that a model can learn the data's task.

    Raises:
        UserError: The model is a classifier and the data has boxes, or the other way round.
    """
    head = str(config["head"][-1][2])
    other = [name for name in ("Detect", "Segment", "Pose", "OBB", "RTDETRDecoder") if name in head]
    if head in ("Classify", RESNET) if task == "detect" else other:
        data, models = ("a dataset YAML", "detectors") if task == "detect" else ("a folder of classes", "classifiers")
        raise UserError(f"the model ends with {head}, but the data is {data}", at=where, expected=models)


def is_resnet(config: Mapping[str, Any]) -> bool:
    """Return whether a model YAML's last row is a whole ResNet, see `gam_yolo.resnet`."""
    return bool(config["head"][-1][2] == RESNET)


def attended(config: Mapping[str, Any], block: str, at: str, args: list[Any]) -> dict[str, Any]:
    """Return a copy of a ResNet's YAML with a block on the output of every residual block.

    Raises:
        UserError: The place is another one, the arguments have no names, or the YAML has a block already.

    Examples:
        >>> plain = {"backbone": [], "head": [[-1, 1, "AttentionResNet", ["nc", "resnet18", {"stem": "cifar"}]]]}
        >>> attended(plain, "GAM", "residual-blocks", [{"preset": "paper"}])["head"][0][3][2]
        {'stem': 'cifar', 'block': 'GAM', 'arguments': {'preset': 'paper'}}
    """
    if at != _RESIDUAL:
        raise UserError(f"'at' is {brief(at)}", expected=f"{_RESIDUAL}, the only place in an {RESNET}")
    if args and (len(args) > 1 or not isinstance(args[0], dict)):
        raise UserError(f"'args' is {brief(args)}", expected=f"arguments by name in an {RESNET}: [{{preset: paper}}]")
    *others, last = config["head"][-1][3]
    positional, named = ([*others], dict(last)) if isinstance(last, dict) else ([*others, last], {})
    if len(positional) > _BEFORE_BLOCK or "block" in named:
        raise UserError(f"the {RESNET} of the base has a block already", expected="a plain one")
    named |= {"block": block} | ({"arguments": args[0]} if args else {})
    return {**config, "head": [[-1, 1, RESNET, [*positional, named]]]}


def is_dataset_name(data: str) -> bool:
    """Return whether a dataset that is not here has a bare name, by which Ultralytics may know and download it."""
    return bool(re.fullmatch(r"[\w-]+", data)) and not ultralytics_api.dataset_folder(data).exists()


def read_classes(data: str, study: StudyFolder, *, prepare: bool) -> tuple[Path, int, dict[str, Any]]:
    """Read what a training reads of a classification dataset.

    Args:
        data: The folder, as Ultralytics' `data=` takes it.
        study: Its folder keeps digests of the files.
        prepare: Have Ultralytics download a dataset of its own that is missing, and write its caches, which several
            runs would otherwise write at once. Otherwise nothing is written.

    Returns:
        The folder, the number of classes, and digests of what a training reads, by name.

    Raises:
        UserError: A folder is missing, has no images, or has other classes than `train`.
    """
    if prepare and is_dataset_name(data):
        try:
            ultralytics_api.get("check_cls_dataset")(data)
        except Exception as error:
            raise UserError(f"cannot be downloaded ({one_line(error, 200)})", at=f"data {data}") from None
    folder = resolve_folder(data)
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    digests, endings = FileDigests(study.digests), ultralytics_api.image_formats()
    parts: dict[str, Any] = {"names": classes}
    for split in ("train", "val"):
        if prepare:  # before the files are digested: Ultralytics repairs JPEGs that lack their end
            read_labelled_images(folder, split)
        root = split_folder(folder, split)
        files = (Path(place, name) for place, _, names in os.walk(root, followlinks=True) for name in names)
        images = sorted(path for path in files if path.parent != root and path.suffix[1:].lower() in endings)
        names = [path.relative_to(root).as_posix() for path in images]
        parts[f"{split} images"] = text_sha256(list(zip(names, digests.of(images), strict=True)))
    if prepare:
        digests.save()
    return folder, len(classes), parts
