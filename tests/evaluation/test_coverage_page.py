"""docs/evaluation.md has the figures of the coverage simulation, and what it says of them holds."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def results(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((root / "docs/results/coverage.json").read_text())
    return found


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "docs/evaluation.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_file(root: Path, results: list[dict[str, Any]], text: str) -> None:
    script = runpy.run_path(str(root / "scripts" / "evidence" / "coverage_simulation.py"))
    table = text.partition("<!-- coverage -->\n")[2].partition("<!-- /coverage -->")[0]
    assert table.splitlines()[2:] == [script["row"](result) for result in results]
    assert [result["scenario"] for result in results] == [name for name in script["ORDER"] if f"| {name} |" in table]


def test_differences_are_covered_in_94_to_96_percent_up_to_the_error_of_the_simulation(
    results: list[dict[str, Any]], text: str
) -> None:
    assert "No cell is below 94 % by more than twice the standard error of its simulation" in " ".join(text.split())
    assert "One is above 96 % by more than that: AP in 80 classes on 100 images with 3 seeds" in " ".join(text.split())
    outside = []
    for result in results:
        error = 100 * math.sqrt(0.95 * 0.05 / result["simulations"])
        for name, cell in result["metrics"].items():
            assert cell["covered"] >= 94 - 2 * error, (result["scenario"], name)
            outside += [(result["scenario"], name)] if cell["covered"] > 96 + 2 * error else []
    assert outside == [("80 classes, 100 images, 3 seeds", "AP")]


def test_every_scenario_is_in_the_table(root: Path, results: list[dict[str, Any]]) -> None:
    script = runpy.run_path(str(root / "scripts" / "evidence" / "coverage_simulation.py"))
    assert [result["scenario"] for result in results] == script["ORDER"]


def test_the_sentences_have_the_figures_of_the_file(results: list[dict[str, Any]], text: str) -> None:
    words = " ".join(text.split())
    simulated = [result for result in results if not result["scenario"].startswith("coin flips")]
    covered = [cell["covered"] for result in simulated for cell in result["metrics"].values()]
    runs = sum(result["simulations"] for result in simulated)
    assert f"{min(covered)} to {max(covered)} % for the {len(covered)} other cells" in words
    assert f"over the {runs:,} simulations" in words
    equal = [
        r["any_by_holm"] for r in simulated if not r["difference"] and r["scenario"] != "2 classes, 200 images, 2 seeds"
    ]
    assert f"false difference in at most {max(equal)} of 100" in words
    means = {
        name: sum(result["metrics"][name]["covered"] * result["simulations"] for result in simulated) / runs
        for name in simulated[0]["metrics"]
    }
    others = [mean for name, mean in means.items() if name != "AP"]
    assert f"is {means['AP']:.1f} % for AP and between {min(others):.1f} and {max(others):.1f} % for the other" in words
