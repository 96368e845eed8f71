"""The benchmark of GAM: what it compares with is the same function, what it counts is right, what it judges follows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark_gam
import pytest
import torch
from gam_speed.aims import aims
from gam_speed.blocks import candidates
from gam_speed.cases import Case
from gam_speed.floor import floor, passes
from gam_speed.memory import allocations, kept_bytes, peak_bytes
from gam_speed.reference import ReferenceGAM, copy_state, swap
from gam_speed.results import OURS, PLAIN
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from gam_yolo.blocks import GAM
from gam_yolo.blocks.gam import PRESETS

MIB = 2**20


def results_of(module: nn.Module, x: Tensor, g: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = module(x)
    return [out, *torch.autograd.grad(out, [x, *module.parameters()], g)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_articles_code_equals_ours(training: bool, memory: torch.memory_format) -> None:
    torch.manual_seed(0)
    gam, other = GAM(16).double().train(training), ReferenceGAM(16).double().train(training)
    for tensor in gam.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1.0)  # running statistics too, so that none of them may be forgotten
    for norm in [m for m in gam.modules() if isinstance(m, nn.BatchNorm2d)]:
        norm.eps = 0.1
    copy_state(gam, other)
    x = torch.randn(2, 16, 7, 9, dtype=torch.double).to(memory_format=memory)
    g = torch.randn_like(x)
    for ours, theirs in zip(results_of(gam, x, g), results_of(other, x, g), strict=True):
        torch.testing.assert_close(ours.reshape(theirs.shape), theirs, rtol=1e-7, atol=1e-9)


def test_a_detector_with_the_articles_code_predicts_the_same() -> None:
    yaml = yaml_model_load("yolov8n-gam.yaml")
    for row in yaml["head"]:
        if row[2] == "GAM":
            row[3] = []  # the articles' formula and start
    model = DetectionModel(yaml, verbose=False).eval()
    x = torch.rand(1, 3, 64, 64)
    expected = model(x)[0]
    swap(model)
    assert sum(isinstance(m, ReferenceGAM) for m in model.modules()) == 3
    assert not any(isinstance(m, GAM) for m in model.modules())
    torch.testing.assert_close(model(x)[0], expected, rtol=1e-4, atol=1e-3)


def test_cpu_memory_is_counted_exactly() -> None:
    def step() -> Tensor:
        first = torch.empty(MIB // 4)  # 1 MiB
        second = torch.empty(MIB)  # 4 MiB: 5 in all
        del first
        third = torch.empty(MIB // 2)  # 2 MiB: 6, the most
        del second
        return third

    levels = allocations(step)
    assert [level / MIB for level in levels[:5]] == [1, 5, 4, 6, 2]
    assert len(levels) == 5, "the result is released inside the measurement"
    assert peak_bytes(step, torch.device("cpu")) == 6 * MIB
    assert kept_bytes(step, torch.device("cpu")) == 2 * MIB


def test_what_is_kept_for_the_backward_pass_is_counted() -> None:
    x = torch.ones(MIB // 4, requires_grad=True)
    cpu = torch.device("cpu")
    # sigmoid keeps its output, exp its own; the product keeps both, which are there already, and adds its output
    assert kept_bytes(lambda: x.sigmoid() * x.exp(), cpu) == 3 * MIB
    chain = torch.no_grad()(lambda: x.sigmoid().sigmoid().sigmoid())
    assert kept_bytes(chain, cpu) == MIB
    assert peak_bytes(chain, cpu) == 2 * MIB  # one goes in, one comes out


def test_flops_and_bytes_are_those_of_the_formula() -> None:
    case = Case("n", "P3", 8, "float32", "contiguous", "inference", "blog")
    assert (case.channels, case.size) == (64, 80)
    _, limits, arithmetic = candidates(case)
    pixels, c, m = 8 * 80 * 80, 64, 16
    flops = sum(f for f, _ in passes(*arithmetic["blog"], case))
    assert flops == 2 * pixels * (2 * c * m + 98 * c * m)  # shared/design: HW (2Cm + 98Cm/g) multiply-adds
    bare = passes(*arithmetic[limits["blog"]], case)
    assert sum(f for f, _ in bare) == 2 * pixels * 98 * c * m
    assert sum(b for _, b in bare) == 4 * (pixels * 2 * (c + m) + 98 * c * m)
    measured = {"flops_per_s": {"float32": 1e9}, "bytes_per_s": 1e30}
    assert floor(bare, measured, "float32") == pytest.approx(2 * pixels * 98 * c * m / 1e9)
    assert floor(bare, {"flops_per_s": {"float32": 1e30}, "bytes_per_s": 1.0}, "float32") == sum(b for _, b in bare)


def test_every_preset_is_measured_over_its_own_convolutions() -> None:
    case = Case("n", "P5", 1, "float32", "contiguous", "training", "all")
    modules, limits, arithmetic = candidates(case)
    assert set(PRESETS) | {"reference"} <= set(modules)
    assert limits["reference"] == limits["blog"] != limits["paper"]
    x = torch.rand(1, 256, 4, 4)
    for name, module in modules.items():
        assert module(x.repeat(2, 1, 1, 1)).shape == (2, 256, 4, 4)
        limit: Any = modules[limits[name]]
        assert [m.weight.numel() for m in limit] == [conv.weight.numel() for conv in arithmetic[name][0]]


@pytest.fixture
def made_up() -> Callable[..., dict[str, Any]]:
    def result(gpu: str | None = None, dtype: str = "float32", memory: str = "contiguous") -> dict[str, Any]:
        def block(
            scale: str, level: str, mode: str, over_limit: float, over_reference: float, peak: int
        ) -> dict[str, Any]:
            figure = {"over_limit": over_limit, "over_reference": over_reference, "peak_bytes": peak, "median_s": 1.0}
            figure |= {"q1_s": 0.9, "q3_s": 1.2, "kept_bytes": 1, "floor_s": 0.5}
            case = {"scale": scale, "level": level, "mode": mode, "dtype": dtype, "memory_format": memory, "batch": 8}
            shape = {"channels": 64, "size": 80, "compared": "blog"}
            return case | shape | {"candidates": {"blog": figure, "reference": figure | {"peak_bytes": 100}}}

        counts = {name: {"parameters": 1, "gflops": g, "gflops_torch": g} for name, g in GFLOPS.items()}
        times = {name: {"over_plain": t, "images_per_s": 1.0, "peak_bytes": 1} for name, t in SLOWER.items()}
        return {
            "machine": {"gpu": gpu},
            "versions": {},
            "arguments": {},
            "left_out": [{"what": "x", "why": "y"}],
            "blocks": [
                block("n", "P3", "inference", 1.05, 0.5, 0),
                block("s", "P5", "inference", 1.30, 0.5, 0),
                block("n", "P3", "training", 1.20, 0.40, 50),
                block("s", "P3", "training", 1.30, 0.60, 60),
                block("n", "P4", "training", 1.10, 0.90, 30),
                block("m", "P3", "training", 9.00, 9.00, 900),  # m is not judged
                block("n", "P3", "training", 9.00, 9.00, 900) | {"dtype": "amp"},  # nor is another precision
                block("n", "P3", "training", 9.00, 9.00, 900) | {"compared": "compiled"},  # nor a case a second time
            ],
            "models": {
                "counts": counts,
                "train": [{"batch": 8, "imgsz": 640, "dtype": "float32", "models": times}],
                "val": [],
                "latency": [],
            },
        }

    GFLOPS = {PLAIN: 8.0, OURS: 12.0}  # noqa: N806
    SLOWER = {PLAIN: 1.0, OURS: 1.8}  # noqa: N806
    return result


def test_aims_are_judged_by_median_and_worst(made_up: Callable[..., dict[str, Any]]) -> None:
    judged = aims(made_up())
    assert [(row["measured"], row["verdict"]) for row in judged] == [
        (pytest.approx(1.175), "met"),  # inference, at most 1.25: median
        (1.30, "missed"),  # worst
        (1.20, "met"),  # training, at most 1.35
        (1.30, "met"),
        (pytest.approx((1 / 0.4 + 1 / 0.6) / 2), "met"),  # at P3 at least 2 times as fast
        (pytest.approx(1 / 0.6), "missed"),
        (0.5, "met"),  # memory, at most half
        (0.6, "missed"),
        (pytest.approx(1.8 / 1.5), "missed"),  # 1.8 times the time for 1.5 times the GFLOPs
    ]


def test_aims_of_a_gpu_are_its_own(made_up: Callable[..., dict[str, Any]]) -> None:
    judged = aims(made_up(gpu="a GPU", dtype="bfloat16", memory="channels_last"))
    inference = [row for row in judged if "inference" in row["figure"]]
    assert [row["verdict"] for row in inference] == ["not measured", "not measured", "missed", "missed"]
    assert inference[2]["aim"] == "at most 1.1"
    assert inference[2]["measured"] == pytest.approx(1.175)


def test_nothing_measured_is_neither_met_nor_missed() -> None:
    judged = aims({"machine": {"gpu": None}, "blocks": [], "models": {}})
    assert len(judged) == 9
    assert {row["verdict"] for row in judged} == {"not measured"}


def test_a_result_is_shown_as_markdown(
    made_up: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = made_up()
    file = tmp_path / "result.json"
    file.write_text(json.dumps(result | {"aims": aims(result)}))
    monkeypatch.setattr(sys, "argv", ["benchmark_gam.py", "--show", str(file)])
    assert benchmark_gam.main() == 0
    shown = capsys.readouterr().out
    assert "| n P3 8x64x80x80 | 500 | 1000 ±1.5e+02 (1.20) |" in shown
    assert "| block inference over its bare convolutions | worst of 2" in shown
