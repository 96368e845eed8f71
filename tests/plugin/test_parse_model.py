"""Rows that name a block: built with the right channels in every family and scale, or rejected on one line."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import ROOT as ULTRALYTICS

from gam_yolo import GAM, UserError
from gam_yolo.blocks import GAM_Attention
from gam_yolo.blocks.parts import ConvBN
from gam_yolo.plugin.parse_model import unavailable
from gam_yolo.resources import shipped

CFG = Path(str(shipped("yolov8-gam.yaml"))).parent
MODELS = ULTRALYTICS / "cfg" / "models"
PAIRS = {
    "yolov8-gam": "v8/yolov8.yaml",
    "yolov8-gam-backbone": "v8/yolov8.yaml",
    "yolo11-gam": "11/yolo11.yaml",
    "yolo11-gam-backbone": "11/yolo11.yaml",
    "yolo26-gam": "26/yolo26.yaml",
    "yolo26-gam-backbone": "26/yolo26.yaml",
}


def rows(model: dict[str, Any]) -> list[list[Any]]:
    return [*model["backbone"], *model["head"]]


def parse_on_meta(model: dict[str, Any]) -> nn.Sequential:
    with torch.device("meta"):
        layers: nn.Sequential = tasks.parse_model(copy.deepcopy(model), ch=3, verbose=False)[0]
    return layers


def with_last_block(file: str, *args: Any, name: str = "GAM", scale: str = "n") -> dict[str, Any]:
    """The model with one block just before its head, which reads the block in place of its last input."""
    model: dict[str, Any] = yaml.safe_load((MODELS / file).read_text())
    model |= {"scale": scale, "yaml_file": file}
    head, at = model["head"][-1], len(rows(model)) - 1
    last = head[0] if isinstance(head[0], int) else head[0][-1]
    block = [last, 1, name, list(args)]
    if isinstance(head[0], list):
        head[0][-1] = at
    else:
        head[0] = -1
    model["head"].insert(-1, block)
    return model


@pytest.mark.parametrize("scale", "nsmlx")
@pytest.mark.parametrize("stem", PAIRS)
def test_every_scale_of_every_yaml_gets_its_widths(stem: str, scale: str) -> None:
    path = CFG / f"{stem[:6]}{scale}{stem[6:]}.yaml"  # "yolov8" and "yolo11" have six letters each
    model = tasks.yaml_model_load(path)
    assert model["scale"] == scale
    _, width, max_channels = model["scales"][scale]
    layers = parse_on_meta(model)
    found = [(i, m) for i, m in enumerate(layers) if isinstance(m, GAM)]
    assert len(found) == 3
    for i, block in found:
        wanted = math.ceil(min(rows(model)[i - 1][3][0], max_channels) * width / 8) * 8  # the row just above scales so
        assert block.channel[0].in_channels == wanted
        assert sum(p.numel() for p in block.parameters()) == sum(p.numel() for p in GAM(wanted).parameters())


@pytest.mark.parametrize("stem", PAIRS)
def test_yaml_without_its_blocks_is_ultralytics_own(stem: str) -> None:
    """Follow every row's inputs through the blocks to the rows before them: what remains is the stock graph."""
    ours, stock = (yaml.safe_load(p.read_text()) for p in (CFG / f"{stem}.yaml", MODELS / PAIRS[stem]))
    kept: dict[int, int] = {}  # index of a row of ours -> index in the stock file of the tensor it gives
    graph: list[tuple[list[int], int, str, list[Any]]] = []
    for i, (inputs, repeats, name, args) in enumerate(rows(ours)):
        read = [kept[i + f if f < 0 else f] if i else -1 for f in (inputs if isinstance(inputs, list) else [inputs])]
        if name == "GAM":
            kept[i] = read[0]
        else:
            kept[i] = len(graph)
            graph.append((read, repeats, name, args))
    assert graph == [
        ([i + f if f < 0 else f for f in (inputs if isinstance(inputs, list) else [inputs])] if i else [-1], *rest)
        for i, (inputs, *rest) in enumerate(rows(stock))
    ]
    assert {k: ours[k] for k in ours if k not in {"backbone", "head"}} == {
        k: stock[k] for k in stock if k not in {"backbone", "head"}
    }


@pytest.mark.parametrize(
    ("file", "model_class"),
    [
        ("v8/yolov8.yaml", "DetectionModel"),
        ("26/yolo26.yaml", "DetectionModel"),
        ("11/yolo11-seg.yaml", "SegmentationModel"),
        ("26/yolo26-pose.yaml", "PoseModel"),
        ("v8/yolov8-obb.yaml", "OBBModel"),
        ("11/yolo11-cls.yaml", "ClassificationModel"),
        ("26/yolo26-sem.yaml", "SemanticSegmentationModel"),
        pytest.param("rt-detr/rtdetr-resnet50.yaml", "RTDETRDetectionModel", marks=pytest.mark.since("8.3.0")),
    ],
)
def test_every_task_goes_forward_and_backward(file: str, model_class: str) -> None:
    scale = "l" if file.startswith("rt") else "n"
    model = getattr(tasks, model_class)(
        with_last_block(file, {"start": "identity"}, scale=scale), verbose=False
    ).train()
    block = next(m for m in model.modules() if isinstance(m, GAM))
    out = model(torch.rand(2, 3, 64, 64))
    total = torch.stack([t.float().square().mean() for t in tensors(out)]).sum()
    total.backward()
    assert torch.isfinite(total)
    assert block.start.gain is not None
    assert block.start.gain.grad is not None
    assert float(block.start.gain.grad.abs().sum()) > 0


