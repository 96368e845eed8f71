"""Place a block in a model YAML with every row number kept right, and make sure that the result can be built."""

from __future__ import annotations

from typing import Any

from gam_yolo import registry
from gam_yolo.errors import UserError
from gam_yolo.graph.edit import FEEDS, Edit, insert, rewrite
from gam_yolo.graph.model import Document
from gam_yolo.graph.positions import resolve
from gam_yolo.graph.shapes import measure, scales

__all__ = ["place_block"]


def place_block(
    document: Document, block: str, at: str, args: list[Any], feeds: str = "all", scale: str | None = None
) -> tuple[Edit, Document]:
    """Place a block after the rows that `at` names.

    Args:
        document: The model YAML.
        block: The block's registered name.
        at: Where, as `gam_yolo.graph.positions.resolve` reads it.
        args: The arguments of the block's row.
        feeds: `all`: every reader of the row reads the block instead; `next`: only the next row does.
        scale: The one scale that must be buildable; None for all scales of the file.

    Returns:
        The edit, and the edited model YAML.

    Raises:
        UserError: A name is unknown, a row gives no single feature map, or the result cannot be built.
    """
    registry.get(block)
    if feeds not in FEEDS:
        raise UserError(f"feeds is '{feeds}'", expected=f"one of {', '.join(FEEDS)}")
    if not at:
        raise UserError("at is not given", expected="where to place the block, such as p3 or 'after 15'")
    first = scales(document.config)[0] if scale is None else scale
    shapes = measure(document.config, document.name, first)
    rows = resolve(document.graph, at, shapes)
    for row in rows:
        if row < document.graph.head.index and shapes[row] is None:
            raise UserError(
                "gives no single feature map to attend to", at=f"{document.name}, {document.graph.layers[row]}"
            )
    edit = insert(document.graph, rows, block, args, feeds)
    placed = Document(rewrite(document, edit), document.name)
    for each in scales(placed.config) if scale is None else [scale]:
        measure(placed.config, placed.name, each)
    return edit, placed
