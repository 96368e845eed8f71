"""Which ground truth a data set is scored against."""

from __future__ import annotations

from pathlib import Path

from gam_yolo.errors import UserError
from gam_yolo.evaluation.coco import read_coco
from gam_yolo.evaluation.data import GroundTruth
from gam_yolo.evaluation.voc import read_voc
from gam_yolo.evaluation.yolo import dataset, read_yolo

__all__ = ["read_truth"]


def read_truth(data: str | None, gt: Path | None, split: str = "val") -> GroundTruth:
    """Read the ground truth from the best source there is.

    Original annotations know of crowds, difficult objects and mask areas, which label files do not. So they are taken
    where they are named, or where a dataset YAML says by `protocol: coco` or `protocol: voc` that it keeps them in
    `annotations/`.

    Args:
        data: Dataset YAML.
        gt: A COCO annotation file, a VOC folder, or a folder of VOC's XML files; before anything that `data` says.
        split: Split of the data set.

    Raises:
        UserError: Neither is given, or what is given cannot be read.
    """
    if data is None and gt is None:
        raise UserError(
            "no ground truth: --data must name a dataset YAML, or --gt a COCO annotation file or VOC folder"
        )
    content = dataset(data, split) if data is not None else {}
    classes = [str(name) for _, name in sorted(content["names"].items())] if content else None
    if gt is None and content.get("protocol"):
        if content["protocol"] not in ("coco", "voc"):
            raise UserError(f"{data}: protocol is '{content['protocol']}'; expected 'coco' or 'voc'")
        entry = content[split] if isinstance(content[split], str) else content[split][0]
        name = Path(entry).stem
        gt = (
            Path(content["path"]) / "annotations" / (name if content["protocol"] == "voc" else f"instances_{name}.json")
        )
    if gt is not None:
        return read_voc(gt, split, classes) if gt.is_dir() else read_coco(gt)
    return read_yolo(str(data), split)
