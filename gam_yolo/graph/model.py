"""A model YAML as a graph of layers: who reads whom."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import yaml

from gam_yolo.arguments import INSIDE, MOST_VALUES, REPLACES, RowError, is_small, take, with_named
from gam_yolo.errors import UserError, brief
from gam_yolo.io import YamlLoader, yaml_error

__all__ = ["IMAGE", "NO_MAP", "ROW", "SECTIONS", "Document", "Graph", "Layer", "check_classes"]

IMAGE = -1
"""The source of the first layer: the network's input."""

SECTIONS = ("backbone", "head")

ROW = "[from, repeats, module, args]"
NO_MAP = "gives no single feature map"


@dataclass(frozen=True)
class Layer:
    """One row of a model YAML, `[from, repeats, module, args]`.

    Attributes:
        index: Row number, counted through backbone and head.
        sources: Rows that it reads, as row numbers (`IMAGE` for the network's input). They are what the row says, and
            not necessarily possible: see `Graph.reference_errors`.
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

    @property
    def inside(self) -> Any:
        """What `{inside: ...}` says, the block in the row's bottlenecks, or None."""
        return take(self.args, INSIDE)[1]

    @property
    def replaces(self) -> Any:
        """What `{replaces: ...}` says, `[repeats, module, args]` of the base's row at this place, or None."""
        return take(self.args, REPLACES)[1]

    def base(self) -> Layer:
        """Return the row as it was before `place` replaced it or put a block inside."""
        if self.replaces:
            repeats, module, args = self.replaces
            return replace(self, repeats=repeats, module=module, args=args).base()
        return replace(self, args=take(self.args, INSIDE)[0])

    def replaced(self, module: str, args: Sequence[Any]) -> Layer:
        """Return a row of another module at this place, which records this one."""
        recorded = self.replaces or [self.repeats, self.module, self.args]
        return replace(self, repeats=1, module=module, args=with_named(args, REPLACES, recorded))

    def holding(self, block: str, args: Sequence[Any]) -> Layer:
        """Return the row with a block inside its bottlenecks."""
        return replace(self, args=with_named(self.args, INSIDE, [block, *args] if args else block))


@dataclass(frozen=True)
class Graph:
    """The layers of a model in their order; the last one is the detection head (or that of another task)."""

    layers: tuple[Layer, ...]

    @classmethod
    def from_config(cls, config: Any, name: str) -> Graph:
        """Read the graph from a parsed model YAML.

        Args:
            config: The mapping with the keys `backbone` and `head`.
            name: The file's name, for error messages.

        Raises:
            UserError: It is not such a mapping, has no head, or has a row that is not `[from, repeats, module, args]`.
        """
        if not isinstance(config, Mapping):
            raise UserError(f"the file holds {brief(config)}", at=name, expected="a mapping with 'backbone' and 'head'")
        graph = cls.from_rows(config, name)
        if not config["head"]:
            raise UserError("'head' is []", at=name, expected=f"a list of {ROW}")
        return graph

    @classmethod
    def from_rows(cls, config: Mapping[str, Any], name: str) -> Graph:
        """Read the graph as `from_config` does; the rows may end before the head, as where a part of a model is built.

        Raises:
            UserError: A section is not a list, or a row is not `[from, repeats, module, args]`.
        """
        layers: list[Layer] = []
        for section in SECTIONS:
            rows = config.get(section)
            if not isinstance(rows, (list, tuple)):
                raise UserError(f"'{section}' is {brief(rows)}", at=name, expected=f"a list of {ROW}")
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

    def before_head(self, row: int, what: str) -> Layer:
        """Return a row before the head.

        Args:
            row: Its number.
            what: What it is for, for the error message.

        Raises:
            UserError: It is the head, or does not exist.
        """
        if 0 <= row < self.head.index:
            return self.layers[row]
        problem = f"is the head ({self.head.module})" if row == self.head.index else "does not exist"
        raise UserError(f"row {row} {problem}", expected=f"a row from 0 to {self.head.index - 1} for {what}")

    def reference_errors(self, name: str, rows: Sequence[object]) -> Iterator[RowError]:
        """Yield an error for each source that is not a row before its reader.

        Args:
            name: The file's name.
            rows: The rows as written, to show them.
        """
        for layer, source in self.impossible():
            what = "reads itself" if source == layer.index else f"reads row {source}, which is not before it"
            known = f"one of rows 0 to {layer.index - 1}" if layer.index else "-1, the image, in the first row"
            yield RowError(name, layer.index, rows[layer.index], what, expected=known)

    def impossible(self) -> Iterator[tuple[Layer, int]]:
        """Yield (layer, source) for each source that is not a row before the layer."""
        for layer in self.layers:
            for source in layer.sources:
                if not (0 <= source < layer.index or (source == IMAGE and layer.index == 0)):
                    yield layer, source


