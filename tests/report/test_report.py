from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gam_yolo.errors import UserError
from gam_yolo.evaluation import METRICS, difference, draw_weights, holm, read_coco, read_detections, resample
from gam_yolo.report.charts import colour
from gam_yolo.report.document import _training
from gam_yolo.report.formatting import MINUS, in_full, short_path, signed_in_full
from gam_yolo.report.protocol import Protocol, read_protocol, write_protocol
from gam_yolo.report.schema import BestEpoch, Difference, Differences, Training, Value, VariantResult
from gam_yolo.report.variants import find_variants, name_arguments

from .conftest import DataSet, run_compare


def loaded(report: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((report / "report.json").read_text())
    return content


def test_the_folder_holds_four_whole_files(report: Path) -> None:
    names = {path.name for path in report.iterdir()}
    assert names == {"report.html", "report.md", "report.json", "report.csv", "printed.txt"}


def test_the_json_says_what_was_found(report: Path, data_set: DataSet) -> None:
    content = loaded(report)
    assert (content["schema"], content["schema_version"]) == ("gam-yolo/comparison", 1)
    assert [v["name"] for v in content["variants"]] == ["plain", "same", "gam"]
    assert content["data"]["digest"] == read_coco(data_set.truth).digest
    plain, same, gam = content["variants"]
    assert plain["differences"].keys() == set()  # minus the control is the control minus it
    assert same["differences"].keys() == {"plain"}
    assert gam["differences"].keys() == {"plain", "same"}
    assert gam["differences"]["plain"]["metrics"]["AP"]["verdict"] == "better"
    assert same["differences"]["plain"]["metrics"]["AP"]["verdict"] == "no detectable difference"
    for key in ("low", "value", "high"):
        assert -1 <= gam["metrics"]["AP"][key] <= 1
    assert len(gam["metrics"]["AP"]["seeds"]) == 3
    assert gam["metrics"]["AP"]["value"] == pytest.approx(np.mean(gam["metrics"]["AP"]["seeds"]))
    assert gam["runs"][0]["ultralytics"] is None
    assert gam["cost"] is None
    assert gam["precision_recall"][0] >= gam["precision_recall"][-1]
    assert "gam is better than plain" in content["headline"]
    assert re.search(r"same \(.*\) shows no detectable difference from plain", content["headline"])


def test_the_json_equals_the_evaluators_own_answer(report: Path, data_set: DataSet) -> None:
    truth = read_coco(data_set.truth)
    draws = draw_weights(len(truth.ids), 300, seed=0)
    samples = {
        name: resample(truth, [read_detections(data_set.folder / f"{name}-s{s}.json", truth) for s in seeds], draws)
        for name, seeds in (("plain", (10, 11, 12)), ("same", (20, 21, 22)), ("gam", (30, 31, 32)))
    }
    found = [difference(samples[name], samples["plain"]) for name in ("same", "gam")]
    adjusted = holm(np.stack([f.p[0, [j for j, m in enumerate(METRICS) if m != "AP"]] for f in found]))
    adjusted_main = holm(np.array([f.p[0, 0] for f in found]))
    for i, (name, f) in enumerate(zip(("same", "gam"), found, strict=True)):
        tree = next(v for v in loaded(report)["variants"] if v["name"] == name)["differences"]["plain"]
        for j, metric in enumerate(METRICS):
            cell = tree["metrics"][metric]
            expected = (f.value[0, j], f.low[0, j], f.high[0, j])
            got = tuple(np.nan if cell[k] is None else cell[k] for k in ("value", "low", "high"))
            np.testing.assert_allclose(got, expected)
        assert tree["metrics"]["AP"]["p_holm"] == pytest.approx(adjusted_main[i])
        assert tree["metrics"]["AP50"]["p_holm"] == pytest.approx(adjusted[i, 0])
        assert tree["classes"]["hen"]["AP"]["value"] == pytest.approx(f.value[3, 0])
        assert tree["classes"]["hen"]["AP50"]["verdict"] is None  # not tested, so there is nothing to say


def test_the_csv_holds_the_same_numbers(report: Path) -> None:
    with (report / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (row,) = [r for r in rows if (r["variant"], r["minus"], r["class"], r["metric"]) == ("gam", "plain", "", "AP")]
    cell = loaded(report)["variants"][2]["differences"]["plain"]["metrics"]["AP"]
    assert float(row["value"]) == cell["value"]
    assert float(row["p_holm"]) == cell["p_holm"]
    assert row["verdict"] == "better"


def test_markdown_tables_are_whole(report: Path) -> None:
    text = (report / "report.md").read_text()
    assert text.startswith("# gam is better than plain")
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
        assert len(table.splitlines()) > 3


def test_each_colour_of_the_page_is_one_of_its_style(report: Path) -> None:
    page = (report / "report.html").read_text()
    for theme in re.findall(r":root \{.*?\}", page, re.DOTALL):
        declared = re.findall(r"(--\w+): (#\w+);", theme)
        assert set(re.findall(r"var\((--\w+)\)", page)) <= {name for name, _ in declared}
        assert {colour(i) for i in range(50)} <= {name for name, _ in declared}


def test_values_without_interval_have_no_brackets() -> None:
    assert in_full(Value(0.1, None, None, ())) == "10.0"
    assert signed_in_full(Value(-0.1, -0.2, 0.05, ())) == f"{MINUS}10.0 ({MINUS}20.0 to +5.0)"
    assert signed_in_full(Value(None, None, None, ())) == "\N{EN DASH}"


def test_paths_keep_apart_runs_of_one_study() -> None:
    assert short_path("runs/study/s/gam-s1/train/weights/best.pt") == "gam-s1/train"
    assert short_path("runs/study/s/gam-s1/train/weights/last.pt") == "weights/last.pt"
    assert short_path("yolov8n.pt") == "yolov8n.pt"


def test_the_table_is_printed(report: Path) -> None:
    printed = (report / "printed.txt").read_text()
    assert "mAP 50-95" in printed
    assert "better" in printed
    assert "report.html" in printed.replace("\n", "")


def test_names_are_escaped_and_nothing_is_fetched(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert "dog &lt;b&gt;" in page
    assert "dog <b>" not in page
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)


def test_what_differs_in_protocol_is_rejected(data_set: DataSet, tmp_path: Path) -> None:
    a, b = (data_set.predictions(name, 0.5, seed) for name, seed in (("a", 1), ("b", 2)))
    digest = read_coco(data_set.truth).digest
    options = ("--gt", data_set.truth, "-o", tmp_path / "out", "--replicates", 100)
    base = Protocol(data=digest, imgsz=640, conf=0.001, iou=0.7, max_det=300)
    for change, match in (
        ({"imgsz": 320}, r"a-s1.json' and .*b-s2.json' differ in image size \(640 and 320\)\. Make both with the same"),
        ({"conf": 0.25}, "differ in lowest confidence"),
        ({"max_det": 100}, "differ in most detections"),
        ({"iou": 0.6}, "differ in IoU"),
        ({"data": "0" * 64}, "b-s2.json: was made for another ground truth"),
    ):
        write_protocol(a, base, {})
        write_protocol(b, Protocol(**{**base.__dict__, **change}), {})
        with pytest.raises(UserError, match=match):
            run_compare(a, b, *options)
    # A setting that is recorded for one is checked against the detections of the other.
    (data_set.folder / "b-s2.protocol.json").unlink()
    write_protocol(a, Protocol(data=digest, conf=0.9), {})
    with pytest.raises(UserError, match=r"b-s2\.json' has detections of confidence 0.*has none below 0\.9"):
        run_compare(a, b, *options)
    write_protocol(a, Protocol(data=digest, max_det=1), {})
    with pytest.raises(UserError, match=r"b-s2\.json' has . detections on an image"):
        run_compare(a, b, *options)
    assert not (tmp_path / "out").exists()


def test_bad_arguments_are_one_line_errors(data_set: DataSet, tmp_path: Path) -> None:
    a, b = (data_set.predictions(name, 0.5, 1) for name in ("a", "b"))
    (tmp_path / "run").mkdir()
    (tmp_path / "x.txt").touch()
    (tmp_path / "x.pt").touch()
    (tmp_path / "copy.json").write_bytes(a.read_bytes())
    options = ("--gt", data_set.truth, "-o", tmp_path / "out")
    for arguments, match in (
        ((a,), "there is 1 variant to compare. Expected two or more, the baseline first"),
        ((a, tmp_path / "none.json"), "no file or folder matches"),
        ((a, f"b={tmp_path}/none*.json"), "no file or folder matches"),
        ((a, tmp_path / "copy.json"), "copy.json and .*a-s1.json have the same content"),
        ((a, tmp_path / "run"), "no weights/best.pt"),
        ((a, tmp_path / "x.txt"), r"is not a checkpoint \(.pt\), a run folder or a prediction file"),
        ((a, a), "two variants are named 'a-s1'"),
        ((a, f"b={a}"), "is given twice"),
        ((a, f"b={tmp_path}/x.*"), r"is not a checkpoint \(.pt\), a run folder or a prediction file"),
        ((a, tmp_path / "x.pt"), "x.pt: is a checkpoint, and there is no dataset .*--data"),
        ((a, tmp_path / "x.pt", "--data", data_set.yaml), "x.pt: is empty, cut off or damaged. Expected a checkpoint"),
        (
            (a, b, "--control", "bs1"),
            r"--control \(in Python control=\) is 'bs1'\. Expected .* after the baseline, b-s1. Did you mean 'b-s1'",
        ),
        (
            (a, b, "--split", "test"),
            r"--split \(in Python split=\) is 'test', but .*truth.json is a file without splits",
        ),
        ((a, b, "--split", "none", "--data", data_set.yaml), "has no split 'none'. Expected one of train, val"),
    ):
        with pytest.raises(UserError, match=match):
            run_compare(*arguments, *options)
    with pytest.raises(UserError, match="no ground truth"):
        run_compare(a, b, "-o", tmp_path / "out")


def test_files_of_one_training_are_not_several_seeds(data_set: DataSet, tmp_path: Path) -> None:
    """Their intervals would have a spread between seeds that is none."""
    weights = tmp_path / "runs/gam/weights"
    weights.mkdir(parents=True)
    for name in ("best.pt", "last.pt"):
        (weights / name).write_text(name)
    a, b = data_set.predictions("a", 0.5, 1), data_set.predictions("b", 0.5, 1)
    for i, indent in enumerate((None, 1)):
        (tmp_path / f"copy{i}.json").write_text(json.dumps(json.loads(a.read_text()), indent=indent, sort_keys=True))
    options = ("--gt", data_set.truth, "--replicates", 300, "-o", tmp_path / "out")
    for variant, match in (
        (
            f"x={weights}/*.pt",
            r"variant 'x': .*best\.pt and .*last\.pt are of one training\. Expected one checkpoint for",
        ),
        (f"x={tmp_path}/copy*.json", r"variant 'x': .*copy0\.json and .*copy1\.json have the same detections"),
    ):
        with pytest.raises(UserError, match=match):
            run_compare(b, variant, *options)


def test_images_without_detections_are_noted(data_set: DataSet, tmp_path: Path) -> None:
    whole = data_set.predictions("whole", 0.5, 40)
    records = json.loads(whole.read_text())
    part = tmp_path / "part.json"
    part.write_text(json.dumps([record for record in records if record["image_id"] > 12]))
    assert run_compare(whole, part, "--gt", data_set.truth, "--replicates", 300, "-o", tmp_path).exit_code == 0
    said = [note for note in loaded(tmp_path)["notes"] if "no detection at all" in note]
    assert [note.startswith(f"{part} has no detection at all on 12 of the 60 images") for note in said] == [True]


def test_classes_that_are_never_detected_are_noted(data_set: DataSet, tmp_path: Path) -> None:
    """As those that `--gt` has and the models do not know: each would count with 0 in the mean without a word."""
    whole = data_set.predictions("every", 0.9, 44)
    records = json.loads(whole.read_text())
    part = tmp_path / "part.json"
    part.write_text(json.dumps([record for record in records if record["category_id"] != 2]))
    assert run_compare(whole, part, "--gt", data_set.truth, "--replicates", 300, "-o", tmp_path).exit_code == 0
    report = loaded(tmp_path)
    objects = sum(o["category_id"] == 2 for o in data_set.objects)
    assert [note for note in report["notes"] if "has no detection at all of" in note] == [
        f"{part} has no detection at all of 1 class with 10 objects or more, such as 'dog <b>' ({objects} objects). "
        "They count with an AP of 0 in its means, also where the model does not know them."
    ]
    assert report["variants"][1]["metrics"]["AP50"]["value"] < 0.7 < report["variants"][0]["metrics"]["AP50"]["value"]


def test_a_control_needs_no_third_variant(data_set: DataSet, tmp_path: Path) -> None:
    files = [f"{name}={data_set.predictions(name, 0.5, seed)}" for name, seed in (("first", 42), ("second", 43))]
    options = ["--gt", data_set.truth, "--replicates", 300]
    assert run_compare(*files, *options, "-o", tmp_path / "a").exit_code == 0
    assert run_compare(*files, *options, "--control", "second", "-o", tmp_path / "b").exit_code == 0
    alone, controlled = (loaded(tmp_path / name)["variants"][1]["differences"] for name in "ab")
    assert controlled == alone
    assert len(controlled) == 1


def test_an_empty_file_is_a_detector_that_finds_nothing(data_set: DataSet, tmp_path: Path) -> None:
    empty = tmp_path / "none.json"
    empty.write_text("[]")
    some = data_set.predictions("some", 0.5, 41)
    done = run_compare(some, empty, "--gt", data_set.truth, "--replicates", 300, "-o", tmp_path)
    assert done.exit_code == 0
    report = loaded(tmp_path)
    assert report["variants"][1]["metrics"]["AP"]["value"] == 0
    assert report["variants"][1]["differences"][report["baseline"]]["metrics"]["AP"]["verdict"] == "worse"
    warning = f"Warning: {empty} holds no detections."
    assert [note for note in report["notes"] if note.startswith(warning)]
    assert done.output.count("holds no detections") == 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([], "is not a protocol"),
        ({"imgsz": 640, "size": 1}, "is not a protocol. Expected an object with the keys data, imgsz"),
        ({"imgsz": "640"}, "imgsz: is '640'. Expected a whole number"),
        ({"iou": float("nan")}, "iou: is nan. Expected a finite number"),
        ({"data": 7}, "data: is 7. Expected a text"),
        ({"own": [1]}, r"own: is \[1\]. Expected an object"),
        ({"own": {"metrics/mAP50(B)": None}}, r"own, metrics/mAP50\(B\): is None. Expected a finite number"),
    ],
)
def test_a_broken_protocol_is_a_one_line_error(tmp_path: Path, content: object, match: str) -> None:
    (tmp_path / "a.protocol.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"a.protocol.json[:,] {match}"):
        read_protocol(tmp_path / "a.json")


@pytest.mark.parametrize(
    "broken",
    [
        b"epoch,metrics/mAP50(B),metrics/mAP50-95(B)\n1,nan,nan\n",
        b"epoch,metrics/mAP50(B),metrics/mAP50-95(B)\ninf,0.1,0.1\n",
        b"epoch,metrics/mAP50(B)\n1,0.1\n",
        b"epoch\n",
        b"\xff\xfe\x00",
        b"",
    ],
)
def test_a_broken_training_log_draws_no_curve(tmp_path: Path, broken: bytes) -> None:
    log, arguments = tmp_path / "results.csv", tmp_path / "args.yaml"
    log.write_bytes(b"epoch,time,metrics/mAP50(B),metrics/mAP50-95(B)\n1,2.5,0.3,0.1\n2,5,0.4,0.2\n")
    arguments.write_text("seed: 3\n")
    assert _training(tmp_path) == Training(3, (1, 2), (0.1, 0.2), BestEpoch(2, 0.2, 0.4), 5.0)
    arguments.write_text("seed: [1\n")
    assert _training(tmp_path) is None
    arguments.write_text("seed: 2026-11-25\n")
    known = _training(tmp_path)
    assert known is not None
    assert known.seed is None
    log.write_bytes(broken)
    assert _training(tmp_path) is None


def test_run_folders_name_their_variant(tmp_path: Path) -> None:
    for name in ("plain", "gam-s0", "gam-s1"):
        (tmp_path / name / "weights").mkdir(parents=True)
        (tmp_path / name / "weights" / "best.pt").touch()
    plain, gam = find_variants(name_arguments([str(tmp_path / "plain"), f"gam={tmp_path}/gam-s*"]))
    assert (plain.name, gam.name) == ("plain", "gam")
    assert [path.parent.parent.name for path in gam.paths] == ["gam-s0", "gam-s1"]


def test_a_headline_names_each_verdict_once() -> None:
    from types import SimpleNamespace
    from typing import cast

    from gam_yolo.evaluation import GroundTruth
    from gam_yolo.evaluation.statistics import Verdict
    from gam_yolo.report.comparison import headline

    def variant(name: str, value: float, low: float, high: float, verdict: Verdict) -> VariantResult:
        found = Difference(value - 0.3, low, high, None, None, verdict, None)
        return VariantResult(name, {"AP": Value(value, None, None, ())}, {}, {"plain": Differences({"AP": found}, {})})

    same: Verdict = "no detectable difference"
    variants = [
        variant("plain", 0.3, 0, 0, same),
        variant("a", 0.297, -0.017, 0.012, same),
        variant("b", 0.159, -0.164, -0.123, "worse"),
        variant("c", 0.301, -0.01, 0.013, same),
    ]
    truth = cast("GroundTruth", SimpleNamespace(source="", ids=range(350)))
    said = headline({v.name: v for v in variants}, "plain", truth, 0.95).replace("\N{MINUS SIGN}", "-")
    assert said == (
        "b is worse than plain: 15.9 against 30.0 mAP (-14.1 points, 95 % interval -16.4 to -12.3); "
        "a (-0.3, -1.7 to +1.2) and c (+0.1, -1.0 to +1.3) show no detectable difference from plain in mAP, "
        "on 350 images."
    )

    variants += [variant("d", 0.29, -0.02, 0.01, same), variant("e", 0.3, -0.01, 0.01, same)]
    said = headline({v.name: v for v in variants}, "plain", truth, 0.95).replace("\N{MINUS SIGN}", "-")
    assert said.endswith(
        "a, c, d and e show no detectable difference from plain in mAP (by -1.0 to +0.1 points), on 350 images."
    )
