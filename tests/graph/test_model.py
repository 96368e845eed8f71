from __future__ import annotations

from pathlib import Path

import pytest

from gam_yolo.errors import UserError, brief
from gam_yolo.graph.model import IMAGE, Document, Graph

from .samples import TINY, shipped


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_every_shipped_model_is_read(path: Path) -> None:
    graph = Document.read(path).graph
    assert not [*graph.impossible()]
    assert graph.layers[0].sources == (IMAGE,)
    assert [layer.index for layer in graph.layers] == list(range(len(graph.layers)))


def test_sources_are_row_numbers() -> None:
    graph = Document(TINY, "tiny.yaml").graph
    assert graph.layers[5].sources == (4, 2)
    assert graph.readers(2) == [3, 5]
    assert graph.head.module == "Detect"
    assert [layer.section for layer in graph.layers] == ["backbone"] * 4 + ["head"] * 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds None. Expected a mapping"),
        ("- 1", "holds \\[1\\]. Expected a mapping"),
        ("nc: [", "line 1: is not valid YAML"),
        ("nc: 1\nbackbone:\n\t- 1", "line 3: is not valid YAML"),
        ("nc: !!python/object/apply:os.system [ls]", "is not valid YAML"),
        ("nc: !!timestamp x", "is not valid YAML"),
        ("a: \x00", "is not valid YAML"),
        ("[" * 5000, r"is not valid YAML \(maximum recursion depth"),
        ("backbone: [[-1, 1, Conv, []]]", "'head' is None. Expected a list"),
        ("backbone: []\nhead: []", "'head' is \\[\\]"),
        ("backbone: {a: 1}\nhead: []", "Expected a list of"),
        ("backbone: [1]\nhead: []", "row 0 1: is not a list. Expected \\[from, repeats, module, args\\]"),
        ("backbone: [[-1, 1, Conv]]\nhead: []", "row 0 .*: a row has 4 parts, not 3. Expected \\[from"),
        ("backbone: [[x, 1, Conv, []]]\nhead: []", "'from' is 'x'. Expected a row number"),
        ("backbone: [[[], 1, Conv, []]]\nhead: []", "'from' is \\[\\]"),
        ("backbone: [[true, 1, Conv, []]]\nhead: []", "'from' is True"),
        ("backbone: [[-1, 0, Conv, []]]\nhead: []", "repeats is 0"),
        ("backbone: [[-1, 1, 7, []]]\nhead: []", "the module is 7"),
        ("backbone: [[-1, 1, Conv, 64]]\nhead: []", "the arguments are 64. Expected a list"),
        ("backbone: [[-1, 1, Conv, &a [*a]]]\nhead: []", "or themselves by an alias"),
    ],
)
def test_what_is_no_model_is_a_one_line_error(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Document(text, "some.yaml")


def test_a_bomb_of_aliases_is_rejected_at_once() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 20)]
    text = "\n".join([*lines, "backbone: [[-1, 1, Conv, [*a19]]]", "head: [[-1, 1, Conv, []]]"])
    with pytest.raises(UserError, match="more than 1000 values"):
        Document(text, "bomb.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Document.read(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"nc: \xe9")
    with pytest.raises(UserError, match=r"is not UTF-8 text \(byte 4\)"):
        Document.read(tmp_path / "latin.yaml")


def test_references_that_cannot_be() -> None:
    rows = [[-1, 1, "Conv", [8]], [-2, 1, "Conv", [8]], [2, 1, "Conv", [8]], [[5, -1], 1, "Concat", [1]]]
    graph = Graph.from_config({"backbone": rows[:2], "head": rows[2:]}, "x")
    assert [(layer.index, source) for layer, source in graph.impossible()] == [(1, -1), (2, 2), (3, 5)]


def test_any_value_has_a_short_form() -> None:
    cyclic: list[object] = []
    cyclic.append(cyclic)
    for value in (cyclic, 1 << 100_000, "x" * 10_000, [[[[[[[[1]]]]]]]], {"a": cyclic}):
        assert len(brief(value)) < 300
