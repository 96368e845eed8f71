"""What each row of a model gives out, channels and stride, found by running it on the meta device.

Nothing is computed and no memory is taken there, whatever the model's size; and since Ultralytics' own parser and
modules tell the shapes, there is no table of modules here that could be wrong about a family.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from gam_yolo import registry, ultralytics_api
from gam_yolo.errors import UserError, brief, nearest
from gam_yolo.graph.model import Graph
from gam_yolo.resnet import AttentionResNet

__all__ = ["RowError", "Shape", "harmless", "known_modules", "measure", "module_class", "scales"]

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


class RowError(UserError):
    """A row that cannot be built or run; `row` is its number."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def scales(config: Mapping[str, Any]) -> list[str]:
    """Return the scale letters that a model YAML offers, in its order; one empty string where it offers none.

    Raises:
        UserError: If a scale is not [depth, width, max_channels], or its depth would build for minutes.
    """
    offered = config.get("scales") or {
        "": [config.get(f"{of}_multiple", 1.0) for of in ("depth", "width")] + [math.inf]
    }
    if not isinstance(offered, dict):
        raise UserError(f"'scales' is {brief(offered)}, expected a mapping like n: [0.33, 0.25, 1024]")
    for letter, gains in offered.items():
        three = isinstance(gains, list) and len(gains) == 3 and all(type(gain) in (int, float) for gain in gains)
        if not isinstance(letter, str) or not three or not 0 <= gains[0] <= MOST_DEPTH:
            raise UserError(
                f"scale {brief(letter)} is {brief(gains)}, expected [depth, width, max_channels] with a depth up to "
                f"{MOST_DEPTH}"
            )
    return list(offered)


def module_class(name: str) -> type[nn.Module] | None:
    """Return the layer class that a row's module name stands for in Ultralytics' parser, or None.

    The parser calls whatever a row names, functions that install packages or read pickles included, with arguments
    from the file; whole models it would read from further files. Only layers pass here.
    """
    tasks = ultralytics_api.tasks()
    if name in registry.BLOCKS:
        return registry.BLOCKS[name]
    if name == AttentionResNet.__name__:
        return AttentionResNet
    owner: Any = tasks
    for prefix, place in (("nn.", torch.nn), ("torchvision.ops.", torchvision.ops)):
        if name.startswith(prefix):
            owner, name = place, name.removeprefix(prefix)
    found = vars(owner).get(name)
    is_layer = isinstance(found, type) and issubclass(found, nn.Module)
    return found if is_layer and not issubclass(found, (tasks.BaseModel, tasks.Ensemble)) else None


def known_modules() -> set[str]:
    """Return the names that a row may give, to suggest the nearest one from."""
    tasks = ultralytics_api.tasks()
    ours = {name for name in vars(tasks) if module_class(name)}
    return ours | {f"nn.{name}" for name in vars(torch.nn) if module_class(f"nn.{name}")} | set(registry.BLOCKS)


def measure(config: Mapping[str, Any], name: str, scale: str = "") -> list[Shape | None]:
    """Build a model at one scale on the meta device, run it up to its head, and return what each row gives out.

    Args:
        config: The parsed model YAML.
        name: What error messages call the file.
        scale: One of its scale letters, or an empty string for the first.

    Returns:
        A shape for each row; None for the head and for a row that gives out anything but one feature map.

    Raises:
        RowError: If a row cannot be built or run.
        UserError: If the model as a whole cannot be built.
    """
    graph = Graph.from_config(config, name)
    channels = config.get("channels", 3)
    if type(channels) is not int or not 1 <= channels <= LARGEST:
        raise UserError(f"{name}: 'channels' is {brief(channels)}, expected the channels of the image, a whole number")
    for layer, source in graph.impossible():
        raise RowError(layer.index, f"{name}, {layer}: reads row {source}, which is not before it")
    for layer in graph.layers:
        if module_class(layer.module) is None:
            hint = nearest(layer.module, known_modules())
            raise RowError(layer.index, f"{name}, {layer}: there is no module named {brief(layer.module)}{hint}")
        if layer.repeats > MOST_REPEATS:
            raise RowError(
                layer.index, f"{name}, {layer}: repeats is {brief(layer.repeats)}, at most {MOST_REPEATS} is sane"
            )
        if too_large := next(_numbers_beyond(layer.args, LARGEST), None):
            raise RowError(
                layer.index, f"{name}, {layer}: the argument {brief(too_large)} is larger than any layer takes"
            )
    return _run(_build(harmless(config, scale), graph, name, channels), graph, name, channels)


