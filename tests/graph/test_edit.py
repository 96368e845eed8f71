from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gam_yolo.errors import UserError
from gam_yolo.graph.edit import Edit, insert, remove, rewrite
from gam_yolo.graph.model import Document, Graph, Layer

from .samples import TINY, shipped

GRAPHS = {path.stem: Document.read(path).graph for path in shipped()}


def is_gam(name: str) -> bool:
    return name == "GAM"


def meaning(graph: Graph, block: str | None = "GAM") -> list[object]:
    """What each row computes, as a number per distinct expression; rows of `block` compute what they read.

    A second way to the same result: it follows the edges, and knows nothing of how rows are numbered.
    """
    known: dict[object, int] = {}
    out: list[object] = []
    for layer in graph.layers:
        inputs = tuple("image" if s < 0 else out[s] for s in layer.sources)
        if layer.module == block:
            out.append(inputs[0])
            continue
        expression = (layer.module, repr(layer.args), layer.repeats, layer.many, layer.section, inputs)
        out.append(known.setdefault(expression, len(known)))
    return out


@pytest.mark.parametrize("name", GRAPHS)
def test_every_single_and_double_placement_computes_the_original_when_blocks_pass_through(name: str) -> None:
    base = GRAPHS[name]
    want = meaning(base)
    positions = range(base.head.index)
    for rows in [*((i,) for i in positions), *itertools.combinations(positions, 2)]:
        edit = insert(base, rows, "GAM", [])
        kept = [m for m, layer in zip(meaning(edit.graph), edit.graph.layers, strict=True) if layer.module != "GAM"]
        assert kept == want, rows
        assert remove(edit.graph, is_gam).graph == base, rows
        # Only the block reads the row before it.
        for layer in edit.graph.layers:
            if layer.module == "GAM":
                assert edit.graph.readers(layer.index - 1) == [layer.index]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_random_placements_round_trip(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(GRAPHS)))
    base = GRAPHS[name]
    rows = data.draw(st.lists(st.integers(0, base.head.index - 1), max_size=8))
    edit = insert(base, rows, "GAM", [16])
    assert len(edit.graph.layers) == len(base.layers) + len(set(rows))
    assert remove(edit.graph, is_gam).graph == base
    again = insert(edit.graph, rows, "CBAM", [])
    assert remove(again.graph, lambda m: m == "CBAM").graph == edit.graph


@pytest.mark.parametrize(
    "name", ["yolov3-tiny", "yolov5-p6", "yolov6", "yolov8-world", "yolov9e", "yolov10n", "rtdetr-l", "yolo26-p2"]
)
def test_placing_and_removing_gives_the_file_back_to_the_byte(models: dict[str, Path], name: str) -> None:
    document = Document.read(models[name])
    for row in range(document.graph.head.index):
        placed = Document(rewrite(document, insert(document.graph, [row], "GAM", [])), name)
        assert rewrite(placed, remove(placed.graph, is_gam)) == document.text


def test_next_feeds_the_following_row_only() -> None:
    document = Document(TINY, "tiny.yaml")
    edit = insert(document.graph, [1], "GAM", [], "next")
    assert edit.graph.layers[2].module == "GAM"
    assert edit.graph.layers[3].sources == (2,)  # the backbone goes on from the block
    assert edit.graph.head.sources == (1, 7, 10)  # the head still reads the row before it
    text = rewrite(document, edit)
    assert "- [-1, 1, GAM, []] # 2 feeds next\n" in text
    assert remove(Document(text, "x").graph, is_gam).graph == document.graph


def test_next_rejects_a_block_that_would_be_unused() -> None:
    graph = GRAPHS["yolov3-tiny"]  # its row 16 reads row 14
    with pytest.raises(UserError, match=r"row 16 \(Conv\) does not read row 15 .*feeds=all"):
        insert(graph, [15], "GAM", [], "next")


