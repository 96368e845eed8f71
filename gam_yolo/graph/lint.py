"""Find what is wrong with a model YAML before any training time is spent on it."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gam_yolo import registry
from gam_yolo.arguments import bind
from gam_yolo.errors import UserError, brief, nearest
from gam_yolo.graph.edit import FEEDS_NEXT
from gam_yolo.graph.find import load, scale_letter, without_letter
from gam_yolo.graph.model import IMAGE, Document, Graph, Layer
from gam_yolo.graph.shapes import RowError, Shape, known_modules, measure, module_class, scales

__all__ = ["Finding", "as_json", "check", "status"]

FEWEST_CHANNELS = 32  # smaller numbers are ratios, kernels and groups before they are channels


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        level: `error`: the model cannot be built or does not compute what its rows mean; `warning`: it can be meant.
        code: What kind of thing it is, for programs.
        row: The row that it is about, or None for the file.
        message: What was found.
        remedy: What to do about it.
    """

    level: str
    code: str
    row: int | None
    message: str
    remedy: str


def status(findings: Sequence[Finding]) -> int:
    """Return the exit status: 0 clean, 1 warnings, 2 errors."""
    levels = {finding.level for finding in findings}
    return 2 if "error" in levels else 1 if levels else 0


def check(name: str) -> list[Finding]:
    """Check a model YAML; whatever is in the file, this returns.

    Args:
        name: A path, or the name of a YAML that Ultralytics or this package ships.

    Returns:
        What was found, errors first, by row.
    """
    try:
        document = load(name)
        scales(document.config)
    except UserError as error:
        return [
            Finding("error", "unreadable", None, str(error).removeprefix(f"{name}: "), "mend it, or name another file")
        ]
    found = [*_names(name, document.config), *_rows(document)]
    return sorted(found, key=lambda f: (f.level != "error", -1 if f.row is None else f.row, f.code))


def _rows(document: Document) -> Iterator[Finding]:
    """Check rows and graph; what is checked later takes for granted what was checked before."""
    graph = document.graph
    blocks = {layer.index for layer in graph.layers if layer.module in registry.BLOCKS}
    if stale := _stale(document, blocks):
        yield stale  # all else that would be found follows from it
        return
    broken = [*_references(graph), *_modules(graph)]
    yield from broken
    if broken:
        return
    shapes: list[Shape | None] = []
    failures: dict[int | None, str] = {}
    failing: dict[int | None, list[str]] = {}
    for scale in scales(document.config):
        try:
            measured = measure(document.config, document.name, scale)
            shapes = shapes or measured
        except UserError as error:
            row = error.row if isinstance(error, RowError) else None
            failures.setdefault(row, str(error).removeprefix(f"{document.name}, "))  # channels differ by scale
            failing.setdefault(row, []).append(scale)
    for row, message in failures.items():
        at = f" (scale {', '.join(failing[row])})" if any(failing[row]) else ""
        yield Finding("error", "unbuildable", row, message + at, "mend the row, or what it reads")
    yield from _usage(document, blocks, shapes)
    if shapes:
        yield from _arguments(document, blocks, shapes)
        yield from _head(graph, shapes)


def _references(graph: Graph) -> Iterator[Finding]:
    for layer, source in graph.impossible():
        what = "reads itself" if source == layer.index else f"reads row {source}, which is not before it"
        remedy = (
            f"a row reads rows 0 to {layer.index - 1}" if layer.index else "the first row reads the image: write -1"
        )
        yield Finding("error", "forward-reference", layer.index, f"{layer} {what}", remedy)


def _modules(graph: Graph) -> Iterator[Finding]:
    for layer in graph.layers:
        if module_class(layer.module) is None:
            hint = nearest(layer.module, known_modules()).removeprefix("; ")
            yield Finding(
                "error",
                "unknown-module",
                layer.index,
                f"{layer}: there is no such module",
                hint or "name a registered block (gam-yolo blocks) or a module of Ultralytics or torch.nn",
            )


