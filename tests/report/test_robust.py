"""What users' names, files, folders and terminals must not do to a report."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import gam_yolo
from gam_yolo.comparing import compare
from gam_yolo.errors import UserError
from gam_yolo.evaluation import Detections, GroundTruth, read_coco
from gam_yolo.report import charts, detection, render
from gam_yolo.report.gallery import Box, _place_labels, differing_images, match_confident
from gam_yolo.report.overall import summarize
from gam_yolo.report.predictions import folder_name
from gam_yolo.report.protocol import Protocol, write_protocol

from .conftest import DataSet, run_compare

COMMAND = [sys.executable, "-c", "from gam_yolo.cli import main; main()"]
FILES = {"report.html", "report.md", "report.json", "report.csv"}


@pytest.fixture
def pair(data_set: DataSet) -> dict[str, Path]:
    """Prediction files of two detectors."""
    return {name: data_set.predictions(f"robust-{name}", skill, 90) for name, skill in (("plain", 0.5), ("gam", 0.8))}


def renamed(data_set: DataSet, folder: Path, *names: str) -> Path:
    """Write the annotation file with other class names."""
    content = json.loads(data_set.truth.read_text())
    for category, name in zip(content["categories"], names, strict=True):
        category["name"] = name
    path = folder / "renamed.json"
    path.write_text(json.dumps(content))
    return path


# Scores that contradict Ultralytics'


def compared(folder: Path, classes: dict[str, list[int]], missed: int = 2) -> gam_yolo.Comparison:
    """Compare a detector that finds all objects with one that misses those of every `missed`-th image.

    Args:
        folder: For the files.
        classes: The images that each class is on.
        missed: See above.
    """
    images = sorted({i for own in classes.values() for i in own} or {0})
    names = [*classes]
    objects = [
        {"id": 100 * i + k + 1, "image_id": i, "category_id": k, "bbox": [10 + 60 * k, 10, 50, 50]}
        for k, own in enumerate(classes.values())
        for i in own
    ]
    truth = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 80} for i in images],
        "annotations": objects,
        "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    found = [{**o, "score": 1 - o["id"] / 1e5} for o in objects]
    (folder / "good.json").write_text(json.dumps(found))
    (folder / "poor.json").write_text(json.dumps([o for o in found if o["image_id"] % missed]))
    files = {name: folder / f"{name}.json" for name in ("good", "poor")}
    return compare(files, gt=folder / "truth.json", replicates=100)


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ({"a": [1, 2, 3]}, "poor scores 66.3, but there are too few images to say whether that is a difference, on 3 "),
        (
            {"a": [*range(40)], "b": [1]},
            "poor scores 75.2, but that depends too much on the rare class 'b' (on 1 image) to say whether that is a "
            "difference, on 40 images.",
        ),
        (
            {"a": [*range(40)], "b": [1, 2], "c": [3], "d": [4, 5, 6]},
            "but that depends too much on the rare classes 'c' (on 1 image), 'b' (on 2 images) and 'd' (on 3 images)",
        ),
        ({"a": [*range(40)], "b": []}, "poor is worse than good: 50.5 against 100.0 mAP"),
        ({"a": [*range(40)], "b": [*range(40)]}, "poor is worse than good: 50.5 against 100.0 mAP"),
    ],
)  # fmt: skip
def test_where_nothing_is_known_the_headline_says_why(classes: dict[str, list[int]], says: str, tmp_path: Path) -> None:
    found = compared(tmp_path, classes)
    assert says in found.headline
    gain = found.variants["poor"].minus("good")
    assert (gain["AP"].low is None) == ("is worse" not in says)
    # No object is small: there is no metric, whatever the number of images.
    assert (gain["APs"].value, gain["APs"].low, gain["APs"].verdict) == (None, None, None)
    assert "None" not in found.to_markdown()
    assert "b" not in gain.classes or classes["b"]


def test_one_image_is_one_image(tmp_path: Path) -> None:
    found = compared(tmp_path, {"a": [1]}, missed=1)
    assert found.headline.endswith(", on 1 image.")


@pytest.mark.parametrize(
    ("theirs", "doubtful"),
    [(0.07, True), (-0.07, True), (0.04, False), (-0.04, False)],  # 0.031 is the most that 119 real runs were apart
)
def test_a_run_that_ultralytics_scores_otherwise_is_warned_of_at_the_top(
    pair: dict[str, Path], data_set: DataSet, tmp_path: Path, theirs: float, doubtful: bool
) -> None:
    ours = compare(pair, gt=data_set.truth, replicates=100).variants["gam"].metrics["AP50"].value
    assert ours is not None
    protocol = Protocol(data=read_coco(data_set.truth).digest)
    write_protocol(pair["gam"], protocol, {"metrics/mAP50(B)": ours + theirs})
    try:
        arguments = [f"{name}={path}" for name, path in pair.items()]
        printed = run_compare(*arguments, "--gt", data_set.truth, "--replicates", 100, "-o", tmp_path).output
    finally:
        pair["gam"].with_suffix(".protocol.json").unlink()
    expected = (
        f"Warning: mAP 50 of gam ({pair['gam']}) is {100 * ours:.1f} here and {100 * (ours + theirs):.1f} by "
        "Ultralytics."
    )
    page = (tmp_path / "report.html").read_text()
    assert (expected in printed) == (expected in page) == doubtful
    if doubtful:
        assert printed.index(expected) < printed.index("mAP 50-95")
        assert page.index(expected) < page.index("<h1>")
        assert json.loads((tmp_path / "report.json").read_text())["notes"][0].startswith(expected)


def test_a_detector_that_finds_next_to_nothing_is_not_warned_of_in_vain(
    pair: dict[str, Path], data_set: DataSet
) -> None:
    dead = data_set.folder / "dead.json"
    dead.write_text(
        json.dumps([{"image_id": i, "category_id": 1, "bbox": [300, 200, 9, 9], "score": 0.1} for i in range(1, 61)])
    )
    for theirs, doubtful in ((0.006, False), (0.031, False), (0.034, False), (0.036, True), (0.05, True)):  # against 0
        write_protocol(dead, Protocol(data=read_coco(data_set.truth).digest), {"metrics/mAP50(B)": theirs})
        found = compare({"plain": pair["plain"], "dead": dead}, gt=data_set.truth, replicates=100)
        assert bool(found.warnings) == doubtful
        assert all("images cannot be read" in warning for warning in found.warnings)


def test_detectors_that_find_nothing_have_no_interval(data_set: DataSet, tmp_path: Path) -> None:
    paths = {}
    for k, name in enumerate(("a", "b", "c")):
        boxes = [{"image_id": i, "category_id": 1, "bbox": [300, 200, 9 - k, 9], "score": 0.1} for i in range(1, 61)]
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(boxes))
    found = compare({name: paths[name] for name in "ab"}, gt=data_set.truth, replicates=100)
    assert found.headline == (
        "Neither a nor b finds any object (mAP 0.0), so there is no interval for a difference, on 60 images."
    )
    difference = found.variants["b"].minus("a")["AP"]
    assert (difference.value, difference.low, difference.high) == (0, None, None)
    assert found.variants["a"].metrics["AP"].low is None
    three = compare(paths, gt=data_set.truth, replicates=100)
    assert three.headline.startswith("None of a, b and c finds any object (mAP 0.0)")

    paths["perfect"] = tmp_path / "perfect.json"
    keys = ("image_id", "category_id", "bbox")
    paths["perfect"].write_text(json.dumps([{key: o[key] for key in keys} | {"score": 0.9} for o in data_set.objects]))
    found = compare(paths, gt=data_set.truth, replicates=100)
    assert found.headline == (
        "perfect is better than a: 100.0 against 0.0 mAP (+100.0 points, no interval); "
        "none of a, b and c finds any object (mAP 0.0), so there is no interval for a difference, on 60 images."
    )
    found.save(tmp_path / "out")  # charts and tables do without the interval


# Pictures


def problem(counts: list[tuple[int, int, int]]) -> tuple[GroundTruth, Detections]:
    """Make a detector's detections: for each image its objects, those found, and false detections."""
    image = [i for i, (objects, _, _) in enumerate(counts) for _ in range(objects)]
    place = [n for objects, _, _ in counts for n in range(objects)]
    box = np.array([[20.0 * n, 10, 15, 15] for n in place]).reshape(-1, 4)
    n = len(image)
    ids, no = tuple(range(len(counts))), np.zeros(n, bool)
    truth = GroundTruth(
        source="made",
        ids=ids,
        files=tuple(f"{i}.jpg" for i in ids),
        sizes=np.full((len(ids), 2), 400.0),
        classes=("cat",),
        category_ids=(1,),
        image=np.array(image, np.intp),
        label=np.zeros(n, np.intp),
        box=box,
        area=np.full(n, 225.0),
        crowd=no,
        difficult=no,
    )
    rows = [(i, 20.0 * n, 10.0) for i, (_, found, _) in enumerate(counts) for n in range(found)]
    rows += [(i, 20.0 * n, 300.0) for i, (_, _, false) in enumerate(counts) for n in range(false)]
    found = Detections(
        "made",
        np.array([i for i, *_ in rows], np.intp),
        np.zeros(len(rows), np.intp),
        np.array([[x, y, 15, 15] for _, x, y in rows]).reshape(-1, 4),
        np.full(len(rows), 0.9),
    )
    return truth, found


