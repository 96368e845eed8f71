"""The tables of docs/groups-and-power.md are those of the published figures, and their claims hold."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest


def published(root: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((root / "docs" / "results" / f"{name}.json").read_text())
    return found


@pytest.mark.checkout
def test_the_tables_are_the_published_figures(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(root / "scripts" / "evidence"), *sys.path])
    text = (root / "docs" / "groups-and-power.md").read_text()
    for name, script in (
        ("group-coverage", "group_coverage"),
        ("paired-seeds", "paired_seeds"),
        ("power", "power_simulation"),
    ):
        functions = runpy.run_path(str(root / "scripts" / "evidence" / f"{script}.py"))
        results = published(root, name)
        rows = [row for r in results for row in (functions["lines"](r) if name == "power" else [functions["line"](r)])]
        table = text.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0].strip().split("\n")
        assert table[2:] == rows


@pytest.mark.checkout
def test_the_claims_hold(root: Path) -> None:
    groups = published(root, "group-coverage")
    assert all(94 <= row["grouped"]["covered"] <= 97 for row in groups)
    assert min(row["ungrouped"]["covered"] for row in groups) < 51
    assert all(row["simulations"] >= 1000 for row in groups)
    cells = [cell for row in published(root, "power") for key, cell in row.items() if " for " in key]
    assert len(cells) >= 12
    assert all(abs(cell["detected"] - cell["named"]) <= 3 for cell in cells)
    assert all(row["simulations"] >= 1000 for row in published(root, "power"))
    assert all(94 <= row["paired_covered"] <= 96.5 for row in published(root, "paired-seeds"))
