"""One evaluator for COCO and VOC: match once per image, then any metric under any weights, with intervals."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from gam_yolo.annotations import (
    Detections,
    GroundTruth,
    parse_detections,
    read_coco,
    read_detections,
    read_truth,
    read_voc,
    read_yolo,
)
from gam_yolo.evaluation.bootstrap import METRICS, draw_weights, measure, resample
from gam_yolo.evaluation.matching import MatchTable, match_coco, match_voc
from gam_yolo.evaluation.metrics import (
    COCO_METRICS,
    VOC_METRICS,
    coco_metrics,
    over_classes,
    precision_curve,
    voc_metrics,
)
from gam_yolo.evaluation.statistics import Estimate, Samples, difference, estimate, holm, verdict

__all__ = [
    "COCO_METRICS",
    "METRICS",
    "VOC_METRICS",
    "Detections",
    "Estimate",
    "GroundTruth",
    "MatchTable",
    "Samples",
    "coco_metrics",
    "difference",
    "draw_weights",
    "estimate",
    "holm",
    "match_coco",
    "match_voc",
    "measure",
    "over_classes",
    "parse_detections",
    "precision_curve",
    "read_coco",
    "read_detections",
    "read_truth",
    "read_voc",
    "read_yolo",
    "resample",
    "verdict",
    "voc_metrics",
]

if not TYPE_CHECKING:  # so that a type checker still knows which names there are

    def __getattr__(name: str) -> object:
        if name == "multiplicities":  # documented in 0.1.0; to be removed in 0.3
            warnings.warn("multiplicities is now called draw_weights", FutureWarning, stacklevel=2)
            return draw_weights
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
