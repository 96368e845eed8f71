"""`gam_yolo.compare` and its result: the same as the command's, readable, and read back from JSON."""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from gam_yolo.comparing import compare
from gam_yolo.errors import UserError
from gam_yolo.report.result import Comparison

from .conftest import DataSet

OLD = gzip.decompress((Path(__file__).parent / "report-0.1.0.json.gz").read_bytes()).decode()
"""What version 0.1.0, which had no records, wrote of the comparison in the fixture `report`."""


@pytest.fixture(scope="module")
def found(report: Path, data_set: DataSet) -> Comparison:
    """The comparison that the fixture `report` made by the command, made by the function."""
    assert report.is_dir()  # its predictions are there
    patterns = {name: data_set.folder / f"{name}-s[123]*.json" for name in ("plain", "same", "gam")}
    return compare(patterns, data=data_set.yaml, gt=data_set.truth, control="same", replicates=300)


def test_json_of_an_earlier_version_is_read_and_written_to_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(OLD)
    assert Comparison.load(file).to_json() == OLD


def test_published_reports_are_read_and_written_to_the_byte(root: Path) -> None:
    published = [path for path in (root / "docs/results").glob("*.json") if "gam-yolo/comparison" in path.read_text()]
    assert published
    for path in published:
        content = json.loads(path.read_text())
        assert Comparison.load(path).to_json() == json.dumps(content, indent=1)
        assert any(run["training"] for variant in content["variants"] for run in variant["runs"])


def skeleton(content: Any) -> Any:
    """Keys in their order, and the kinds of values; any number may be null."""
    if isinstance(content, dict):
        return [(key, skeleton(value)) for key, value in content.items()]
    if isinstance(content, list):
        return [skeleton(value) for value in content]
    return "number" if content is None or isinstance(content, float) else type(content).__name__


def test_the_json_has_the_layout_and_scores_of_an_earlier_version(report: Path) -> None:
    now, old = (json.loads(text) for text in ((report / "report.json").read_text(), OLD))
    for content in (now, old):
        del content["versions"], content["notes"]  # of another machine, in other words
    for cell in (c for v in now["variants"] for tree in v["differences"].values() for c in tree["metrics"].values()):
        for key in ("image_variance", "seed_variance", "interaction", "image_dof"):  # added in 0.2
            if cell["low"] is not None:
                assert cell.pop(key) >= 0
            cell.pop(key, None)
    assert skeleton(now) == skeleton(old)
    for ours, theirs in zip(now["variants"], old["variants"], strict=True):
        assert ours["runs"][0]["sha256"] == theirs["runs"][0]["sha256"]
        for metric in ("AP", "AP50", "APs", "AR100", "VOC2010 AP50"):
            assert ours["metrics"][metric]["seeds"] == pytest.approx(theirs["metrics"][metric]["seeds"])


def test_the_function_finds_what_the_command_finds(found: Comparison, report: Path) -> None:
    ours, theirs = found.to_dict(), json.loads((report / "report.json").read_text())
    assert json.loads(json.dumps(ours)) == {**theirs, "created": ours["created"]}


def test_results_are_attributes(found: Comparison, report: Path) -> None:
    cell = json.loads((report / "report.json").read_text())["variants"][2]["differences"]["plain"]
    gain = found.variants["gam"].minus("plain")
    assert (gain["AP"].value, gain["AP"].low, gain["AP"].high) == tuple(
        cell["metrics"]["AP"][key] for key in ("value", "low", "high")
    )
    assert (gain["AP"].p, gain["AP"].p_holm, gain["AP"].verdict) == tuple(
        cell["metrics"]["AP"][key] for key in ("p", "p_holm", "verdict")
    )
    assert gain.classes["hen"]["AP"].value == cell["classes"]["hen"]["AP"]["value"]
    assert found.headline.startswith("gam is better than plain")
    with pytest.raises(UserError, match=r"no difference of 'gam' minus 'plan'\. Expected 'plain', 'same'\. Did you"):
        found.variants["gam"].minus("plan")
    with pytest.raises(UserError, match=r"no metric 'ap50'\. Expected 'AP', 'AP50'.*Did you mean 'AP50'"):
        gain["ap50"]


def test_print_shows_the_main_table(found: Comparison) -> None:
    shown = str(found)
    assert shown.isascii()
    assert shown.startswith(found.headline.replace("\N{MINUS SIGN}", "-"))
    assert re.search(r"^variant +seeds +mAP 50-95 +minus plain +minus same +mAP 50", shown, re.M)
    value, low, high = (100 * getattr(found.variants["gam"].metrics["AP"], key) for key in ("value", "low", "high"))
    assert re.search(rf"^gam +3 +{value:.1f}  {low:.1f} to {high:.1f} +\+.* better ", shown, re.M)
    page = found._repr_html_()
    assert page.count("<tr>") == 4
    assert f"<td>{value:.1f}<br>{low:.1f} to {high:.1f}</td>" in page


