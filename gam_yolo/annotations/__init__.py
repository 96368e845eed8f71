"""Read annotations: one reader per format and one table of rules (`gam_yolo.annotations.rules`), for all who read."""

from __future__ import annotations

from gam_yolo.annotations.coco import read_coco
from gam_yolo.annotations.data import Detections, GroundTruth
from gam_yolo.annotations.detections import parse_detections, read_detections
from gam_yolo.annotations.truth import read_truth
from gam_yolo.annotations.voc import read_voc
from gam_yolo.annotations.yolo import read_yolo

__all__ = [
    "Detections",
    "GroundTruth",
    "parse_detections",
    "read_coco",
    "read_detections",
    "read_truth",
    "read_voc",
    "read_yolo",
]