class Document:
    """A model YAML's text with its graph, and where in the text each row is.

    PyYAML reads the text, as in Ultralytics, so that both see the same rows. The parser's marks then say where to
    change the text; everything else stays as it is, to the byte.

    Attributes:
        name: The file's name, for error messages.
        text: The file's text.
        config: The parsed YAML.
        graph: Its graph.
        sections: The YAML node of each section's list.
        rows: The YAML node of each row.
    """

    def __init__(self, text: str, name: str) -> None:
        """Parse `text`.

        Raises:
            UserError: It is not YAML, or not a model. The message names the file and the row.
        """
        self.name = name
        self.text = text
        try:
            loader = YamlLoader(text)
            node = loader.get_single_node()
            config = loader.construct_document(node) if node else None
        except Exception as error:  # an ill-tagged scalar makes PyYAML raise almost anything
            raise yaml_error(error, name, "a model YAML") from None
        self.graph = Graph.from_config(config, name)
        self.config: dict[str, Any] = config or {}
        assert node is not None  # noqa: S101  # for the type checker: an empty file has no graph
        lists = {key.value: value for key, value in node.value}
        self.sections: dict[str, yaml.SequenceNode] = {section: lists[section] for section in SECTIONS}
        self.rows: list[yaml.SequenceNode] = [row for section in SECTIONS for row in lists[section].value]

    def comment(self, row: int) -> str:
        """Return the comment after a row, from its `#`, or an empty string."""
        found = re.compile(r"[ \t]*,?[ \t]*(#[^\r\n]*)").match(self.text, self.end(self.rows[row]))
        return found[1] if found else ""

    def end(self, node: yaml.Node) -> int:
        """Return where a node's text ends; the mark of a block-style list lies after the space that follows it."""
        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            return self.end(last[1] if isinstance(last, tuple) else last)
        index: int = node.end_mark.index
        return index

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a model YAML from disk.

        Raises:
            UserError: It cannot be read, or is not a model YAML.
        """
        try:
            text = path.read_bytes().decode("utf-8")  # bytes: keeps the file's own line ends
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", at=path, expected="a model YAML") from None
        except UnicodeDecodeError as error:
            raise UserError(f"is not UTF-8 text (byte {error.start})", at=path, expected="a model YAML") from None
        return cls(text, str(path))


def check_classes(config: Mapping[str, Any], graph: Graph, name: str) -> None:
    """Check the number of classes that a model YAML gives, as Ultralytics would fail somewhere in the head.

    Raises:
        UserError: It is not a whole number from 1, or is missing where a row needs it.
    """
    classes = config.get("nc", 1)
    problem = "is missing" if "nc" not in config and any("nc" in layer.args for layer in graph.layers) else ""
    if not isinstance(classes, Integral) or isinstance(classes, bool) or int(classes) < 1:
        problem = f"is {brief(classes)}"
    if problem:
        raise UserError(problem, at=f"{name}, key 'nc'", expected="the number of classes, from 1")


def _layer(row: Any, index: int, section: str, name: str) -> Layer:
    """Read one row; this is the one place that says what a row has to be."""

    def error(problem: str, expected: str = "", fix: str = "") -> RowError:
        return RowError(name, index, row, problem, expected=expected, fix=fix)

    if not isinstance(row, (list, tuple)):
        raise error("is not a list", expected=ROW)
    if len(row) != 4:
        raise error(f"a row has 4 parts, not {len(row)}", expected=ROW)
    read, repeats, module, args = row
    entries = [*read] if isinstance(read, (list, tuple)) else [read]
    if not entries or not all(_whole(entry) for entry in entries):
        raise error(f"'from' is {brief(read)}", expected="a row number or a list of row numbers")
    if not _whole(repeats) or repeats < 1:
        raise error(f"repeats is {brief(repeats)}", expected="a whole number from 1")
    if not isinstance(module, str) or not module:
        raise error(f"the module is {brief(module)}", expected="a name")
    if not isinstance(args, (list, tuple)):
        raise error(f"the arguments are {brief(args)}", expected="a list", fix="Write [] for none")
    if not is_small([*args]):
        raise error(f"the arguments hold more than {MOST_VALUES} values, or themselves by an alias")
    if (base := take(args, REPLACES)[1]) is not None:
        if not isinstance(base, list) or len(base) != 3:
            raise error(f"'{REPLACES}' is {brief(base)}", expected="[repeats, module, args]")
        _layer([-1, *base], index, section, name)
    # Row 0 has nothing before it: its -1 is the image already, as index + entry gives.
    sources = tuple(index + entry if entry < 0 else entry for entry in entries)
    return Layer(index, sources, isinstance(read, (list, tuple)), repeats, module, [*args], section)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
