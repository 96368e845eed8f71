"""Find which row of one model corresponds to which row of another, from their graphs without the blocks."""

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
        base: Target row -> source row, for rows that are not blocks.
        blocks: The same for blocks: the same block after, or in place of, the same row.
        mismatch: Where and how the graphs diverge, in words; empty where only their blocks differ.
    """

    base: dict[int, int]
    blocks: dict[int, int]
    mismatch: str


def counterparts(source: Graph, target: Graph, block: Callable[[str], object | None]) -> Counterparts:
    """Map the rows of two graphs.

    Both are compared without their blocks, starting at the image. A row corresponds to the row at the same place if it
    names the same module and reads the same rows. After the first row that differs, nothing corresponds. If that row is
    in the backbone, the models count as different families, and nothing corresponds at all.

    The last row, the head, only has to read the same rows: whether a Segment can take the weights of a Detect is for
    the modules themselves to decide.

    Args:
        source: The graph of the model that has the weights.
        target: The graph of the model that gets them.
        block: Returns the class that a name is registered for, or None where it is not a block's name.

    Raises:
        UserError: A graph's blocks cannot be removed.
    """
    old, new = (remove(graph, lambda name: block(name) is not None) for graph in (source, target))
    same, mismatch = 0, ""
    pairs = list(zip(old.graph.layers, new.graph.layers, strict=False))
    for a, b in pairs:
        if difference := _difference(a, b, heads=a is old.graph.head and b is new.graph.head):
            mismatch = f"row {_row(old, a)} of the source and row {_row(new, b)} of the target {difference}"
            break
        same += 1
    else:
        if len(old.graph.layers) != len(new.graph.layers):
            mismatch = (
                f"without blocks the source has {len(old.graph.layers)} rows and the target {len(new.graph.layers)}"
            )
    if any(a.section == "backbone" or b.section == "backbone" for a, b in pairs[same:]):
        return Counterparts({}, {}, mismatch)
    base = {_row(new, b): _row(old, a) for a, b in pairs[:same]}
    replaced = {b: a for b, a in base.items() if source.layers[a].replaces or target.layers[b].replaces}
    placed = {key: row for row, key in _places(source, old, block) if key[0] < same}
    blocks = {row: placed[key] for row, key in _places(target, new, block) if key in placed}
    blocks |= {b: a for b, a in replaced.items() if block(target.layers[b].module) is block(source.layers[a].module)}
    return Counterparts({b: a for b, a in base.items() if b not in replaced}, blocks, mismatch)


def _difference(a: Layer, b: Layer, heads: bool) -> str:
    if a.module != b.module and not heads:
        return f"differ ({a.module} and {b.module})"
    if (a.sources, a.many) != (b.sources, b.many):
        return f"read different rows (both are {a.module})"
    if a.section != b.section:
        return f"are in different sections ({a.section} and {b.section})"
    return ""


def _row(edit: Edit, layer: Layer) -> int:
    """Return the number in the full graph of a row of the reduced graph."""
    row = edit.origin[layer.index]
    assert row is not None  # noqa: S101  # for the type checker: rows were only removed
    return row


def _places(
    graph: Graph, reduced: Edit, block: Callable[[str], object | None]
) -> Iterator[tuple[int, tuple[int, object, int]]]:
    """Yield each block's row with its place: the reduced row that it follows, the block, and its position there."""
    index = {row: i for i, row in enumerate(reduced.origin)}
    seen: Counter[tuple[int, object]] = Counter()
    for layer in graph.layers:
        if (kind := block(layer.module)) and not layer.replaces:
            attended = layer.sources[0]
            while attended not in index:  # it follows another block
                attended = graph.layers[attended].sources[0]
            place = (index[attended], kind)
            yield layer.index, (*place, seen[place])
            seen[place] += 1