def notes(tmp_path: Path, before: list[tuple[int, int, int]], after: list[tuple[int, int, int]]) -> list[str]:
    """Return what the gallery says of each picture, with its name."""
    truth, base = problem(before)
    files = {}
    for i in range(len(before)):
        files[i] = tmp_path / f"{i}.jpg"
        Image.new("RGB", (400, 400)).save(files[i])
    plain, gam = (match_confident(truth, found) for found in (base, problem(after)[1]))
    pictures, failed = differing_images(truth, files, ("plain", plain), ("gam", gam))
    assert not failed
    return [f"{picture.name}: {picture.note}" for picture in pictures]


def test_a_detector_that_finds_nothing_is_ahead_nowhere(tmp_path: Path) -> None:
    before = [(5, 1, 35), (4, 2, 3), (0, 0, 9), (3, 0, 2)]
    nothing = [(objects, 0, 0) for objects, *_ in before]
    assert notes(tmp_path, before, nothing) == [  # nothing of the images on which only false detections differ
        "1.jpg: gam finds 2 objects fewer, 3 false detections fewer",
        "0.jpg: gam finds 1 object fewer, 35 false detections fewer",
    ]
    assert notes(tmp_path, nothing, before) == [
        "1.jpg: gam finds 2 objects more, 3 false detections more",
        "0.jpg: gam finds 1 object more, 35 false detections more",
    ]


