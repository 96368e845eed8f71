"""Let `ultralytics.nn.tasks.parse_model` build rows that name a registered block.

Ultralytics' parser looks a name up in its module's globals and tells only the classes that it knows by heart how many
channels they get. Its one built-in whose row receives exactly the channels of its input is `nn.BatchNorm2d`. So a
model with registered blocks is parsed twice: first on the meta device with a batch norm in each block's place, which
tells the channels for every family, scale and `from` by the parser's own rules (about 50 ms, no memory, no random
numbers, so seeds give what they gave); then for good, with these channels written in front of the rows' own
arguments.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
import wrapt
from torch import nn

from gam_yolo import registry, ultralytics_api
from gam_yolo.arguments import bind, row_error
from gam_yolo.errors import UserError, nearest

__all__ = ["patch", "unavailable"]

STAND_IN = "nn.BatchNorm2d"
Parsed = tuple[
    nn.Sequential, list[int]
]  # what `parse_model` returns: the layers, and the indexes whose outputs are kept


def patch(tasks: ModuleType) -> None:
    """Wrap `parse_model` of the module `ultralytics.nn.tasks`.

    Raises:
        UserError: If the function is not there or does not take what it takes in the versions we know.
    """
    signature = inspect.signature(getattr(tasks, "parse_model", lambda: None))
    if [*signature.parameters][:2] != ["d", "ch"]:
        raise UserError(f"ultralytics.nn.tasks.parse_model takes {signature}, expected (d, ch, ...)")

    def parse(wrapped: Callable[..., Parsed], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parsed:
        given = signature.bind(*args, **kwargs)

        def build(model: dict[str, Any]) -> Parsed:
            given.arguments["d"] = model
            with _unknown_names_told(tasks, model):
                return wrapped(*given.args, **given.kwargs)

        return _parse(tasks, build, given.arguments["d"])

    wrapt.wrap_function_wrapper(tasks, "parse_model", parse)


def unavailable(tasks: ModuleType, reason: str) -> None:
    """Where `parse_model` cannot be wrapped, make naming a block say why in one sentence; all else works on."""
    for name in registry.BLOCKS:

        def refuse(_self: nn.Module, *_: object, name: str = name) -> None:
            raise UserError(f"{name} cannot be placed: {reason}")

        setattr(tasks, name, type(name, (nn.Module,), {"__init__": refuse, "__module__": __name__}))


def _parse(tasks: ModuleType, build: Callable[[dict[str, Any]], Parsed], model: dict[str, Any]) -> Parsed:
    rows = dict(_block_rows(model))
    if not rows:
        return build(model)

    probe, model = copy.deepcopy(model), copy.deepcopy(model)
    for i in rows:
        _row(probe, i)[2:] = [STAND_IN, []]
    with torch.device("meta"), ultralytics_api.quiet():
        layers, _ = build(probe)

    for i, row in rows.items():
        _, _, name, args = row
        block = registry.get(name)
        channels = _channels(layers[i])
        if channels is None:
            raise row_error(model, i, row, "this Ultralytics' parser did not tell the channels of the row's input")
        try:
            bound = bind(name, block, channels, args)
        except UserError as error:
            raise row_error(model, i, row, error) from error.__cause__
        if advice := getattr(block, "advice", None):
            tasks.LOGGER.warning(str(row_error(model, i, row, f"{name} {advice(*bound)}")))
        # The parser resolves a string that is the name of one of its own variables ("scale", "width"); a quoted one
        # it takes as it is.
        _row(model, i)[3] = [repr(a) if isinstance(a, str) else a for a in bound]
        setattr(tasks, name, block)
    return build(model)


def _block_rows(model: dict[str, Any]) -> Iterator[tuple[int, list[Any]]]:
    """Yield index and row of each registered block, refusing rows that no parser could read."""
    for i, row in enumerate([*model["backbone"], *model["head"]]):
        if not (isinstance(row, list) and len(row) > 2 and row[2] in registry.BLOCKS):
            continue
        if len(row) != 4:
            raise row_error(model, i, row, f"a row has 4 parts, not {len(row)}; write [-1, 1, {row[2]}, []]")
        if not isinstance(row[0], int) or isinstance(row[0], bool):
            raise row_error(
                model, i, row, f"'from' is {row[0]!r}, but {row[2]} has one input; write the index of one row, or -1"
            )
        if not isinstance(row[1], int) or isinstance(row[1], bool) or row[1] < 1:
            raise row_error(model, i, row, f"repeats is {row[1]!r}, expected a whole number of at least 1; write 1")
        if not -i <= row[0] < i and (i or row[0] != -1):
            raise row_error(model, i, row, f"'from' is {row[0]}, but only rows before row {i} can be read; write -1")
        yield i, row


def _row(model: dict[str, Any], index: int) -> list[Any]:
    backbone: list[list[Any]] = model["backbone"]
    row: list[Any] = backbone[index] if index < len(backbone) else model["head"][index - len(backbone)]
    return row


def _channels(layer: nn.Module) -> int | None:
    """Read the channels off the batch norm that stood in for a block, once or repeated."""
    if isinstance(layer, nn.Sequential) and len(layer):
        layer = layer[0]
    return layer.num_features if isinstance(layer, nn.BatchNorm2d) else None


@contextlib.contextmanager
def _unknown_names_told(tasks: ModuleType, model: dict[str, Any]) -> Iterator[None]:
    """Turn the parser's bare KeyError for an unknown module into a sentence that names row and nearest module."""
    try:
        yield
    except KeyError as error:
        for i, row in enumerate([*model["backbone"], *model["head"]]):
            name = row[2]
            if error.args == (name,) and not hasattr(tasks, name):
                known = {*registry.BLOCKS, *(k for k, v in vars(tasks).items() if isinstance(v, type))}
                told = f"there is no module named '{name}'{nearest(name, known)}{registry.not_loaded()}"
                raise row_error(model, i, row, told) from None
        raise