def tensors(out: Any) -> list[torch.Tensor]:
    if isinstance(out, torch.Tensor):
        return [out] if out.requires_grad else []
    values = out.values() if isinstance(out, dict) else out if isinstance(out, (list, tuple)) else []
    return [t for value in values for t in tensors(value)]


def test_arguments_by_position_and_by_name() -> None:
    for args in ([16, "sigmoid"], [16, {"gate": "sigmoid"}], [{"preset": "paper"}]):
        block = parse_on_meta(with_last_block("v8/yolov8.yaml", *args))[-2]
        assert isinstance(block, GAM)
        assert block.channel[0].out_channels == 256 // 16
        assert isinstance(block.channel[-1], nn.Sigmoid)
    assert "start" not in dict(parse_on_meta(with_last_block("v8/yolov8.yaml"))[-2].named_parameters())


def test_block_may_read_any_row_and_be_repeated() -> None:
    model = with_last_block("v8/yolov8.yaml")
    model["head"][-2][:2] = [4, 6]  # 64 channels at scale n; 6 repeats at depth 0.33 are 2
    blocks = parse_on_meta(model)[-2]
    assert isinstance(blocks, nn.Sequential)
    assert [b.channel[0].in_channels for b in blocks] == [64, 64]


def test_row_and_caller_keep_what_was_written() -> None:
    model = with_last_block("v8/yolov8.yaml", {"preset": "paper"})
    before = copy.deepcopy(model)
    tasks.parse_model(model, 3, False)
    assert model["head"][-2] == before["head"][-2]
    assert isinstance(tasks.parse_model(model, 3, verbose=False)[0][-2], GAM)


def test_plain_model_takes_the_original_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "deepcopy", None)  # the two-pass way copies; a plain model must not come near it
    model = yaml.safe_load((MODELS / "v8/yolov8.yaml").read_text()) | {"scale": "n"}
    tasks.parse_model(model, 3, verbose=False)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([-1, 1, "GAM", [{"redction": 4}]], "GAM has no argument 'redction'. Expected (reduction=None"),
        ([-1, 1, "GAM", [999]], "reduction is 999. Expected a whole number from 1 to 256"),
        ([-1, 1, "GAM", [{"groups": 7}]], "groups 7 does not divide the 256 channels"),
        ([[-1, 4], 1, "GAM", []], "'from' is [-1, 4], but GAM has one input"),
        ([99, 1, "GAM", []], "reads row 99, which is not before it. Expected one of rows 0 to 21."),
        ([-1, 0, "GAM", []], "repeats is 0"),
        ([-1, 1, "GAM"], "a row has 4 parts, not 3. Expected [from, repeats, module, args]."),
        ({"from": -1, "n": 1, "module": "GAM", "args": []}, "is not a list. Expected [from, repeats, module, args]."),
        (
            [-1, 1, "GAM", [1, "none", 1, "none", True, True, "none", "default", "blog", 4, "dense", False, 1, 5]],
            "takes at most 13 arguments",
        ),
        ([-1, 1, "GAM", [4, {"reduction": 4}]], "'reduction' is given by position and by name"),
        ([-1, 1, "GAM", {"reduction": 4}], "the arguments are {'reduction': 4}. Expected a list."),
        ([-1, 1, "GAM", None], "the arguments are None. Expected a list."),
        ([-1, 1, "GAN", []], "there is no module named 'GAN'. Did you mean 'GAM'?"),
        ([-1, 1, "Convv", [64]], "there is no module named 'Convv'. Did you mean 'Conv'?"),
        ([-1, 1, "GAM_Attention", [256, 256, 4, 4]], "GAM_Attention takes at most 3 arguments, but the row has 4"),
    ],
)
def test_bad_row_ends_with_one_line(row: Any, says: str) -> None:
    model = with_last_block("v8/yolov8.yaml")
    model["head"][-2] = row
    for d in (model, model | {"backbone": model["backbone"]}):
        with pytest.raises(UserError) as error:
            parse_on_meta(d)
        message = str(error.value)
        assert message.startswith(f"v8/yolov8.yaml, row 22 {str(row)[0]}")
        assert says in message
        assert "\n" not in message


