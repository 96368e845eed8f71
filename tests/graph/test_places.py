"""Blocks before, inside and in place of rows: what is built, and that removing them gives the base back."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner
from ultralytics.nn import tasks

from gam_yolo.bottleneck import AttendedBottleneck
from gam_yolo.cli import app
from gam_yolo.errors import UserError
from gam_yolo.graph.edit import remove, rewrite
from gam_yolo.graph.find import load
from gam_yolo.graph.lint import check
from gam_yolo.graph.match import counterparts
from gam_yolo.graph.model import Document
from gam_yolo.graph.place import place, place_block, remove_blocks
from gam_yolo.graph.shapes import scales
from gam_yolo.registry import BLOCKS

UGLY = """\
# A detector written by hand, with all that a file may have.
nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 4]] # 1-P3/8
  - [ -1,3 ,C2f, [ 16, True ] ]   # 2, spaces
  - [-1, 1, Conv, [24, 3, 2]] # 3-P4/16
  - [[3], 1, Concat, [1]]
  - [ 3, 2, C2f, [ 24, yes, 1, 0.50 ]] # 5
  - [-1, 1, Conv, [32, 3, 2]] # 6-P5/32
  - [-1, 1, "SPPF", [32, 5]] # pyramid (7), last

head:
  - [[2, 5, 7], 1, Detect, [nc]] # Detect(P3, P4, P5)
