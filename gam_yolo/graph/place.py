"""Place a block in a model YAML, or give the base back: row numbers stay right, and the result is known to build."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from gam_yolo import registry
from gam_yolo.arguments import as_list
from gam_yolo.errors import UserError, option, similar
from gam_yolo.graph.draw import svg
from gam_yolo.graph.edit import FEEDS, Edit, insert, remove, rewrite
from gam_yolo.graph.find import load
from gam_yolo.graph.model import IMAGE, NO_MAP, Document, Graph, Layer
from gam_yolo.graph.positions import resolve
from gam_yolo.graph.shapes import Shape, measure, scales
from gam_yolo.io import output_path, write

__all__ = ["REMOVE", "PlacedModel", "PlacedRow", "place", "place_block", "remove_blocks", "save"]

REMOVE = "none"
"""The name that stands for no block."""

REMOVED = "nn.Identity"
"""The module of a row that was taken out; it keeps its number and its readers."""


@dataclass(frozen=True)
class PlacedRow:
    """A block that was placed.

    Attributes:
        row: Its row number.
        module: Its name.
        attends: The row that it reads.
        read_by: The rows that read it.
        bypassed_by: The rows that still read the row that it attends.
        replaces: The module in whose place it is; empty for a row that was inserted.
        inside: The module in whose bottlenecks it is, in this row; empty for a row of its own.
    """

    row: int
    module: str
    attends: int
    read_by: tuple[int, ...]
    bypassed_by: tuple[int, ...]
    replaces: str = ""
    inside: str = ""


@dataclass(frozen=True)
class PlacedModel:
    """A model YAML with blocks placed or removed.

    Attributes:
        text: The YAML's text; apart from the edit it is the base's, to the byte.
        name: The base's file name, for error messages.
        base: The base's text.
        rows: The blocks that were placed.
        removed: The rows that were removed, by their numbers in the base.
        notes: What was done, one line per row.
    """

    text: str
    name: str
    base: str
    rows: tuple[PlacedRow, ...]
    removed: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def yaml(self) -> dict[str, Any]:
        """The parsed YAML."""
        parsed: dict[str, Any] = yaml.safe_load(self.text)
        return parsed

    def svg(self) -> str:
        """Return a drawing of the model's graph, blocks marked."""
        document = Document(self.text, self.name)
        shapes = measure(document.config, self.name, scales(document.config)[0])
        return svg(document.graph, shapes, registry.BLOCKS.__contains__)

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the YAML, completely or not at all.

        Args:
            path: The file.
            force: Overwrite any file. Otherwise only a file is overwritten that `place` wrote from the same base.

        Returns:
            The path.

        Raises:
            UserError: It cannot be written, is a file that `place` did not write, or its name does not end in `.yaml`.
        """
        save(self, path, force=force)
        return Path(path)

    def save_svg(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the drawing as `save` writes the YAML; an SVG file is overwritten without `force`.

        Returns:
            The path.

        Raises:
            UserError: It cannot be written, is a file of another kind, or its name does not end in `.svg`.
        """
        save(self, drawing=path, force=force)
        return Path(path)


def place(
    model: str | Path,
    *,
    block: str | None = None,
    at: str | int | Sequence[int] = "",
    args: Any = None,
    feeds: str = "all",
) -> PlacedModel:
    """Place a block in a model YAML. Nothing is written.

    Args:
        model: A path, or the name of a YAML that Ultralytics or this package ships.
        block: The block's registered name. None or "none" for none: to remove the rows at `at`, or, without `at`, all
            blocks.
        at: Where: `p3`, `backbone`, `head-inputs`, `after SPPF`, `before SPPF`, `inside C2f`, `replace C2PSA`,
            `remove C2PSA`, row numbers, or a published placement. `gam_yolo.graph.positions.describe` lists all.
        args: The block's arguments: a list as in a row, a mapping, or a single value.
        feeds: `all`: every reader of the row reads the block instead; `next`: only the next row does.

    Returns:
        The new model YAML.

    Raises:
        UserError: A name is unknown, the block does not fit, or the result cannot be built.

    Examples:
        >>> placed = place("yolov8n.yaml", block="GAM", at="p3", args={"gate": "sigmoid"})
        >>> placed.notes
        ('row 16 (GAM) attends row 15 (C2f); read by row 17 (Conv), row 23 (Detect)',)
        >>> place("yolov8n.yaml", block="GAM", at="replace SPPF").notes
        ('row 9 (GAM) replaces SPPF; attends row 8 (C2f); read by row 10 (nn.Upsample), row 20 (Concat)',)
    """
    where = at if isinstance(at, str) else ",".join(map(str, [at] if isinstance(at, int) else at))
    name = "" if block is None or block == REMOVE else block
    if not name and not where:
        return remove_blocks(model)
    document = load(model)
    edit, placed = place_block(document, name, where, args, feeds)
    return _placed(document, edit, placed.text)


