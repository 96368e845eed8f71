"""How far blocks have moved: against numbers computed by hand, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from gam_yolo import ultralytics_api
from gam_yolo.blocks import BAM, GAM, SE
from gam_yolo.movement import Movement, describe, movement
from gam_yolo.plugin.block_training import _log_movement


def constant(block: Any, value: float) -> nn.Module:
    """A raw gate of GAM that is `value` everywhere."""
    nn.init.zeros_(block.channel[2].weight)
    nn.init.constant_(block.channel[2].bias, value)
    return block  # type: ignore[no-any-return]


def test_it_is_the_relative_change_and_the_range_of_the_gate() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 8, 20, 20)
    model = nn.Sequential(constant(GAM(8, spatial=False), 1.25), nn.Sequential(nn.ReLU(), SE(8, 2)), BAM(8, 2))
    images[0, 0, 0, :5] = 0  # as after a ReLU: no ratio
    model.train()
    modes = [m.training for m in model.modules()]
    found = movement(model, images)
    assert [m.block for m in found] == ["row 0 (GAM)", "row 1.1 (SE)", "row 2 (BAM)"]
    assert found[0].change == pytest.approx(0.25)
    assert (found[0].low, found[0].high) == pytest.approx((1.25, 1.25))
    assert not found[0].still

    model.eval()
    with torch.no_grad():
        x = model[1][0](model[0](images))
        y = model[1][1](x)
        z = model[2](y)
    assert found[1].change == pytest.approx(float((y - x).norm() / x.norm()), rel=1e-4)
    gates = (y / x)[x > 0].sort().values
    assert found[1].low == pytest.approx(float(gates[int(0.05 * len(gates))]), rel=1e-3)
    assert found[1].high == pytest.approx(float(gates[int(0.95 * len(gates))]), rel=1e-3)
    assert found[2].change == pytest.approx(float((z - y).norm() / y.norm()), rel=1e-4)
    assert modes == [True] * len(modes)
    assert not any(m._forward_hooks for m in model.modules())


def test_identity_zeros_and_a_failing_model() -> None:
    (found,) = movement(nn.Sequential(GAM(8, start="zero")), torch.rand(2, 8, 9, 9))
    assert (found.change, found.low, found.high, found.still) == (0, 1, 1, True)
    (found,) = movement(nn.Sequential(GAM(8)), torch.zeros(2, 8, 9, 9))
    assert (found.change, found.low, found.high) == (0, 1, 1)
    assert movement(nn.Sequential(nn.ReLU()), torch.rand(2, 8, 9, 9)) == ()
    model = nn.Sequential(SE(8, 2), nn.Linear(3, 3))
    with pytest.raises(RuntimeError):
        movement(model, torch.rand(2, 8, 9, 9))
    assert not any(m._forward_hooks for m in model.modules())


def test_large_maps_are_sampled() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(SE(16, 2)), torch.rand(1, 16, 320, 321) + 0.1
    (found,) = movement(model, x)
    gates = (model(x) / x).detach().flatten()
    assert found.low == pytest.approx(float(gates.sort().values[int(0.05 * gates.numel())]), rel=0.02)


def test_lines() -> None:
    near, far = Movement("row 1 (GAM)", 0.003, 0.99, 1.0), Movement("row 2 (SE)", 0.123, 0.8, 1.1)
    assert describe([near, far]) == [
        "row 1 (GAM) changes its input by 0.3 %, output / input 0.99 to 1.00",
        "row 2 (SE) changes its input by 12 %, output / input 0.80 to 1.10",
    ]
    assert describe([near])[-1].startswith("All blocks are still the identity")
    assert describe([]) == []


def test_what_cannot_be_measured_does_not_end_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(ultralytics_api, "warn", said.append)
    _log_movement(SimpleNamespace(test_loader=[{"img": "no image"}]))
    assert said == ["how far the blocks have moved could not be measured: 'str' object has no attribute 'to'"]


@pytest.mark.parametrize("name", ["yolov8n-gam.yaml", "yolov8n-gam-backbone.yaml"])
def test_on_real_images_the_shipped_models_start_as_the_identity(name: str, shared: Path) -> None:
    from gam_yolo.report.movement import _read

    files = sorted((shared / "data" / "coco" / "val2017").glob("*.jpg"))[:2]
    images = torch.stack([_read(file, 128, "detect") for file in files])
    found = movement(DetectionModel(name, verbose=False), images)
    assert len(found) == 3
    assert all(m.change < 1e-6 and m.still for m in found)


@pytest.mark.parametrize(
    ("change", "percent"), [(0.0123, "1.2"), (0.5, "50"), (0.994, "99"), (0.999, "100"), (1.0, "100"), (13.17, "1317")]
)
def test_a_large_change_is_written_without_an_exponent(change: float, percent: str) -> None:
    assert Movement("row 16 (GAM)", change, -2.8, 24.1).percent == percent
