"""The generated model YAMLs: what is committed is what the script writes, and every one of them builds."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from gam_yolo.registry import BLOCKS

CFG = Path(__file__).resolve().parent.parent / "cfg"
SCRIPT = runpy.run_path(str(CFG.parent / "scripts" / "maintenance" / "make_cfg_twins.py"))
TWINS: dict[Path, str] = SCRIPT["twins"]()


def test_committed_twins_are_what_the_script_writes() -> None:
    assert len(TWINS) == 3 * 2 * len(SCRIPT["BLOCKS"])  # families, placements
    stale = [path.name for path, text in TWINS.items() if not path.is_file() or path.read_text("utf-8") != text]
    assert not stale, "run python scripts/maintenance/make_cfg_twins.py"


def test_every_block_but_gams_own_names_has_twins() -> None:
    assert set(SCRIPT["BLOCKS"]) == set(BLOCKS) - {"GAM", "GAM_Attention", "GAMAttention"}


@pytest.mark.parametrize("path", TWINS, ids=lambda p: p.stem)
def test_a_twin_differs_from_its_gam_model_in_the_block_and_its_start(path: Path) -> None:
    block = next(b for b in SCRIPT["BLOCKS"] if f"-{b.lower()}" in path.stem)
    gam = yaml.safe_load(path.with_stem(path.stem.replace(f"-{block.lower()}", "-gam")).read_text("utf-8"))
    twin = yaml.safe_load(path.read_text("utf-8"))
    rows = [row for part in ("backbone", "head") for row in gam[part]]
    changed = [(a, b) for a, b in zip(rows, twin["backbone"] + twin["head"], strict=True) if a != b]
    assert len(changed) == 3
    for a, b in changed:
        assert a == [-1, 1, "GAM", [{"start": "zero"}]]
        assert b == [-1, 1, block, []]
    assert {k: v for k, v in gam.items() if k not in {"backbone", "head"}} == {
        k: v for k, v in twin.items() if k not in {"backbone", "head"}
    }


@pytest.mark.parametrize("path", TWINS, ids=lambda p: p.stem)
def test_a_twin_builds_at_the_scale_its_name_asks_for(path: Path) -> None:
    """Asked for by bare name with a scale letter, as `yolo model=yolov8n-cbam.yaml` does."""
    family, rest = path.stem.split("-", 1)
    cfg = yaml_model_load(f"{family}n-{rest}.yaml")
    assert cfg["scale"] == "n"
    with torch.device("meta"):
        model, _ = tasks.parse_model(cfg, ch=3, verbose=False)
    block = next(b for b in SCRIPT["BLOCKS"] if f"-{b.lower()}" in path.stem)
    assert sum(type(m) is BLOCKS[block] for m in model) == 3


@pytest.mark.parametrize("block", SCRIPT["BLOCKS"])
def test_a_twin_predicts_the_same_fused(block: str) -> None:
    """`model.fuse()` leaves no batch norm anywhere, and what is predicted stays."""
    torch.manual_seed(0)
    model = DetectionModel(f"yolov8n-{block.lower()}.yaml", nc=2, verbose=False).eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):  # as a training leaves them: not the identity
            nn.init.uniform_(m.running_mean, -0.1, 0.1)  # type: ignore[arg-type]  # it has statistics
            nn.init.uniform_(m.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    x = torch.rand(1, 3, 64, 64)
    want = model(x)[0]
    assert want.shape == (1, 6, 84)
    fused = model.fuse(verbose=False)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    torch.testing.assert_close(fused(x)[0], want, rtol=1e-3, atol=1e-3)
