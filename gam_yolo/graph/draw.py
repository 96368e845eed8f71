"""Draw a model's graph: one row per layer, one column per stride, blocks marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from gam_yolo.arguments import as_list
from gam_yolo.graph.model import Graph
from gam_yolo.graph.shapes import Shape

__all__ = ["svg"]

WIDTH, HEIGHT = 136, 22  # of a layer's box, in pixels
ACROSS, DOWN = 200, 34  # from one column, or row, to the next
LEFT, TOP = 24, 52
INK, LINE, PLAIN, MARKED = "#1f2933", "#8795a1", "#f5f7fa", "#ffd27f"


def svg(graph: Graph, shapes: Sequence[Shape | None], is_block: Callable[[str], bool]) -> str:
    """Draw a graph.

    Layers go down the page in their order, each in the column of its stride. So the backbone runs to the right, the
    top-down path to the left, and the bottom-up path to the right again. The head lies under all columns.

    Args:
        graph: The graph.
        shapes: Each row's output, from `measure`.
        is_block: Whether a module's name is a block's, to be marked.

    Returns:
        The SVG document.
    """
    strides = sorted({shape.stride for shape in shapes if shape})
    lefts: list[int] = []
    for layer, shape in zip(graph.layers, shapes, strict=True):
        # A layer without a single feature map is drawn in the column of its input.
        lefts.append(
            LEFT + ACROSS * strides.index(shape.stride) if shape else lefts[layer.sources[0]] if lefts else LEFT
        )
    width = LEFT + ACROSS * max(len(strides), 1)
    height = TOP + DOWN * len(graph.layers)
    titles = [_text(LEFT + ACROSS * i + WIDTH / 2, 28, _level(stride), True) for i, stride in enumerate(strides)]
    edges = [
        _edge(source, layer.index, lefts, layer is graph.head)
        for layer in graph.layers
        for source in layer.sources
        if source >= 0
    ]
    boxes = []
    for layer, shape in zip(graph.layers, shapes, strict=True):
        inside = as_list(layer.inside)
        head, block = layer is graph.head, bool(inside) or is_block(layer.module)
        label = "  ".join(
            [str(layer.index), " + ".join([layer.module, *inside[:1]]), *([str(shape.channels)] if shape else [])]
        )
        left, wide = (LEFT, width - LEFT - 40) if head else (lefts[layer.index], WIDTH)
        boxes.append(_box(left, _top(layer.index), wide, block))
        boxes.append(_text(left + wide / 2, _top(layer.index) + 15, label, block))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *titles,
            *edges,
            *boxes,
            "</svg>\n",
        ]
    )


def _top(row: int) -> int:
    return TOP + DOWN * row


def _level(stride: float) -> str:
    power = round(stride).bit_length() - 1
    return f"P{power}, stride {stride:g}" if stride == 2**power else f"stride {stride:g}"


def _edge(source: int, reader: int, lefts: Sequence[int], to_head: bool) -> str:
    """Draw an edge: to the next row from box to box, to a later one around the boxes between, to the head downwards."""
    x0, x1 = lefts[source], lefts[reader]
    if to_head:
        path = f"M{x0 + WIDTH} {_top(source) + 15} q16 0 16 12 V{_top(reader)}"
    elif reader == source + 1:
        path = f"M{x0 + WIDTH // 2} {_top(source) + HEIGHT} L{x1 + WIDTH // 2} {_top(reader)}"
    else:
        bend = WIDTH + max(x0, x1) + 34
        y0, y1 = _top(source) + 8, _top(reader) + 11
        path = f"M{x0 + WIDTH} {y0} C{bend} {y0} {bend} {y1} {x1 + WIDTH} {y1}"
    return f'<path d="{path}" stroke="{LINE}" stroke-width="1.4" fill="none"/>'


def _box(x: int, y: int, width: int, marked: bool) -> str:
    style = f'fill="{MARKED}" stroke="{INK}" stroke-width="1.5"' if marked else f'fill="{PLAIN}" stroke="{LINE}"'
    return f'<rect x="{x}" y="{y}" width="{width}" height="{HEIGHT}" rx="4" {style}/>'


def _text(x: float, y: int, text: str, bold: bool) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:g}" y="{y}" text-anchor="middle"{weight}>{escape(text)}</text>'
