"""Datasets that make themselves ready: `prepare`, and what the `download:` keys of `data/*.yaml` call."""

from __future__ import annotations

from gam_yolo.datasets.coco import prepare_coco
from gam_yolo.datasets.demo import prepare_demo
from gam_yolo.datasets.preparation import PreparedDataset, init_yaml, prepare
from gam_yolo.datasets.voc import prepare_voc

__all__ = ["PreparedDataset", "init_yaml", "prepare", "prepare_coco", "prepare_demo", "prepare_voc"]
