"""Find what is wrong with a model YAML before any training time is spent on it."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

from gam_yolo import registry
from gam_yolo.arguments import RowError, as_list, bind
from gam_yolo.arguments import source as file_name
from gam_yolo.blocks.forks import FEWEST_CHANNELS
from gam_yolo.errors import UserError, brief
from gam_yolo.graph.edit import FEEDS_NEXT, remove
from gam_yolo.graph.find import load, same_modules, scale_letter
from gam_yolo.graph.model import IMAGE, NO_MAP, Document, Graph, Layer, check_classes
from gam_yolo.graph.shapes import Shape, channels_inside, measure, module_class, scales, suggest_module
from gam_yolo.resources import without_letter

__all__ = ["Finding", "as_json", "check", "explain", "quick_check", "status"]

_MOST_PARTS = 32  # combinations of a file's blocks that are tried: all of up to five


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        level: `error`: the model cannot be built or does not compute what its rows mean; `warning`: it may be meant.
        code: The kind of problem, for programs.
        row: The row that it is about, or None for the file.
        message: What was found.
        remedy: What to do about it, as a sentence.
    """

    level: str
    code: str
    row: int | None
    message: str
    remedy: str

    def line(self, name: str) -> str:
        """Return the finding on one line, with the file's name."""
        return f"{UserError(f'{self.level}: {self.message}', at=name, fix=self.remedy)} [{self.code}]"


def status(findings: Sequence[Finding]) -> int:
    """Return the exit status: 0 clean, 1 warnings, 2 errors."""
    levels = {finding.level for finding in findings}
    return 2 if "error" in levels else 1 if levels else 0


