"""The candidate GPU kernel against the plain form, in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gam_yolo.blocks import GAM


@pytest.fixture(scope="module")
def fused_gate(root: Path) -> Any:
    pytest.importorskip("triton", reason="Triton comes with torch's builds for GPUs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        spec = importlib.util.spec_from_file_location(
            "fused_gate", root / "scripts" / "benchmarks" / "gam_speed" / "fused_gate.py"
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "fused_gate", module)
        spec.loader.exec_module(module)
        yield module.fused_gate


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("preset", ["blog", "paper", "strips"])
@pytest.mark.parametrize("size", [(2, 64, 7, 13), (1, 96, 1, 9), (3, 40, 5, 5)])
def test_equals_the_plain_form(
    fused_gate: Any, size: tuple[int, ...], preset: str, memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    gam = GAM(size[1], preset=preset)
    assert gam.channel is not None
    x = torch.randn(size).to(memory_format=memory_format)
    with torch.no_grad():
        got, want = fused_gate(x, gam.channel), gam.channel(x) * x
    torch.testing.assert_close(got, want)
    assert got.stride() == x.stride()
