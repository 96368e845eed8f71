"""Datasets that make themselves ready: what the `download:` keys of `data/*.yaml` call."""

from __future__ import annotations

from gam_yolo.datasets.coco import prepare_coco
from gam_yolo.datasets.demo import prepare_demo
from gam_yolo.datasets.voc import prepare_voc

__all__ = ["prepare_coco", "prepare_demo", "prepare_voc"]