def test_pictures_are_ordered_by_objects_found(tmp_path: Path) -> None:
    before = [(9, 3, 0), (9, 3, 0), (9, 3, 9), (9, 3, 0), (9, 3, 0), (9, 0, 9)]
    after = [(9, 4, 0), (9, 6, 1), (9, 3, 0), (9, 1, 0), (9, 3, 7), (9, 0, 0)]
    assert notes(tmp_path, before, after) == [
        "1.jpg: gam finds 3 objects more, 1 false detection more",
        "0.jpg: gam finds 1 object more, as many false detections",
        "2.jpg: gam finds as many objects, 9 false detections fewer",  # it has found some: its panel is not empty
        "3.jpg: gam finds 2 objects fewer, as many false detections",
        "4.jpg: gam finds as many objects, 7 false detections more",
    ]


def test_a_label_hides_no_neighbouring_box() -> None:
    large, small = (10.0, 100.0, 80.0, 60.0), (12.0, 88.0, 10.0, 10.0)  # the small one where the label would be
    boxes = [Box(place, "aeroplane", (0, 0, 0)) for place in (large, small)]
    labels = _place_labels(boxes, [(0.0, 0.0, 50.0, 10.0)] * 2, (380, 380))
    assert labels
    for (left, top, right, bottom), own in labels:
        for box in boxes:
            x, y, w, h = box.place
            width, height = min(right, x + w) - max(left, x), min(bottom, y + h) - max(top, y)
            assert box is own or max(width, 0) * max(height, 0) <= 0.1 * w * h
    alone = _place_labels(boxes[:1], [(0.0, 0.0, 50.0, 10.0)], (380, 380))
    assert [label for label, _ in alone] == [(10.0, 86.0, 64.0, 100.0)]
    crowd = [Box((10.0 + i, 10.0 + i, 12.0, 12.0), "cat", (0, 0, 0)) for i in range(20)]
    assert len(_place_labels(crowd, [(0.0, 0.0, 20.0, 10.0)] * 20, (380, 380))) < 10


