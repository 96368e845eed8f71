"""Insert rows into a model YAML, change or remove them, and renumber every `from` and every row number in comments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml

from gam_yolo.arguments import REPLACES
from gam_yolo.errors import UserError, brief
from gam_yolo.graph.model import IMAGE, SECTIONS, Document, Graph, Layer

__all__ = ["FEEDS", "FEEDS_NEXT", "Edit", "insert", "remove", "rewrite"]

FEEDS = ("all", "next")
FEEDS_NEXT = "feeds next"
"""The comment of a row whose block is meant to feed the next row only."""

# A comment's row number leads ("15 (P3/8-small)", "0-P1/2") or stands alone in brackets ("X3 (21), fpn_blocks.1").
_NUMBER = re.compile(r"#\s*(?:(\d+)(?![\w.])|[^\d\s][^(]*\((\d+)\))")


@dataclass(frozen=True)
class Edit:
    """A changed graph.

    Attributes:
        graph: The new graph.
        origin: For each new row its old number, or None where it was inserted.
        note: What the comment of each inserted row says besides its number.
    """

    graph: Graph
    origin: tuple[int | None, ...]
    note: str = ""


def insert(graph: Graph, after: Iterable[int], block: str, args: list[Any], feeds: str = "all") -> Edit:
    """Insert a block after each of the rows `after`.

    Args:
        graph: The graph to start from.
        after: Row numbers of `graph`.
        block: The block's name.
        args: The arguments of each block's row.
        feeds: `all`: every row that read row X reads block(X) instead. `next`: only the next row does; the others
            still read X itself.

    Raises:
        UserError: A row does not exist, is the head, or (`next`) is not read by the next row.
    """
    rows = sorted(set(after))
    for row in rows:
        graph.before_head(row, block)
        if feeds == "next" and row not in graph.layers[row + 1].sources:
            readers = ", ".join(str(graph.layers[i]) for i in graph.readers(row)) or "no row"
            raise UserError(
                f"{graph.layers[row + 1]} does not read row {row} ({readers} does), so a {block} that feeds only the "
                "next row would be unused",
                fix="Use feeds=all",
            )

    def moved(index: int) -> int:
        return index + sum(row < index for row in rows) if index != IMAGE else IMAGE

    def now(source: int, reader: int) -> int:
        attended = source in rows and (feeds == "all" or reader == source + 1)
        return moved(source) + attended

    layers: list[Layer] = []
    origin: list[int | None] = []
    for layer in graph.layers:
        sources = tuple(now(source, layer.index) for source in layer.sources)
        layers.append(replace(layer, index=len(layers), sources=sources))
        origin.append(layer.index)
        if layer.index in rows:
            layers.append(Layer(len(layers), (len(layers) - 1,), False, 1, block, args, layer.section))
            origin.append(None)
    return Edit(Graph(tuple(layers)), tuple(origin), FEEDS_NEXT if feeds == "next" else "")


def remove(graph: Graph, is_block: Callable[[str], bool]) -> Edit:
    """Give the base back: without what `place` wrote into rows, and without the rows whose module `is_block`.

    The readers of a row that is removed then read what it read.

    Raises:
        UserError: Such a row reads several rows, reads the image, or is the head.
    """
    bases = [layer.base() for layer in graph.layers]
    blocks = {layer.index: layer for layer in bases if is_block(layer.module)}
    for layer in blocks.values():
        if len(layer.sources) != 1 or layer.sources[0] == IMAGE or layer.index == graph.head.index:
            raise UserError(
                f"{layer} reads {brief(list(layer.sources))} and cannot be removed",
                expected="a block that reads one row",
            )

    def now(source: int) -> int:
        while source in blocks:
            source = blocks[source].sources[0]
        return source - sum(block < source for block in blocks) if source != IMAGE else IMAGE

    kept = [layer for layer in bases if layer.index not in blocks]
    layers = [replace(x, index=i, sources=tuple(map(now, x.sources))) for i, x in enumerate(kept)]
    return Edit(Graph(tuple(layers)), tuple(layer.index for layer in kept))


def rewrite(document: Document, edit: Edit) -> str:
    """Return the document's text with the edit made in it; every other character stays as it is.

    A relative `from` (-1) stays relative, a row number stays a row number. A comment after a row is renumbered if it
    begins with the row's own number or has it in brackets.

    Raises:
        UserError: The layout cannot be edited in place, for example because YAML aliases share rows.
    """
    text = document.text
    for start, end, new in sorted(_changes(document, edit), reverse=True):
        text = text[:start] + new + text[end:]
    # Whatever the layout, the result must be read as the graph that was meant.
    try:
        agrees = Document(text, document.name).graph == edit.graph
    except UserError:
        agrees = False
    if not agrees:
        raise UserError(
            "its rows cannot be edited in place",
            at=document.name,
            fix="Write each as '- [from, repeats, module, args]'",
        )
    return text


def _changes(document: Document, edit: Edit) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, new text) for each span of the old text that changes."""
    text = document.text
    kept = {old: new for new, old in enumerate(edit.origin) if old is not None}
    for old, node in enumerate(document.rows):
        if old not in kept:
            yield _row_span(document, old)
            continue
        layer = edit.graph.layers[kept[old]]
        entries = node.value[0].value if layer.many else [node.value[0]]
        for entry, read, source in zip(entries, document.graph.layers[old].sources, layer.sources, strict=True):
            relative = entry.value.startswith("-")
            value = source - layer.index if relative else source
            if value != (read - old if relative else read):
                yield entry.start_mark.index, entry.end_mark.index, str(value)
        yield from _in_place(document, node, document.graph.layers[old], layer)
        comment = document.comment(old)
        number = _NUMBER.match(comment)
        group = number.lastindex if number else None
        if number and group and int(number[group]) == old != layer.index:
            at = text.index(comment, document.end(node))
            yield at + number.start(group), at + number.end(group), str(layer.index)
    for new, origin in enumerate(edit.origin):
        if origin is None:
            after = next(old for old in reversed(edit.origin[:new]) if old is not None)
            yield _new_row(document, after, edit.graph.layers[new], edit.note)