def harmless(config: Mapping[str, Any], scale: str) -> dict[str, Any]:
    """Return a copy for the parser without what does not bear on shapes but would run code or fetch weights."""
    model = copy.deepcopy(dict(config))
    model.pop("activation", None)  # the parser evaluates it as Python
    model["scale"] = scale
    for row in [*model["backbone"], *model["head"]]:
        # Weights, which torchvision would download.
        if row[2] == "TorchVision":
            row[3][2:3] = [None]
        elif row[2] == AttentionResNet.__name__ and row[3] and isinstance(row[3][-1], dict):
            row[3][-1].pop("weights", None)
    return model


def _build(model: dict[str, Any], graph: Graph, name: str, channels: int) -> nn.Sequential:
    """Build on the meta device; where that fails, build ever shorter beginnings to find the row that is at fault."""
    model["yaml_file"] = name
    rows = [*model["backbone"], *model["head"]]
    try:
        return _parse({**model, "backbone": rows, "head": []}, channels)
    except Exception as error:
        fits, fails = 0, len(rows)
        while fails - fits > 1:
            middle = (fits + fails) // 2
            try:
                _parse({**model, "backbone": rows[:middle], "head": []}, channels)
                fits = middle
            except Exception:
                fails = middle
        layer = graph.layers[fits]
        told = str(error).removeprefix(f"{name}, ") if isinstance(error, UserError) else ""
        raise RowError(layer.index, f"{name}, {told or f'{layer}: cannot be built ({_first_line(error)})'}") from None


def _parse(model: dict[str, Any], channels: int) -> nn.Sequential:
    tasks = ultralytics_api.tasks()

    with torch.device("meta"), ultralytics_api.quiet():
        layers: nn.Sequential = tasks.parse_model(copy.deepcopy(model), channels, verbose=False)[0]
    return layers.eval()


def _run(layers: nn.Sequential, graph: Graph, name: str, channels: int) -> list[Shape | None]:
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
            with torch.device("meta"), torch.no_grad(), ultralytics_api.quiet():
                out = module(given, text) if with_text else module(given)
        except Exception as error:
            reads = ", ".join(f"{graph.layers[s]} {_shown(outputs[s])}" for s in layer.sources if s >= 0)
            raise RowError(
                layer.index, f"{name}, {layer}: cannot take what it reads, {reads} ({_first_line(error)})"
            ) from None
        outputs.append(out)
        is_map = isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] > 0
        shapes.append(Shape(out.shape[1], SIDE / out.shape[2]) if is_map else None)
    return [*shapes, None]


def _shown(out: Any) -> str:
    if isinstance(out, Tensor) and out.ndim == 4 and out.shape[2]:
        return f"of {out.shape[1]} channels at stride {SIDE / out.shape[2]:g}"
    return "which gives no single feature map"


def _first_line(error: Exception) -> str:
    return brief(f"{type(error).__name__}: {error}".partition("\n")[0]).strip("'\"")


def _numbers_beyond(value: Any, limit: int) -> Iterator[int | float]:
    """Yield the numbers beyond `limit` in nested arguments."""
    if isinstance(value, (int, float)) and not abs(value) <= limit:
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers_beyond(item, limit)
