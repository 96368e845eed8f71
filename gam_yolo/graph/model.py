"""A model YAML as a graph of layers: who reads whom."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gam_yolo.errors import UserError, brief

__all__ = ["IMAGE", "SECTIONS", "Document", "Graph", "Layer"]

IMAGE = -1
"""The source of the first layer: the network's input."""

MOST_VALUES = 1000

SECTIONS = ("backbone", "head")


@dataclass(frozen=True)
class Layer:
    """One row of a model YAML, `[from, repeats, module, args]`.

    Attributes:
        index: Row number, counted through backbone and head.
        sources: Rows that it reads, as row numbers (`IMAGE` for the network's input). They are what the row says, and
            not necessarily possible: see `Graph.impossible`.
        many: Whether `from` is a list, so that the module is called with a list of tensors.
        repeats: Repeats before depth scaling.
        module: The module's name.
        args: The module's arguments as written.
        section: `backbone` or `head`; the neck is part of the latter.
    """

    index: int
    sources: tuple[int, ...]
    many: bool
    repeats: int
    module: str
    args: list[Any]
    section: str

    def __str__(self) -> str:
        return f"row {self.index} ({self.module})"


@dataclass(frozen=True)
class Graph:
    """The layers of a model in their order; the last one is the detection head (or that of another task)."""

    layers: tuple[Layer, ...]

    @classmethod
    def from_config(cls, config: Any, name: str) -> Graph:
        """Read the graph off a parsed model YAML.

        Args:
            config: The mapping with the keys `backbone` and `head`.
            name: What error messages call the file.

        Raises:
            UserError: If it is not such a mapping, or a row is not `[from, repeats, module, args]`.
        """
        if not isinstance(config, Mapping):
            raise UserError(f"{name}: the file holds {brief(config)}, expected a mapping with 'backbone' and 'head'")
        layers: list[Layer] = []
        for section in SECTIONS:
            rows = config.get(section)
            if not isinstance(rows, list) or not (rows or section == "backbone"):
                raise UserError(
                    f"{name}: '{section}' is {brief(rows)}, expected a list of [from, repeats, module, args]"
                )
            for row in rows:
                layers.append(_layer(row, len(layers), section, name))
        return cls(tuple(layers))

    @property
    def head(self) -> Layer:
        """The last layer: Detect, Segment, RTDETRDecoder, Classify, and so on."""
        return self.layers[-1]

    def readers(self, index: int) -> list[int]:
        """Return the rows that read row `index`."""
        return [layer.index for layer in self.layers if index in layer.sources]

    def impossible(self) -> list[tuple[Layer, int]]:
        """Return (layer, source) for each source that is not a row before the layer."""
        return [
            (layer, source)
            for layer in self.layers
            for source in layer.sources
            if not (0 <= source < layer.index or (source == IMAGE and layer.index == 0))
        ]


class Document:
    """A model YAML's text with its graph, and where in the text each row is.

    Reads the text as Ultralytics does, with PyYAML, so that both see the same rows; the parser's marks then tell where
    to change the text, and whatever is not changed stays as it is to the byte.

    Attributes:
        name: What error messages call the file.
        text: The file's text.
        config: The parsed YAML.
        graph: Its graph.
        sections: The YAML node of each section's list.
        rows: The YAML node of each row.
    """

    def __init__(self, text: str, name: str) -> None:
        """Parse `text`.

        Raises:
            UserError: If it is no YAML or no model; the sentence names the file and the row.
        """
        self.name = name
        self.text = text
        try:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            config = loader.construct_document(node) if node else None
        except yaml.MarkedYAMLError as error:
            at = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            raise UserError(f"{name}{at}: not YAML ({error.problem}); expected a model YAML") from None
        except RecursionError:
            raise UserError(f"{name}: not a model YAML (its lists are nested too deeply)") from None
        except Exception as error:  # an ill-tagged scalar makes PyYAML raise almost anything
            raise UserError(f"{name}: not YAML ({type(error).__name__}: {brief(str(error))})") from None
        self.graph = Graph.from_config(config, name)
        self.config: dict[str, Any] = config or {}
        assert node is not None  # noqa: S101  # for the type checker: an empty file has no graph
        lists = {key.value: value for key, value in node.value}
        self.sections: dict[str, yaml.SequenceNode] = {section: lists[section] for section in SECTIONS}
        self.rows: list[yaml.SequenceNode] = [row for section in SECTIONS for row in lists[section].value]

    def comment(self, row: int) -> str:
        """Return the comment behind a row, from its `#`, or an empty string."""
        found = re.compile(r"[ \t]*,?[ \t]*(#[^\r\n]*)").match(self.text, self.end(self.rows[row]))
        return found[1] if found else ""

    def end(self, node: yaml.Node) -> int:
        """Return where a node's text ends; a block-style list's own mark lies behind what follows it."""
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            return self.end(last[1] if isinstance(last, tuple) else last)
        index: int = node.end_mark.index
        return index

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a model YAML from disk.

        Raises:
            UserError: If it cannot be read, or is no model YAML.
        """
        try:
            text = path.read_bytes().decode("utf-8")  # bytes: keeps the file's own line ends
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
        return cls(text, str(path))


def _layer(row: Any, index: int, section: str, name: str) -> Layer:
    where = f"{name}, row {index} {brief(row)}"
    if not isinstance(row, list) or len(row) != 4:
        raise UserError(f"{where}: expected [from, repeats, module, args]")
    read, repeats, module, args = row
    entries = read if isinstance(read, list) else [read]
    if not entries or not all(_whole(entry) for entry in entries):
        raise UserError(f"{where}: 'from' is {brief(read)}, expected a row number or a list of row numbers")
    if not _whole(repeats) or repeats < 1:
        raise UserError(f"{where}: repeats is {brief(repeats)}, expected a whole number from 1")
    if not isinstance(module, str) or not module:
        raise UserError(f"{where}: the module is {brief(module)}, expected a name")
    if not isinstance(args, list):
        raise UserError(f"{where}: the arguments are {brief(args)}, expected a list; write [] for none")
    if not _finite(args):
        raise UserError(f"{where}: the arguments hold more than {MOST_VALUES} values, or themselves by an alias")
    # Row 0 has nothing before it: its -1 is the image already, as index + entry gives.
    sources = tuple(index + entry if entry < 0 else entry for entry in entries)
    return Layer(index, sources, isinstance(read, list), repeats, module, args, section)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(args: list[Any]) -> bool:
    """Return whether nested arguments are few enough to walk; YAML aliases can make them cyclic or astronomical."""
    pending: list[Any] = [args]
    for _ in range(MOST_VALUES):
        if not pending:
            return True
        value = pending.pop()
        pending.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    return False
