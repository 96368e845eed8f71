"""Names for places in a model: `p3`, `backbone`, `neck`, `head-inputs`, `after SPPF`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gam_yolo.errors import UserError, similar
from gam_yolo.graph.model import Graph
from gam_yolo.graph.shapes import Shape

__all__ = ["NAMES", "resolve"]

NAMES = ("p3", "p4", "p5", "backbone", "neck", "head-inputs")


def resolve(graph: Graph, where: str, shapes: Sequence[Shape | None]) -> list[int]:
    """Return the rows that `where` names.

    Args:
        graph: The graph.
        where: Comma-separated terms, optionally led by `after`; each is one of

            - a row number: that row;
            - a module's name (`SPPF`): every row of that module;
            - `head-inputs`: the rows that the head reads;
            - `p3` (any `pN`): the head's input of stride 2^N; if it has none, the last row of that stride;
            - `backbone`: the stage outputs of the backbone, that is, its rows that the neck or head reads;
            - `neck`: the stage outputs of the neck, that is, its rows that the head or a row of another stride reads.
        shapes: Each row's output, from `measure`.

    Raises:
        UserError: A term names nothing.
    """
    rows: set[int] = set()
    for term in re.sub(r"^\s*after\s+", "", where).split(","):
        rows.update(_term(graph, term.strip(), shapes))
    return sorted(rows)


def _term(graph: Graph, term: str, shapes: Sequence[Shape | None]) -> list[int]:
    """Resolve one term."""
    layers = graph.layers[:-1]
    if re.fullmatch(r"\d{1,9}", term):
        return [int(term)]
    word = term.lower()
    if word == "head-inputs":
        return sorted(set(graph.head.sources))
    if word == "backbone":
        return _found(
            [x.index for x in layers if x.section == "backbone" and _read_from(graph, x.index, "head")],
            "backbone row that the neck reads",
        )
    if word == "neck":
        return _found(
            [x.index for x in layers if x.section == "head" and _leaves_stride(graph, x.index, shapes)],
            "neck (rows between backbone and head)",
        )
    if match := re.fullmatch(r"p([0-9])", word):
        stride = 2 ** int(match[1])
        at = [x.index for x in layers if (shape := shapes[x.index]) and shape.stride == stride]
        return _found([i for i in at if i in graph.head.sources] or at[-1:], f"row of stride {stride}")
    if rows := [x.index for x in layers if x.module.lower() == word]:
        return rows
    raise UserError(
        f"the model has no place '{term}'",
        expected=f"row numbers, {', '.join(NAMES)}, or a module of the file",
        similar=similar(term, [*NAMES, *sorted({x.module for x in layers})]),
    )


def _found(rows: list[int], what: str) -> list[int]:
    if not rows:
        raise UserError(f"the model has no {what}")
    return rows


def _read_from(graph: Graph, index: int, section: str) -> bool:
    return any(graph.layers[i].section == section for i in graph.readers(index))


def _leaves_stride(graph: Graph, index: int, shapes: Sequence[Shape | None]) -> bool:
    """Return whether the head, or a row of another stride, reads the row."""
    own = shapes[index]
    for i in graph.readers(index):
        there = shapes[i]
        if i == graph.head.index or (own and there and own.stride != there.stride):
            return own is not None
    return False
