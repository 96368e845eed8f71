"""What options that name an output decline before anything is read, computed or written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import gam_yolo
from gam_yolo import UserError
from gam_yolo.cli import app

PLACE = ["place", "yolov8n.yaml", "--block", "GAM", "--at", "p3"]
COMPARE = ["compare", "a.json", "b.json", "--gt", "truth.json"]
EMPTY = r"the path of .* is empty\. Is a variable of the shell not set\?$"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with files that the commands would accept."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "truth.json").write_text('{"images": [{"id": 1, "width": 9, "height": 9}], "categories": []}')
    for name in "ab":
        (tmp_path / f"{name}.json").write_text("[]")
    (tmp_path / "a.pt").write_bytes(b"")
    return tmp_path


def error_of(*arguments: str) -> str:
    """Run a command that must fail, and leave the current folder as it is; return the error."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, UserError), done.output
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert "\n" not in str(done.exception)
    return str(done.exception)


@pytest.mark.parametrize(
    "command",
    [
        [*PLACE, "-o", ""],
        [*PLACE, "--show", ""],
        [*PLACE, "-o", "", "--show", "graph.svg"],
        [*PLACE, "-o", "mine.yaml", "--show", " "],
        [*COMPARE, "-o", ""],
        [*COMPARE, "--latex", "--output", ""],
        ["look", "a.pt", "image.jpg", "-o", ""],
        ["export-plain", "a.pt", "-o", ""],
        ["study", "demo.yaml", "--project", ""],
        ["study", "demo.yaml", "--dry-run", "--project", ""],
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_the_current_folder(command: list[str]) -> None:
    assert re.fullmatch(EMPTY, error_of(*command))


@pytest.mark.parametrize("option", ["data", "gt", "split", "control", "groups"])
def test_an_empty_input_option_is_named(option: str) -> None:
    says = rf"--{option} (in Python {option}=) is empty. Is a variable of the shell not set?"
    assert error_of(*COMPARE, f"--{option}", "") == says


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([*PLACE, "--show", "x.png"], "x.png: is not a name for the drawing. Expected a name that ends in .svg."),
        ([*PLACE, "--show", "x.pdf", "-o", "mine.yaml"], "x.pdf: is not a name for the drawing. Expected a name that"),
        ([*PLACE, "--show", "graph"], "graph: is not a name for the drawing. Expected a name that ends in .svg."),
        (
            [*PLACE, "-o", "x.png"],
            "x.png: is not a name for the model YAML. Expected a name that ends in .yaml or .yml",
        ),
        ([*PLACE, "-o", "mine.pt"], "mine.pt: is not a name for the model YAML."),
        ([*PLACE, "-o", "a.json", "--force"], "a.json: is not a name for the model YAML."),
        ([*COMPARE, "-o", "report.html"], "report.html: is not a name for the report's folder. Expected a folder."),
        ([*COMPARE, "-o", "a.json"], "a.json: is not a name for the report's folder. Expected a folder."),
        ([*COMPARE, "--latex", "-o", "table.tex"], "table.tex: is not a name for the report's folder."),
        (["look", "a.pt", "i.jpg", "-o", "page.html"], "page.html: is not a name for the folder of the page."),
        (
            ["export-plain", "a.pt", "-o", "b.pt"],
            "b.pt: is not a name for the module. Expected a name that ends in .py",
        ),
        (["study", "demo.yaml", "--project", "s.yaml"], "s.yaml: is not a name for the folder for studies. Expected"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_name_of_another_kind_of_file_is_an_error_before_anything_is_written(command: list[str], says: str) -> None:
    assert error_of(*command).startswith(says)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ([*COMPARE, "-o", "."], "report.html"),
        ([*COMPARE, "-o", "."], "report.md"),
        ([*COMPARE, "-o", "."], "report.csv"),
        ([*COMPARE, "-o", "."], "report.json"),
        ([*COMPARE, "--latex", "-o", "."], "report.tex"),
        (["look", "a.pt", "image.jpg", "-o", "."], "look.html"),
        (["look", "a.pt", "image.jpg", "-o", "."], "look.json"),
        (["export-plain", "a.pt"], "a_plain.py"),
        (["export-plain", "a.pt", "-o", "train.py"], "train.py"),
        ([*PLACE, "-o", "mine.yaml"], "mine.yaml"),
        ([*PLACE, "--show", "mine.svg"], "mine.svg"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else v,
)
def test_a_file_of_the_users_own_is_not_overwritten(command: list[str], name: str, folder: Path) -> None:
    (folder / name).write_text('{"mine": "precious"}\n')
    assert re.match(rf"{name}: already exists and was not written by (gam-yolo|place)\. (Give|Use)", error_of(*command))


@pytest.mark.parametrize("kind", ["file", "folder", "nowhere", "loop"])
@pytest.mark.parametrize("name", ["figures", "report.tex"])
def test_what_is_in_the_way_of_the_table_is_found_before_the_comparison(kind: str, name: str, folder: Path) -> None:
    """A file in the place of the figures cost the result that was computed before it was noticed."""
    if kind == "folder":
        (folder / name).mkdir()
    elif kind == "file":
        (folder / name).write_text("mine")
    else:
        (folder / name).symlink_to(name if kind == "loop" else kind)
    if (name, kind) == ("figures", "folder"):  # where they go
        assert "truth.json" in error_of(*COMPARE, "--latex", "-o", ".")
    else:
        assert error_of(*COMPARE, "--latex", "-o", ".").startswith(f"{name}: ")
    assert "truth.json" in error_of(*COMPARE, "-o", "."), "nothing is in the way without --latex"


@pytest.mark.parametrize("kind", ["file", "nowhere", "loop"])
def test_what_is_in_the_way_of_drawings_is_found_before_the_look(kind: str, folder: Path) -> None:
    if kind == "file":
        (folder / "pictures").write_text("mine")
    else:
        (folder / "pictures").symlink_to("pictures" if kind == "loop" else kind)
    assert error_of("look", "a.pt", "image.jpg", "-o", ".") == "pictures: is in the way of a folder"


COMPLETE = """
{"images": [{"id": 1, "width": 9, "height": 9}], "categories": [{"id": 1, "name": "a"}],
 "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}]}
"""
BOX = '[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, %s], "score": 0.%s}]'


def test_a_report_is_replaced_by_the_next_one() -> None:
    Path("truth.json").write_text(COMPLETE)
    Path("a.json").write_text(BOX % (5, 9))
    Path("b.json").write_text(BOX % (5, 8))
    for _ in range(2):
        done = CliRunner().invoke(app, [*COMPARE, "--latex", "-o", "."])
        assert done.exit_code == 0, done.output
        Path("report.md").write_text("of an earlier comparison")
    assert CliRunner().invoke(app, [*COMPARE, "-o", "."]).exit_code == 0
    assert "earlier" not in Path("report.md").read_text()


def test_a_table_for_a_paper_does_not_stay_from_an_earlier_comparison() -> None:
    """The next comparison is made without `--latex`, in the same folder."""
    Path("truth.json").write_text(COMPLETE)
    Path("a.json").write_text(BOX % (5, 9))
    for height, latex in ((3, ["--latex"]), (5, [])):
        Path("b.json").write_text(BOX % (height, 8))
        done = CliRunner().invoke(app, [*COMPARE, *latex, "-o", "."])
        assert done.exit_code == 0, done.output
        comparison = gam_yolo.Comparison.load("report.json")
        assert Path("report.tex").read_text() == comparison.to_latex()


def test_neither_file_is_written_where_one_cannot_be(folder: Path) -> None:
    for name in ("mine.yaml", "graph.svg"):
        (folder / name).write_text("precious\n")
        assert "already exists" in error_of(*PLACE, "-o", "mine.yaml", "--show", "graph.svg")
        (folder / name).unlink()


def test_python_declines_the_same(folder: Path) -> None:
    placed = gam_yolo.place("yolov8n.yaml", block="GAM", at="p3")
    calls: list[Any] = [
        lambda: placed.save(""),
        lambda: placed.save_svg(""),
        lambda: gam_yolo.compare(["a.json", "b.json"], gt="truth.json", output=""),
        lambda: gam_yolo.look("a.pt", "i.jpg", output=""),
        lambda: gam_yolo.run_study("demo.yaml", project=""),
    ]
    for call in calls:
        with pytest.raises(UserError, match=EMPTY):
            call()
    with pytest.raises(UserError, match=r"graph\.PNG: is not a name for the drawing"):
        placed.save_svg(folder / "graph.PNG")
    assert placed.save(folder / "Mine.YAML").read_text() == placed.text
    assert placed.save_svg(folder / "graph.SVG").read_text().startswith("<svg")


def test_a_folder_may_have_any_name_and_a_device_too(folder: Path) -> None:
    (folder / "v1.0.pt").mkdir()
    assert "--gt" not in error_of(*COMPARE, "-o", "v1.0.pt")  # something else is wrong with these files
    done = CliRunner().invoke(app, [*PLACE, "-o", "/dev/null", "--show", "/dev/null"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--gt", "none.json"],
            "--gt (in Python gt=) is none.json, which does not exist. Expected a COCO annotation file",
        ),
        (
            ["--gt", "d.yaml"],
            "--gt (in Python gt=) is d.yaml. Expected a COCO annotation file or a VOC folder. Give a data",
        ),
        (
            ["--data", "truth.json"],
            "--data (in Python data=) is truth.json. Expected a dataset YAML. Give annotations with",
        ),
        (
            ["--data", "a.pt"],
            "--data (in Python data=) is a.pt. Expected a dataset YAML. Give annotations with --gt (in",
        ),
    ],
)
def test_an_input_of_another_kind_names_its_option(options: list[str], says: str) -> None:
    assert error_of("compare", "a.json", "b.json", *options).startswith(says)