def remove_blocks(model: str | Path) -> PlacedModel:
    """Give back the model YAML that blocks were placed in: without blocks, and with the rows that were taken out.

    Args:
        model: A path, or the name of a YAML that Ultralytics or this package ships.

    Raises:
        UserError: There is no such file, or a block in it cannot be removed.

    Examples:
        >>> remove_blocks("yolov8n-gam.yaml").notes
        ('row 16 (GAM) removed', 'row 20 (GAM) removed', 'row 24 (GAM) removed')
    """
    document = load(model)
    edit = remove(document.graph, registry.BLOCKS.__contains__)
    return _placed(document, edit, rewrite(document, edit))


def place_block(
    document: Document, block: str, at: str, args: Any, feeds: str = "all", scale: str | None = None
) -> tuple[Edit, Document]:
    """Place a block where `at` says.

    Args:
        document: The model YAML.
        block: The block's registered name; an empty string where `at` only removes rows.
        at: Where, as `gam_yolo.graph.positions.resolve` reads it.
        args: The block's arguments, as in `place`.
        feeds: `all`: every reader of the row reads the block instead; `next`: only the next row does.
        scale: The one scale that must be buildable; None for all scales of the file.

    Returns:
        The edit, and the edited model YAML.

    Raises:
        UserError: A name is unknown, the block does not fit, or the result cannot be built.
    """
    if block:
        registry.get(block)
    if feeds not in FEEDS:
        raise UserError(
            f"{option('feeds')} is '{feeds}'", expected=f"one of {', '.join(FEEDS)}", similar=similar(feeds, FEEDS)
        )
    if not at:
        raise UserError(f"{option('at')} is not given", expected="where to place the block, such as p3 or 'after 15'")
    graph = document.graph
    letters = scales(document.config) if scale is None else [scale]
    shapes = [measure(document.config, document.name, letter) for letter in letters]
    rows = resolve(graph, at, shapes[0])
    if not block and (verb := next((verb for verb in rows if verb != "remove"), "")):
        raise UserError(
            f"{option('block')} is not given, but at='{at}' says '{verb}'",
            expected="the name of a block, or 'remove' only",
        )
    layers = [*graph.layers]
    in_place = [row for verb in ("replace", "remove", "inside") for row in rows.get(verb, ())]
    if (twice := next((row for row in in_place if in_place.count(row) > 1), None)) is not None:
        raise UserError(f"at='{at}' says two things about row {twice}", expected="one of replace, remove and inside")
    for verb, module, given in (("replace", block, as_list(args)), ("remove", REMOVED, [])):
        for row in rows.get(verb, ()):
            _check_keeps_shape(document, row, shapes)
            layers[row] = layers[row].replaced(module, given)
    for row in rows.get("inside", ()):
        if held := graph.before_head(row, block).inside:
            raise UserError(
                f"has {as_list(held)[0]} inside already",
                at=f"{document.name}, {graph.layers[row]}",
                fix="Remove it first: gam-yolo place --remove",
            )
        layers[row] = layers[row].holding(block, as_list(args))
    after = {*rows.get("after", ()), *(s for row in rows.get("before", ()) for s in _read_by(graph, row, block, feeds))}
    for row in after:
        if row < graph.head.index and shapes[0][row] is None:
            raise UserError(f"{NO_MAP}, so no block can be placed after it", at=f"{document.name}, {graph.layers[row]}")
    edit = insert(Graph(tuple(layers)), after, block, as_list(args), feeds)
    placed = Document(rewrite(document, edit), document.name)
    for letter in letters:
        measure(placed.config, placed.name, letter)
    return edit, placed


def _read_by(graph: Graph, row: int, block: str, feeds: str) -> Sequence[int]:
    """Return the rows after which a block stands that is placed before `row`."""
    reader = graph.head if row == graph.head.index else graph.before_head(row, block)
    if IMAGE in reader.sources:
        raise UserError(
            f"{reader} reads the image, so no {block} can be placed before it", fix="Place it after the row"
        )
    if feeds == "next" and reader.sources != (row - 1,):
        raise UserError(f"{reader} is not the row after the one that it reads", fix="Use feeds=all")
    return reader.sources


def _check_keeps_shape(document: Document, row: int, shapes: Sequence[Sequence[Shape | None]]) -> None:
    layer = document.graph.before_head(row, "a replacement")
    source = layer.sources[0]
    for measured in shapes:
        before = measured[source] if source != IMAGE else None
        after = measured[row]
        if layer.many or before is None or after != before:
            reads = "several rows" if layer.many else "the image" if source == IMAGE else _shown(before)
            raise UserError(
                f"does not keep the shape of its input (reads {reads}, gives {_shown(after)}), so it cannot be "
                "replaced or removed",
                at=f"{document.name}, {layer}",
                expected="a row that keeps it, such as SPPF or C2PSA",
            )


