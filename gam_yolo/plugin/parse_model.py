"""Let `ultralytics.nn.tasks.parse_model` build rows that name a registered block.

Ultralytics' parser looks a name up in its module's globals, and passes channels only to the classes that it knows.
Its one built-in whose row gets exactly the channels of its input is `nn.BatchNorm2d`. So a model with blocks is parsed
twice. First on the meta device with a batch norm in each block's place. This gives the channels for every family, scale
and `from` by the parser's own rules. It takes about 50 ms, no memory and no random numbers, so seeds give what they
gave. Then the model itself is built, with these channels written before the rows' own arguments.

A row `[-1, 3, C2f, [128, True, {inside: GAM}]]` is built by Ultralytics without the mapping. Its bottlenecks then get
the block, see `gam_yolo.bottleneck`.

A classification model's YAML can name `AttentionResNet`, a whole network, as its only row. The number of classes takes
the place that a block's channels have. Its class is imported only where a row names it: torchvision's models take about
a second.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, cast

import wrapt
from torch import nn

from gam_yolo import registry, ultralytics_api
from gam_yolo.arguments import INSIDE, REPLACES, RESNET, as_list, bind, is_placed, row_error, source, take
from gam_yolo.errors import UserError, brief
from gam_yolo.graph.model import NO_MAP, Graph, Layer, check_classes
from gam_yolo.meta import meta_device
from gam_yolo.training_keys import BlockTraining

__all__ = ["patch", "unavailable"]

STAND_IN = "nn.BatchNorm2d"
Parsed = tuple[
    nn.Sequential, list[int]
]  # what `parse_model` returns: the layers, and the indexes whose outputs are kept

_warned: set[str] = set()


def patch(tasks: ModuleType) -> None:
    """Wrap `parse_model` of the module `ultralytics.nn.tasks`.

    Raises:
        UserError: The function is missing, or has other parameters than those we know.
    """
    parse_model = ultralytics_api.ASSUMPTIONS["parse_model"].get(tasks)
    importlib.import_module("gam_yolo.bottleneck")  # restricted loading cannot ask for its class: known before
    if getattr(tasks, "SAFE_LOAD", False):
        importlib.import_module("gam_yolo.resnet")  # likewise
    signature = inspect.signature(parse_model)

    def parse(wrapped: Callable[..., Parsed], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parsed:
        given = signature.bind(*args, **kwargs)

        def build(model: Mapping[str, Any]) -> Parsed:
            given.arguments["d"] = model
            return wrapped(*given.args, **given.kwargs)

        model = given.arguments["d"]
        _place_resnet(tasks, model)
        try:
            return _parse(tasks, build, model, given.arguments.get("verbose", True))
        except UserError:
            raise
        except Exception as error:
            if not _explainable(tasks, model, error):
                raise
            from gam_yolo.graph.shapes import failing_row

            with meta_device(), ultralytics_api.quiet():
                found = failing_row(model, lambda part: _parse(tasks, build, part), error)
            raise found from error

    wrapt.wrap_function_wrapper(tasks, "parse_model", parse)


def unavailable(tasks: ModuleType, reason: str) -> None:
    """Where `parse_model` cannot be wrapped, make a row that names a block say why; everything else works as before."""
    for name in registry.BLOCKS:

        def reject(_self: nn.Module, *_: object, name: str = name) -> None:
            raise UserError(f"{name} cannot be placed: {reason}")

        setattr(tasks, name, type(name, (nn.Module,), {"__init__": reject, "__module__": __name__}))


def _parse(
    tasks: ModuleType, build: Callable[[Mapping[str, Any]], Parsed], model: Mapping[str, Any], verbose: bool = False
) -> Parsed:
    if not any(map(_is_ours, _rows(model))):
        return build(model)
    offered, scale = model.get("scales"), model.get("scale")
    if offered and scale and scale not in offered:
        raise UserError(
            f"the file has no scale '{scale}'", at=source(model), expected=f"one of {', '.join(map(str, offered))}"
        )
    BlockTraining.of(model, source(model))  # what is wrong in it is found before a training begins
    graph = Graph.from_rows(model, source(model))
    check_classes(model, graph, source(model))
    for error in graph.reference_errors(source(model), _rows(model)):
        raise error
    blocks = [layer for layer in graph.layers if layer.module in registry.BLOCKS]
    for layer in blocks:
        if layer.many:
            row = _rows(model)[layer.index]
            raise row_error(
                model,
                layer.index,
                row,
                f"'from' is {row[0]}, but {layer.module} has one input",
                expected="the number of one row, or -1",
            )

    probe, final = _copied(model), _copied(model)
    for layer in blocks:
        _rows(probe)[layer.index][2:] = [STAND_IN, []]
    with meta_device(), ultralytics_api.quiet():
        layers, _ = build(probe)

    channels: dict[int, int] = {}
    for layer in blocks:
        row, found = _rows(final)[layer.index], _channels(layers[layer.index])
        if found is None:
            before = "row -1" if layer.sources[0] < 0 else str(graph.layers[layer.sources[0]])
            raise row_error(model, layer.index, row, f"reads {before}, which {NO_MAP}")
        channels[layer.index] = found
        block = registry.get(layer.module)
        try:
            bound = bind(layer.module, block, found, layer.args)
        except UserError as error:
            raise row_error(model, layer.index, row, error) from error.__cause__
        row[3] = [*map(_quoted, bound)]
        setattr(tasks, layer.module, block)
    inside = {layer.index: _bound_inside(model, layer, layers[layer.index]) for layer in graph.layers if _holds(layer)}
    if not ultralytics_api.is_quiet():
        _warn(model, channels | {index: bound[0][0] for index, bound in inside.items()})
    built = build(final)
    for index, arguments in inside.items():
        line = _attend(built[0][index], str(as_list(graph.layers[index].inside)[0]), arguments)
        if verbose:
            tasks.LOGGER.info(line)
    return built


def _place_resnet(tasks: ModuleType, model: dict[str, Any]) -> None:
    """Complete the row that names the network, in place as the parser itself does, and hand the parser its class."""
    rows = [*(model.get("backbone") or ()), *(model.get("head") or ())]
    for i, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) > 2 and row[2] == RESNET):
            continue
        network = importlib.import_module("gam_yolo.resnet").AttentionResNet
        if len(row) != 4 or row[:2] != [-1, 1] or len(rows) > 1:
            only = f"Write it as the only row, [-1, 1, {RESNET}, [nc]]"
            raise row_error(model, i, row, f"{RESNET} is a whole network", fix=only)
        if not isinstance(row[3], list) or row[3][:1] != ["nc"]:
            fix = f"Write [-1, 1, {RESNET}, [nc]]"
            raise row_error(model, i, row, "the first argument is not the number of classes", fix=fix)
        try:
            bound = bind(RESNET, network, model["nc"], row[3][1:])
        except UserError as error:
            raise row_error(model, i, row, error) from error.__cause__
        row[3] = ["nc", *map(_quoted, bound[1:])]
        setattr(tasks, RESNET, network)


def _quoted(argument: Any) -> Any:
    """Return an argument as the parser takes it: it replaces a text that is the name of one of its own variables.

    Such names are "scale" and "width". A quoted text is taken as it is.
    """
    return repr(argument) if isinstance(argument, str) else argument


def _holds(layer: Layer) -> bool:
    return layer.inside is not None and layer.module not in registry.BLOCKS


def _bound_inside(model: Mapping[str, Any], layer: Layer, built: nn.Module) -> list[list[Any]]:
    """Return the complete arguments of the block in each bottleneck of a row."""
    from gam_yolo.bottleneck import bottlenecks, channels

    def error(problem: object, **parts: str) -> UserError:
        return row_error(model, layer.index, _rows(model)[layer.index], problem, **parts)

    name, *args = as_list(layer.inside) or [None]
    if not isinstance(name, str):
        raise error(f"'{INSIDE}' is {brief(layer.inside)}", expected="a block, such as GAM, or [GAM, {start: zero}]")
    found = bottlenecks(built)
    if not found:
        raise error(f"{layer.module} has no bottleneck to put {name} inside", expected="a row such as C2f, C3 or C3k2")
    try:
        block = registry.get(name)
        return [bind(name, block, channels(each), args) for each in found]
    except UserError as problem:
        raise error(problem) from problem.__cause__


def _attend(layer: nn.Module, name: str, arguments: list[list[Any]]) -> str:
    """Put a block into each bottleneck of a layer that the parser has built; return a line for the parser's table."""
    from gam_yolo.bottleneck import attend, bottlenecks

    block, built = registry.get(name), cast(Any, layer)
    before = built.np
    for bottleneck, bound in zip(bottlenecks(layer), arguments, strict=True):
        attend(bottleneck, block(*bound))
    built.np = sum(x.numel() for x in layer.parameters())
    added, where = built.np - before, f"{block.__module__}.{block.__qualname__}"
    return f"{built.i:>3}{'inside':>20}{len(arguments):>3}{added:10.0f}  {where:<45}{arguments[0]!s:<30}"