def as_json(name: str, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings for programs."""
    return {"file": name, "status": status(findings), "findings": [asdict(finding) for finding in findings]}


def check(model: str | Path) -> list[Finding]:
    """Check a model YAML. It never raises because of what the file contains.

    Args:
        model: A path, or the name of a YAML that Ultralytics or this package ships.

    Returns:
        What was found, errors first, by row.

    Examples:
        >>> check("yolov8n-gam.yaml")
        []
    """
    name = str(model)
    try:
        document = load(name)
        scales(document.config)
        check_classes(document.config, document.graph, name)
    except UserError as error:
        return [Finding("error", "unreadable", None, _without(name, error), "Correct the file, or name another one")]
    found = [*_names(name, document.config), *_scales(document.config), *_rows(document, scale_letter(name))]
    return sorted(found, key=lambda f: (f.level != "error", -1 if f.row is None else f.row, f.code))


def quick_check(config: Mapping[str, Any], channels: Mapping[int, int]) -> list[Finding]:
    """Check what needs no search, for every build of a model with blocks.

    Args:
        config: A parsed model YAML whose rows have been checked, as Ultralytics' parser gets it.
        channels: The input channels of each block's row, and of the blocks inside other rows.

    Returns:
        The findings of `check` about the blocks' arguments and readers. If these, or a row that is not read, make
        stale row numbers likely, the model is also measured to find them.
    """
    name = file_name(config)
    graph = Graph.from_rows(config, name)
    blocks = {index for index in channels if graph.layers[index].module in registry.BLOCKS}
    inserted = {index for index in blocks if not graph.layers[index].replaces}
    usage = [*_partly_stale(graph, inserted), *_usage(graph, inserted, _comments(name, graph))]
    found = [*usage, *_arguments(config, graph, channels)]
    suspicious = any(not graph.readers(layer.index) for layer in graph.layers[:-1])
    suspicious = suspicious or any(f.code == "bypassed-block" for f in found)
    stale = _stale(config, name, graph, inserted) if suspicious and config.get("head") else None
    return [*_scales(config), *([stale] if stale else found)]


def explain(config: Mapping[str, Any]) -> UserError | None:
    """Return why a model cannot run, or None where it can.

    Args:
        config: A parsed model YAML with blocks, whose rows have been checked.
    """
    name = file_name(config)
    graph = Graph.from_rows(config, name)
    blocks = {layer.index for layer in graph.layers if layer.module in registry.BLOCKS and not layer.replaces}
    if stale := _stale(config, name, graph, blocks):
        return UserError(stale.message, at=name, fix=stale.remedy)
    try:
        measure(config, name, config.get("scale") or "")
    except UserError as error:
        return error
    return None


def _comments(name: str, graph: Graph) -> Callable[[int], str]:
    """Return a function that gives the comments of a model's file, if that still exists and has the same rows."""

    def comment(row: int) -> str:
        try:
            document = load(name)
        except UserError:
            return ""
        return document.comment(row) if document.graph == graph else ""

    return comment


def _rows(document: Document, letter: str) -> Iterator[Finding]:
    """Check rows and graph, at the scale of that letter first; each check relies on the ones before it."""
    graph, config = document.graph, document.config
    blocks = {layer.index for layer in graph.layers if layer.module in registry.BLOCKS}
    inserted = {index for index in blocks if not graph.layers[index].replaces}
    if stale := _stale(config, document.name, graph, inserted):
        yield stale  # everything else follows from it
        return
    broken = [*_references(document), *_modules(graph)]
    yield from broken
    if broken:
        return
    shapes: list[Shape | None] = []
    failures: dict[int | None, str] = {}
    failing: dict[int | None, list[str]] = {}
    offered = sorted(scales(config), key=lambda scale: scale != letter)
    for scale in offered:
        try:
            measured = measure(config, document.name, scale)
            shapes = shapes or measured
        except UserError as error:
            row = error.row if isinstance(error, RowError) else None
            failures.setdefault(row, _without(document.name, error))  # channels differ by scale
            failing.setdefault(row, []).append(scale)
    for row, message in failures.items():
        if any(failing[row]):
            stop = message[-1:] if message.endswith((".", "?", "!")) else ""
            message = f"{message.removesuffix(stop)} (scale {', '.join(failing[row])}){stop}"
        yield Finding("error", "unbuildable", row, message, "Correct the row, or what it reads")
    yield from _partly_stale(graph, inserted)
    yield from _usage(graph, inserted, document.comment, shapes)
    if shapes:
        inputs = {i: shape.channels for i in blocks if (shape := shapes[i])}
        inputs |= channels_inside(config, document.name, offered[0])
        yield from _arguments({**config, "scale": offered[0]}, graph, inputs)
        yield from _repeats(graph, blocks)
        yield from _head(graph, shapes)


def _without(name: str, error: UserError) -> str:
    """Return an error's message without the file's name."""
    return re.sub(rf"^{re.escape(name)}(, |: )", "", str(error))


def _references(document: Document) -> Iterator[Finding]:
    rows = [*document.config["backbone"], *document.config["head"]]
    for error in document.graph.reference_errors(document.name, rows):
        remedy = f"Read one of rows 0 to {error.row - 1}" if error.row else "Write -1, the image"
        yield Finding("error", "forward-reference", error.row, _without(document.name, error), remedy)


def _modules(graph: Graph) -> Iterator[Finding]:
    for layer in graph.layers:
        if module_class(layer.module) is None:
            found = suggest_module(layer.module)
            meant = f"Did you mean '{found['similar']}'?" if "similar" in found else found.get("fix")
            yield Finding(
                "error",
                "unknown-module",
                layer.index,
                f"{layer}: there is no module named {brief(layer.module)}",
                meant or "Name a block (gam-yolo blocks), or a layer of Ultralytics",
            )


def _stale(config: Mapping[str, Any], name: str, graph: Graph, blocks: set[int]) -> Finding | None:
    """Find row numbers that were right before blocks were inserted: all of the file's, or some of them.

    Such a file makes no sense as it is: a row is not read, or tensors of different strides meet. It makes sense once
    these blocks' rows are left out and every number is kept.
    """
    if not blocks or _makes_sense(config, name):
        return None
    sizes = [len(blocks), *range(1, len(blocks))]  # all at once is the likeliest
    parts = (set(part) for size in sizes for part in combinations(sorted(blocks), size))
    found = (_renumbered(config, name, graph, part, part == blocks) for part in islice(parts, _MOST_PARTS))
    return next(filter(None, found), None)


def _renumbered(
    config: Mapping[str, Any], name: str, graph: Graph, inserted: set[int], all_blocks: bool
) -> Finding | None:
    """Find row numbers that were right before these blocks were inserted; `all_blocks` if the file has no others."""
    kept = [layer.index for layer in graph.layers if layer.index not in inserted]
    split = len(config["backbone"])
    rows = [*config["backbone"], *config["head"]]
    before = {
        **config,
        "backbone": [rows[i] for i in kept if i < split],
        "head": [rows[i] for i in kept if i >= split],
    }
    try:
        old = Graph.from_config(before, name)
    except UserError:
        return None
    # Without some of several blocks, other files make sense by chance, and measuring each would take seconds.
    if not (_makes_sense(before, name) if all_blocks else _is_shipped(old)):
        return None
    wrong: dict[int, list[str]] = {}
    shifted = all_blocks
    for layer, now in zip(old.layers, kept, strict=True):
        for source, stands in zip(layer.sources, graph.layers[now].sources, strict=True):
            meant = _last_block_after(kept[source], inserted) if source >= 0 else source
            if meant != stands:
                wrong.setdefault(now, []).append(f"{stands} -> {meant}")
                shifted |= kept[source] != stands
    if not wrong or not shifted:  # rows that only read past a block are `_usage`'s
        return None
    changes = "; ".join(f"row {row}: {', '.join(entries)}" for row, entries in wrong.items())
    without = "its blocks" if all_blocks else " and ".join(str(graph.layers[i]) for i in sorted(inserted))
    return Finding(
        "error",
        "stale-numbers",
        min(wrong),
        f"the row numbers are those of the file without {without}, so rows read the wrong tensors",
        f"Renumber {changes}; or let `gam-yolo place` insert the blocks",
    )


def _is_shipped(graph: Graph) -> bool:
    """Return whether a model is one of Ultralytics' but for its blocks."""
    try:
        plain = remove(graph, registry.BLOCKS.__contains__).graph
    except UserError:
        return False
    sources = [layer.sources for layer in plain.layers]
    bases = same_modules([layer.module for layer in plain.layers])
    return any([layer.sources for layer in base.layers] == sources for base in bases.values())


def _partly_stale(graph: Graph, blocks: set[int]) -> Iterator[Finding]:
    """Find row numbers that are still those of Ultralytics' model, in a file that has its rows and blocks in between.

    Such a file may run and use every row: a Concat has the stride of the row after it, which should be read.
    """
    if not blocks:
        return
    try:
        edit = remove(graph, registry.BLOCKS.__contains__)
    except UserError:
        return
    kept = [row for row in edit.origin if row is not None]
    found = []
    for name, base in same_modules([layer.module for layer in edit.graph.layers]).items():
        wrong = [
            (graph.layers[now], stands, _last_block_after(kept[meant], blocks))
            for own, layer, now in zip(edit.graph.layers, base.layers, kept, strict=True)
            for source, meant, stands in zip(own.sources, layer.sources, graph.layers[now].sources, strict=False)
            if source != meant == stands
        ]
        found.append((len(wrong), name, wrong))
    _, name, wrong = min(found, default=(0, "", []))
    if wrong:
        reads = (f"{layer} reads {graph.layers[a]} instead of {graph.layers[b]}" for layer, a, b in wrong)
        message = f"row numbers are those of {name}, which has no blocks: {', '.join(reads)}"
        remedy = "; ".join(f"in {layer} write {b} for {a}" for layer, a, b in wrong)
        yield Finding("warning", "stale-numbers", wrong[0][0].index, message, remedy[:1].upper() + remedy[1:])


def _last_block_after(row: int, blocks: set[int]) -> int:
    """Return the last of the blocks right after a row, which a reader of the row then reads, or the row itself."""
    while row + 1 in blocks:
        row += 1
    return row


def _makes_sense(config: Mapping[str, Any], name: str) -> bool:
    """Return whether the model runs, uses every row, and gives its head one tensor of each stride."""
    try:
        graph = Graph.from_config(config, name)
        shapes = measure(config, name, scales(config)[0])
    except UserError:
        return False
    return not any(_unused(graph, shapes)) and not any(_head(graph, shapes))


def _unused(graph: Graph, shapes: Sequence[Shape | None]) -> Iterator[Layer]:
    """Yield the layers whose feature map no row reads; a layer without one may work by other means."""
    for layer in graph.layers[:-1]:
        if not graph.readers(layer.index) and (not shapes or shapes[layer.index]):
            yield layer


def _usage(
    graph: Graph, blocks: set[int], comment: Callable[[int], str], shapes: Sequence[Shape | None] | None = None
) -> Iterator[Finding]:
    """Find outputs that no row reads, and rows that bypass a block.

    Args:
        graph: The model.
        blocks: Its blocks' rows.
        comment: Returns a row's comment.
        shapes: Each row's output; None to look at blocks only.
    """
    for index in sorted(blocks - {graph.head.index}):
        layer = graph.layers[index]
        before = layer.sources[0]
        past = [graph.layers[i] for i in graph.readers(before) if i > index]
        who = " and ".join(map(str, past))
        remedy = "; ".join(f"in {reader} write {index} for {before}" for reader in past)
        remedy = remedy[:1].upper() + remedy[1:]
        if not graph.readers(index):
            bypass = f"; row {before} before it is read by {who}" if past else ""
            message = f"no row reads {layer}{bypass}"
            yield Finding("error", "unused-block", index, message, remedy or "Read it, or remove it")
        elif past and FEEDS_NEXT not in comment(index):
            yield Finding(
                "warning",
                "bypassed-block",
                index,
                f"{layer} is bypassed: {who} still read{'s' * (len(past) == 1)} row {before}, the tensor before it",
                f"{remedy}; or, if it is meant, write the comment '# {FEEDS_NEXT}' after row {index}",
            )
    for layer in _unused(graph, shapes) if shapes is not None else ():
        if layer.index not in blocks:
            yield Finding("warning", "unused-row", layer.index, f"no row reads {layer}", "Remove the row, or read it")


def _arguments(config: Mapping[str, Any], graph: Graph, channels: Mapping[int, int]) -> Iterator[Finding]:
    """Find block arguments that mean something else than they look like.

    Args:
        config: The parsed model YAML.
        graph: Its graph.
        channels: The input channels of each block's row, and of the blocks inside other rows.
    """
    for index, c in sorted(channels.items()):
        layer = graph.layers[index]
        held = layer.module not in registry.BLOCKS
        name, *args = as_list(layer.inside) if held else [layer.module, *layer.args]
        block, who = registry.BLOCKS[name], f"{name} inside {layer}" if held else str(layer)
        bound = bind(name, block, c, args)
        if advice := getattr(block, "advice", None):
            meaning = f"{who} {advice(*bound)}"
            yield Finding("warning", "fork-arguments", index, meaning, "Write the row in plain words")
        written = bound[1] if args and not isinstance(args[0], dict) else None
        if block is registry.BLOCKS["CBAM"] and type(written) is int:
            yield Finding(
                "warning",
                "fork-arguments",
                index,
                f"{who} is the paper's CBAM with kernel {written}. Forks write this row for Ultralytics' class CBAM, "
                "which is another function with other parameters",
                f"Write [{{kernel: {written}}}] for the paper's block, or UltralyticsCBAM, [{written}]",
            )
        parameter = [*inspect.signature(block).parameters.values()][1:2]
        if isinstance(written, bool) or not isinstance(written, (int, float)) or not parameter:
            continue
        key, default = parameter[0].name, parameter[0].default
        least = 1 if isinstance(default, float) and default < 1 else FEWEST_CHANNELS
        if written < least:
            continue
        nominal = _nominal(graph, index if held else layer.sources[0])
        if key == "c2":
            if not held and _scaled(config, written) != c:
                yield Finding(
                    "warning",
                    "fork-channels",
                    index,
                    f"{who} says {written} channels, {_scaled(config, written)} after width scaling, but reads {c}: "
                    "a fork whose parser scales the number would fail here",
                    f"Write {brief(nominal)}, or the row in plain words, which needs no channels",
                )
            continue
        known = f" with a default of {default!r}" if isinstance(default, (int, float)) else ""
        no_ratio = key == "reduction" and written > FEWEST_CHANNELS  # none in use is larger
        if written in (c, nominal) or no_ratio or (known and (written > c or default < 1)):
            yield Finding(
                "warning",
                "misbound-argument",
                index,
                f"{who} gives {written} to '{key}'{known}, and {written} looks like a number of channels",
                f"Leave the channels out, as they come from the row that is read; or, if it is meant, write {{{key}: "
                f"{written}}}",
            )


def _repeats(graph: Graph, blocks: set[int]) -> Iterator[Finding]:
    for layer in graph.layers:
        if layer.index in blocks and layer.repeats > 1:
            times = f"{layer} is repeated {layer.repeats} times before depth scaling, one after the other"
            yield Finding("warning", "repeated-block", layer.index, times, "Write 1 for one block")


def _nominal(graph: Graph, index: int) -> int | None:
    """Return the channels that a row's output has by the numbers written in the file, before width scaling."""
    if index < 0:
        return None
    layer = graph.layers[index]
    if layer.module in registry.BLOCKS or layer.module in {"nn.Upsample", "nn.Identity", "nn.BatchNorm2d"}:
        return _nominal(graph, layer.sources[0])
    if layer.module == "Concat":
        parts = [_nominal(graph, source) for source in layer.sources]
        return sum(part for part in parts if part) if all(parts) else None
    first = layer.args[0] if layer.args else None
    return first if type(first) is int else None


def _scaled(config: Mapping[str, Any], channels: float) -> int:
    """Return a row's channels after width scaling, as Ultralytics' parser computes them."""
    width: float = config.get("width_multiple", 1.0)
    most: float = math.inf
    if offered := config.get("scales"):
        _, width, most = offered.get(config.get("scale")) or next(iter(offered.values()))
    return math.ceil(min(channels, most) * width / 8) * 8


def _head(graph: Graph, shapes: Sequence[Shape | None]) -> Iterator[Finding]:
    """Find inputs of a head that are not feature maps or share a stride."""
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
                f"{graph.head} reads {graph.layers[source]}, which {NO_MAP}",
                "Read the last row of each stride",
            )
        elif shape.stride in seen:
            there = ", ".join(f"{s.stride:g}" for i in graph.head.sources if (s := shapes[i]))
            yield Finding(
                "error",
                "head-strides",
                graph.head.index,
                f"{graph.head} gets the strides {there}: rows {seen[shape.stride]} and {source} share one",
                "Read one row of each stride",
            )
        else:
            seen[shape.stride] = source


