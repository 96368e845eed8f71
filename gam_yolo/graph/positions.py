"""Where to place blocks: `p3`, `backbone`, `before SPPF`, `inside C2f`, `replace C2PSA`, or a published placement."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gam_yolo.errors import UserError, similar
from gam_yolo.graph.model import Graph
from gam_yolo.graph.shapes import Shape

__all__ = ["NAMES", "RECIPES", "VERBS", "Recipe", "describe", "resolve"]

VERBS = {
    "after": "a new row that reads the row; the default",
    "before": "a new row after each row that the row reads",
    "inside": "in every bottleneck of the row, after its second convolution and before the addition",
    "replace": "in place of the row, which must keep the shape of its input",
    "remove": "no block: the row is taken out; it must keep the shape of its input",
}
"""What may stand before a place. It holds up to the next one."""

NAMES = {
    "head-inputs": "the rows that the head (the last row) reads",
    "p3": "any pN: the head's input of stride 2^N; if it has none, the last row of that stride",
    "backbone": "the outputs of the backbone: its rows that the neck or head reads",
    "backbone-p3": "any backbone-pN: the backbone's stage of stride 2^N, before SPPF and attention at its end",
    "neck": "the outputs of the neck: its rows that the head or a row of another stride reads",
}
"""The named places, each with its meaning."""

# The last rows of a backbone, which belong to no stage: pooling pyramids and attention.
_AFTER_STAGES = {"SPP", "SPPF", "SPPELAN", "PSA", "C2PSA", "C2fPSA"}


@dataclass(frozen=True)
class Recipe:
    """A published placement.

    Attributes:
        at: The places.
        source: Where it was published, and how this differs, if it does.
    """

    at: str
    source: str


RECIPES = {
    "yolov8-am": Recipe(
        "after neck",
        "YOLOv8-AM (arXiv 2402.09329): the four C2f rows of the neck. In yolov8_GAM.yaml of "
        "github.com/RuiyangJu/Fracture_Detection_Improved_YOLOv8 one Concat bypasses the first block; here none does",
    ),
    "yolo-research": Recipe(
        "before SPPF, after head-inputs",
        "models/detect/yolov5s_gam.yaml of github.com/positive666/yolo_research",
    ),
    "ema": Recipe(
        "after backbone-p4, backbone-p5",
        "the last two C3 or C2f rows of the backbone, as in models/yolov5s_EMA.yaml of "
        "github.com/YOLOonMe/EMA-attention-module",
    ),
}
"""Published placements by name."""


def describe() -> str:
    """Return the places, what may stand before them, and the published placements, as text for a terminal."""
    tables = {
        "PLACES, separated by commas": {"15": "a row number", "SPPF": "every row of this module", **NAMES},
        "BEFORE A PLACE, up to the next such word": {f"{verb} PLACE": meaning for verb, meaning in VERBS.items()},
        "PUBLISHED PLACEMENTS": {name: f"{recipe.at} ({recipe.source})" for name, recipe in RECIPES.items()},
    }
    lines = []
    for title, table in tables.items():
        lines += [title, *(f"  {name:<14} {meaning}" for name, meaning in table.items()), ""]
    return "\n".join(lines[:-1])


def resolve(graph: Graph, where: str, shapes: Sequence[Shape | None]) -> dict[str, list[int]]:
    """Return the rows that `where` names, by what is to be done there.

    Args:
        graph: The graph.
        where: Comma-separated places, as `describe` lists them: `before SPPF, after head-inputs`.
        shapes: Each row's output, from `measure`.

    Returns:
        For each of `VERBS` that occurs, its row numbers in ascending order.

    Raises:
        UserError: A term names nothing.
    """
    rows: dict[str, set[int]] = {}
    verb = "after"
    for term in where.split(","):
        term = term.strip()
        found = re.match(rf"({'|'.join(VERBS)})(?:\s+|$)", term, re.IGNORECASE)
        if found:
            verb, term = found[1].lower(), term[found.end() :]
        if not term:
            problem = f"no place stands after '{verb}'" if found else f"a place is missing in '{where}'"
            raise UserError(problem, expected="places such as p3, SPPF or 15, with commas between them")
        if recipe := RECIPES.get(term.lower()):
            if found:
                raise UserError(f"'{verb}' stands before '{term}', which means {recipe.at}", fix=f"Write {term} alone")
            for each, published in resolve(graph, recipe.at, shapes).items():
                rows.setdefault(each, set()).update(published)
        else:
            rows.setdefault(verb, set()).update(_term(graph, term, shapes))
    return {verb: sorted(found) for verb, found in rows.items()}


def _term(graph: Graph, term: str, shapes: Sequence[Shape | None]) -> list[int]:
    """Return the rows of one place."""
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
    if match := re.fullmatch(r"(backbone-)?p([0-9])", word):
        stride = 2 ** int(match[2])
        at = [x for x in layers if (shape := shapes[x.index]) and shape.stride == stride]
        if match[1]:
            stage = [x.index for x in at if x.section == "backbone" and x.module not in _AFTER_STAGES]
            return _found(stage[-1:], f"backbone row of stride {stride}")
        rows = [x.index for x in at]
        there = {shape.stride for shape in shapes if shape}
        expected = f"one of {', '.join(f'p{n}' for n in range(10) if 2**n in there)}"
        return _found([i for i in rows if i in graph.head.sources] or rows[-1:], f"row of stride {stride}", expected)
    if rows := [x.index for x in graph.layers if x.module.lower() == word]:
        return rows
    modules = sorted({x.module for x in graph.layers})
    places = [*NAMES, *RECIPES, *modules]
    raise UserError(
        f"the model has no place '{term}'",
        expected=f"row numbers, {', '.join([*NAMES, *RECIPES])}, or a module of the file, also with "
        f"{', '.join(VERBS)} before it",
        similar=similar(term, [*places, *(f"{verb} {place}" for verb in VERBS for place in places)]),
    )


def _found(rows: list[int], what: str, expected: str = "") -> list[int]:
    if not rows:
        raise UserError(f"the model has no {what}", expected=expected)
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