def _shown(shape: Shape | None) -> str:
    return f"{shape.channels} channels at stride {shape.stride:g}" if shape else "no single feature map"


def _placed(document: Document, edit: Edit, text: str) -> PlacedModel:
    """Describe an edit."""
    old, new = document.graph.layers, edit.graph.layers
    rows, notes, removed = [], [], {*range(len(old))} - {*edit.origin}
    for layer, origin in zip(new, edit.origin, strict=True):
        before = None if origin is None else replace(old[origin], index=layer.index, sources=layer.sources)
        if layer == before:
            continue
        read_by = tuple(edit.graph.readers(layer.index))
        if before and layer.replaces and layer.module == REMOVED:
            removed.add(layer.index if origin is None else origin)
            notes.append(f"{before} removed; {_listed(new, read_by)} now read {new[layer.sources[0]]}")
        elif before and layer.inside:
            block = as_list(layer.inside)[0]
            rows.append(PlacedRow(layer.index, block, layer.sources[0], read_by, (), inside=layer.module))
            notes.append(f"{layer} has {block} inside each bottleneck")
        elif before and not layer.replaces:
            held = as_list(before.inside)
            notes.append(f"{layer} has no {held[0]} inside any more" if held else f"{before} is {layer.module} again")
        else:
            attends = layer.sources[0]
            past = () if before else tuple(i for i in edit.graph.readers(attends) if i != layer.index)
            instead = before.module if before else ""
            rows.append(PlacedRow(layer.index, layer.module, attends, read_by, past, replaces=instead))
            rest = f"; still reading {new[attends]} itself: {_listed(new, past)}" if past else ""
            verb = f"replaces {instead}; attends" if instead else "attends"
            notes.append(f"{layer} {verb} {new[attends]}; read by {_listed(new, read_by)}{rest}")
    notes += [f"{old[i]} removed" for i in sorted({*range(len(old))} - {*edit.origin})]
    said = tuple(notes) or ("no blocks to remove",)
    return PlacedModel(text, document.name, document.text, tuple(rows), tuple(sorted(removed)), said)


def _listed(layers: Sequence[Layer], rows: Sequence[int]) -> str:
    return ", ".join(str(layers[i]) for i in rows) or "no row"


def save(
    placed: PlacedModel, path: str | Path | None = None, drawing: str | Path | None = None, *, force: bool = False
) -> None:
    """Write the YAML, the drawing, or both. Before either is written, both paths are checked.

    Raises:
        UserError: As of `PlacedModel.save` and `PlacedModel.save_svg`.
    """
    texts: dict[Path, str] = {}
    if path is not None:
        target = output_path(path, "the model YAML", ".yaml", ".yml")
        _check_ours(
            target, force, lambda old: old == placed.text or _is_placement(old, placed.base, target, placed.name)
        )
        texts[target] = placed.text
    if drawing is not None:
        target_svg = output_path(drawing, "the drawing", ".svg")
        _check_ours(target_svg, force, lambda old: old.lstrip().startswith("<svg"))
        texts[target_svg] = placed.svg()
    for file, text in texts.items():
        write(file, text)


def _check_ours(path: Path, force: bool, ours: Callable[[str], bool]) -> None:
    """Raise a `UserError` if a regular file would be overwritten that `ours`, called with its text, does not accept."""
    try:
        old = path.read_bytes().decode("utf-8", "replace") if path.is_file() and not force else ""
    except OSError:
        return  # `write` says why
    if old and not ours(old):
        raise UserError("already exists and was not written by place", at=path, fix="Use --force to overwrite it")


def _is_placement(old: str, base: str, path: Path, name: str) -> bool:
    """Return whether a file's text is the base with blocks in rows as `rewrite` writes them, so that nothing is lost.

    The base itself is such a file unless it would be overwritten by its own placement.
    """
    try:
        document, original = Document(old, name), Document(base, name)
        without, wanted = (rewrite(d, remove(d.graph, registry.BLOCKS.__contains__)) for d in (document, original))
    except UserError:
        return False
    layers = document.graph.layers
    blocks = [layer.index for layer in layers if layer.module in registry.BLOCKS and not layer.replaces]
    numbered = all(re.match(rf"# {row}\b", document.comment(row)) for row in blocks)
    placed = bool(blocks) or any(layer != layer.base() for layer in layers)
    return without == wanted and numbered and (placed or not _same(path, Path(name)))


def _same(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False
