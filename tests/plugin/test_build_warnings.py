"""Mistakes that build a wrong model are reported where it is built, once, in the words of `gam-yolo check`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

import gam_yolo
from gam_yolo import UserError
from gam_yolo.graph.find import load
from gam_yolo.graph.lint import check
from gam_yolo.graph.place import place
from gam_yolo.plugin import parse_model

BASE = load("yolov8.yaml").text


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What Ultralytics logs as a warning."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage().removeprefix("WARNING ⚠️ "))
    LOGGER.addHandler(handler)
    monkeypatch.setattr(parse_model, "_warned", set())
    yield said
    LOGGER.removeHandler(handler)


def with_row(row: str, at: str = "p5") -> str:
    return place("yolov8.yaml", block="GAM", at=at).text.replace("GAM, []", row)


def build(path: Path) -> None:
    with torch.device("meta"):
        tasks.parse_model(tasks.yaml_model_load(path), 3, False)


CASES = {
    "a channel count as SimAM's lambda": (with_row("SimAM, [1024]"), "misbound-argument"),
    "few channels as SimAM's lambda": (with_row("SimAM, [16]"), "misbound-argument"),
    "channels as a fraction": (with_row("SimAM, [1024.0]"), "misbound-argument"),
    "the same after a Concat": (with_row("SimAM, [768]", "17"), "misbound-argument"),
    "the same in quotes": (with_row("SimAM, ['1024']"), "misbound-argument"),
    "the same inside a row": (with_row("C2f, [1024, {inside: [SimAM, 1024]}]"), "misbound-argument"),
    "a channel count as the ratio inside a row": (with_row("C2f, [1024, {inside: [SE, 64]}]"), "misbound-argument"),
    "a fork's CBAM inside a row": (with_row("C2f, [1024, {inside: [CBAM, 7]}]"), "fork-arguments"),
    "a fork's GAM inside a row": (with_row("C2f, [1024, {inside: [GAM_Attention, 1024]}]"), "fork-arguments"),
    "a channel count as CoordAtt's reduction": (with_row("CoordAtt, [1024]"), "misbound-argument"),
    "the block's own channels as SE's reduction": (with_row("SE, [64]", "p3"), "misbound-argument"),
    "as BAM's": (with_row("BAM, [64]", "p3"), "misbound-argument"),
    "a number that is no ratio": (with_row("SE, [64]"), "misbound-argument"),
    "the form of Ultralytics' CBAM": (with_row("CBAM, [7]"), "fork-arguments"),
    "as GAM's": (with_row("GAM, [64]", "p3"), "misbound-argument"),
    "stale numbers": (BASE.replace("# 9\n", "# 9\n  - [-1, 1, GAM, []]\n", 1), "stale-numbers"),
    "stale numbers, two blocks": (
        BASE.replace("# 9\n", "# 9\n  - [-1, 1, SE, []]\n", 1).replace("# 12\n", "# 12\n  - [-1, 1, SE, [4]]\n", 1),
        "stale-numbers",
    ),
    "stale numbers, of a second block": (
        with_row("GAM, []", "p3").replace("  - [[-1, 9], 1", "  - [-1, 1, SE, []]\n  - [[-1, 9], 1"),
        "stale-numbers",
    ),
    "the head's numbers corrected alone": (
        BASE.replace("  - [-1, 1, SPPF", "  - [-1, 1, GAM, []]\n  - [-1, 1, SPPF").replace(
            "[15, 18, 21]", "[16, 19, 22]"
        ),
        "stale-numbers",
    ),
    "scales beside 'scales'": (re.sub(r"^  (?=[nslmx]: )", "", with_row("GAM, []"), flags=re.M), "scales"),
    "bypassed": (with_row("GAM, []", "12").replace("[[-1, 13], 1, Concat", "[[-1, 12], 1, Concat"), "bypassed-block"),
    "unused": (with_row("GAM, []", "head-inputs").replace("[16, 20, 24]", "[16, 20, 23]"), "unused-block"),
    "a fork's row": (with_row("GAM_Attention, [1024, 1024]"), "fork-arguments"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_model_is_reported_once_in_the_words_of_check(
    case: str, lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, code = CASES[case]
    Path("yolov8-mine.yaml").write_text(text)
    build(Path("yolov8n-mine.yaml"))
    assert len(lines) == 1
    assert lines[0].endswith(f" [{code}]")
    assert lines == [finding.line("yolov8n-mine.yaml") for finding in check("yolov8n-mine.yaml")]
    YOLO("yolov8n-mine.yaml")  # as `yolo train` does
    assert len(lines) == 1


@pytest.mark.parametrize(
    "row",
    ["SimAM, []", "SimAM, [1e-4]", "SE, [16]", "SE, [{reduction: 64}]", "CoordAtt, [32]", "CBAM, []",
     "CBAM, [{kernel: 7}]", "UltralyticsCBAM, [7]", "LSKA, [35]"],
)  # fmt: skip
def test_what_is_right_or_said_by_name_is_not_reported(row: str, lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "yolov8n-mine.yaml"
    path.write_text(with_row(row, "p3"))
    build(path)
    assert lines == []
    assert check(path) == []


def test_a_block_that_feeds_the_next_row_by_its_comment_is_not_reported(lines: list[str], tmp_path: Path) -> None:
    build(place("yolov8.yaml", block="GAM", at="12", feeds="next").save(tmp_path / "yolov8n-mine.yaml"))
    assert lines == []


@pytest.mark.parametrize(
    ("nc", "says"),
    [("nc: 0", "is 0"), ("nc: -1", "is -1"), ("nc: '3'", "is '3'"), ("nc: 2.5", "is 2.5"), ("nc: true", "is True"),
     ("nc:", "is None"), ("", "is missing")],
)  # fmt: skip
def test_a_wrong_number_of_classes_names_file_and_key(nc: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "yolov8n-mine.yaml"
    path.write_text(re.sub(r"^nc: 80.*", nc, with_row("GAM, []"), flags=re.M))
    message = f"{path}, key 'nc': {says}. Expected the number of classes, from 1."
    with pytest.raises(UserError, match=re.escape(message)):
        build(path)
    with pytest.raises(UserError, match=re.escape(message)):
        gam_yolo.place(path, block="SE", at="p3")
    assert [finding.message for finding in check(path)] == [message.removeprefix(f"{path}, ").removesuffix(".") + "."]


def test_a_model_that_cannot_run_says_why_in_one_line(tmp_path: Path) -> None:
    """Ultralytics runs a detector once while it builds it; there, stale numbers can meet tensors of two strides."""
    path = tmp_path / "yolov8n-mine.yaml"
    row = "  - [-1, 6, C2f, [256, True]]\n"
    path.write_text(BASE.replace(row, f"{row}  - [-1, 1, GAM, []]\n  - [-1, 1, SE, [4]]\n"))
    with pytest.raises(UserError, match=r"mine\.yaml: the row numbers are those of the file without its blocks"):
        YOLO(path)
    path.write_text(with_row("GAM, []").replace("[[-1, 12], 1, Concat", "[[-1, 9], 1, Concat"))
    with pytest.raises(UserError, match=r"mine\.yaml, row 17 .*cannot process its input"):
        YOLO(path)


@pytest.mark.parametrize(
    ("row", "same"),
    [
        ("SimAM, [1e-4]", "SimAM, [0.0001]"),
        ("SimAM, [{e_lambda: 1e-3}]", "SimAM, [0.001]"),
        ("GAM, ['16']", "GAM, [16]"),
        ("GAM, [None]", "GAM, []"),
        ("GAM, ['8', 'sigmoid', {channel: 'False'}]", "GAM, [8, sigmoid, 1, none, false]"),
    ],
)
def test_arguments_are_read_by_ultralytics_own_rule(row: str, same: str) -> None:
    def built(text: str) -> list[Any]:
        model = {**yaml.safe_load(with_row(text)), "scale": "n"}
        block = next(m for m in tasks.parse_model(model, 3, False)[0] if type(m).__module__.startswith("gam_yolo"))
        return [str(block), getattr(block, "e_lambda", None), [p.shape for p in block.parameters()]]

    assert built(row) == built(same)


def test_arguments_are_never_evaluated(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    model = {**yaml.safe_load(with_row("GAM, []")), "scale": "n"}
    model["head"][-2][3] = [f"open({str(trap)!r}, 'w')"]
    with pytest.raises(UserError, match="reduction is"):
        tasks.parse_model(model, 3, False)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("fork", "ours"),
    [
        ("SEAttention", "SE"), ("SELayer", "SE"), ("SE_Block", "SE"), ("ECAAttention", "ECA"), ("eca_layer", "ECA"),
        ("TripletAttention", "Triplet"), ("CA", "CoordAtt"), ("CoordAttention", "CoordAtt"), ("CoordAtten", "CoordAtt"),
        ("CBAMBlock", "CBAM"), ("BAMBlock", "BAM"), ("simam_module", "SimAM"), ("Simam_module", "SimAM"),
        ("GAM_attention", "GAM_Attention"), ("nn.CBAM", "CBAM"), ("SENet", "SE"), ("ECANet", "ECA"), ("CBMA", "CBAM"),
        ("GAMM", "GAM"), ("TripletAttn", "Triplet"), ("GAM_Atention", "GAM_Attention"), ("Convv", "Conv"),
        ("upsample", "nn.Upsample"), ("Concatt", "Concat"), ("C2ff", "C2f"), ("SPFF", "SPPF"),
    ],
)  # fmt: skip
def test_the_hint_names_our_block_for_a_forks_name(fork: str, ours: str, tmp_path: Path) -> None:
    path = tmp_path / "yolov8n-mine.yaml"
    path.write_text(with_row(f"{fork}, []"))
    (finding,) = check(path)
    with pytest.raises(UserError) as error:
        build(path)
    if fork == "GAM_attention":
        ours = error.value.args[0].split("'")[-2]
        assert ours in {"GAM", "GAMAttention", "GAM_Attention"}
    assert finding.remedy == f"Did you mean '{ours}'?"
    assert str(error.value).endswith(f"Did you mean '{ours}'?")


ABSENT = [
    "ShuffleAttention", "SA", "ResBlock_CBAM", "NAMAttention", "NAM", "S2Attention", "SOCA", "DANet", "GEnet",
    "GatherExcite", "ParNetAttention", "SKAttention", "CrissCrossAttention", "AxialImageTransformer",
    "DoubleAttention", "EffectiveSELayer", "ESE", "GCT", "GlobalContext", "GlobalContextBlock", "PSA_s",
    "SpatialGroupEnhance", "ACmix", "MHSA", "LSKBlock", "BiLevelRoutingAttention", "SSA", "DAttention",
    "C3k2_DLKA_Attention",
]  # fmt: skip


@pytest.mark.parametrize("name", ABSENT)
def test_a_forks_block_that_we_lack_is_said_to_be_absent(name: str, tmp_path: Path) -> None:
    """No name of another block is offered for it, however similar: SCSA is not SOCA."""
    path = tmp_path / "yolov8n-mine.yaml"
    path.write_text(with_row(f"{name}, [1024]"))
    remedy = "gam_yolo does not have this block. See docs/own-block.md to add it"
    with pytest.raises(UserError) as error:
        build(path)
    assert str(error.value).endswith(f"row 22 [-1, 1, {name}, [1024]]: there is no module named '{name}'. {remedy}.")
    assert [(f.code, f.remedy) for f in check(path)] == [("unknown-module", remedy)]


@pytest.mark.parametrize("name", ["CA_RFA_SPPF", "ASFF_Detect", "BiFPN", "C2BRA", "C3k2_DLKA", "FocusConv"])
def test_no_hint_is_given_for_a_module_that_was_not_meant(name: str, tmp_path: Path) -> None:
    path = tmp_path / "yolov8n-mine.yaml"
    path.write_text(with_row(f"{name}, [1024]"))
    with pytest.raises(UserError, match=f"row 22 .* there is no module named '{name}'$"):
        build(path)


@pytest.mark.parametrize(
    ("name", "holder", "block"),
    [
        ("C2f_CBAM", "C2f", "CBAM"), ("C2f_cbam", "C2f", "CBAM"), ("C2fEMA", "C2f", "EMA"), ("C3k2_EMA", "C3k2", "EMA"),
        ("C3k2_CAA", "C3k2", "CAA"), ("C3_SE", "C3", "SE"), ("C3SE", "C3", "SE"), ("C3CA", "C3", "CoordAtt"),
        ("CBAMC3", "C3", "CBAM"), ("C2f_SEAttention", "C2f", "SE"), ("C2f_GAM_Attention", "C2f", "GAM"),
        ("RepNCSPELAN4_ECA", "RepNCSPELAN4", "ECA"), ("C2f_SENet", "C2f", "SE"),
    ],
)  # fmt: skip
def test_a_block_in_another_row_gets_the_rows_that_build_it(name: str, holder: str, block: str, tmp_path: Path) -> None:
    """Classes of these names have the block in their bottlenecks or after their last convolution: both rows build."""
    path = tmp_path / "yolov8n-mine.yaml"
    path.write_text(with_row(f"{name}, [1024]"))
    inside, after = f"[-1, n, {holder}, [c, {{inside: {block}}}]]", f"[-1, 1, {block}, []]"
    with pytest.raises(UserError) as error:
        build(path)
    says = (
        f"there is no module named '{name}'. Write {inside} for {block} in its bottlenecks, or {after} after the row."
    )
    assert str(error.value).endswith(says)
    assert f"{check(path)[0].remedy}." == says.partition(". ")[2]
    with pytest.raises(UserError, match=r"no block is named .*\{inside: "):
        gam_yolo.place("yolov8n.yaml", block=name, at="p3")
    arguments = "1024, 512, 128" if holder == "RepNCSPELAN4" else "1024"
    for row in (f"{holder}, [{arguments}, {{inside: {block}}}]", f"{block}, []"):
        path.write_text(with_row(row))
        build(path)


@pytest.mark.parametrize(
    ("row", "remedy"),
    [
        ("SE, [1024, 16]", "[16]"),
        ("SE, [1024, 2]", "[2]"),
        ("SE, [1024]", "[]"),
        ("EMA, [1024, 8]", "[8]"),
        ("CoordAtt, [1024, 1024]", "[]"),
        ("CoordAtt, ['1024', 256, 16]", "[16]"),
        ("GAM, [1024, 1024]", "[]"),
        ("SE, [1024, 0]", "[]"),
        ("ECA, [1024]", "[]"),
        ("CBAM, [1024, 3]", "[3]"),
        ("SE, [1024, {start: identity}]", "[{start: identity}]"),
    ],
)
def test_the_remedy_for_a_row_with_channels_is_a_row_that_builds(row: str, remedy: str, tmp_path: Path) -> None:
    path = tmp_path / "yolov8n-mine.yaml"
    path.write_text(with_row(row))
    with pytest.raises(UserError) as error:
        build(path)
    assert str(error.value).endswith(f" Write {remedy}: the channels come from the row's input.")
    path.write_text(with_row(f"{row.partition(',')[0]}, {remedy}"))
    build(path)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("GAM, [{reduction: 16}, 3]", "GAM's arguments by name, {reduction: 16}, are not the last. Write them last."),
        ("GAM, [{reduction: 16}, {gate: sigmoid}]", "by name, {reduction: 16}, are not the last. Write them last."),
        ("ECA, [4]", "kernel is 4. Expected one of 1, 3, 5, 7, 9."),
    ],
)
def test_other_slips_in_arguments_are_explained(row: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "yolov8n-mine.yaml"
    path.write_text(with_row(row))
    with pytest.raises(UserError) as error:
        build(path)
    assert str(error.value).endswith(says)


def test_a_scale_that_the_file_lacks_is_reported(tmp_path: Path) -> None:
    """Published files comment the other scales out."""
    text = with_row("GAM, []")
    start, end = text.index("  n: ["), text.index("backbone:")
    (tmp_path / "yolov8-mine.yaml").write_text(f"{text[:start]}  m: [0.67, 0.75, 768]\n{text[end:]}")
    with pytest.raises(UserError, match=r"yolov8n-mine\.yaml: the file has no scale 'n'\. Expected one of m\."):
        build(tmp_path / "yolov8n-mine.yaml")
    build(tmp_path / "yolov8m-mine.yaml")


@pytest.mark.parametrize("fork", ["EMAttention", "ShuffleAttention"])
def test_a_forks_block_that_we_lack_does_not_name_another_one(fork: str) -> None:
    meant = gam_yolo.registry.suggest(fork, [*gam_yolo.BLOCKS, "Attention", "PSA"])
    assert meant.get("similar", "EMA") == "EMA"


@pytest.mark.parametrize(
    ("row", "says", "parameters"),
    [
        ("[]", "(in_channels=256, rate=4), no groups", 1_639_680),
        ("[4]", "(in_channels=256, rate=4), no groups", 1_639_680),
        ("[8]", "(in_channels=256, rate=8), no groups", 820_352),
        ("[{rate: 8}]", "(in_channels=256, rate=8), no groups", 820_352),
        ("[1024]", "group=True (4 groups), rate=4", 435_456),
        ("[1024, 1024]", "group=1024 (4 groups), rate=4", 435_456),
        ("[1024, True]", "group=True (4 groups), rate=4", 435_456),
        ("[1024, False]", "group=False (no groups), rate=4", 1_639_680),
        ("[1024, True, 8]", "group=True (8 groups), rate=8", 117_888),
    ],
)
@pytest.mark.parametrize("name", ["GAM_Attention", "GAMAttention"])
def test_both_families_of_the_forks_gam_are_known_by_their_arguments(
    name: str, row: str, says: str, parameters: int, lines: list[str]
) -> None:
    """Counts from the forks' classes: 2Cm + C + m, two 7x7 convolutions with bias, and batch norms; m is C / rate."""
    model = {**yaml.safe_load(with_row(f"{name}, {row}")), "scale": "n", "yaml_file": "fork.yaml"}
    block = tasks.parse_model(model, 3, False)[0][-2]
    c, rate = 256, 8 if "8" in row else 4
    m, groups = c // rate, rate if "rate" in says and "groups)" in says and "no groups" not in says else 1
    assert 2 * c * m + c + m + 2 * (49 * c * m // groups) + c + m + 2 * (c + m) == parameters
    assert sum(p.numel() for p in block.parameters()) == parameters
    assert len(lines) == 1
    assert says in lines[0]
    third = "(in_channels, out_channels, rate=4), without groups" in lines[0]  # a class whose rows look the same
    assert third == (row in {"[1024]", "[1024, 1024]"})
    assert f"It has {parameters:,} parameters and no sigmoid on the channel gate" in lines[0]  # what classes differ in


def rows_in(line: str) -> list[str]:
    return re.findall(r"\[-1, 1, (GAM, \[.*?\])\]", line)


@pytest.mark.parametrize(
    "row", ["[]", "[8]", "[1024, True, 8]", "[1024, False]", "[512, 512]", "[1024, 8]", "[1024, 4]"]
)
def test_the_plain_rows_that_the_log_gives_build_what_it_says(row: str, lines: list[str]) -> None:
    def parameters(row: str) -> int:
        model = {**yaml.safe_load(with_row(row)), "scale": "n", "yaml_file": "fork.yaml"}
        return sum(p.numel() for p in tasks.parse_model(model, 3, False)[0][-2].parameters())

    built = parameters(f"GAM_Attention, {row}")
    ours, *third = rows_in(" ".join(lines))
    assert parameters(ours) == built
    rate = 8 if row == "[1024, 8]" else 4
    m = 256 // rate
    ungrouped = 2 * 256 * m + 256 + m + 2 * 49 * 256 * m + 256 + m + 2 * (256 + m)
    assert [parameters(other) for other in third] == [ungrouped] * (row in {"[512, 512]", "[1024, 8]", "[1024, 4]"})


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("- [-1, 1, GAM, []]", "- [-1, GAM, []]", "row 22 [-1, GAM, []]: a row has 4 parts, not 3"),
        ("- [-1, 1, GAM, []]", "- [-1, 1, [GAM], []]", "row 22 [-1, 1, [GAM], []]: the module is ['GAM']. Expec"),
        ("- [-1, 1, GAM, []]", "- [GAM, -1, 1, []]", "row 22 [GAM, -1, 1, []]: 'from' is 'GAM'"),
        ("C2f, [1024]", "C2f, [1024, {inside: []}]", "'inside' is []. Expected a block, such as GAM, or [GAM, {start"),
        ("C2f, [1024]", "C2f, [1024, {inside: {GAM: []}}]", "'inside' is {'GAM': []}. Expected a block"),
        ("C2f, [1024]", "C2f, [1024, {inside: 3}]", "'inside' is 3. Expected a block"),
        ("head:\n", "neck:\n", "'head' is None. Expected a list of [from, repeats, module, args]"),
        ("head:\n", "head: ~\nneck:\n", "'head' is None. Expected a list of"),
    ],
)  # fmt: skip
def test_a_file_with_a_block_in_a_wrong_place_is_explained(old: str, new: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "yolov8n-mine.yaml"
    text = with_row("GAM, []") if "head" not in old else with_row("GAM, []", "p5").replace("SPPF, [1024, 5]", "GAM, []")
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError) as error:
        build(path)
    assert says in str(error.value)