def test_a_truncated_image_costs_a_picture_and_not_the_report(
    pair: dict[str, Path], data_set: DataSet, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for image in (data_set.folder / "images").iterdir():
        whole = image.read_bytes()
        (images / image.name).write_bytes(whole if int(image.stem) % 2 else whole[: len(whole) // 2])
    yaml = tmp_path / "data.yaml"
    yaml.write_text(data_set.yaml.read_text().replace(str(data_set.folder), str(tmp_path)))
    found = compare(pair, data=yaml, gt=data_set.truth, replicates=100, output=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} >= FILES
    assert 0 < len(found.pictures) <= 6
    assert all(int(Path(picture.name).stem) % 2 for picture in found.pictures)
    assert any(re.match(r"\d+ images could not be drawn, the first of them \d+\.jpg \(.*trunc", n) for n in found.notes)


@pytest.mark.parametrize("what", ["chart", "pictures"])
def test_a_decoration_fails_alone_with_a_note(
    pair: dict[str, Path], data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise RuntimeError("no ink")

    monkeypatch.setattr(*((charts, "bars") if what == "chart" else (detection, "_image_files")), fail)
    found = compare(pair, gt=data_set.truth, data=data_set.yaml, replicates=100, output=tmp_path)
    said = [note for note in found.notes if "no ink" in note]
    assert said == (
        ["The chart 'sizes' could not be drawn (no ink).", "The chart 'classes' could not be drawn (no ink)."]
        if what == "chart"
        else ["No image could be drawn (no ink)."]
    )
    page, content = (tmp_path / "report.html").read_text(), json.loads((tmp_path / "report.json").read_text())
    assert set(said) <= set(content["notes"])
    assert "no ink" in page
    assert page.count('<svg class="chart wide"') == (3 if what == "chart" else 5)


# Folders


def test_an_output_that_cannot_be_made_is_found_first(
    pair: dict[str, Path], data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "read_truth", lambda *_: pytest.fail("went to work"))
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "taken/report.md").mkdir(parents=True)
    for output, match in (
        ("file", "cannot be written there .*exists"),
        ("file/below", "cannot be written there .*Not a directory"),
        ("loop/below", "cannot be written there"),
        ("x" * 300, "cannot be written there .*too long"),
        ("taken", "report.md: is a folder, and the report has a file of that name"),
    ):
        with pytest.raises(UserError, match=match):
            compare(pair, gt=data_set.truth, output=tmp_path / output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop", "taken"]


def test_what_fails_leaves_no_folder(pair: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        compare(pair, gt=tmp_path / "none.json", output=tmp_path / "a/b")
    assert list(tmp_path.iterdir()) == []


def test_the_files_are_replaced_together_or_not_at_all(
    pair: dict[str, Path], data_set: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "draw_charts", lambda _: ({}, []))  # which takes long
    found = compare(pair, gt=data_set.truth, replicates=100)
    out = tmp_path / "out"
    replace = Path.replace

    def save_failing_at(name: str) -> None:
        def fail(self: Path, target: Path) -> Path:
            if Path(target) == out / name and not self.name.startswith("before-"):
                raise PermissionError(13, "Permission denied", str(target))
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", fail)
            with pytest.raises(UserError, match=f"{name}: the report cannot be written .Permission denied"):
                found.save(out)

    for name in FILES:
        save_failing_at(name)
        assert list(out.iterdir()) == []
    found.save(out)
    for path in out.iterdir():
        path.write_text(f"old {path.name}")
    for name in FILES:
        save_failing_at(name)
        assert {path.name: path.read_text() for path in out.iterdir()} == {n: f"old {n}" for n in FILES}
    found.save(out)
    assert {path.name for path in out.iterdir()} == FILES
    assert not any(path.read_text().startswith("old") for path in out.iterdir())


# Names


def test_names_that_are_not_utf8_or_move_the_cursor_are_escaped(
    pair: dict[str, Path], data_set: DataSet, tmp_path: Path
) -> None:
    gt = renamed(data_set, tmp_path, "caf\udce9", "\x1b[31mred\x1b[0m", "a\nb\x07")
    odd = tmp_path / os.fsdecode(b"g\xe9\x1b[2J.json")
    odd.write_bytes(pair["gam"].read_bytes())
    arguments = (f"plain\x9b={pair['plain']}", f"gam={odd}")
    printed = run_compare(*arguments, "--gt", gt, "--replicates", 100, "-o", tmp_path / "out").output
    assert "g\\udce9\\x1b[2J.json" in printed
    assert "plain\\x9b" in printed
    content = json.loads((tmp_path / "out/report.json").read_text())
    assert content["data"]["classes"] == ["caf\udce9", "\x1b[31mred\x1b[0m", "a\nb\x07"]  # data stays what it is
    assert content["variants"][1]["runs"][0]["path"] == str(odd)
    for name in FILES - {"report.json"}:
        text = (tmp_path / "out" / name).read_bytes().decode("utf-8")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
        assert "udce9" in text
    assert "could not" not in "".join(content["notes"]).replace("We could not verify", "")


def test_a_name_that_a_spreadsheet_would_run_is_text(pair: dict[str, Path], data_set: DataSet, tmp_path: Path) -> None:
    names = ('=cmd|"/c calc"!A1', "@SUM(1)", "-1+1")
    variants = {"=gam": pair["gam"], "+plain": pair["plain"]}
    found = compare(variants, gt=renamed(data_set, tmp_path, *names), replicates=100, output=tmp_path)
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["variant"] for row in rows} == {"'+plain", "'=gam"}
    assert {row["minus"] for row in rows} == {"", "'=gam"}
    assert {row["class"] for row in rows} == {"", *(f"'{name}" for name in names)}
    numbers = [row[column] for row in rows for column in ("value", "low") if row[column]]
    assert any(number.startswith("-") for number in map(str, numbers))  # a number stays a number
    assert found.variants["+plain"].minus("=gam")["AP"].value is not None
    over_datasets = list(csv.DictReader(io.StringIO(summarize("two", {"@one": found, "two": found}).to_csv())))
    assert {row["variant"] for row in over_datasets} == {"'+plain"}
    assert {row["dataset"] for row in over_datasets} == {"", "'@one", "two"}
    assert float(over_datasets[0]["value"]) == found.variants["+plain"].minus("=gam")["AP"].value


def test_a_name_is_no_markdown(pair: dict[str, Path], data_set: DataSet, tmp_path: Path) -> None:
    gt = renamed(data_set, tmp_path, "a|b", "<img src=x>", "[x](http://y) `c` *d* _e_")
    text = compare({"p|ain": pair["plain"], "gam": pair["gam"]}, gt=gt, replicates=100).to_markdown()
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert r"| a\|b |" in text
    assert r"| \<img src=x\> |" in text
    assert r"| \[x\](http://y) \`c\` \*d\* \_e\_ |" in text
    assert r"p\|ain" in text


def test_a_variant_named_as_a_path_names_a_folder() -> None:
    for name in ("../../x", "/etc/x", "..", "a\0b", "x" * 300):
        assert re.fullmatch(r"[\w-]{1,80}", folder_name(name))
    assert folder_name("gam-s0_a") == "gam-s0_a"


# Terminals


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_lacks_a_character_gets_the_nearest(
    pair: dict[str, Path], data_set: DataSet, tmp_path: Path, encoding: str
) -> None:
    gt = renamed(data_set, tmp_path, "\u732b", "caf\u00e9", "b")
    variants = [f"\u732b={pair['gam']}", f"plain={pair['plain']}"]
    done = subprocess.run(
        [*COMMAND, "compare", *variants, "--gt", str(gt), "--replicates", "100", "-o", str(tmp_path)],
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=100,
    )
    printed = done.stdout.decode(encoding)
    assert done.returncode == 0, done.stderr
    assert b"Warning" not in done.stderr  # of a glyph that a font lacks, which the page's font has
    assert re.search(r"plain is worse than \\u732b: .* \(-\d+\.\d points, 95 % interval -\d", printed)
    assert "Report: " in printed
    assert {path.name for path in tmp_path.iterdir()} >= FILES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, as Linux has it")
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "ascii"])
def test_a_file_that_is_redirected_is_utf8_whatever_the_terminal(encoding: str, tmp_path: Path) -> None:
    """As on Windows: `gam-yolo prepare --init VOC > data.yaml` names the classes, and `place` keeps every byte."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}

    def printed(*arguments: str | Path) -> bytes:
        command = [*COMMAND, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=True, env=environment).stdout

    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / name).mkdir(parents=True)
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
    size = "<size><width>9</width><height>9</height></size>"
    (tmp_path / "Annotations/a.xml").write_text(
        f"<annotation>{size}<object><name>caf\u00e9 \u6a21</name>{box}</object></annotation>", encoding="utf-8"
    )
    for split in ("train", "val"):
        (tmp_path / f"ImageSets/Main/{split}.txt").write_text("a\n")
    assert yaml.safe_load(printed("prepare", "--init", tmp_path))["names"] == {0: "caf\u00e9 \u6a21"}
    model = tmp_path / "yolov8n-m.yaml"
    text = "# caf\u00e9 \u6a21\r\n" + gam_yolo.place("yolov8n.yaml", block="GAM", at="p3").text
    model.write_bytes(text.encode())
    placed = printed("place", model, "--block", "SE", "--at", "p4")
    assert placed == gam_yolo.place(model, block="SE", at="p4").text.encode()


@pytest.mark.parametrize("arguments", [["--version"], ["compare", "--help"]])
def test_output_that_cannot_be_written_is_a_one_line_error(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr == "error: standard output cannot be written (No space left on device)\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run([*COMMAND, "--version"], stdout=closed, stderr=subprocess.PIPE, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_version_is_printed() -> None:
    import gam_yolo

    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, f"gam-yolo {gam_yolo.__version__}\n")


# Options


def test_a_path_too_long_for_a_file_is_a_one_line_error(pair: dict[str, Path], data_set: DataSet) -> None:
    with pytest.raises(UserError, match="no file or folder matches 'xxx"):
        run_compare(pair["plain"], "x" * 300 + ".json", "--gt", data_set.truth)


def test_a_file_that_cannot_be_read_is_a_one_line_error(
    pair: dict[str, Path], data_set: DataSet, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden.json"
    hidden.symlink_to("/proc/self/mem")  # which opens, and fails to be read
    command = [*COMMAND, "compare", str(pair["plain"]), f"b={hidden}", "--gt", str(data_set.truth), "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(hidden) in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("--batch", 0, r"--batch \(in Python batch=\) is 0. Expected 1 or more"),
        ("--batch", -1, r"--batch \(in Python batch=\) is -1"),
        ("--imgsz", 0, r"--imgsz \(in Python imgsz=\) is 0"),
        ("--replicates", 1, r"--replicates \(in Python replicates=\) is 1. Expected a number from 100 to 100000"),
        (
            "--replicates",
            2**63,
            r"--replicates \(in Python replicates=\) is 9223372036854775808. Expected a number from",
        ),
    ],
)
def test_a_number_out_of_range_is_a_one_line_error(
    pair: dict[str, Path], data_set: DataSet, tmp_path: Path, option: str, value: int, match: str
) -> None:
    with pytest.raises(UserError, match=match):
        run_compare(*pair.values(), "--gt", data_set.truth, "-o", tmp_path / "out", option, value)
    assert not (tmp_path / "out").exists()


def test_copies_of_validation_images_among_the_training_images_are_seen(
    data_set: DataSet, pair: dict[str, Path], tmp_path: Path
) -> None:
    """By content: a copy with another name, and a link. Another image of the same size in bytes does not count."""
    train = tmp_path / "train"
    train.mkdir()
    photos = data_set.folder / "images"
    shutil.copy(photos / "3.jpg", train / "holiday 3.jpg")
    (train / "seven.jpg").symlink_to(photos / "7.jpg")
    other = bytearray((photos / "9.jpg").read_bytes())
    other[-20] ^= 1
    (train / "9.jpg").write_bytes(other)
    (train / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    yaml = tmp_path / "data.yaml"
    yaml.write_text(data_set.yaml.read_text().replace("train: images", f"train: {train}"))
    found = compare({k: [v] for k, v in pair.items()}, data=yaml, replicates=100)
    assert [note for note in found.notes if "also in" in note] == [
        "2 images of 'val' are also in 'train': 3.jpg, 7.jpg"
    ]


def test_a_name_with_an_accent_is_found_however_it_is_composed(
    data_set: DataSet, pair: dict[str, Path], tmp_path: Path
) -> None:
    """Zipped on a Mac, `é` is two characters; in the annotations it is one."""
    truth = json.loads(data_set.truth.read_text())
    (tmp_path / "images").mkdir()
    for image in truth["images"]:
        name = f"café {image['id']}.jpg"
        with Image.open(data_set.folder / "images" / f"{image['id']}.jpg") as photo:
            photo.save(tmp_path / "images" / unicodedata.normalize("NFD", name))
        image["file_name"] = unicodedata.normalize("NFC", name)
    gt = tmp_path / "gt.json"
    gt.write_text(json.dumps(truth), encoding="utf-8")
    yaml = tmp_path / "data.yaml"
    yaml.write_text(data_set.yaml.read_text().replace(str(data_set.folder), str(tmp_path)))
    found = compare({k: [v] for k, v in pair.items()}, data=yaml, gt=gt, replicates=100)
    assert not [note for note in found.notes if "missing" in note]
    assert found.pictures