def _in_place(document: Document, node: yaml.SequenceNode, old: Layer, new: Layer) -> Iterator[tuple[int, int, str]]:
    """Yield the changes to a row's repeats, module and arguments; what stays, or is recorded, keeps its spelling."""
    if _entries(old) == _entries(new):
        return
    cells = node.value[1:]
    written, base = cells, old
    while base.replaces:
        written = next(value for key, value in written[2].value[-1].value if key.value == REPLACES).value
        base = replace(base, repeats=base.replaces[0], module=base.replaces[1], args=base.replaces[2])
    texts = [_text(document, *pair) for pair in zip(written, _entries(base), strict=True)]
    if new.replaces:
        args = _flow([*new.args[:-1], {**new.args[-1], REPLACES: "@"}])
        texts = [str(new.repeats), new.module, f"[{', '.join(texts)}]".join(args.rsplit("'@'", 1))]
    elif new.args != base.args:
        texts[2] = _args(document, written[2], base.args, new.args)
    for cell, text in zip(cells, texts, strict=True):
        yield cell.start_mark.index, document.end(cell), text


def _entries(layer: Layer) -> list[Any]:
    return [layer.repeats, layer.module, layer.args]


def _args(document: Document, node: yaml.SequenceNode, old: list[Any], new: list[Any]) -> str:
    """Return the text of new arguments; those that begin the old ones too keep their spelling."""
    if not node.flow_style or not node.value:
        return _flow(new)
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    text, items = document.text, node.value
    begin = text[node.start_mark.index : document.end(items[same - 1]) if same else items[0].start_mark.index]
    rest = _flow(new[same:])[1:-1]
    end = text[document.end(items[-1]) : document.end(node)]
    return begin + (", " if same and rest else "") + rest + end


def _text(document: Document, node: yaml.Node, value: Any) -> str:
    """Return how a value is written, on one line."""
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return _flow(value)
    return document.text[node.start_mark.index : document.end(node)]


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False).strip()


def _new_row(document: Document, after: int, layer: Layer, note: str) -> tuple[int, int, str]:
    """Return the change that writes `layer` after the old row `after`, in the layout of its section."""
    text, end = document.text, document.end(document.rows[after])
    row = f"[-1, {layer.repeats}, {layer.module}, {_flow(layer.args)}]"
    section = document.sections[layer.section]
    if section.flow_style:
        return end, end, f", {row}"
    line_end = re.compile(r"[^\r\n]*").match(text, end)
    at = line_end.end() if line_end else end
    newline = "\r\n" if "\r\n" in text else "\n"
    remark = f"{layer.index} {note}".strip()
    return at, at, f"{newline}{' ' * section.start_mark.column}- {row} # {remark}"


def _row_span(document: Document, index: int) -> tuple[int, int, str]:
    """Return the change that deletes a row: its lines, or in a flow list the item with its comma."""
    text, node = document.text, document.rows[index]
    section = next(document.sections[s] for s in SECTIONS if any(node is row for row in document.sections[s].value))
    start, end = node.start_mark.index, document.end(node)
    if section.flow_style:
        place = next(i for i, row in enumerate(section.value) if row is node)
        if place:
            return document.end(section.value[place - 1]), end, ""
        following = section.value[1].start_mark.index if len(section.value) > 1 else end
        return start, following, ""
    start = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
    line_end = re.compile(r"[^\r\n]*(\r\n|\r|\n)?").match(text, end)
    end = line_end.end() if line_end else end
    if end == len(text) and start and not text.endswith(("\n", "\r")):  # the last line has no newline of its own
        start -= 2 if text[:start].endswith("\r\n") else 1
    return start, end, ""
