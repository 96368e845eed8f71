"""Measure each row's output, channels and stride, by running the model on the meta device.

Nothing is computed there and no memory is taken, whatever the model's size. Ultralytics' own parser and modules give
the shapes, so there is no table of modules here that could be wrong about a family.

A block keeps the shape of its input. So a model without its blocks is run once per process and scale, whatever blocks
it has in whichever file, and each block alone. Where that fails, the model is run as it is, to find the row.
"""

from __future__ import annotations

import copy
import functools
import importlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gam_yolo import registry, ultralytics_api
from gam_yolo.arguments import RESNET, RowError, bind, leaves, source
from gam_yolo.errors import UserError, brief, reason
from gam_yolo.graph.edit import remove
from gam_yolo.graph.model import NO_MAP, Graph, check_classes
from gam_yolo.meta import meta_device

__all__ = [
    "RowError",
    "Shape",
    "channels_inside",
    "failing_row",
    "harmless",
    "known_modules",
    "measure",
    "module_class",
    "scales",
    "suggest_module",
    "unknown_module",
]

SIDE = 512  # pixels of the square image that is run through; a power of two, so that every stride divides it
# Beyond these a number is a slip, and building it would take minutes even on the meta device.
MOST_REPEATS = 100
MOST_DEPTH = 10
LARGEST = 1 << 16


@dataclass(frozen=True)
class Shape:
    """A feature map: its channels, and its stride in pixels of the input image."""

    channels: int
    stride: float


def scales(config: Mapping[str, Any]) -> list[str]:
    """Return the scale letters that a model YAML offers, in its order; one empty string where it offers none.

    Raises:
        UserError: A scale is not [depth, width, max_channels], or is so deep that it would build for minutes.
    """
    offered = config.get("scales") or {
        "": [config.get(f"{of}_multiple", 1.0) for of in ("depth", "width")] + [math.inf]
    }
    if not isinstance(offered, dict):
        raise UserError(f"'scales' is {brief(offered)}", expected="a mapping like n: [0.33, 0.25, 1024]")
    for letter, gains in offered.items():
        three = isinstance(gains, list) and len(gains) == 3 and all(type(gain) in (int, float) for gain in gains)
        if not isinstance(letter, str) or not three or not 0 <= gains[0] <= MOST_DEPTH:
            raise UserError(
                f"scale {brief(letter)} is {brief(gains)}",
                expected=f"[depth, width, max_channels] with a depth up to {MOST_DEPTH}",
            )
    return list(offered)


def module_class(name: str) -> type[nn.Module] | None:
    """Return the layer class that a row's module name stands for in Ultralytics' parser, or None.

    The parser calls whatever a row names with arguments from the file, even a function that installs packages or reads
    pickles. It would read whole models from further files. Only layers pass here.
    """
    tasks = ultralytics_api.tasks()
    if name in registry.BLOCKS:
        return registry.BLOCKS[name]
    if name == RESNET:
        found: type[nn.Module] = importlib.import_module("gam_yolo.resnet").AttentionResNet
        return found
    owner: Any = tasks
    for prefix, module in (("nn.", "torch.nn"), ("torchvision.ops.", "torchvision.ops")):
        if name.startswith(prefix):
            owner, name = importlib.import_module(module), name.removeprefix(prefix)
    layer = vars(owner).get(name)
    is_layer = isinstance(layer, type) and issubclass(layer, nn.Module)
    return layer if is_layer and not issubclass(layer, (tasks.BaseModel, tasks.Ensemble)) else None


def known_modules() -> set[str]:
    """Return the names that a row may give."""
    tasks = ultralytics_api.tasks()
    ours = {name for name in vars(tasks) if module_class(name)}
    return ours | {f"nn.{name}" for name in vars(torch.nn) if module_class(f"nn.{name}")} | set(registry.BLOCKS)


def unknown_module(file: str, index: int, row: Any) -> RowError:
    """Return the error about a row whose module does not exist, with the name that was probably meant."""
    name = row[2]
    problem = f"there is no module named {brief(name)}{registry.not_loaded()}"
    return RowError(file, index, row, problem, **suggest_module(name))


def suggest_module(name: str) -> dict[str, str]:
    """Return what to do about a module that does not exist, as `gam_yolo.registry.suggest`."""
    fix = ultralytics_api.newer_release(name)
    return {"fix": fix} if fix else registry.suggest(name, known_modules())


