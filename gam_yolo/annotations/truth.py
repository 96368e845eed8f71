"""Choose the ground truth that a dataset is scored against."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gam_yolo import ultralytics_api
from gam_yolo.annotations.coco import read_coco
from gam_yolo.annotations.data import GroundTruth
from gam_yolo.annotations.images import image_files, is_folder, shared_images
from gam_yolo.annotations.provenance import first_pixel
from gam_yolo.annotations.voc import read_voc
from gam_yolo.annotations.yolo import class_names, dataset, read_yolo
from gam_yolo.errors import UserError

__all__ = ["read_truth"]


def read_truth(
    data: str | None, gt: Path | None, split: str = "val", *, log: bool = True, leave_out: bool = False
) -> GroundTruth:
    """Read the ground truth from the best source there is.

    Original annotations know crowds, difficult objects and mask areas, which label files do not. So they are read where
    they are named, or where a dataset YAML says by `protocol: coco` or `protocol: voc` that they are in `annotations/`.
    With a dataset YAML, boxes are in the frame of its images, and images that it does not have are left out. If `gt`
    names the annotations, they are left out only if asked: a prediction file may be of them all.

    Args:
        data: Dataset YAML.
        gt: A COCO annotation file, a VOC folder, or a folder of VOC's XML files. Takes precedence over `data`.
        split: Split of the dataset.
        log: Whether to log its notes.
        leave_out: Whether images that the dataset YAML does not have are left out where `gt` has them.

    Raises:
        UserError: Neither is given, or what is given cannot be read.
    """
    truth = _read(data, gt, split, leave_out)
    if data is not None and (shared := _shared_with_training(dataset(data, split), split)):
        truth = replace(truth, notes=(*truth.notes, *shared))
    for note in truth.notes if log else ():
        ultralytics_api.warn(f"{truth.source}: {note}")
    return truth


def _read(data: str | None, gt: Path | None, split: str, leave_out: bool) -> GroundTruth:
    if data is None and gt is None:
        raise UserError(
            "no ground truth", fix="Name a dataset YAML with --data, or a COCO annotation file or VOC folder with --gt"
        )
    if data is None and gt is not None:
        return read_voc(gt, split) if is_folder(gt) else read_coco(gt)
    content = dataset(str(data), split)
    original = None if gt else _original_annotations(content, str(data), split)
    found = gt or original
    if found is None:
        return read_yolo(str(data), split)
    names = class_names(content, str(data))
    images = image_files(content[split], f"{data}, split '{split}'")
    leave_out = leave_out or found is original
    if is_folder(found):
        origin = first_pixel(content, str(data))
        return read_voc(found, split, names, images=images, first_pixel=origin, leave_out=leave_out)
    return read_coco(found, images=images, names=names, leave_out=leave_out)


def _shared_with_training(content: dict[str, Any], split: str) -> list[str]:
    """Return a warning if images of a split are, by their content, training images too."""
    if split == "train":
        return []
    try:
        training = image_files(content.get("train"), "train")
    except UserError:  # whoever only evaluates may not have them
        return []
    return shared_images({split: image_files(content[split], split), "train": training})


def _original_annotations(content: dict[str, Any], data: str, split: str) -> Path | None:
    """Return where a prepared folder keeps the original annotations of a split, if its YAML says so."""
    protocol = content.get("protocol")
    if protocol is None:
        return None
    if protocol not in ("coco", "voc"):
        raise UserError(f"protocol is '{protocol}'", at=data, expected="'coco' or 'voc'")
    entries = [content[split]] if isinstance(content[split], str) else content[split]
    if len(entries) > 1:
        raise UserError(
            f"'{split}' has {len(entries)} entries", at=data, expected=f"one, to be scored with protocol {protocol}"
        )
    name = Path(entries[0]).stem
    return Path(content["path"]) / "annotations" / (name if protocol == "voc" else f"instances_{name}.json")
