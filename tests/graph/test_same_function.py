"""Equal weights are not enough: a layer that is built otherwise is found, and lost base weights are a warning."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

import gam_yolo  # noqa: F401  # registers
from gam_yolo.graph.same_function import changed_rows


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append((record.levelno, record.getMessage()))


@pytest.fixture
def said() -> Iterator[list[tuple[int, str]]]:
    handler = Records()
    LOGGER.addHandler(handler)
    yield handler.said
    LOGGER.removeHandler(handler)


@pytest.fixture(scope="module")
def trained(shared: Path) -> Any:
    return YOLO(shared / "weights" / "yolov8n.pt").model.float()


def gam(nc: int | None = None) -> Any:
    return tasks.DetectionModel("yolov8n-gam.yaml", nc=nc, verbose=False)


@pytest.mark.parametrize("nc", [None, 3])
def test_a_model_that_is_what_it_was_is_not_reported(trained: Any, said: list[tuple[int, str]], nc: int | None) -> None:
    target = gam(nc)
    state = torch.get_rng_state()
    modes = {name: module.training for name, module in target.named_modules()}
    target.load(trained)
    assert {level for level, _ in said} == {logging.INFO}
    assert "computes something else" not in said[-1][1]
    after = dict(target.named_modules())
    assert all(after[name].training == training for name, training in modes.items())
    if nc is None:  # with other classes Ultralytics' own `load` draws numbers
        assert torch.equal(torch.get_rng_state(), state)


def test_sppf_without_its_activation_is_named(trained: Any, said: list[tuple[int, str]]) -> None:
    """What Ultralytics 8.4.0 to 8.4.140 build from a YAML."""
    target = gam()
    row = next(i for i, layer in enumerate(target.model) if type(layer).__name__ == "SPPF")
    target.model[row].cv1.act = nn.Identity()
    target.load(trained)
    assert [level for level, _ in said] == [logging.WARNING]
    assert "355/355 base tensors" in said[0][1]
    assert f"Row {row} (SPPF) got all weights but computes something else" in said[0][1]


def test_each_row_is_checked_by_itself(trained: Any) -> None:
    changed = copy.deepcopy(trained)
    for row in (4, 15):
        changed.model[row].cv2.bn.eps = 1.0
    rows = {row: row for row in range(22)}
    assert changed_rows(trained, changed, rows) == [4, 15]
    assert changed_rows(trained, copy.deepcopy(trained), rows) == []


def test_a_head_that_is_built_otherwise_is_a_warning(trained: Any, said: list[tuple[int, str]]) -> None:
    """Ultralytics 8.3.0 to 8.3.15 put YOLO11's head into YOLOv8."""
    target = gam()
    target.model[-1].cv9 = nn.Conv2d(4, 4, 1)
    target.load(trained)
    level, line = said[-1]
    assert level == logging.WARNING
    assert "Transferred 355/357 base tensors" in line
    assert "0 rejected, 2 without a counterpart. 2 base tensors start untrained" in line
    n = target.transferred
    assert n["base"] + n["rejected"] + n["unmatched"] == n["base_total"]
    assert n["base_total"] + n["blocks_total"] == len(target.state_dict())
