from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gam_yolo.graph.edit import insert, rewrite
from gam_yolo.graph.find import load
from gam_yolo.graph.lint import Finding, as_json, check, status
from gam_yolo.graph.model import Document
from gam_yolo.graph.place import place

from .samples import TINY, mutated


def checked(folder: Path, text: str, name: str = "yolov8-tiny.yaml") -> list[Finding]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return check(str(path))


def codes(findings: list[Finding]) -> list[tuple[str, int | None]]:
    return [(finding.code, finding.row) for finding in findings]


@pytest.mark.parametrize(
    "name",
    [
        "yolov8.yaml",
        "yolov8n.yaml",
        "yolov3-tiny.yaml",
        "yolov8-world.yaml",
        "yolov10n.yaml",
        "rtdetr-l.yaml",
        "yolo26-sem.yaml",
    ],
)
def test_what_ultralytics_ships_is_clean(name: str) -> None:
    assert check(name) == []


@pytest.mark.parametrize("feeds", ["all", "next"])
def test_what_place_writes_is_clean(tmp_path: Path, feeds: str) -> None:
    document = Document(TINY, "x")
    for row in (1, 2, 3, 5, 8):
        assert (
            checked(
                tmp_path,
                rewrite(
                    document,
                    insert(document.graph, [row], "GAM", []),
                ),
            )
            == []
        )
        assert checked(tmp_path, rewrite(document, insert(document.graph, [row], "GAM", [], feeds))) == []


# A fork's habit: GAM after each output of the neck; the head's numbers are corrected, the bottom-up path's is not.
FORK = """\
nc: 80
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 3, C2f, [128, True]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 6, C2f, [256, True]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 6, C2f, [512, True]]
  - [-1, 1, Conv, [1024, 3, 2]]
  - [-1, 3, C2f, [1024, True]]
  - [-1, 1, SPPF, [1024, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 6], 1, Concat, [1]]
  - [-1, 3, C2f, [512]]
  - [-1, 1, GAM_Attention, [512, 512]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 3, C2f, [256]]
  - [-1, 1, GAM_Attention, [256, 256]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [[-1, 12], 1, Concat, [1]]
  - [-1, 3, C2f, [512]]
  - [-1, 1, GAM_Attention, [512, 512]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [[-1, 9], 1, Concat, [1]]
  - [-1, 3, C2f, [1024]]
  - [-1, 1, GAM_Attention, [1024, 1024]]
  - [[17, 21, 25], 1, Detect, [nc]]
"""


def test_a_forks_bottom_up_path_that_reads_the_layer_before_its_gam_is_caught(tmp_path: Path) -> None:
    findings = checked(tmp_path, FORK)
    bypassed = [finding for finding in findings if finding.code == "bypassed-block"]
    assert codes(bypassed) == [("bypassed-block", 13)]
    assert "row 19 (Concat) still reads row 12" in bypassed[0].message
    assert "In row 19 (Concat) write 13 for 12" in bypassed[0].remedy
    assert status(findings) == 1
    # Its second number is bound to `group`.
    assert [f.row for f in findings if f.code == "fork-arguments"] == [13, 17, 21, 25]
    assert "group=512" in next(f for f in findings if f.row == 13 and f.code == "fork-arguments").message
    mended = FORK.replace("[[-1, 12], 1, Concat", "[[-1, 13], 1, Concat").replace("GAM_Attention", "GAM")
    for channels in (256, 512, 1024):
        mended = mended.replace(f"[{channels}, {channels}]", "[{preset: forks}]")
    assert checked(tmp_path, mended) == []


def test_numbers_left_as_they_were_before_an_insertion(tmp_path: Path) -> None:
    stale = FORK.replace("[17, 21, 25], 1, Detect", "[15, 18, 21], 1, Detect").replace("GAM_Attention", "CBAM_or_GAM")
    stale = stale.replace("CBAM_or_GAM", "GAM")
    findings = checked(tmp_path, stale.replace(", 512]]", "]]"))
    assert codes(findings) == [("stale-numbers", 19)]
    assert "row 19: 12 -> 13; row 26: 15 -> 17, 18 -> 21, 21 -> 25" in findings[0].remedy
    assert status(findings) == 2