def test_save_writes_what_the_command_writes(found: Comparison, report: Path, tmp_path: Path) -> None:
    assert found.save(tmp_path / "made") == tmp_path / "made" / "report.html"
    for name in ("report.csv", "report.md", "report.html"):
        assert (tmp_path / "made" / name).read_text() == (report / name).read_text()
    assert found.to_markdown() == (report / "report.md").read_text()


def test_without_output_nothing_is_written(
    data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Comparison
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(data_set.folder.rglob("*"))
    again = compare(
        {name: str(data_set.folder / f"{name}-s[12]0.json") for name in ("plain", "same")},
        gt=str(data_set.truth),
        replicates=100,
    )
    assert again.variants["plain"].metrics["AP"].seeds[0] == found.variants["plain"].metrics["AP"].seeds[0]
    assert list(tmp_path.iterdir()) == []
    assert set(data_set.folder.rglob("*")) == before


def test_a_list_of_paths_is_read_as_the_command_reads_it(data_set: DataSet, found: Comparison) -> None:
    plain, same = (data_set.folder / f"{name}.json" for name in ("plain-s10", "same-s20"))
    listed = compare([str(plain), same], gt=data_set.truth, replicates=100)
    assert list(listed.variants) == ["plain-s10", "same-s20"]
    assert listed.variants["plain-s10"].metrics["AP"].value == found.variants["plain"].metrics["AP"].seeds[0]
    named = compare([f"a={data_set.folder / 'plain-s*.json'}", f"b={same}"], gt=data_set.truth, replicates=100)
    assert {name: len(variant.runs) for name, variant in named.variants.items()} == {"a": 3, "b": 1}


@pytest.mark.parametrize(
    ("variants", "options", "match"),
    [
        ("a.json", {}, "the variants are 'a.json'. Expected paths by name, or a list of paths"),
        (None, {}, "the variants are None"),
        ({"a.json", "b.json"}, {}, "the variants are "),  # a set has no first variant
        ([], {}, "there are no variants to compare. Expected two or more"),
        ([5, "b.json"], {}, "a variant's path is 5. Expected a string or a Path"),
        ({"a": 5, "b": "b.json"}, {}, "a variant's path is 5. Expected a string or a Path"),
        ({"a": [None], "b": "b.json"}, {}, "a variant's path is None"),
        ({1: "a.json", "b": "b.json"}, {}, "the name of a variant is 1. Expected a string"),
        ({}, {"replicates": "x"}, "replicates is 'x'. Expected a whole number"),
        ({}, {"replicates": True}, "replicates is True"),
        ({}, {"imgsz": [640, 480]}, "imgsz is .*Expected a whole number or None"),
        ({}, {"batch": 1.5}, "batch is 1.5. Expected a whole number"),
        ({}, {"device": 0}, "device is 0. Expected a string"),
        ({}, {"gt": 3}, "gt is 3. Expected a string or a Path or None"),
        ({}, {"output": b"x"}, "output is "),
        ({}, {"control": 2}, "control is 2"),
    ],
)
def test_an_argument_of_another_type_is_a_user_error(variants: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        compare(variants, **options)


def test_a_data_frame_has_the_rows_of_the_csv(found: Comparison, report: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = found.to_dataframe()
    numbers = {name: [""] for name in ("value", "low", "high", "p", "p_holm")}
    expected = pandas.read_csv(report / "report.csv", keep_default_na=False, na_values=numbers)
    assert list(frame.columns) == list(expected.columns)
    assert frame["value"].tolist() == expected["value"].tolist()
    (row,) = frame.query("variant == 'gam' and minus == 'plain' and `class` == '' and metric == 'AP'").itertuples()
    assert row.verdict == "better"


def test_a_data_frame_without_pandas_is_a_one_line_error(found: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"needs pandas, which is not installed\. Run pip install pandas"):
        found.to_dataframe()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"schema": "other"}, "report.json: has schema .*'other'.*Expected 'gam-yolo/comparison', version 1"),
        ({"schema_version": 2}, "has schema"),
        ({"headline": 3}, "report.json, headline: is 3. Expected a text"),
        ({"notes": "x"}, "notes: is 'x'. Expected a list"),
        ({"data": {}}, "report.json, data: has no 'yaml'"),
        ({"variants": [{"name": "a"}]}, r"variants\[0\]: has no 'metrics'"),
        ({"variants": None}, "report.json, variants: is None. Expected a list"),
    ],
)
def test_what_is_no_report_is_a_one_line_error(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps(json.loads(OLD) | change))
    with pytest.raises(UserError, match=match):
        Comparison.load(file)


def test_a_value_of_another_kind_is_named_with_its_place(tmp_path: Path) -> None:
    for old, new, match in (
        (
            '"verdict": "better"',
            '"verdict": "best"',
            r"variants\[2\], differences, .*, AP.*, verdict: is 'best'. Expec",
        ),
        ('"images": 60', '"images": 60.5', "data, images: is 60.5. Expected a whole number"),
        ('"value": 0.', '"value": NaN, "x": 0.', "value: is nan. Expected a finite number"),
    ):
        (tmp_path / "report.json").write_text(OLD.replace(old, new))
        with pytest.raises(UserError, match=match):
            Comparison.load(tmp_path / "report.json")
