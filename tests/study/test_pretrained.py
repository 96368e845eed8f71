"""A study's training starts from the pretrained weights, with every supported release of Ultralytics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

from gam_yolo.study.config import Study
from gam_yolo.study.folder import StudyFolder
from gam_yolo.study.plan import plan

from .helpers import log, weights, worker


@pytest.mark.usefixtures("uncounted")
def test_a_training_that_learns_nothing_ends_with_the_pretrained_weights(
    content: dict[str, Any], study_of: Callable[[dict[str, Any]], Study], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    start = YOLO("yolov8n.yaml").model
    start.nc = start.yaml["nc"] = 80
    torch.save({"model": start, "train_args": {}}, tmp_path / "start.pt")
    recipe = {**content["recipe"], "epochs": 1, "optimizer": "SGD", "lr0": 0, "warmup_epochs": 0, "weight_decay": 0}
    study = study_of({**content, "recipe": recipe, "pretrained": str(tmp_path / "start.pt")})
    plain, gam = plan(study, StudyFolder(tmp_path / "tiny")).runs
    for run in (plain, gam):
        assert worker(run) == 0, log(run)
        ends = weights(run)
        for row in (0, 2, 8):  # the block is a later row
            key = f"model.{row}.cv1.conv.weight" if row else "model.0.conv.weight"
            # The average of equal weights and half precision round.
            torch.testing.assert_close(ends[key].float(), start.state_dict()[key], rtol=0, atol=1e-4)
