"""The Python functions do what the commands do, field by field."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner
from ultralytics import YOLO

from gam_yolo import describe
from gam_yolo.cli import app
from gam_yolo.errors import UserError
from gam_yolo.graph.lint import check
from gam_yolo.graph.place import place
from gam_yolo.graph.transfer import transfer

from .samples import TINY


def save(model: Path, checkpoint: Path) -> None:
    """Save a model of random weights. `YOLO.save` of older releases cannot."""
    torch.save({"model": YOLO(model).model, "train_args": {}}, checkpoint)


def run(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "yolov8-tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.mark.parametrize(
    ("keywords", "options"),
    [
        ({"block": "GAM", "at": "head-inputs"}, ["--block", "GAM", "--at", "head-inputs"]),
        ({"block": "GAM", "at": [2, 6], "args": 8}, ["--block", "GAM", "--at", "2,6", "--args", "8"]),
        ({"block": "GAM", "at": 6, "args": {"gate": "sigmoid"}}, ["--block=GAM", "--at=6", "--args={gate: sigmoid}"]),
        ({"block": "SimAM", "at": "p3", "args": ["1e-4"]}, ["--block", "SimAM", "--at", "p3", "--args", "1e-4"]),
        (
            {"block": "SE", "at": "p4", "args": [4], "feeds": "next"},
            ["--block=SE", "--at=p4", "--args=[4]", "--feeds=next"],
        ),
    ],
)
def test_place_and_its_command(base: Path, keywords: dict[str, Any], options: list[str]) -> None:
    placed, printed = place(base, **keywords), run("place", base, *options)
    assert printed.exit_code == 0
    assert (placed.text, list(placed.notes)) == (printed.stdout, printed.stderr.splitlines())
    assert placed.yaml == yaml.safe_load(printed.stdout)
    rows = [*placed.yaml["backbone"], *placed.yaml["head"]]
    assert [row.row for row in placed.rows] == [i for i, row in enumerate(rows) if row[2] == keywords["block"]]
    for row in placed.rows:  # who reads whom, by a second way: the rows' own numbers
        readers = [
            i
            for i, (read, *_) in enumerate(rows)
            if row.row in [i + f if f < 0 else f for f in (read if isinstance(read, list) else [read])]
        ]
        assert (row.attends, list(row.read_by)) == (row.row - 1, readers)
        assert bool(row.bypassed_by) == (keywords.get("feeds") == "next")
    out = placed.save(base.parent / "yolov8-placed.yaml")
    assert out.read_text() == placed.text
    removed, command = place(out, block=None), run("place", out, "--block", "none")
    assert removed.text == command.stdout == TINY
    assert removed.removed == tuple(row.row for row in placed.rows)
    assert list(removed.notes) == command.stderr.splitlines()


def test_check_and_its_command(base: Path) -> None:
    base.write_text(TINY.replace("[[1, 6, 9], 1, D", "[[1, 6, 2], 1, D"))
    findings, printed = check(base), run("check", base, "--json")
    found = json.loads(printed.stdout)["findings"]
    assert [vars(finding) for finding in findings] == found
    assert {f.code for f in findings} == {"head-strides", "unused-row"}
    assert printed.exit_code == 2
    assert run("check", base).stdout.splitlines() == [finding.line(str(base)) for finding in findings]


def test_transfer_and_its_command(base: Path) -> None:
    save(base, base.with_suffix(".pt"))
    target = place(base, block="GAM", at="p4").save(base.parent / "yolov8-gam.yaml")
    report, printed = transfer(base.with_suffix(".pt"), target), run("transfer", base.with_suffix(".pt"), target)
    as_json = json.loads(run("transfer", base.with_suffix(".pt"), target, "--json").stdout)
    assert as_json.pop("tensors") == [vars(tensor) for tensor in report.tensors]
    assert as_json == {**report.counts(), "mismatch": report.mismatch, "changed": [], "lost": 0, "fused": False}
    assert printed.stdout.splitlines()[-1] == report.line()
    assert report.counts()["base"] == report.counts()["base_total"] == len(YOLO(base).model.state_dict())


def test_blocks_and_its_command() -> None:
    found = json.loads(run("blocks", "ECA", "GAM", "-c", "64", "-s", "8", "--json").stdout)
    infos = [asdict(info) for info in describe.blocks(["ECA", "GAM"], channels=64, size=8)]
    assert found["blocks"] == json.loads(json.dumps(infos))
    with pytest.raises(UserError, match=r"channels is 0\. Expected a whole number from 1\."):
        describe.blocks(channels=0)


def test_a_block_after_cblinear_is_rejected_alike_everywhere(tmp_path: Path) -> None:
    """By `place`, by a hand-written row in `check`, and where such a model is built."""
    with pytest.raises(UserError, match=r"row 12 \(CBLinear\): gives no single feature map"):
        place("yolov9e.yaml", block="GAM", at=12)
    text = place("yolov9e.yaml", block="GAM", at="p3").text
    config = yaml.safe_load(text)
    row = next(i for i, row in enumerate(config["backbone"] + config["head"]) if row[2] == "GAM")
    path = tmp_path / "yolov9e-hand.yaml"
    path.write_text(text.replace("- [-1, 1, GAM, []]", "- [12, 1, GAM, []]"))
    says = f"row {row} [12, 1, GAM, []]: reads row 12 (CBLinear), which gives no single feature map"
    assert [f.message for f in check(path) if f.level == "error"] == [says]
    with pytest.raises(UserError) as error:
        YOLO(path)
    assert str(error.value) == f"{path}, {says}"


def test_only_files_that_place_wrote_are_overwritten_without_force(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "yolov8-mine.yaml"
    first = ["place", base, "--block", "GAM", "--at", "p3", "-o", out]
    assert run(*first).exit_code == run(*first).exit_code == 0
    assert run("place", base, "--block", "SE", "--at", "p4", "-o", out).exit_code == 0  # another block: still ours
    edited = out.read_text().replace("nc: 3", "nc: 7 # mine")
    for precious in ("notes of mine\n", edited, out.read_text().replace("# 7", "# my block")):
        out.write_text(precious)
        result = run(*first)
        assert "already exists and was not written by place. Use --force to overwrite it" in str(result.exception)
        assert out.read_text() == precious
    result = run("place", base, "--block", "GAM", "--at", "p3", "-o", base)
    assert "already exists" in str(result.exception)
    assert base.read_text() == TINY
    picture = tmp_path / "graph.svg"
    picture.write_text("not a picture")
    assert "already exists" in str(run("place", base, "--block", "GAM", "--at", "p3", "--show", picture).exception)
    assert run(*first, "--force", "--show", picture).exit_code == 0
    assert picture.read_text().startswith("<svg")
    assert run("place", out, "--block", "none", "-o", out).exit_code == 0
    assert out.read_text() == TINY


def test_what_is_not_a_regular_file_is_written_through(base: Path, tmp_path: Path) -> None:
    pipe, link, real = tmp_path / "pipe", tmp_path / "link.yaml", tmp_path / "real.yaml"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
    reader.start()
    placed = place(base, block="GAM", at="p3")
    placed.save(pipe)
    reader.join(30)
    assert got == [placed.text]
    assert pipe.is_fifo()
    real.write_text("")
    link.symlink_to(real)
    placed.save(link)
    assert link.is_symlink()
    assert real.read_text() == placed.text


def test_a_loop_of_links_is_not_replaced(base: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.symlink_to(second)
    second.symlink_to(first)
    with pytest.raises(UserError, match=r"first\.yaml: cannot be written \(Too many levels of symbolic links\)"):
        place(base, block="GAM", at="p3").save(first)
    assert first.readlink() == second
    assert sorted(path.name for path in tmp_path.glob("*.yaml") if path.is_symlink()) == ["first.yaml", "second.yaml"]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_transfer_executes_nothing_from_its_files(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(base, Path("plain.pt"))
    Path("evil.yaml").write_text("activation: open('executed', 'w')\n" + TINY)
    assert transfer("plain.pt", "evil.yaml").counts()["base"] > 0
    Path("evil.yaml").write_text(TINY.replace("1, Conv, [24, 1, 1]", "1, check_requirements, [no-such-package]"))
    with pytest.raises(UserError, match="there is no module named 'check_requirements'"):
        transfer("plain.pt", "evil.yaml")
    torch.save({"model": Evil(), "ema": None}, "evil.pt")
    with pytest.raises(
        UserError, match=r"evil\.pt: cannot be loaded .* names .pathlib.*, which is no known layer, and could run code"
    ):
        transfer("evil.pt", base)
    assert not Path("executed").exists()


@pytest.mark.parametrize("content", [{"a": 1}, {"model": None}, {"model": {"w": torch.zeros(1)}}, [1], torch.zeros(2)])
def test_a_checkpoint_without_a_model(base: Path, tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "conv.pt")
    with pytest.raises(UserError, match=r"conv\.pt: holds no Ultralytics model"):
        transfer(tmp_path / "conv.pt", base)


def test_names_that_no_file_can_have() -> None:
    name = "a" * 300
    assert "File name too long" in check(f"{name}.yaml")[0].message
    for call in (lambda: place(f"{name}.yaml", block="GAM", at="p3"), lambda: transfer(f"{name}.pt", "yolov8n.yaml")):
        with pytest.raises(UserError, match=r"File name too long|cannot be read"):
            call()
    with pytest.raises(UserError, match="cannot be written"):
        place("yolov8n.yaml", block="GAM", at="p3").save(f"{name}.yaml")


def test_transfer_from_a_missing_or_damaged_file_is_one_plain_line(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(base, Path("whole.pt"))
    Path("cut.pt").write_bytes(Path("whole.pt").read_bytes()[:5000])
    Path("empty.pt").touch()
    for name, says in (
        ("missing.pt", "there is no file 'missing.pt'. Expected a checkpoint."),
        ("cut.pt", "cut.pt: is empty, cut off or damaged. Expected a checkpoint."),
        ("empty.pt", "empty.pt: is empty, cut off or damaged. Expected a checkpoint."),
    ):
        with pytest.raises(UserError) as error:
            transfer(name, base)
        assert str(error.value) == says