def test_errors_in_plain_models_stay_ultralytics_own() -> None:
    model = yaml.safe_load((MODELS / "v8/yolov8.yaml").read_text()) | {"scale": "n"}
    model["backbone"][0][3] = [64, 3, 2, 1, 1, 1, 1, 1, 1]
    with pytest.raises(TypeError, match="positional arguments"):
        parse_on_meta(model)


class Picky(nn.Module):
    """A layer of the user's that is not a block."""

    def __init__(self, *_: object) -> None:
        super().__init__()
        assert False, "needs a 3 x 3 kernel"  # noqa: B011, PT015


@pytest.mark.parametrize(
    ("at", "row", "says"),
    [
        (
            0,
            [-1, 1, "Conv", [64, 3, 2, 1, 1, 1, 1, 1, 1]],
            "row 0 [-1, 1, Conv, [64, 3, 2, 1, 1, 1, 1, 1, 1]]: cannot be ",
        ),
        (4, [-1, 6, "Picky", [7]], "row 4 [-1, 6, Picky, [7]]: cannot be built (AssertionError: needs a 3 x 3 kernel)"),
        (4, [-1, 1, "nn.GAM", []], "row 4 [-1, 1, nn.GAM, []]: there is no module named 'nn.GAM'. Did you mean 'GAM'?"),
        (4, [-1, 1, "SEAttention", [16]], "there is no module named 'SEAttention'. Did you mean 'SE'?"),
        (4, [-1, 1, "nn.Flaten", []], "there is no module named 'nn.Flaten'. Did you mean 'nn.Flatten'?"),
        (4, [-1, 1, "C2f", []], "row 4 [-1, 1, C2f, []]: cannot be built (IndexError: list index out of range)"),
        (4, [77, 1, "C2f", [64]], "row 4 [77, 1, C2f, [64]]: reads row 77, which is not before it"),
        (4, [-1, "x", "C2f", [64]], "row 4 [-1, x, C2f, [64]]: repeats is 'x'"),
        (4, [-1, 1, "nn.Conv2d", ["((("]], "row 4 [-1, 1, nn.Conv2d, [(((]]: cannot be built (SyntaxError"),
        (-1, [[15, 18, 22], 1, "Detect", ["nc", "anchors"]], "Write [nc]: the heads of Ultralytics take no anchors"),
        (-1, [[15, 18, 22], 1, "Detect", [80, "anchors"]], "Write [80]: the heads of Ultralytics take no anchors"),
        (
            -1,
            [[15, 18, 22], 1, "Detect", ["nc", 3, [[10, 13]]]],
            "Write [nc]: the heads of Ultralytics take no anchors",
        ),
        (4, [-1, 1, "nn.Linear", [8]], "missing 1 required positional argument: 'out_features')"),
    ],
)
def test_any_row_of_a_model_with_blocks_is_reported(
    monkeypatch: pytest.MonkeyPatch, at: int, row: list[Any], says: str
) -> None:
    monkeypatch.setattr(tasks, "Picky", Picky, raising=False)
    model = with_last_block("v8/yolov8.yaml")
    if at < 0:
        model["head"][-1] = row
        model["anchors"] = 3
    else:
        model["backbone"][at] = row
    for build in (parse_on_meta, lambda d: tasks.DetectionModel(d, verbose=False)):
        with pytest.raises(UserError) as error:
            build(copy.deepcopy(model))
        assert says in str(error.value)
        assert str(error.value).startswith("v8/yolov8.yaml, row ")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["GAM_Attention", "GAMAttention"])
def test_fork_rows_build_what_forks_build_and_say_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    tasks.LOGGER.propagate = True
    try:
        block = parse_on_meta(with_last_block("v8/yolov8.yaml", 1024, 512, name=name))[-2]
    finally:
        tasks.LOGGER.propagate = False
    assert isinstance(block, GAM_Attention)
    assert [m.conv.groups for m in block.modules() if isinstance(m, ConvBN)] == [4, 4]
    assert f"v8/yolov8.yaml: warning: row 22 ({name}) is read as c2=1024 " in caplog.text
    assert "c2=1024 (not used: the block keeps its input's 256 channels), group=512 (4 groups)" in caplog.text
    assert "[-1, 1, GAM, [{preset: forks}]]" in caplog.text


def test_fuse_folds_the_blocks_batch_norms_and_predicts_the_same() -> None:
    model = tasks.DetectionModel(str(CFG / "yolov8n-gam.yaml"), verbose=False).eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-0.2, 0.2)
            m.running_var.uniform_(0.5, 1.5)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        want = model(x)[0]
        fused = model.fuse(verbose=False)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
        torch.testing.assert_close(fused(x)[0], want, rtol=1e-3, atol=1e-3)


def test_where_the_parser_cannot_be_wrapped_a_block_says_why() -> None:
    class Tasks:
        pass

    unavailable(Tasks, "gam_yolo cannot serve ultralytics 99")  # type: ignore[arg-type]  # stands for the module
    with pytest.raises(UserError, match="GAM cannot be placed: gam_yolo cannot serve ultralytics 99"):
        Tasks.GAM(64)  # type: ignore[attr-defined]