""".replace("  - [[3], 1, Concat, [1]]\n", "  - [-1, 1, nn.Identity, [ ] ]\n")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "yolov8-ugly.yaml"
    path.write_bytes(UGLY.replace("\n", "\r\n").encode())
    return path


# Every family and task once; what exists in it. At its first scale, as the others have been swept by
# scripts/evidence/sweep_placements.py.
SAMPLE = {
    "yolov3-tiny": ["before Detect, 5"],
    "yolov3": ["inside 2, before Detect", "remove 2, replace 4"],
    "yolov5-p6": ["inside C3, before SPPF", "remove SPPF, yolov8-am"],
    "yolov6": ["yolo-research"],
    "yolov8": ["inside C2f, yolo-research", "replace SPPF, after backbone", "ema"],
    "yolov8-seg": ["inside 2, 4, ema"],
    "yolov8-pose": ["before SPPF, replace 8"],
    "yolov8-obb": ["remove SPPF, inside 2"],
    "yolov8-cls": ["before Classify, inside C2f"],
    "yolov8-world": ["inside C2f, before SPPF"],
    "yolov8-rtdetr": ["yolov8-am, inside 2"],
    "yolov9t": ["before SPPELAN, inside RepNCSPELAN4"],
    "yolov10n": ["replace PSA, inside C2f", "remove PSA"],
    "yolo11": ["inside C3k2, replace C2PSA, before SPPF", "remove C2PSA"],
    "yolo12": ["inside 11, 14, 17, replace 6, remove 8"],
    "yolo26": ["inside C3k2, replace C2PSA", "yolo-research, remove C2PSA"],
    "rtdetr-l": ["before AIFI, backbone-p4", "replace AIFI"],
}  # fmt: skip


def layers(config: dict[str, Any]) -> nn.Sequential:
    with torch.device("meta"):
        built: nn.Sequential = tasks.parse_model(
            {**copy.deepcopy(config), "scale": scales(config)[0]}, 3, verbose=False
        )[0]
    return built


def shapes(layer: nn.Module, ours: str = ".attention.") -> dict[str, tuple[int, ...]]:
    return {k: tuple(t.shape) for k, t in layer.state_dict().items() if ours not in f".{k}"}


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_every_family_keeps_its_base(name: str) -> None:
    document = load(f"{name}.yaml")
    plain = layers(document.config)
    for at in SAMPLE[name]:
        _, placed = place_block(document, "GAM", at, [{"reduction": 1}], scale=scales(document.config)[0])
        again = remove(placed.graph, BLOCKS.__contains__)
        assert again.graph == document.graph
        assert rewrite(placed, again) == document.text
        pairs = counterparts(document.graph, placed.graph, BLOCKS.get)
        taken = {row.index for row in again.graph.layers if placed.graph.layers[again.origin[row.index] or 0].replaces}
        assert pairs.mismatch == ""
        assert {*pairs.base.values()} == {*range(len(plain))} - taken
        built = layers(placed.config)
        for row, old in pairs.base.items():
            assert isinstance(built[row], type(plain[old]))
            assert shapes(built[row]) == shapes(plain[old])
        for layer in placed.graph.layers:
            inside = [m for m in built[layer.index].modules() if isinstance(m, AttendedBottleneck)]
            assert bool(inside) == (layer.inside is not None)


@pytest.mark.parametrize(
    ("at", "rows"),
    [
        ("inside C2f", {2: "[ -1,3 ,C2f, [ 16, True, {inside: [GAM, 4]} ] ]   # 2, spaces",
                        5: "[ 3, 2, C2f, [ 24, yes, 1, 0.50, {inside: [GAM, 4]} ]] # 5"}),
        ("replace 5", {5: "[ 3, 1, GAM, [4, {replaces: [2, C2f, [ 24, yes, 1, 0.50 ]]}]] # 5"}),
        ("remove SPPF", {7: '[-1, 1, nn.Identity, [{replaces: [1, "SPPF", [32, 5]]}]] # pyramid (7), last'}),
        ("before SPPF", {7: "[-1, 1, GAM, [4]] # 7", 8: '[-1, 1, "SPPF", [32, 5]] # pyramid (8), last'}),
        ("replace 4, 2, after 0", {1: "[-1, 1, GAM, [4]] # 1",
                                   5: "[-1, 1, GAM, [4, {replaces: [1, nn.Identity, [ ]]}] ]"}),
    ],
)  # fmt: skip
def test_only_what_is_placed_is_rewritten_and_it_comes_back_to_the_byte(
    base: Path, at: str, rows: dict[int, str]
) -> None:
    placed = place(base, block="GAM", at=at, args=4)
    lines = [line.strip()[2:] for line in placed.text.split("\r\n") if line.startswith("  - ")]
    assert {row: lines[row] for row in rows} == rows
    assert [f for f in check(placed.save(base.with_name("yolov8-placed.yaml"))) if f.level == "error"] == []
    place(base, block="SE", at="p3").save(base.with_name("yolov8-placed.yaml"))  # known as written by place
    assert remove_blocks(placed.save(base.with_name("yolov8-placed.yaml"))).text == placed.base


def test_several_placements_one_after_the_other_are_removed_together(base: Path) -> None:
    out = base.with_name("yolov8-placed.yaml")
    out.write_bytes(base.read_bytes())
    for block, at in [("GAM", "replace SPPF"), ("SE", "before 7"), ("ECA", "replace 8"), ("CBAM", "inside C2f")]:
        place(out, block=block, at=at, args={"reduction": 4} if block in ("GAM", "SE", "CBAM") else None).save(
            out, force=True
        )
    text = out.read_text()
    assert '[-1, 1, ECA, [{replaces: [1, "SPPF", [32, 5]]}]] # pyramid (8), last' in text  # the base's, not GAM's
    assert "[ -1,3 ,C2f, [ 16, True, {inside: [CBAM, {reduction: 4}]} ] ]" in text
    assert remove_blocks(out).text == UGLY.replace("\n", "\r\n")


def test_layouts_without_brackets_give_the_graph_back() -> None:
    for text in (yaml.safe_dump(yaml.safe_load(UGLY)), yaml.safe_dump(yaml.safe_load(UGLY), default_flow_style=True)):
        document = Document(text, "layout.yaml")
        for at in ("inside C2f", "replace SPPF, inside 2", "remove 5"):
            _, placed = place_block(document, "SE", at, [4], scale="")
            assert remove(placed.graph, BLOCKS.__contains__).graph == document.graph
            again = rewrite(placed, remove(placed.graph, BLOCKS.__contains__))
            assert Document(again, "again").graph == document.graph


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"block": "GAM", "at": "replace 3"}, r"row 3 \(Conv\): does not keep the shape of its input \(reads 16 "
         r"channels at stride 8, gives 24 channels at stride 16\), so it cannot be replaced or removed"),
        ({"at": "remove Conv"}, r"row 0 \(Conv\): does not keep .*reads the image"),
        ({"block": "GAM", "at": "inside SPPF"}, r"row 7 .*SPPF has no bottleneck to put GAM inside. Expected .*C2f"),
        ({"block": "GAN", "at": "inside C2f"}, "no block is named 'GAN'. Did you mean 'GAM'"),
        ({"block": "GAM", "at": "inside C2f", "args": 99}, "row 2 .*reduction is 99. Expected .*from 1 to 8"),
        ({"block": "GAM", "at": "inside C2"}, "no place 'C2'.*Did you mean 'C2f'"),
        ({"block": "GAM", "at": "before 0"}, r"row 0 \(Conv\) reads the image, so no GAM can be placed before it"),
        ({"block": "GAM", "at": "replace 8"}, r"row 8 is the head \(Detect\)"),
        ({"block": "GAM", "at": "inside 99"}, "row 99 does not exist. Expected a row from 0 to 7 for GAM"),
        ({"block": "GAM", "at": "replace 2, inside C2f"}, "says two things about row 2"),
        ({"at": "remove SPPF, after p3"}, r"--block \(in Python block=\) is not given, but at=.* says 'after'"),
        ({"block": "GAM", "at": "before Detect", "feeds": "next"}, r"row 8 \(Detect\) is not the row after .*Use f"),
    ],
)  # fmt: skip
def test_what_cannot_be_placed_is_one_line(base: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        place(base, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("C2f, [16, True, {inside: GAN}]", "no block is named 'GAN'. Did you mean 'GAM'"),
        ("C2f, [16, True, {inside: 7}]", "'inside' is 7. Expected a block, such as GAM, or "),
        ("C2f, [16, True, {inside: []}]", r"'inside' is \[\]. Expected a block, such as GAM"),
        ("C2f, [16, True, {inside: [GAM, {gait: 1}]}]", "GAM has no argument 'gait'"),
        ("GAM, [{replaces: C2f}]", r"'replaces' is 'C2f'. Expected \[repeats, module, args\]"),
        ("GAM, [{replaces: [1, 2, 3]}]", "the module is 2. Expected a name"),
        ("GAM, [{inside: SE}]", "GAM has no argument 'inside'"),
    ],
)
def test_a_row_written_by_hand_is_checked(base: Path, row: str, says: str) -> None:
    path = base.with_name("yolov8-hand.yaml")
    path.write_text(UGLY.replace("[ -1,3 ,C2f, [ 16, True ] ]", f"[-1, 3, {row}]"))
    (finding, *_) = check(path)
    assert finding.level == "error"
    assert re.search(says, f"{finding.message} {finding.remedy}")


def test_the_command(base: Path) -> None:
    def run(*args: str) -> Any:
        return CliRunner().invoke(app, ["place", str(base), *args])

    assert "PUBLISHED PLACEMENTS" in run("--at", "help").stdout
    out = str(base.with_name("yolov8-placed.yaml"))
    result = run("--block", "GAM", "--at", "inside 2, replace 5, before SPPF", "-o", out)
    assert result.stderr.splitlines() == [
        "row 2 (C2f) has GAM inside each bottleneck",
        "row 5 (GAM) replaces C2f; attends row 3 (Conv); read by row 6 (Conv), row 9 (Detect)",
        "row 7 (GAM) attends row 6 (Conv); read by row 8 (SPPF)",
    ]
    removed = CliRunner().invoke(app, ["place", out, "--remove"])
    assert removed.stdout_bytes == base.read_bytes()
    assert removed.stderr.splitlines() == [
        "row 2 (C2f) has no GAM inside any more",
        "row 5 (GAM) is C2f again",
        "row 7 (GAM) removed",
    ]
    dropped = run("--at", "remove SPPF")
    assert dropped.stderr == "row 7 (SPPF) removed; row 8 (Detect) now read row 6 (Conv)\n"
    for args, says in ((["--remove", "--at", "p3"], "--remove is given with"), ([], "nothing to do. Expected --block")):
        assert says in str(run(*args).exception)


def test_a_drawing_marks_what_is_inside(base: Path) -> None:
    drawing = place(base, block="SE", at="inside 2, replace SPPF", args=4).svg()
    assert "2  C2f + SE  16" in drawing
    assert "7  SE  32" in drawing
