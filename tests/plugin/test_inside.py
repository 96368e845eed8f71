"""A block inside bottlenecks, or in a row's place: weights, freezing, checkpoints and exports of such models."""

from __future__ import annotations

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks

from gam_yolo.graph.place import place
from gam_yolo.graph.transfer import transfer
from gam_yolo.plugin.freeze import _mapped

SMALL = """\
nc: 2
backbone:
  - [-1, 1, Conv, [16, 3, 4]]
  - [-1, 2, C2f, [16, True]]
  - [-1, 1, Conv, [32, 3, 4]]
  - [-1, 1, C3, [32]]
  - [-1, 1, SPPF, [32, 5]]
head:
  - [[3, 4], 1, Concat, [1]]
  - [-1, 1, C3k2, [32, True]]
  - [[1, 6], 1, Detect, [nc]]
"""
ZERO: dict[str, Any] = {"start": "zero", "gain": 10}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "yolov8-small.yaml").write_text(SMALL)
    return tmp_path


def placed(folder: Path, at: str, block: str | None = "GAM", name: str = "yolov8-placed.yaml", **args: Any) -> Any:
    """A detector of the small model with something placed, and weights and statistics that no other one has."""
    path = place(folder / "yolov8-small.yaml", block=block, at=at, args={"reduction": 2, **args} if block else None)
    model = YOLO(path.save(folder / name, force=True))
    for tensor in model.model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_((torch.rand_like(tensor) - 0.5) * 0.1)  # centred: the output stays small
    return model


def same(a: nn.Module, b: nn.Module, ours: bool) -> list[bool]:
    """Whether each tensor of attention, or of everything else, is the same in both."""
    other = b.state_dict()
    return [
        torch.equal(tensor, other[key])
        for key, tensor in a.state_dict().items()
        if (".attention." in key) is ours and key in other and tensor.is_floating_point()
    ]


@pytest.mark.parametrize(
    ("name", "at", "total"),
    [("yolov8n", "inside C2f", 355), ("yolov8n", "replace SPPF, inside 2", 343), ("yolov5nu", "inside C3, ema", None)],
)
def test_real_weights_arrive_completely_and_predict_the_same(
    shared: Path, name: str, at: str, total: int | None
) -> None:
    base: Any = YOLO(shared / "weights" / f"{name}.pt").model.float().eval()
    file = {"yolov8n": "yolov8n.yaml", "yolov5nu": "yolov5n.yaml"}[name]
    model = tasks.DetectionModel(
        {**place(file, block="GAM", at=at, args=ZERO).yaml, "scale": "n"}, verbose=False
    ).eval()
    model.load(base, verbose=False)
    new = dict(model.state_dict())
    kept = {k: t for k, t in base.state_dict().items() if "replace" not in at or not k.startswith("model.9.")}
    if "ema" not in at:  # no row has moved
        assert all(torch.equal(new[key], tensor) for key, tensor in kept.items())
    assert model.transferred["base"] == model.transferred["base_total"] == len(kept) == (total or len(kept))
    assert model.transferred["rejected"] == model.transferred["unmatched"] == 0
    if "replace" not in at:
        x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert torch.equal(model(x)[0], base(x)[0])  # a block with `start: zero` is the identity


@pytest.mark.since("8.3.0")  # C3k2
def test_blocks_inside_are_transferred_completely_or_not_at_all(folder: Path) -> None:
    source = placed(folder, "inside C2f", **ZERO)
    cases: list[tuple[str, dict[str, Any], bool]] = [
        ("inside C2f", ZERO, True),
        ("inside C2f, after SPPF", ZERO, True),
        ("inside C2f", {}, False),  # other gates: the weights would mean something else
        ("inside C3", ZERO, False),
    ]
    for at, args, whole in cases:
        target = placed(folder, at, **args)
        target.model.load(source.model, verbose=False)
        counts = target.model.transferred
        assert counts["base"] == counts["base_total"] == len(YOLO(folder / "yolov8-small.yaml").model.state_dict())
        assert bool(counts["blocks"]) == whole
        found = same(source.model, target.model, ours=True)
        assert all(found) if whole else not any(found)
    plain: Any = YOLO(folder / "yolov8-small.yaml")
    plain.model.load(source.model, verbose=False)
    assert all(same(plain.model, source.model, ours=False))


@pytest.mark.since("8.3.0")  # C3k2
def test_a_row_that_was_replaced_has_no_counterpart_but_all_others_have(folder: Path) -> None:
    plain = YOLO(folder / "yolov8-small.yaml")
    plain.save(folder / "plain.pt")
    own = len(plain.model.model[4].state_dict())
    for block, at in (("GAM", "replace SPPF"), (None, "remove SPPF")):
        target = placed(folder, at, block)
        target.model.load(plain.model, verbose=False)
        counts = target.model.transferred
        assert counts["base"] == counts["base_total"] == len(plain.model.state_dict()) - own
        again = placed(folder, at, block, name="yolov8-again.yaml")
        again.model.load(target.model, verbose=False)
        assert again.model.transferred["blocks"] == counts["blocks_total"]
        report = transfer(folder / "plain.pt", folder / "yolov8-again.yaml")
        assert {t.state for t in report.tensors if t.key.startswith("model.4.")} == ({"new"} if block else set())


@pytest.mark.since("8.3.0")  # C3k2
def test_freezing_leaves_blocks_inside_and_in_a_rows_place_trainable(folder: Path) -> None:
    model = placed(folder, "inside 1, replace SPPF").model
    said: list[str] = []
    names = _mapped(SimpleNamespace(model=model, resume=False), 5, said.append)
    frozen = {k for k, _ in model.named_parameters() if any(f"model.{name}." in k for name in names)}  # as Ultralytics
    base = YOLO(folder / "yolov8-small.yaml").model.named_parameters()
    assert frozen == {k for k, _ in base if int(k.split(".")[1]) < 4}
    assert "what is inside row 1 (C2f), row 4 (GAM) stay trainable" in said[0]


@pytest.mark.since("8.3.0")  # C3k2
def test_a_checkpoint_loads_without_trust_in_a_new_process_and_exports(folder: Path) -> None:
    torch.manual_seed(0)
    model = placed(folder, "inside C2f, inside C3k2, remove SPPF, before 3")
    model.model.eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():  # of the rounded weights: checkpoints are saved in half precision
        want = deepcopy(model.model).half().float()(x)[0]
    model.save(folder / "model.pt")
    torch.save((x, want), folder / "pair.pt")
    code = (
        "import torch\n"
        "from ultralytics import YOLO\n"
        "x, want = torch.load('pair.pt')\n"
        "model = YOLO('model.pt').model.float().eval()\n"
        "with torch.no_grad():\n"
        "    torch.testing.assert_close(model(x)[0], want, rtol=0, atol=0)\n"
        "    torch.testing.assert_close(model.fuse(verbose=False)(x)[0], want, rtol=1e-3, atol=1e-2)\n"
        "print([type(m).__name__ for m in model.modules()].count('AttendedBottleneck'))\n"
        "traced = YOLO('model.pt').export(format='torchscript', imgsz=64)\n"
        "torch.testing.assert_close(torch.jit.load(traced)(x), want, rtol=1e-3, atol=1e-2)\n"
        "print('exported')\n"
    )
    env = {**os.environ, "ULTRALYTICS_SAFE_LOAD": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "\n4\n" in f"\n{done.stdout}"  # two of C2f, two of the C3k in C3k2
    assert "exported" in done.stdout
