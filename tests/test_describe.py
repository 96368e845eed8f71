"""`gam-yolo blocks`: true counts of every registered block."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from gam_yolo import registry
from gam_yolo.cli import app
from gam_yolo.describe import blocks, describe
from gam_yolo.errors import UserError
from gam_yolo.registry import BLOCKS, register


def printed(*args: str) -> Any:
    done = CliRunner().invoke(app, ["blocks", *args, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_json_lists_every_block_with_true_counts() -> None:
    """Parameters from a block built for good, multiply-adds of GAM and the forks' GAM from the formula."""
    found = printed("-c", "128", "--size", "12")
    assert (found["channels"], found["size"]) == (128, 12)
    assert [e["name"] for e in found["blocks"]] == sorted(BLOCKS, key=str.lower)
    for e in found["blocks"]:
        assert e["parameters"] == sum(p.numel() for p in BLOCKS[e["name"]](128).parameters())
        assert e["description"]
        assert e["problem"] == ""
    by_name = {e["name"]: e for e in found["blocks"]}
    m = 128 // 4
    assert by_name["GAM"]["macs"] == 12 * 12 * (2 * 128 * m + 98 * 128 * m)
    assert by_name["GAM_Attention"]["macs"] == 12 * 12 * (2 * 128 * m + 98 * 128 * m)
    assert by_name["CBAM"]["macs"] == 4 * 128 * 8 + 98 * 12 * 12
    assert by_name["SimAM"]["macs"] == by_name["SimAM"]["parameters"] == 0
    assert by_name["GAM"]["source"] == "arXiv 2112.05561"
    assert by_name["UltralyticsCBAM"]["source"] == "github.com/ultralytics/ultralytics"


def test_table_shows_what_is_asked_for() -> None:
    done = CliRunner().invoke(app, ["blocks", "ECA", "GAM"], env={"COLUMNS": "160"})
    assert done.exit_code == 0
    assert "1,639,680" in done.stdout
    assert "655,360,000" in done.stdout
    assert "CBAM" not in done.stdout


def test_details_say_what_each_start_is_and_name_nothing_of_python() -> None:
    shown = {
        name: CliRunner().invoke(app, ["blocks", name], env={"COLUMNS": "160"}).stdout
        for name in ("GAM", "SimAM", "GAM_Attention")
    }
    for name, starts in {"GAM": 3, "SimAM": 2, "GAM_Attention": 0}.items():
        lines = re.findall(r"^    (default|identity|zero): .*x", shown[name], re.M)
        assert lines == ["default", "identity", "zero"][:starts]
        assert "`Start`" not in shown[name]
        assert "PRESETS" not in shown[name]
    assert "zero: f(x) with gates centred at 1. It is x at first, because each gate is 1 then." in shown["GAM"]


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no block is named 'Gamm'. Did you mean 'GAM'"):
        blocks(["Gamm"])


def test_a_block_that_cannot_be_built_or_run_says_why() -> None:
    assert describe("SE", channels=8).problem.startswith("reduction is 16. Expected a whole number from 1 to 8")

    class Fragile(nn.Module):
        """No paper of its own."""

        def __init__(self, c: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(c))

        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(f"needs a GPU, not {x.device}")

    register(Fragile)
    try:
        entry = describe("Fragile", channels=8)
    finally:
        registry._registered.pop("Fragile")
    assert (entry.parameters, entry.macs, entry.problem) == (8, None, "RuntimeError: needs a GPU, not meta")
    assert (entry.source, entry.description) == (__name__, "No paper of its own")


def test_large_sizes_take_no_memory() -> None:
    assert describe("GAM", channels=2048, size=4096).macs == 4096**2 * 100 * 2048 * 512


def test_the_documentation_has_the_true_counts(root: Path) -> None:
    rows = re.findall(
        r"^\| (`.*?) \| .* \| ([\d,]+) \| ([\d,]+) \|$", (root / "docs/blocks.md").read_text("utf-8"), re.M
    )
    documented = {name: (p, m) for names, p, m in rows for name in re.findall(r"`(\w+)`", names)}
    assert documented == {e.name: (f"{e.parameters:,}", f"{e.macs:,}") for e in blocks()}