def _warn(model: Mapping[str, Any], channels: Mapping[int, int]) -> None:
    """Log what `gam-yolo check` would say about the blocks, as far as that is known without a search, once."""
    from gam_yolo.graph.lint import quick_check

    for finding in quick_check(model, channels):
        line = finding.line(source(model))
        if line not in _warned:
            _warned.add(line)
            ultralytics_api.warn(line)


def _explainable(tasks: ModuleType, model: Any, error: Exception) -> bool:
    """Return whether we explain an error of the parser: in a model with blocks, or about an unknown module."""
    try:
        names = [_module(row) for row in _rows(model)]
    except (KeyError, TypeError):
        return False
    unknown = isinstance(error, KeyError) and any(error.args == (name,) and not hasattr(tasks, name) for name in names)
    ours = any(name.removeprefix("nn.") in registry.BLOCKS for name in names) or any(map(_is_ours, _rows(model)))
    return unknown or ours


def _is_ours(row: Any) -> bool:
    """Return whether a row names a block, also in a wrong place, or says `inside` or `replaces`."""
    parts = [*row.values()] if isinstance(row, Mapping) else row if isinstance(row, (list, tuple)) else []
    if len(parts) > 2 and isinstance(parts[2], (list, tuple)):  # a module in brackets
        parts = [*parts, *parts[2]]
    return any(isinstance(part, str) and part in registry.BLOCKS for part in parts) or is_placed(row)


def _copied(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy whose rows and arguments can be changed."""
    copied = copy.deepcopy(dict(model))
    for section in ("backbone", "head"):
        copied[section] = [[read, repeats, name, _own(name, args)] for read, repeats, name, args in copied[section]]
    return copied


def _own(name: str, args: Any) -> list[Any]:
    """Return a row's arguments without what is not for its module."""
    own = take(args, REPLACES)[0]
    return own if name in registry.BLOCKS else take(own, INSIDE)[0]


def _rows(model: Mapping[str, Any]) -> list[Any]:
    return [row for key in ("backbone", "head") if isinstance(model.get(key), (list, tuple)) for row in model[key]]


def _module(row: Any) -> str:
    """Return the module that a row names, or an empty string where it names none."""
    return row[2] if isinstance(row, (list, tuple)) and len(row) > 2 and isinstance(row[2], str) else ""


def _channels(layer: nn.Module) -> int | None:
    """Return the channels of the batch norm that stood in for a block, once or repeated, or None if it has none."""
    if isinstance(layer, nn.Sequential) and len(layer):
        layer = layer[0]
    found = layer.num_features if isinstance(layer, nn.BatchNorm2d) else None
    return found if isinstance(found, int) else None  # a CBLinear's channels are a list