@pytest.mark.parametrize("base", ["yolov8n", "yolo11n"])
@pytest.mark.parametrize("first", ["9", "p3", "head-inputs"])
def test_a_second_block_after_which_nothing_was_renumbered(base: str, first: str, tmp_path: Path) -> None:
    """The numbers are those of the file with its first block, which was placed well. Each reader is named."""
    text = place(f"{base}.yaml", block="GAM", at=first).text
    document = Document(text, "x")
    for row in range(9, document.graph.head.index - 1):
        right = insert(document.graph, [row], "SE", [])
        rows = yaml.safe_load(text)
        part, at = ("backbone", row) if row < len(rows["backbone"]) else ("head", row - len(rows["backbone"]))
        rows[part].insert(at + 1, [-1, 1, "SE", []])
        changes = [
            (layer.index, old, new)
            for layer in right.graph.layers
            if (origin := right.origin[layer.index]) is not None
            for old, new in zip(document.graph.layers[origin].sources, layer.sources, strict=True)
            if old > row and old != origin - 1  # `-1` needs no number
        ]
        if not changes:
            continue
        (finding,) = checked(tmp_path, yaml.safe_dump(rows), f"{base}-mine.yaml")
        assert finding.code == "stale-numbers"
        assert finding.message.startswith("the row numbers are those of the file without ")
        for reader, old, new in changes:
            assert f"row {reader}: " in finding.remedy
            assert f"{old} -> {new}" in finding.remedy


def test_a_row_that_is_not_read_beside_several_blocks_is_no_stale_number(tmp_path: Path) -> None:
    """Without one of the blocks, the head would read each row by chance."""
    path = tmp_path / "yolov8n-several.yaml"
    place("yolov8n.yaml", block="GAM", at="p3").save(path)
    for at in ("p4", "p5"):
        place(path, block="SE", at=at).save(path, force=True)
    rows = yaml.safe_load(path.read_text())
    rows["head"].insert(-1, [-1, 1, "Conv", [64, 3, 2]])
    assert codes(checked(tmp_path, yaml.safe_dump(rows), path.name)) == [("unused-row", 25)]


@pytest.mark.parametrize("base", ["yolov8", "yolov5", "yolo11", "yolo12"])
def test_numbers_of_the_base_in_a_file_whose_head_was_corrected(base: str, tmp_path: Path) -> None:
    """As published: a block before the backbone's end, the head's numbers corrected, those of the Concats not."""
    document = load(f"{base}.yaml")
    graph = document.graph
    placed = insert(graph, [graph.layers[0].index + 8], "GAM", [])
    text, wrong = rewrite(document, placed), {}
    for layer in placed.graph.layers:
        origin = placed.origin[layer.index]
        if layer.module == "Concat" and origin is not None and (old := graph.layers[origin].sources[1]) > 8:
            wrong[layer.index] = (layer.sources[1], old)
            text = text.replace(f"- [[-1, {layer.sources[1]}], 1, Concat", f"- [[-1, {old}], 1, Concat")
    assert len(wrong) == 2 or base == "yolo12"
    findings = checked(tmp_path, text)
    assert codes(findings) == [("stale-numbers", min(wrong))]
    for row, (right, old) in wrong.items():
        assert f"row {row} (Concat) reads row {old} (" in findings[0].message
        assert f"n row {row} (Concat) write {right} for {old}" in findings[0].remedy
    corrected = text
    for right, old in wrong.values():
        corrected = corrected.replace(f"[[-1, {old}], 1, Concat", f"[[-1, {right}], 1, Concat")
    assert checked(tmp_path, corrected) == []


