"""docs/results.md has the figures of the reports beside it."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gam_yolo import power
from gam_yolo.report.result import Comparison

TABLES = {
    "neu": "neu-finetune",
    "neu-scratch": "neu-scratch-small",
    "cifar": "cifar10",
    "voc": "voc-small",
    "voc-starts": "voc-starts",
    "placement": "placement-small",
    "voc-long": "voc-small-long",
    "bccd": "bccd-small",
}


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def publish(root: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "scripts" / "maintenance"))
        import publish_overview
        import publish_report

        yield publish_report, publish_overview
        for name in ("publish_report", "publish_overview"):
            sys.modules.pop(name, None)


def part(page: str, name: str) -> list[str]:
    """Return the lines of a table between its marks."""
    between = page.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]
    return [line for line in between.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_reports(page: str, publish: Any, root: Path, name: str) -> None:
    report = Comparison.load(root / "docs" / "results" / f"{TABLES[name]}.json")
    assert part(page, name) == publish[0].table(report).splitlines()


def test_the_chart_of_all_data_sets_is_that_of_the_reports(
    page: str,
    publish: Any,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = dict.fromkeys(line.split("|")[1].strip() for line in part(page, "overview")[2:])
    files = [
        root / "docs" / "results" / f"{TABLES[name]}.json"
        for name in ("voc", "voc-starts", "placement", "voc-long", "bccd", "neu", "neu-scratch", "cifar")
    ]
    reports = [f"{name}={file}" for name, file in zip(names, files, strict=True)]
    out = tmp_path / "overview.svg"
    monkeypatch.setattr(sys, "argv", ["publish_overview", str(out), *reports, "--hide", "control"])
    publish[1].main()
    assert capsys.readouterr().out.splitlines() == part(page, "overview")
    drawn = out.read_text(encoding="utf-8")
    assert all(name in drawn for name in names)


def test_sentences_hold(page: str, root: Path) -> None:
    found = {name: Comparison.load(root / "docs" / "results" / f"{file}.json") for name, file in TABLES.items()}
    differences = {
        (name, variant.name): variant.minus(report.baseline)[report.about.main]
        for name, report in found.items()
        for variant in report.variants.values()
        if variant.name not in (report.baseline, "control")
    }
    assert f"in {len(differences)} comparisons" in page
    assert not any(difference.low is not None and difference.low > 0 for difference in differences.values())
    least = power(found["neu"]).detectable[0], power(found["cifar"]).detectable[0]
    assert "less than about {:.1f} points on NEU-DET or {:.1f} on CIFAR-10".format(*least) in page
    curves = [run["training"]["AP"] for run in runs(root / "docs/results/neu-finetune.json")]
    gained = statistics.mean(100 * (curve[-1] - curve[-2]) for curve in curves)
    assert f"the last epoch gains {gained:.1f} points on average" in page
    from_scratch = [run["training"]["AP"] for run in runs(root / "docs/results/neu-scratch-small.json")]
    assert f"The last epoch gains {statistics.mean(100 * (c[-1] - c[-2]) for c in from_scratch):.1f} points" in page
    scratch = found["neu-scratch"].variants
    shares = [100 * scratch[name].minus("plain")["AP"].seed_share for name in scratch if name != "plain"]
    assert f"{min(shares):.0f} to {max(shares):.0f} % of the variance of each difference to plain" in page
    first = [100 * curve[0] for curve in curves]
    assert f"are at {min(first):.0f} to {max(first):.0f} points" in page
    curves = [run["training"]["top1"] for run in runs(root / "docs/results/cifar10.json")]
    gained = statistics.mean(100 * (curve[-1] - curve[-2]) for curve in curves)
    assert f"by {gained:.1f} points in the last epoch" in page


@pytest.mark.parametrize("name", ["neu", "neu-scratch", "voc-starts"])
def test_movement_is_that_of_the_report(page: str, root: Path, name: str) -> None:
    report = json.loads((root / "docs/results" / f"{TABLES[name]}.json").read_text(encoding="utf-8"))
    rows = [
        f"| {variant['name']} | "
        + " | ".join(
            f"{100 * block['change']:,.{1 if block['change'] < 0.1 else 0}f} %" for block in variant["movement"]
        )
        + " |"
        for variant in report["variants"]
        if variant.get("movement")
    ]
    assert part(page, f"{name} movement")[2:] == rows


def runs(report: Path) -> list[dict[str, Any]]:
    content = json.loads(report.read_text(encoding="utf-8"))
    return [run for variant in content["variants"] for run in variant["runs"]]