def _stale(document: Document, blocks: set[int]) -> Finding | None:
    """Find row numbers that are those of the file before its blocks were put in.

    Such a file makes no sense as it stands (a row is unused, or tensors of different strides meet), and makes sense
    once its block rows are left out and every number is left as it is.
    """
    if not blocks or _makes_sense(document.config, document.name):
        return None
    rows = {section: document.config[section] for section in ("backbone", "head")}
    names = registry.BLOCKS
    before = {**document.config, **{s: [row for row in rows[s] if row[2] not in names] for s in rows}}
    try:
        old = Graph.from_config(before, document.name)
    except UserError:
        return None
    if not _makes_sense(before, document.name):
        return None
    kept = [layer.index for layer in document.graph.layers if layer.index not in blocks]
    wrong: dict[int, list[str]] = {}
    for layer, now in zip(old.layers, kept, strict=True):
        for source, stands in zip(layer.sources, document.graph.layers[now].sources, strict=True):
            meant = kept[source] if source >= 0 else source
            while meant + 1 in blocks and meant + 1 < now:  # who read X before now reads what was put behind X
                meant += 1
            if meant != stands:
                wrong.setdefault(now, []).append(f"{stands} -> {meant}")
    if not wrong:
        return None
    changes = "; ".join(f"row {row}: {', '.join(entries)}" for row, entries in wrong.items())
    return Finding(
        "error",
        "stale-numbers",
        min(wrong),
        "the row numbers are those of the file without its blocks, so rows read the wrong tensors",
        f"renumber {changes}; or let `gam-yolo place` put the blocks in",
    )


def _makes_sense(config: dict[str, Any], name: str) -> bool:
    """Return whether the model runs, uses every row, and gives its head one tensor of each stride."""
    try:
        graph = Graph.from_config(config, name)
        shapes = measure(config, name, scales(config)[0])
    except UserError:
        return False
    return not any(_unused(graph, shapes)) and not any(_head(graph, shapes))


def _unused(graph: Graph, shapes: Sequence[Shape | None]) -> Iterator[Layer]:
    """Yield the layers whose feature map nobody reads; what gives out no feature map works by other ways."""
    for layer in graph.layers[:-1]:
        if not graph.readers(layer.index) and (not shapes or shapes[layer.index]):
            yield layer


def _usage(document: Document, blocks: set[int], shapes: Sequence[Shape | None]) -> Iterator[Finding]:
    """Find outputs that nobody reads, and readers that go past a block."""
    graph = document.graph
    unused = {layer.index for layer in _unused(graph, shapes)}
    for index in sorted(unused):
        layer = graph.layers[index]
        if index not in blocks:
            yield Finding("warning", "unused-row", index, f"nobody reads {layer}", "remove the row, or read it")
            continue
        past = [graph.layers[i] for i in graph.readers(layer.sources[0]) if i > index]
        remedy = "; ".join(f"in {reader} write {index} for {layer.sources[0]}" for reader in past)
        who = f"; row {layer.sources[0]} before it is read by {' and '.join(map(str, past))}" if past else ""
        yield Finding("error", "unused-block", index, f"nobody reads {layer}{who}", remedy or "read it, or remove it")
    for index in sorted(blocks - unused):
        layer = graph.layers[index]
        past = [graph.layers[i] for i in graph.readers(layer.sources[0]) if i > index]
        if past and FEEDS_NEXT not in document.comment(index):
            yield Finding(
                "warning",
                "bypassed-block",
                index,
                f"{layer} is passed by: {' and '.join(map(str, past))} still read{'s' * (len(past) == 1)} row "
                f"{layer.sources[0]}, the tensor before it",
                "; ".join(f"in {reader} write {index} for {layer.sources[0]}" for reader in past)
                + f"; or, if it is meant, say '# {FEEDS_NEXT}' behind row {index}",
            )