def test_a_connection_of_ones_own_is_no_stale_number(tmp_path: Path) -> None:
    """A Concat that reads another row than the base's is meant, where its number is not the base's."""
    placed = insert(Document(FORK, "x").graph, [], "GAM", [])
    assert rewrite(Document(FORK, "x"), placed) == FORK
    findings = checked(tmp_path, FORK.replace("[[-1, 9], 1, Concat", "[[-1, 8], 1, Concat"))
    assert "stale-numbers" not in [finding.code for finding in findings]


def test_scales_that_are_not_indented_are_seen(tmp_path: Path) -> None:
    """As published: Ultralytics then builds the model in full width, whatever letter its name has."""
    text = load("yolov8-gam.yaml").text
    findings = checked(tmp_path, re.sub(r"^  (?=[nslmx]: )", "", text, flags=re.M), "yolov8-mine.yaml")
    assert codes(findings) == [("scales", None)]
    assert "'n', 's', 'l', 'm', 'x' beside 'scales'" in findings[0].message
    assert "depth 1.0 and width 1.0" in findings[0].message


def test_a_block_that_cannot_be_built_is_not_taken_for_stale_numbers(tmp_path: Path) -> None:
    chain = "nc: 3\nbackbone: [[-1, 1, Conv, [16, 3, 2]], [-1, 1, GAM, [99]]]\nhead: [[-1, 1, Classify, [nc]]]"
    assert codes(checked(tmp_path, chain)) == [("unbuildable", 1)]


def test_a_head_that_reads_the_row_before_a_block_that_no_row_reads(tmp_path: Path) -> None:
    placed = rewrite(Document(TINY, "x"), insert(Document(TINY, "x").graph, [6, 9], "GAM", []))
    findings = checked(tmp_path, placed.replace("[[1, 7, 11]", "[[1, 7, 10]").replace("[-1, 3], 1", "[-1, 3], 1"))
    assert status(findings) == 2
    assert codes(findings)[0] == ("unused-block", 11)
    assert "In row 12 (Detect) write 11 for 10" in findings[0].remedy


FORKS = [("fork-arguments", 9), ("fork-channels", 9)]


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        ("[[-1, 2], 1, Concat", "[[-1, 5], 1, Concat", [("forward-reference", 5)]),
        ("[[-1, 2], 1, Concat", "[[-1, -9], 1, Concat", [("forward-reference", 5)]),
        ("[[1, 6, 9], 1, D", "[[1, 6, 11], 1, D", [("forward-reference", 10)]),
        ("[-1, 1, Conv, [24, 1, 1]]", "[-1, 1, GAN, []]", [("unknown-module", 6)]),
        ("[-1, 1, Conv, [24, 1, 1]]", "[-1, 1, GAM, [1000]]", [("unbuildable", 6)]),
        ("[[1, 6, 9], 1, D", "[[1, 2, 9], 1, D", []),
        ("[[1, 6, 9], 1, D", "[[1, 6, 2], 1, D", [("head-strides", 10), ("unused-row", 9)]),
        ("[-1, 1, Conv, [32, 1, 1]]", "[-1, 1, GAM, [24]]", []),
        ("[-1, 1, Conv, [32, 1, 1]]", "[-1, 1, GAM, [64]]", [("misbound-argument", 9)]),
        ("[-1, 1, Conv, [32, 1, 1]]", "[-1, 2, GAM, []]", [("repeated-block", 9)]),
        ("[-1, 1, Conv, [32, 1, 1]]", "[-1, 1, GAM_Attention, [32, False]]", FORKS),
        ("[-1, 1, Conv, [32, 1, 1]]", "[-1, 1, GAM_Attention, [64, 64]]", [("fork-arguments", 9)]),
        ("nc: 3", "nc: three", [("unreadable", None)]),
        ("nc: 3", "nc: 3\nchannels: x", [("unbuildable", None)]),
        ("nc: 3", "nc: 3\nscales: x", [("unreadable", None)]),
        ("backbone:", "spine:", [("unreadable", None)]),
    ],
)  # fmt: skip
def test_each_kind_of_mistake(tmp_path: Path, old: str, new: str, want: list[tuple[str, int | None]]) -> None:
    assert old in TINY
    found = checked(tmp_path, TINY.replace(old, new))
    assert codes(found) == want
    assert all(finding.message and finding.remedy for finding in found)


