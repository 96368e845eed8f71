"""The control costs as much as its target, and differs from the plain model in width alone."""

from __future__ import annotations

import copy

import pytest
import yaml

from gam_yolo.errors import UserError
from gam_yolo.graph.find import load
from gam_yolo.graph.model import Graph
from gam_yolo.study.control import only_scale, widened


def counted(config: dict[str, object]) -> float:
    """GFLOPs at 640 pixels by hooks on a forward pass of the model that the written YAML builds."""
    import torch
    from torch import nn
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel(yaml.safe_load(yaml.safe_dump(copy.deepcopy(config))), verbose=False).eval()
    total = 0

    def add(module: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal total
        per_output = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.in_features
        total += 2 * out.numel() * per_output

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    with torch.inference_mode():
        model(torch.zeros(1, 3, 64, 64))
    return total * (640 / 64) ** 2 / 1e9


@pytest.mark.parametrize("family", ["yolov8", "yolo11", "yolo26"])
@pytest.mark.parametrize("scale", ["n", "s"])
def test_the_cost_of_gam_is_matched(family: str, scale: str) -> None:
    from gam_yolo.study.control import gflops

    plain = only_scale(load(f"{family}{scale}.yaml").config, scale)
    gam = only_scale(load(f"{family}{scale}-gam.yaml").config, scale)
    control, note = widened(plain, gflops(gam, 640), 640, "control")
    # The hooks count convolutions alone; what they leave out (norms) is the same small share of both.
    assert counted(control) == pytest.approx(counted(gam), rel=0.012)
    assert "widened to" in note
    ours, theirs = Graph.from_config(control, "control"), Graph.from_config(plain, "plain")
    assert [(x.sources, x.repeats, x.module, x.args[1:]) for x in ours.layers] == [
        (x.sources, x.repeats, x.module, x.args[1:]) for x in theirs.layers
    ]


def test_a_cost_below_the_models_own_is_rejected() -> None:
    plain = only_scale(load("yolov8n.yaml").config, "n")
    with pytest.raises(
        UserError, match=r"control: costs 8\.\d+ GFLOPs\. Expected less than the 3\.00 to match\. Match a"
    ):
        widened(plain, 3.0, 640, "control")


def test_one_scale_is_left() -> None:
    config = load("yolov8.yaml").config
    assert list(only_scale(config, "s")["scales"]) == ["s"]
    assert list(only_scale(config, "")["scales"]) == ["n"]
    with pytest.raises(UserError, match="no scale 'q'"):
        only_scale(config, "q")


def test_costs_are_those_of_the_model_that_is_trained() -> None:
    """A detector of 20 classes that takes weights of 80 keeps the 80 channels of their class branches."""
    from ultralytics.nn.tasks import DetectionModel

    from gam_yolo.study.control import gflops

    config = only_scale(load("yolov8n.yaml").config, "n")
    pretrained = DetectionModel(copy.deepcopy(config), verbose=False)
    twenty = {**config, "nc": 20}
    trained = DetectionModel(copy.deepcopy(twenty), verbose=False)
    trained.load(pretrained, verbose=False)
    widths = {branch[0].conv.out_channels for branch in trained.model[-1].cv3}
    assert widths == {80}
    # Three maps of 80, 40 and 20 pixels: 3x3 from each map's channels, 3x3, and 1x1 to the classes.
    per_width = [
        sum(hw * (9 * c * width + 9 * width * width + 20 * width) for hw, c in ((6400, 64), (1600, 128), (400, 256)))
        for width in (64, 80)
    ]
    more = 2 * (per_width[1] - per_width[0]) / 1e9
    assert gflops(twenty, 640, pretrained) - gflops(twenty, 640) == pytest.approx(more, rel=0.01)
