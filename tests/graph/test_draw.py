from __future__ import annotations

from pathlib import Path

import pytest
from defusedxml import ElementTree

from gam_yolo.graph.draw import ACROSS, MARKED, svg
from gam_yolo.graph.edit import insert
from gam_yolo.graph.model import Document
from gam_yolo.graph.shapes import measure

NS = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", ["yolov8", "yolov9e", "yolo11-cls"])
def test_every_layer_and_edge_is_drawn_and_blocks_are_marked(models: dict[str, Path], name: str) -> None:
    document = Document.read(models[name])
    shapes = measure(document.config, name)
    root = ElementTree.fromstring(svg(document.graph, shapes, lambda module: module in {"C2f", "C3k2"}))
    labels = [text.text for text in root.iter(f"{NS}text")]
    boxes = [rect for rect in root.iter(f"{NS}rect") if rect.get("rx")]
    for layer, shape in zip(document.graph.layers, shapes, strict=True):
        assert f"{layer.index}  {layer.module}" + (f"  {shape.channels}" if shape else "") in labels
    assert len(boxes) == len(document.graph.layers)
    assert len(list(root.iter(f"{NS}path"))) == sum(s >= 0 for x in document.graph.layers for s in x.sources)
    marked = [x.index for x in document.graph.layers if x.module in {"C2f", "C3k2"}]
    assert [i for i, box in enumerate(boxes) if box.get("fill") == MARKED] == marked


def test_columns_are_strides(models: dict[str, Path]) -> None:
    document = Document.read(models["yolov8"])
    graph = insert(document.graph, [15], "nn.Identity", []).graph
    shapes = measure(document.config, "x")
    root = ElementTree.fromstring(svg(graph, [*shapes[:16], shapes[15], *shapes[16:]], lambda _: False))
    x = [int(rect.attrib["x"]) for rect in root.iter(f"{NS}rect") if rect.get("rx")]
    assert x[16] - x[15] == 0
    assert x[17] - x[16] == ACROSS  # the convolution that goes down to P4
    assert x[9] - x[0] == 4 * ACROSS


def test_names_are_escaped() -> None:
    rows = [[-1, 1, "<script>&", []], [-1, 1, "Detect", []]]
    graph = Document(f"backbone: {rows[:1]}\nhead: {rows[1:]}", "x").graph
    ElementTree.fromstring(svg(graph, [None, None], lambda _: True))
