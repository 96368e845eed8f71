"""Place a block in a model YAML, or remove blocks, with every row number kept right and the result known to build."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gam_yolo import registry
from gam_yolo.arguments import as_list
from gam_yolo.errors import UserError, similar
from gam_yolo.graph.draw import svg
from gam_yolo.graph.edit import FEEDS, Edit, insert, remove, rewrite
from gam_yolo.graph.find import load
from gam_yolo.graph.model import NO_MAP, Document
from gam_yolo.graph.positions import resolve
from gam_yolo.graph.shapes import measure, scales
from gam_yolo.io import write

__all__ = ["REMOVE", "PlacedModel", "PlacedRow", "place", "place_block"]

REMOVE = "none"
"""The name that stands for no block: `place` then removes all blocks."""


@dataclass(frozen=True)
class PlacedRow:
    """A block that was inserted.

    Attributes:
        row: Its row number.
        module: Its name.
        attends: The row that it reads.
        read_by: The rows that read it.
        bypassed_by: The rows that still read the row that it attends.
    """

    row: int
    module: str
    attends: int
    read_by: tuple[int, ...]
    bypassed_by: tuple[int, ...]


@dataclass(frozen=True)
class PlacedModel:
    """A model YAML with blocks inserted or removed.

    Attributes:
        text: The YAML's text; apart from the edit it is the base's, to the byte.
        name: The base's file name, for error messages.
        base: The base's text.
        rows: The inserted blocks.
        removed: The removed rows, by their numbers in the base.
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
            UserError: It cannot be written, or is a file that `place` did not write.
        """
        _replace(Path(path), self.text, force, lambda old: _is_placement(old, self.base, Path(path), self.name))
        return Path(path)

    def save_svg(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the drawing as `save` writes the YAML; an SVG file is overwritten without `force`.

        Returns:
            The path.

        Raises:
            UserError: It cannot be written, or is a file of another kind.
        """
        _replace(Path(path), self.svg(), force, lambda old: old.lstrip().startswith("<svg"))
        return Path(path)


def place(
    model: str | Path, *, block: str | None, at: str | int | Sequence[int] = "", args: Any = None, feeds: str = "all"
) -> PlacedModel:
    """Place a block in a model YAML, or remove all blocks from it. Nothing is written.

    Args:
        model: A path, or the name of a YAML that Ultralytics or this package ships.
        block: The block's registered name, or None or "none" to remove all blocks.
        at: After which rows: `15,18,21`, `p3`, `backbone`, `neck`, `head-inputs`, `after SPPF`, or row numbers.
        args: The block's arguments: a list as in a row, a mapping, or a single value.
        feeds: `all`: every reader of the row reads the block instead; `next`: only the next row does.

    Returns:
        The new model YAML.

    Raises:
        UserError: A name is unknown, a row's output is not one feature map, or the result cannot be built.

    Examples:
        >>> placed = place("yolov8n.yaml", block="GAM", at="p3", args={"gate": "sigmoid"})
        >>> placed.notes
        ('row 16 (GAM) attends row 15 (C2f); read by row 17 (Conv), row 23 (Detect)',)
    """
    document = load(model)
    if block is None or block == REMOVE:
        edit = remove(document.graph, registry.BLOCKS.__contains__)
        text = rewrite(document, edit)
    else:
        where = at if isinstance(at, str) else ",".join(map(str, [at] if isinstance(at, int) else at))
        edit, placed = place_block(document, block, where, args, feeds)
        text = placed.text
    rows = _inserted(edit)
    removed = tuple(sorted(set(range(len(document.graph.layers))) - {old for old in edit.origin if old is not None}))
    return PlacedModel(text, document.name, document.text, rows, removed, _notes(document, edit, rows, removed))