def test_an_unknown_block_gets_the_nearest_name(tmp_path: Path) -> None:
    found = checked(tmp_path, TINY.replace("[-1, 1, Conv, [24, 1, 1]]", "[-1, 1, GAM_Atention, []]"))
    assert found[0].remedy == "Did you mean 'GAM_Attention'?"


SCALED = TINY.replace("nc: 3", "nc: 3\nscales:\n  n: [1.0, 1.0, 64]\n  s: [1.0, 2.0, 64]")


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("yolov8-gam.yaml", []),
        ("yolov8n-gam.yaml", []),
        ("my-yolov8s_gam.yaml", []),
        ("yoloe-v8s.yaml", []),
        ("yolov8x-gam.yaml", [("error", "says scale 'x'")]),
        ("yolov8-gam-s.yaml", [("warning", "the letter 's' .* is not read")]),
        ("yolov8-p2n.yaml", [("warning", "the letter 'n' .* is not read")]),
        ("yolov8neck-gam.yaml", [("warning", "is read as scale 'n' of 'yolov8eck-gam'")]),
        ("gam.yaml", [("warning", "no scale can be asked for")]),
        ("exp2small/yolov8-gam.yaml", []),
        ("exp2/yolov8-gam.yaml", []),
    ],
)
def test_names_whose_scale_is_misread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, want: list[tuple[str, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(SCALED)
    found = check(name)
    assert [finding.level for finding in found] == [level for level, _ in want]
    for finding, (_, words) in zip(found, want, strict=True):
        assert re.search(words, finding.message)


def test_what_fails_at_one_scale_is_said_to(tmp_path: Path) -> None:
    # 24 channels, 48 at scale s: 16 divides the latter only.
    text = SCALED.replace("[-1, 1, Conv, [24, 1, 1]]", "[-1, 1, GAM, [1, {groups: 16}]]")
    found = checked(tmp_path, text)
    assert codes(found) == [("unbuildable", 6)]
    assert found[0].message.endswith(" (scale n).")
    assert ". (" not in found[0].message


def test_what_fails_at_every_scale_is_said_once(tmp_path: Path) -> None:
    found = checked(tmp_path, SCALED.replace("[[-1, 2], 1, Concat", "[[-1, 3], 1, Concat"))
    assert codes(found) == [("unbuildable", 5)]
    assert "row 3 (Conv) of 32 channels at stride 32" in found[0].message
    assert found[0].message.endswith("(scale n, s)")


def test_json_and_status() -> None:
    warning, error = Finding("warning", "a", 1, "m", "r"), Finding("error", "b", None, "m", "r")
    assert [status([]), status([warning]), status([warning, error])] == [0, 1, 2]
    assert as_json("f", [warning]) == {
        "file": "f",
        "status": 1,
        "findings": [{"level": "warning", "code": "a", "row": 1, "message": "m", "remedy": "r"}],
    }


def test_missing_files_are_reported() -> None:
    assert codes(check("no-such.yaml")) == [("unreadable", None)]
    assert codes(check("weights.pt")) == [("unreadable", None)]


PLACED = rewrite(Document(TINY, "x"), insert(Document(TINY, "x").graph, [1, 6], "GAM", [16, {"gate": "sigmoid"}]))


@given(seed=st.integers(0, 2**32 - 1), many=st.integers(1, 4))
@settings(max_examples=int(os.environ.get("MUTATIONS", 400)), deadline=None)
def test_no_mutation_of_a_model_ends_in_a_traceback(tmp_path_factory: Any, seed: int, many: int) -> None:
    text = mutated(PLACED, random.Random(seed), many)  # noqa: S311  # no secrets here
    folder = tmp_path_factory.getbasetemp()
    found = checked(folder, text, "yolov8-mutated.yaml")
    for finding in found:
        assert finding.level in {"error", "warning"}
        assert "\n" not in finding.message + finding.remedy
        assert "Traceback" not in finding.message