@pytest.mark.parametrize(("row", "words"), [(10, "is the head"), (11, "does not exist"), (-1, "does not exist")])
def test_only_rows_before_the_head_can_be_followed(row: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        insert(Document(TINY, "tiny.yaml").graph, [row], "GAM", [])


def test_only_what_moves_is_rewritten() -> None:
    document = Document(TINY, "tiny.yaml")
    text = rewrite(document, insert(document.graph, [2, 6], "GAM", [16, {"start": "identity"}]))
    before, after = TINY.splitlines(), text.splitlines()
    assert [line for line in after if line not in before] == [
        "  - [-1, 1, GAM, [16, {start: identity}]] # 3",
        "  - [-1, 1, Conv, [32, 3, 2]] # 4-P5/32",
        "  - [[-1, 3], 1, Concat, [1]] # cat backbone P4",
        "  - [-1, 1, Conv, [24, 1, 1]] # X4 (7), fused",
        "  - [-1, 1, GAM, [16, {start: identity}]] # 8",
        "  - [[-1, 4], 1, Concat, [1]]",
        "  - [-1, 1, Conv, [32, 1, 1]] # 11 (P5/32-large)",
        "  - [[1, 8, 11], 1, Detect, [nc]] # Detect(P3, P4, P5)",
    ]
    assert text.index("GAM, [16, {start: identity}]] # 8\n\n")  # the blank line stays after the group


def test_relative_numbers_stay_relative(models: dict[str, Path]) -> None:
    document = Document.read(models["rtdetr-l"])
    text = rewrite(document, insert(document.graph, [14], "GAM", []))  # between an upsampling and [[-2, -1], 1, Concat]
    rows = yaml.safe_load(text)["head"]
    assert rows[6][:3] == [[-3, -1], 1, "Concat"]
    assert Document(text, "x").graph.layers[16].sources == (13, 15)


ROWS = yaml.safe_load(TINY)
LAYOUTS = {
    "block style": yaml.safe_dump(ROWS),
    "flow style": yaml.safe_dump(ROWS, default_flow_style=True),
    "flow style, wide": yaml.safe_dump(ROWS, default_flow_style=True, width=10_000),
    "sections in flow style": "nc: 3\n"
    + "".join(f"{s}: [\n" + ",\n".join(f"  {row}" for row in ROWS[s]) + "]\n" for s in ("backbone", "head")),
    "windows line ends": TINY.replace("\n", "\r\n"),
    "no newline at the end": TINY.rstrip(),
    "head first": "head:" + TINY.split("head:")[1] + TINY.split("head:")[0],
    "head first, no newline at the end": ("head:" + TINY.split("head:")[1] + TINY.split("head:")[0]).rstrip(),
    "no indentation": TINY.replace("\n  -", "\n-"),
    "odd spaces": TINY.replace("[-1, 1,", "[ -1,1 ,").replace("]] #", " ] ]  #"),
    "byte order mark": "\ufeff" + TINY,
    "merged in": "base: &b\n" + "".join(f"  {line}\n" for line in TINY.splitlines()[1:]) + "<<: *b\n",
    "unrelated anchors": TINY.replace("nc: 3", "nc: &n 3\nother: *n"),
}


LAYOUTS["head first, no newline, windows line ends"] = LAYOUTS["head first, no newline at the end"].replace(
    "\n", "\r\n"
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_edited_in_place(layout: str) -> None:
    text = LAYOUTS[layout]
    document = Document(text, layout)
    assert document.graph == Document(TINY, "tiny.yaml").graph
    for rows in ([0], [3], [9], [0, 3, 9], range(10)):
        placed = Document(rewrite(document, insert(document.graph, rows, "GAM", [])), layout)
        assert meaning(placed.graph)[-1] == meaning(document.graph)[-1]
        assert rewrite(placed, remove(placed.graph, is_gam)) == text


def test_what_a_row_has_replaced_is_found_among_its_other_arguments() -> None:
    row = "[-1, 1, GAM, [4, {start: zero, replaces: [2, Conv, [ 32,3, 2 ]]}]]"
    document = Document(TINY.replace("[-1, 1, Conv, [32, 3, 2]] # 3-P5/32", f"{row} # 3-P5/32"), "x")
    text = rewrite(document, remove(document.graph, is_gam))
    assert text == TINY.replace("[-1, 1, Conv, [32, 3, 2]] # 3-P5/32", "[-1, 2, Conv, [ 32,3, 2 ]] # 3-P5/32")


ROW = "- [-1, 1, Conv, [24, 1, 1]] # X4 (6)"
SPELLED = "- [ -1,01, 'Conv', [ 24, 0x1,1 ] ] # X4 (6)"


def changed(text: str, change: Callable[[Layer], Layer], row: int = 6) -> str:
    """The text of a model in which one row is another."""
    document = Document(text, "x.yaml")
    layers = list(document.graph.layers)
    layers[row] = change(layers[row])
    return rewrite(document, Edit(Graph(tuple(layers)), tuple(range(len(layers)))))


@pytest.mark.parametrize(
    ("change", "row"),
    [
        (lambda layer: layer.holding("GAM", []), "- [ -1,01, 'Conv', [ 24, 0x1,1, {inside: GAM} ] ]"),
        (lambda layer: layer.holding("GAM", [4, "a b"]), "- [ -1,01, 'Conv', [ 24, 0x1,1, {inside: [GAM, 4, a b]} ] ]"),
        (lambda layer: replace(layer, args=[24, 3]), "- [ -1,01, 'Conv', [ 24, 3 ] ]"),
        (lambda layer: replace(layer, args=[24, 1]), "- [ -1,01, 'Conv', [ 24, 0x1 ] ]"),
        (lambda layer: replace(layer, args=[8, 1, 1]), "- [ -1,01, 'Conv', [ 8, 1, 1 ] ]"),
        (lambda layer: replace(layer, args=[]), "- [ -1,01, 'Conv', [  ] ]"),
        (lambda layer: layer.replaced("SE", []), "- [ -1,1, SE, [{replaces: [01, 'Conv', [ 24, 0x1,1 ]]}] ]"),
        (
            lambda layer: layer.replaced("SE", [4, "max", {"start": "zero"}]),
            "- [ -1,1, SE, [4, max, {start: zero, replaces: [01, 'Conv', [ 24, 0x1,1 ]]}] ]",
        ),
        (
            lambda layer: layer.replaced("SE", [4]).replaced("ECA", ["@"]),
            "- [ -1,1, ECA, ['@', {replaces: [01, 'Conv', [ 24, 0x1,1 ]]}] ]",
        ),
    ],
)
def test_what_a_row_keeps_keeps_its_spelling(change: Callable[[Layer], Layer], row: str) -> None:
    text = TINY.replace(ROW, SPELLED)
    assert SPELLED in text
    assert changed(text, change) == text.replace(SPELLED.partition(" #")[0], row)


def test_a_row_is_another_and_then_itself_again() -> None:
    text = TINY.replace(ROW, SPELLED)
    steps: list[list[Callable[[Layer], Layer]]] = [
        [lambda layer: layer.replaced("SE", [4, {"start": "zero"}])],
        [lambda layer: layer.replaced("SE", []), lambda layer: layer.replaced("ECA", [{"kernel": 3}])],
        [lambda layer: layer.holding("GAM", [4]), lambda layer: layer.replaced("SE", [])],
        [lambda layer: layer.holding("GAM", [])],
    ]
    for changes in steps:
        after = text
        for change in changes:
            after = changed(after, change)
        assert changed(after, lambda layer: layer.base()) == text


@pytest.mark.parametrize("old", ["[24, 1, 1]", "[]"])
def test_arguments_without_brackets_or_values_are_written_on_one_line(old: str) -> None:
    block = "- - -1\n    - 1\n    - Conv\n    - - 24\n      - 1\n      - 1\n    # X4 (6)"
    text = TINY.replace(ROW, block) if old != "[]" else TINY.replace(ROW, ROW.replace("[24, 1, 1]", "[]"))
    assert text != TINY
    for change, written in (
        (lambda layer: replace(layer, args=[24, 3]), "[24, 3]"),
        (lambda layer: layer.holding("GAM", []), f"[{old[1:-1]}{', ' * (old != '[]')}{{inside: GAM}}]"),
    ):
        after = changed(text, change)
        assert written in after
        assert len(after.splitlines()) == len(text.splitlines()) - 2 * (old != "[]")
    assert f"SE, [{{replaces: [1, Conv, {old}]}}]" in changed(text, lambda x: x.replaced("SE", [])).replace(
        "\n    - ", ", "
    )


def test_rows_shared_by_an_alias_are_rejected_rather_than_changed_together() -> None:
    text = TINY.replace("- [-1, 1, Conv, [24, 1, 1]]", "- &r [-1, 1, Conv, [24, 1, 1]]")
    text = text.replace("  - [[1, 6, 9]", "  - [&k 6, 1, Conv, [8]]\n  - [*k, 1, Conv, [8]]\n  - [[1, 6, 9]")
    document = Document(text, "shared.yaml")
    with pytest.raises(UserError, match=r"shared\.yaml: its rows cannot be edited in place"):
        rewrite(document, insert(document.graph, [2], "GAM", []))


def test_a_block_that_cannot_be_bridged_is_not_removed() -> None:
    graph = Document(TINY.replace("[[-1, 2], 1, Concat, [1]]", "[[-1, 2], 1, GAM, []]"), "x").graph
    with pytest.raises(UserError, match=r"row 5 \(GAM\) reads \[4, 2\] and cannot be removed"):
        remove(graph, is_gam)