def place_block(
    document: Document, block: str, at: str, args: Any, feeds: str = "all", scale: str | None = None
) -> tuple[Edit, Document]:
    """Place a block after the rows that `at` names.

    Args:
        document: The model YAML.
        block: The block's registered name.
        at: Where, as `gam_yolo.graph.positions.resolve` reads it.
        args: The block's arguments, as in `place`.
        feeds: `all`: every reader of the row reads the block instead; `next`: only the next row does.
        scale: The one scale that must be buildable; None for all scales of the file.

    Returns:
        The edit, and the edited model YAML.

    Raises:
        UserError: A name is unknown, a row's output is not one feature map, or the result cannot be built.
    """
    registry.get(block)
    if feeds not in FEEDS:
        raise UserError(f"feeds is '{feeds}'", expected=f"one of {', '.join(FEEDS)}", similar=similar(feeds, FEEDS))
    if not at:
        raise UserError("at is not given", expected="where to place the block, such as p3 or 'after 15'")
    first = scales(document.config)[0] if scale is None else scale
    shapes = measure(document.config, document.name, first)
    rows = resolve(document.graph, at, shapes)
    for row in rows:
        if row < document.graph.head.index and shapes[row] is None:
            raise UserError(
                f"{NO_MAP}, so no block can be placed after it", at=f"{document.name}, {document.graph.layers[row]}"
            )
    edit = insert(document.graph, rows, block, as_list(args), feeds)
    placed = Document(rewrite(document, edit), document.name)
    for each in scales(placed.config) if scale is None else [scale]:
        measure(placed.config, placed.name, each)
    return edit, placed


def _inserted(edit: Edit) -> tuple[PlacedRow, ...]:
    graph = edit.graph
    rows = []
    for new, old in enumerate(edit.origin):
        if old is None:
            before = graph.layers[new].sources[0]
            bypassing = tuple(i for i in graph.readers(before) if i != new)
            rows.append(PlacedRow(new, graph.layers[new].module, before, tuple(graph.readers(new)), bypassing))
    return tuple(rows)


def _notes(document: Document, edit: Edit, rows: Sequence[PlacedRow], removed: Sequence[int]) -> tuple[str, ...]:
    layers = edit.graph.layers

    def named(indexes: Sequence[int]) -> str:
        return ", ".join(str(layers[i]) for i in indexes) or "no row"

    notes = []
    for row in rows:
        rest = f"; still reading {layers[row.attends]} itself: {named(row.bypassed_by)}" if row.bypassed_by else ""
        notes.append(f"{layers[row.row]} attends {layers[row.attends]}; read by {named(row.read_by)}{rest}")
    notes.extend(f"{document.graph.layers[i]} removed" for i in removed)
    return tuple(notes) or ("no blocks to remove",)


def _replace(path: Path, text: str, force: bool, ours: Callable[[str], bool]) -> None:
    """Write a file, unless it is a regular file that `ours`, called with its text, does not recognise."""
    try:
        exists = path.is_file()
        old = path.read_bytes().decode("utf-8", "replace") if exists and not force else ""
    except OSError:
        exists, old = False, ""  # `write` says why
    if exists and not force and old not in ("", text) and not ours(old):
        raise UserError("already exists and was not written by place", at=path, fix="Use --force to overwrite it")
    write(path, text)


def _is_placement(old: str, base: str, path: Path, name: str) -> bool:
    """Return whether a file's text is the base with blocks in rows as `rewrite` writes them, so that nothing is lost.

    The base itself is such a file unless it would be overwritten by its own placement.
    """
    try:
        document, original = Document(old, name), Document(base, name)
        without, wanted = (rewrite(d, remove(d.graph, registry.BLOCKS.__contains__)) for d in (document, original))
    except UserError:
        return False
    blocks = [layer for layer in document.graph.layers if layer.module in registry.BLOCKS]
    numbered = all(re.match(rf"# {layer.index}\b", document.comment(layer.index)) for layer in blocks)
    return without == wanted and numbered and (bool(blocks) or not _same(path, Path(name)))


def _same(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False