def _arguments(document: Document, blocks: set[int], shapes: Sequence[Shape | None]) -> Iterator[Finding]:
    """Find arguments that mean something else than they look like."""
    for index in sorted(blocks):
        layer, shape = document.graph.layers[index], shapes[index]
        if shape is None:
            continue
        block, source = registry.BLOCKS[layer.module], document.graph.layers[layer.sources[0]]
        bound = bind(layer.module, block, shape.channels, layer.args)
        if advice := getattr(block, "advice", None):
            yield Finding(
                "warning", "fork-arguments", index, f"{layer} {advice(*bound)}", "write the row in plain words"
            )
        if layer.repeats > 1:
            times = f"{layer} is repeated {layer.repeats} times before depth scaling, one behind the other"
            yield Finding("warning", "repeated-block", index, times, "write 1 for one block")
        written = layer.args[0] if layer.args else None
        parameter = [*inspect.signature(block).parameters][1:2]
        if type(written) is not int or not parameter:
            continue
        nominal = source.args[0] if source.args else None
        if parameter == ["c2"]:
            if _scaled(document.config, written) != shape.channels:
                yield Finding(
                    "warning",
                    "fork-channels",
                    index,
                    f"{layer} says {written} channels, {_scaled(document.config, written)} after width scaling, but "
                    f"reads {shape.channels}: a fork's parser would fail here",
                    f"write {brief(nominal)}, or [-1, 1, GAM, []], which needs no channels",
                )
        elif written >= FEWEST_CHANNELS and written in (shape.channels, nominal):
            yield Finding(
                "warning",
                "misbound-argument",
                index,
                f"{layer} gives {written} to '{parameter[0]}', and {written} are its input's channels",
                "leave the channels out: they come from the row that is read",
            )


def _scaled(config: dict[str, Any], channels: int) -> int:
    """Return what Ultralytics' parser makes of a row's channels at the first scale."""
    width: float = config.get("width_multiple", 1.0)
    most: float = math.inf
    if offered := config.get("scales"):
        _, width, most = next(iter(offered.values()))
    return math.ceil(min(channels, most) * width / 8) * 8


def _head(graph: Graph, shapes: Sequence[Shape | None]) -> Iterator[Finding]:
    """Find inputs of a head that are no feature maps or share a stride."""
    seen: dict[float, int] = {}
    for source in graph.head.sources:
        if source == IMAGE:
            continue
        shape = shapes[source]
        if shape is None:
            yield Finding(
                "error",
                "head-input",
                graph.head.index,
                f"{graph.head} reads {graph.layers[source]}, which gives no single feature map",
                "read the last row of each stride",
            )
        elif shape.stride in seen:
            there = ", ".join(f"{s.stride:g}" for i in graph.head.sources if (s := shapes[i]))
            yield Finding(
                "error",
                "head-strides",
                graph.head.index,
                f"{graph.head} gets the strides {there}: rows {seen[shape.stride]} and {source} share one",
                "read one row of each stride",
            )
        else:
            seen[shape.stride] = source


def _names(name: str, config: dict[str, Any]) -> Iterator[Finding]:
    """Find names in which Ultralytics reads another scale than a person would, or none."""
    offered = [letter for letter in scales(config) if letter]
    if not offered:
        return
    stem, letter = Path(name).stem, scale_letter(name)
    serve_all = f"one file serves all scales: name it like yolov8-gam.yaml and ask for yolov8{offered[0]}-gam.yaml"
    if letter and letter not in offered:
        message = f"the name '{stem}' says scale '{letter}', but the file offers {', '.join(offered)}"
        yield Finding("error", "scale-letter", None, message, "rename the file, or add the scale")
    elif letter and re.search(rf"\d{letter}[A-Za-z]", stem):
        message = f"the name '{stem}' is read as scale '{letter}' of '{without_letter(stem)}'"
        yield Finding("warning", "scale-letter", None, message, f"put '-' behind the version; {serve_all}")
    elif not letter and len(offered) > 1:
        if meant := re.search(r"(?:^|[-_.]|\d)([nslmx])(?=[-_.]|$)", stem):
            message = f"the letter '{meant[1]}' in the name '{stem}' is not read as a scale, so '{offered[0]}' is built"
            yield Finding("warning", "scale-letter", None, message, f"put the letter behind the version; {serve_all}")
        elif not re.search(r"yolo(e-)?v?\d", stem):
            message = f"no scale can be asked for by the name '{stem}', so '{offered[0]}' is always built"
            yield Finding("warning", "scale-letter", None, message, serve_all)
    folder = str(Path(name).parent)
    if len(offered) > 1 and without_letter(folder) != folder:
        message = f"asked for a scale, Ultralytics looks in '{without_letter(folder)}' instead of '{folder}'"
        yield Finding(
            "warning", "scale-folder", None, message, "use a folder without a letter n, s, m, l, x behind a digit"
        )


def as_json(name: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings for programs."""
    return {"file": name, "status": status(findings), "findings": [asdict(finding) for finding in findings]}