def measure(config: Mapping[str, Any], name: str, scale: str = "") -> list[Shape | None]:
    """Build a model at one scale on the meta device, run it up to its head, and return each row's output.

    Args:
        config: The parsed model YAML.
        name: The file's name, for error messages.
        scale: One of its scale letters, or an empty string for the first.

    Returns:
        A shape for each row; None for the head and for a row whose output is not one feature map.

    Raises:
        RowError: A row cannot be built or run.
        UserError: The model as a whole cannot be built.
    """
    graph = Graph.from_config(config, name)
    rows = [*config["backbone"], *config["head"]]
    channels = config.get("channels", 3)
    if type(channels) is not int or not 1 <= channels <= LARGEST:
        raise UserError(f"'channels' is {brief(channels)}", at=name, expected="the channels of the image, such as 3")
    check_classes(config, graph, name)
    for error in graph.reference_errors(name, rows):
        raise error
    for layer, row in zip(graph.layers, rows, strict=True):
        if module_class(layer.module) is None:
            raise unknown_module(name, layer.index, row)
        if layer.repeats > MOST_REPEATS:
            raise RowError(
                name, layer.index, row, f"repeats is {brief(layer.repeats)}", expected=f"at most {MOST_REPEATS}"
            )
        numbers = (leaf for leaf in leaves(layer.args) if isinstance(leaf, (int, float)))
        if too_large := next((number for number in numbers if not abs(number) <= LARGEST), None):
            raise RowError(name, layer.index, row, f"the argument {brief(too_large)} is larger than any layer accepts")
    try:
        return _from_base(harmless(config, scale), graph, channels)
    except Exception:
        return _run(_build(harmless(config, scale), name, channels), graph, name, rows, channels)


def channels_inside(config: Mapping[str, Any], name: str, scale: str = "") -> dict[int, int]:
    """Return the channels of the block in the first bottleneck of each row that holds one.

    Args:
        config: A parsed model YAML that can be built.
        name: The file's name.
        scale: One of its scale letters, or an empty string for the first.
    """
    from gam_yolo.bottleneck import AttendedBottleneck, channels

    holding = [layer.index for layer in Graph.from_config(config, name).layers if layer.inside is not None]
    layers = _build(harmless(config, scale), name, config.get("channels", 3)) if holding else nn.Sequential()
    return {
        index: channels(next(m for m in layers[index].modules() if isinstance(m, AttendedBottleneck)))
        for index in holding
    }


def _from_base(model: dict[str, Any], graph: Graph, channels: int) -> list[Shape | None]:
    """Measure the model without its blocks, and each block on its input; raise an error unless it keeps the shape."""
    if any(layer.inside is not None or layer.replaces is not None for layer in graph.layers):
        raise ValueError  # such rows are not taken out as blocks are
    edit = remove(graph, registry.BLOCKS.__contains__)
    base: dict[str, Any] = {**model, "backbone": [], "head": []}
    for layer in edit.graph.layers:
        sources = list(layer.sources) if layer.many else layer.sources[0]
        base[layer.section].append([sources, layer.repeats, layer.module, layer.args])
    base.pop("yaml_file", None)
    found = dict(zip(edit.origin, _measured(json.dumps(base), channels), strict=True))
    shapes: list[Shape | None] = []
    for layer in graph.layers:
        if layer.module not in registry.BLOCKS:
            shapes.append(found[layer.index])
            continue
        shape = shapes[layer.sources[0]]
        if shape is None or layer.many:
            raise ValueError
        block = registry.get(layer.module)
        _keep(layer.module, block, json.dumps(layer.args), shape)  # type: ignore[arg-type]  # a class can be hashed
        shapes.append(shape)
    return shapes


@functools.lru_cache(maxsize=256)
def _measured(config: str, channels: int) -> tuple[Shape | None, ...]:
    model = json.loads(config)
    graph = Graph.from_config(model, "")
    rows = [*model["backbone"], *model["head"]]
    return tuple(_run(_build(model, "", channels), graph, "", rows, channels))


@functools.lru_cache(maxsize=4096)
def _keep(name: str, block: type[nn.Module], args: str, shape: Shape) -> None:
    """Raise an error unless a block runs on a map of that shape and keeps it."""
    side = round(SIDE / shape.stride)
    bound = bind(name, block, shape.channels, json.loads(args))
    with meta_device(), torch.no_grad():
        out = block(*bound).eval()(torch.empty(1, shape.channels, side, side))
    if out.shape != (1, shape.channels, side, side):
        raise ValueError


