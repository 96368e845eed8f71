"""Which row of one model is which row of another, told from their graphs with the blocks left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gam_yolo.graph.edit import Edit, remove
from gam_yolo.graph.model import Graph, Layer

__all__ = ["Counterparts", "counterparts"]


@dataclass(frozen=True)
class Counterparts:
    """Rows of a target and the rows of a source that they correspond to.

    Attributes:
        base: Target row -> source row, for rows that are no blocks.
        blocks: The same for blocks: same block, behind the same row.
        parted: Where and how the two graphs part, in words; empty where they are the same but for their blocks.
    """

    base: dict[int, int]
    blocks: dict[int, int]
    parted: str


def counterparts(source: Graph, target: Graph, block: Callable[[str], object | None]) -> Counterparts:
    """Map the rows of two graphs.

    With the blocks left out, both are compared from the image on: a row corresponds to the row at the same place if it
    names the same module and reads the same rows. From the first row that does not, nothing corresponds any more.
    Unless that comes behind the whole backbone, the models are held to be of different families, and nothing does.

    The last row, the head, only has to read the same rows: whether a Segment can take what a Detect has is for the
    modules themselves to tell.

    Args:
        source: The graph to carry weights from.
        target: The graph to carry them to.
        block: Returns what a module's name is registered for, None for a name that is no block's.

    Raises:
        UserError: If the blocks of a graph cannot be left out of it.
    """
    old, new = (remove(graph, lambda name: block(name) is not None) for graph in (source, target))
    same, parted = 0, ""
    pairs = list(zip(old.graph.layers, new.graph.layers, strict=False))
    for a, b in pairs:
        if difference := _difference(a, b, heads=a is old.graph.head and b is new.graph.head):
            parted = f"row {_row(old, a)} of the source and row {_row(new, b)} of the target {difference}"
            break
        same += 1
    else:
        if len(old.graph.layers) != len(new.graph.layers):
            parted = (
                f"without blocks the source has {len(old.graph.layers)} rows and the target {len(new.graph.layers)}"
            )
    if any(a.section == "backbone" or b.section == "backbone" for a, b in pairs[same:]):
        return Counterparts({}, {}, parted)
    base = {_row(new, b): _row(old, a) for a, b in pairs[:same]}
    placed = {key: row for row, key in _places(source, old, block) if key[0] < same}
    blocks = {row: placed[key] for row, key in _places(target, new, block) if key in placed}
    return Counterparts(base, blocks, parted)


def _difference(a: Layer, b: Layer, heads: bool) -> str:
    if a.module != b.module and not heads:
        return f"differ ({a.module} and {b.module})"
    if (a.sources, a.many) != (b.sources, b.many):
        return f"read different rows (both are {a.module})"
    if a.section != b.section:
        return f"are in different sections ({a.section} and {b.section})"
    return ""


def _row(edit: Edit, layer: Layer) -> int:
    """Return the row that a row of the reduced graph is in the graph itself."""
    row = edit.origin[layer.index]
    assert row is not None  # noqa: S101  # for the type checker: rows were only taken out
    return row


def _places(
    graph: Graph, reduced: Edit, block: Callable[[str], object | None]
) -> Iterator[tuple[int, tuple[int, object, int]]]:
    """Yield each block's row with its place: the reduced row it attends, the block, and the how-manieth of it there."""
    index = {row: i for i, row in enumerate(reduced.origin)}
    seen: Counter[tuple[int, object]] = Counter()
    for layer in graph.layers:
        if kind := block(layer.module):
            attended = layer.sources[0]
            while attended not in index:  # behind another block
                attended = graph.layers[attended].sources[0]
            place = (index[attended], kind)
            yield layer.index, (*place, seen[place])
            seen[place] += 1
