"""The types of `gam_yolo.annotations`, under the name that the evaluator's modules use."""

from __future__ import annotations

from gam_yolo.annotations.data import Array, Detections, GroundTruth, ImageId

__all__ = ["Array", "Detections", "GroundTruth", "ImageId"]
