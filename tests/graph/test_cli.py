from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from gam_yolo.cli import graph as commands
from gam_yolo.errors import UserError
from gam_yolo.graph.model import Document

from .samples import TINY, mutated

app = typer.Typer()
app.command()(commands.place)
app.command()(commands.check)


def run(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "yolov8-tiny.yaml"
    path.write_text(TINY)
    return path


def test_place_prints_the_yaml_and_says_who_reads_what(base: Path) -> None:
    result = run("place", str(base), "--block", "GAM", "--at", "head-inputs", "--args", "8, {gate: sigmoid}")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "row 2 (GAM) attends row 1 (Conv); read by row 3 (Conv), row 13 (Detect)",
        "row 8 (GAM) attends row 7 (Conv); read by row 9 (Conv), row 13 (Detect)",
        "row 12 (GAM) attends row 11 (Conv); read by row 13 (Detect)",
    ]
    rows = yaml.safe_load(result.stdout)["head"]
    assert rows[-1][0] == [2, 8, 12]
    assert rows[-2] == [-1, 1, "GAM", [8, {"gate": "sigmoid"}]]
    assert base.read_text() == TINY


def test_place_next_says_who_still_reads_the_row_before(base: Path) -> None:
    result = run("place", str(base), "--block", "GAM", "--at", "p4", "--feeds", "next")
    assert result.stderr.splitlines() == [
        "row 7 (GAM) attends row 6 (Conv); read by row 8 (Conv); still reading row 6 (Conv) itself: row 11 (Detect)"
    ]


def test_place_into_a_file_then_none_over_itself_gives_the_original(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "yolov8-tiny-gam.yaml"
    assert run("place", str(base), "--block", "GAM", "--at", "backbone,neck", "-o", str(out)).stdout == ""
    assert "GAM" in out.read_text()
    assert run("check", str(out)).exit_code == 0
    removed = run("place", str(out), "--block", "none", "-o", str(out))
    assert removed.stderr.count("removed") == 5
    assert out.read_text() == TINY
    assert run("place", str(out), "--block", "none").stderr == "no blocks to remove\n"


def test_place_draws_the_graph(base: Path, tmp_path: Path) -> None:
    run("place", str(base), "--block", "GAM", "--at", "p3", "--show", str(tmp_path / "graph.svg"))
    assert "2  GAM  16" in (tmp_path / "graph.svg").read_text()


def test_a_shipped_name_is_found_with_and_without_its_scale() -> None:
    with_letter, without = (
        run("place", name, "--block", "GAM", "--at", "p3") for name in ("yolov8n.yaml", "yolov8.yaml")
    )
    assert with_letter.stdout == without.stdout
    assert "(P3/8-small)\n  - [-1, 1, GAM, []] # 16\n" in without.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--block", "GAN", "--at", "p3"], "no block is named 'GAN'. Did you mean 'GAM'"),
        (["--block", "GAM"], r"--at \(in Python at=\) is not given"),
        (
            ["--block", "GAM", "--at", "p3", "--feeds", "some"],
            r"--feeds \(in Python feeds=\) is 'some'\. Expected one of all, next",
        ),
        (["--block", "GAM", "--at", "p3", "--args", "{"], "--args is '{'"),
        (
            ["--block", "GAM", "--at", "p3", "--args", "{gait: none}"],
            r"row 2 .*: GAM has no argument 'gait'. .*Did you mean 'gate'",
        ),
        (["--block", "GAM", "--at", "p3", "--args", "999"], "row 2 .*reduction is 999"),
        (["--block", "GAM", "--at", "10"], r"row 10 is the head \(Detect\)"),
        (["--block", "GAM", "--at", "77"], "row 77 does not exist"),
    ],
)
def test_bad_input_is_a_one_line_error_and_nothing_is_written(
    base: Path, tmp_path: Path, args: list[str], words: str
) -> None:
    out = tmp_path / "out.yaml"
    result = run("place", str(base), *args, "-o", str(out))
    assert isinstance(result.exception, UserError)
    assert re.search(words, str(result.exception))
    assert "\n" not in str(result.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == [base.name]


def test_a_row_without_a_feature_map_is_rejected() -> None:
    result = run("place", "yolov9e.yaml", "--block", "GAM", "--at", "12")
    assert "row 12 (CBLinear): gives no single feature map" in str(result.exception)


def test_where_nothing_can_be_written_nothing_is_left(base: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for out in (tmp_path / "none" / "out.yaml", tmp_path / "folder"):
        result = run("place", str(base), "--block", "GAM", "--at", "p3", "-o", str(out))
        assert "cannot be written" in str(result.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", base.name]


@pytest.mark.parametrize(("text", "want"), [(TINY, 0), (TINY.replace("[1, 6, 9]", "[1, 6, 8]"), 1), ("nc: [", 2)])
def test_check_exits_by_what_it_found(base: Path, text: str, want: int) -> None:
    base.write_text(text)
    plain, as_json = run("check", str(base)), run("check", str(base), "--json")
    assert plain.exit_code == as_json.exit_code == want
    found = json.loads(as_json.stdout)
    assert found["status"] == want
    assert len(plain.stdout.splitlines()) == max(len(found["findings"]), 1)


@given(seed=st.integers(0, 2**32 - 1), many=st.integers(1, 3), where=st.sampled_from(["2", "p4", "backbone", "neck"]))
@settings(max_examples=int(os.environ.get("MUTATIONS", 150)), deadline=None)
def test_no_mutation_of_a_model_ends_in_a_traceback(tmp_path_factory: Any, seed: int, many: int, where: str) -> None:
    path = tmp_path_factory.getbasetemp() / "yolov8-mutated.yaml"
    path.write_text(mutated(TINY, random.Random(seed), many))  # noqa: S311  # no secrets here
    for args in (["--block", "GAM", "--at", where], ["--block", "none"]):
        result = run("place", str(path), *args)
        assert result.exception is None or isinstance(result.exception, UserError), result.exception
        if result.exception is None:
            Document(result.stdout, "placed")


def test_check_takes_files_and_folders_and_exits_with_the_worst(base: Path, tmp_path: Path) -> None:
    bad = tmp_path / "yolov8-bad.yml"
    bad.write_text(TINY.replace("Conv", "Cnov"))
    (tmp_path / "data.yaml").write_text("path: x\n")
    result = run("check", str(base), str(tmp_path))
    assert result.exit_code == 2
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()].count(str(base)) == 1
    assert "data.yaml" not in result.stdout
    assert str(bad) in result.stdout
    found = json.loads(run("check", str(tmp_path), "--json").stdout)
    assert [(entry["file"], entry["status"]) for entry in found] == [(str(bad), 2), (str(base), 0)]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert isinstance(run("check", str(empty)).exception, UserError)
