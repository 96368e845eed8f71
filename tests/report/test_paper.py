"""`to_latex` and `save_figures`: a comparison in a paper, from the same results as the page."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gam_yolo.errors import UserError
from gam_yolo.report import charts
from gam_yolo.report.charts import VARIABLES
from gam_yolo.report.result import Comparison


@pytest.fixture(scope="module")
def found(report: Path) -> Comparison:
    comparison = Comparison.load(report / "report.json")
    ugly = {name: replace(variant, name=f"{name}_50%&$#~^\\{{}}") for name, variant in comparison.variants.items()}
    return replace(comparison, variants=ugly)


def test_the_table_has_the_values_of_the_comparison(found: Comparison) -> None:
    text = found.to_latex()
    rows = text.split("\\midrule\n")[1].split("\\bottomrule")[0].strip().splitlines()
    head = next(line for line in text.splitlines() if line.startswith("Model &"))
    assert len(rows) == len(found.variants)
    for row, variant in zip(rows, found.variants.values(), strict=True):
        cells = [cell.strip() for cell in row.removesuffix("\\\\").replace("\\&", "+").split("&")]
        assert len(cells) == len(head.split("&"))
        value = variant.metrics["AP"]
        assert value.value is not None
        assert value.low is not None
        assert value.high is not None
        assert cells[2] == f"${100 * value.value:.1f}\\ [{100 * value.low:.1f},\\,{100 * value.high:.1f}]$"
        difference = variant.differences.get(found.baseline)
        assert bool(difference) == bool(cells[3])
        if difference:
            main = difference["AP"]
            assert cells[3].startswith(f"${100 * (main.value or 0):+.1f}")
            assert ("^{*}" in cells[3]) == (main.verdict in ("better", "worse"))
    assert any("^{*}" in row for row in rows)


def test_the_table_of_classifiers_has_their_metrics(root: Path) -> None:
    comparison = Comparison.load(root / "docs/results/cifar10.json")
    text = comparison.to_latex()
    assert "Classification on 5000 images" in text
    assert "& top-1 accuracy & minus plain & top-5 accuracy &" in text
    for variant in comparison.variants.values():
        assert f"${100 * (variant.metrics['top1'].value or 0):.1f}\\ [" in text


def test_the_table_compiles(found: Comparison, tmp_path: Path) -> None:
    compiler = shutil.which("pdflatex") or pytest.skip("compiling the table needs pdflatex")
    packages = r"\usepackage{booktabs}\usepackage{amsmath}\usepackage[landscape]{geometry}"
    text = f"\\documentclass[twocolumn]{{article}}{packages}\\begin{{document}}\n{found.to_latex()}\\end{{document}}\n"
    (tmp_path / "paper.tex").write_text(text)
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Output written on paper.pdf (1 page" in done.stdout


def test_names_are_escaped_for_latex(found: Comparison) -> None:
    name = r"plain\_50\%\&\$\#\textasciitilde{}\textasciicircum{}\textbackslash{}\{\}"
    assert name in found.to_latex()
    text = found.to_latex()
    plain = re.sub(r"\\[a-z]+|\\.", "", text.partition("\\begin")[2])
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert "%" not in plain


def test_figures_have_the_widths_of_columns_and_colours_for_paper(found: Comparison, tmp_path: Path) -> None:
    written = found.save_figures(tmp_path / "figures")
    assert {path.name for path in written} == {path.name for path in (tmp_path / "figures").iterdir()}
    stems = {path.stem for path in written}
    assert {"differences-1col", "differences-2col", "precision-recall-1col", "sizes-2col"} <= stems
    for path in written:
        width = {"1": 252.0, "2": 515.52}[path.stem[-4]]
        if path.suffix == ".pdf":
            content = path.read_bytes()
            assert content.startswith(b"%PDF")
            box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", content)
            assert box
            assert float(box[1]) == pytest.approx(width, abs=0.1)
            assert b"CreationDate" not in content
        else:
            text = path.read_text()
            assert float(re.findall(r'width="([\d.]+)pt"', text)[0]) == pytest.approx(width, abs=0.1)
            assert not set(VARIABLES) & set(re.findall(r"#[0-9a-f]{6}", text))
            assert "<text" not in text  # outlines: an SVG has no fonts


@pytest.mark.parametrize(("rows", "inches"), [(10, (1, 4)), (60, (8.9, 9.001)), (130, (14, 21))])
def test_a_figure_fits_on_a_page_unless_its_rows_need_more(
    found: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, inches: tuple[float, float]
) -> None:
    drawn = charts.forest("many", [charts.Interval(f"row {i}", i, i - 1, i + 1, 1) for i in range(rows)], "points")
    monkeypatch.setattr("gam_yolo.report.paper.plan_charts", lambda _: {"many": lambda: drawn})
    for path in found.save_figures(tmp_path):
        if path.suffix == ".svg":
            height = float(re.findall(r'height="([\d.]+)pt"', path.read_text())[0]) / 72
            assert inches[0] < height < inches[1]
            assert height > rows * 8 / 72  # a line of text for each row


def test_the_caption_says_what_the_intervals_are_over(root: Path) -> None:
    studied = Comparison.load(root / "docs/results/voc-starts.json")
    assert "bootstrap of the images, and the spread of the training seeds." in studied.to_latex()
    assert "one image of 224 pixels (cpu, threads: 1)." in studied.to_latex()
    single = {name: replace(variant, runs=variant.runs[:1]) for name, variant in studied.variants.items()}
    assert "paired bootstrap of the images. A star" in replace(studied, variants=single).to_latex()


def test_figures_that_cannot_be_written_are_a_user_error(found: Comparison, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written there"):
        found.save_figures(tmp_path / "file")