def harmless(config: Mapping[str, Any], scale: str) -> dict[str, Any]:
    """Return a copy of a model YAML from which the parser runs no code and fetches no weights; shapes are the same."""
    model = copy.deepcopy(dict(config))
    model.pop("activation", None)  # the parser evaluates it as Python
    model["scale"] = scale
    for row in [*model["backbone"], *model["head"]]:
        # Weights, which torchvision would download.
        if row[2] == "TorchVision":
            row[3][2:3] = [None]
        elif row[2] == RESNET and row[3] and isinstance(row[3][-1], dict):
            row[3][-1].pop("weights", None)
    return model


def _build(model: dict[str, Any], name: str, channels: int) -> nn.Sequential:
    """Build on the meta device."""
    model["yaml_file"] = name
    try:
        return _parse(model, channels)
    except RowError:
        raise
    except Exception as error:
        raise failing_row(model, lambda part: _parse(part, channels), error) from None


def failing_row(model: Mapping[str, Any], build: Callable[[dict[str, Any]], object], error: Exception) -> RowError:
    """Return the error about the row that cannot be built, found by building ever shorter beginnings of the model.

    Args:
        model: The parsed model YAML.
        build: Builds a model from such a mapping; it may change it.
        error: What building the whole model raised.
    """
    rows = [*model["backbone"], *model["head"]]
    fits, fails = 0, len(rows)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        try:
            build({**copy.deepcopy(dict(model)), "backbone": copy.deepcopy(rows[:middle]), "head": []})
            fits = middle
        except Exception as shorter:
            fails, error = middle, shorter
    if isinstance(error, RowError):
        return error
    file, row = source(model), rows[fits]
    if module_class(row[2]) is None:
        return unknown_module(file, fits, row)
    # As in the YOLOv5 repository: the anchors are a list, or the file's key of that name.
    anchors = row[2] in ("Detect", "Segment") and any(arg == "anchors" or isinstance(arg, list) for arg in row[3][1:])
    fix = f"Write [{row[3][0]}]: the heads of Ultralytics take no anchors" if anchors else ""
    fix = fix or ultralytics_api.newer_release(row[2], len(row[3]))
    return RowError(file, fits, row, f"cannot be built ({reason(error)})", fix=fix)


def _parse(model: dict[str, Any], channels: int) -> nn.Sequential:
    tasks = ultralytics_api.tasks()

    with meta_device(), ultralytics_api.quiet():
        layers: nn.Sequential = tasks.parse_model(copy.deepcopy(model), channels, verbose=False)[0]
    return layers.eval()


def _run(layers: nn.Sequential, graph: Graph, name: str, rows: list[Any], channels: int) -> list[Shape | None]:
    tasks = ultralytics_api.tasks()

    outputs: list[Any] = []
    shapes: list[Shape | None] = []
    image = torch.empty(1, channels, SIDE, SIDE, device="meta")
    text = torch.empty(1, 80, 512, device="meta")  # the class embeddings that open-vocabulary layers attend to
    for layer, module in zip(graph.layers[:-1], layers, strict=False):
        inputs = [image if source < 0 else outputs[source] for source in layer.sources]
        given = inputs if layer.many else inputs[0]
        with_text = isinstance(module, (tasks.C2fAttn, tasks.ImagePoolingAttn))
        try:
            with meta_device(), torch.no_grad(), ultralytics_api.quiet():
                out = module(given, text) if with_text else module(given)
        except Exception as error:
            reads = ", ".join(f"{graph.layers[s]} {_shown(outputs[s])}" for s in layer.sources if s >= 0)
            problem = f"cannot process its input, {reads} ({reason(error)})"
            raise RowError(name, layer.index, rows[layer.index], problem) from None
        outputs.append(out)
        is_map = isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] > 0
        shapes.append(Shape(out.shape[1], SIDE / out.shape[2]) if is_map else None)
    return [*shapes, None]


def _shown(out: Any) -> str:
    if isinstance(out, Tensor) and out.ndim == 4 and out.shape[2]:
        return f"of {out.shape[1]} channels at stride {SIDE / out.shape[2]:g}"
    return f"which {NO_MAP}"
