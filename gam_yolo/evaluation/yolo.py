"""Dataset YAMLs, under the name that the report uses."""

from __future__ import annotations

from gam_yolo.annotations.images import image_files
from gam_yolo.annotations.yolo import dataset

__all__ = ["dataset", "image_files"]