def _scales(config: Mapping[str, Any]) -> Iterator[Finding]:
    """Find scales that are not indented below `scales`, where Ultralytics does not look for them."""
    misplaced = [letter for letter in "nslmx" if isinstance(config.get(letter), list)]
    if not config.get("scales") and misplaced:
        keys = ", ".join(map(repr, misplaced))
        depth, width = (config.get(f"{of}_multiple", 1.0) for of in ("depth", "width"))
        message = f"the file has the scales {keys} beside 'scales', not in it, so it is built with depth {depth} and "
        yield Finding("warning", "scales", None, f"{message}width {width}", "Indent them below 'scales:'")


def _names(name: str, config: dict[str, Any]) -> Iterator[Finding]:
    """Find file names from which Ultralytics reads no scale, or another one than a person would."""
    offered = [letter for letter in scales(config) if letter]
    if not offered:
        return
    stem, letter = Path(name).stem, scale_letter(name)
    serve_all = f"one file serves all scales: name it like yolov8-gam.yaml and ask for yolov8{offered[0]}-gam.yaml"
    if letter and letter not in offered:
        message = f"the name '{stem}' says scale '{letter}', but the file offers {', '.join(offered)}"
        yield Finding("error", "scale-letter", None, message, "Rename the file, or add the scale")
    elif letter and re.search(rf"\d{letter}[A-Za-z]", stem):
        message = f"the name '{stem}' is read as scale '{letter}' of '{without_letter(stem)}'"
        yield Finding("warning", "scale-letter", None, message, f"Put '-' after the version; {serve_all}")
    elif not letter and len(offered) > 1:
        if meant := re.search(r"(?:^|[-_.]|\d)([nslmx])(?=[-_.]|$)", stem):
            message = f"the letter '{meant[1]}' in the name '{stem}' is not read as a scale, so '{offered[0]}' is built"
            yield Finding("warning", "scale-letter", None, message, f"Put the letter after the version; {serve_all}")
        elif not re.search(r"yolo(e-)?v?\d", stem):
            message = f"no scale can be asked for by the name '{stem}', so '{offered[0]}' is always built"
            yield Finding("warning", "scale-letter", None, message, serve_all[0].upper() + serve_all[1:])
