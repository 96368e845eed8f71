"""Carry pretrained weights from layer to counterpart instead of from index to index.

Ultralytics matches tensors by key (`model.<index>...`) and shape, so that a row that was put in shifts all weights
behind it, some of them into layers of the same shape that they do not belong to. Here the graphs of both models say
which layer is which. The source is then shown to Ultralytics' own `load` with its keys renumbered, so that all it does
(class heads, class names, image channels) is done as ever; models without blocks never come here.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import torch
import wrapt
from torch import Tensor, nn

from gam_yolo import registry, ultralytics_api
from gam_yolo.errors import UserError
from gam_yolo.graph.find import load as find
from gam_yolo.graph.match import Counterparts, counterparts
from gam_yolo.graph.model import Graph

__all__ = ["Carried", "Ledger", "carry", "has_blocks", "rehearse"]

ARRIVED = COPIED, BY_NAME, ADAPTED = "copied", "by class name", "adapted"
NEW, REFUSED, UNMATCHED = "new", "refused", "unmatched"

Load = Callable[[Any], None]


@dataclass(frozen=True)
class Carried:
    """What became of one tensor of the target.

    Attributes:
        key: Its key in the target's state dict.
        source: The key that it corresponds to in the source's, or an empty string.
        state: `copied`; `by class name` (rows of a class head, put in the order of the new classes); `adapted` (first
            convolution, for other image channels); `new` (a block's own, as initialised); `refused` (its counterpart
            is of another type or shape); `unmatched` (it has no counterpart).
        module: The module of its row.
        block: Whether that is a block.
    """

    key: str
    source: str
    state: str
    module: str
    block: bool


@dataclass(frozen=True)
class Ledger:
    """What a transfer did.

    Attributes:
        tensors: Each of the target's tensors.
        parted: Where the graphs of source and target part; empty where they are the same but for their blocks.
    """

    tensors: list[Carried]
    parted: str

    def counts(self) -> dict[str, int]:
        """Return how many tensors of `base` and `blocks` arrived, of how many, and how many others are in each."""
        states = Counter(tensor.state for tensor in self.tensors)
        arrived = Counter(tensor.block for tensor in self.tensors if tensor.state in ARRIVED)
        of_blocks = sum(tensor.block for tensor in self.tensors)
        return {
            "base": arrived[False],
            "base_total": len(self.tensors) - of_blocks,
            "blocks": arrived[True],
            "blocks_total": of_blocks,
            **{state: states[state] for state in (NEW, REFUSED, UNMATCHED)},
        }

    def line(self) -> str:
        """Return the sentence for the log."""
        n = self.counts()
        blocks = f", {n['blocks']}/{n['blocks_total']} block tensors" if n["blocks"] else ""
        line = f"Transferred {n['base']}/{n['base_total']} base tensors{blocks}, {n[NEW]} new, {n[REFUSED]} refused"
        if not self.parted:
            return line
        return f"{line}; {'nothing from there on' if n['base'] else 'nothing'} was loaded: {self.parted}"

    def rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield a line for each row and state: row, module, the source's row, number of tensors, state."""
        lines = Counter((_row(t.key), t.module, _row(t.source), t.state) for t in self.tensors)
        for (row, module, source, state), n in lines.items():
            yield row, module, source, str(n), state


def carry(source: nn.Module, target: nn.Module, load: Load, logger: logging.Logger) -> Ledger:
    """Carry weights from one Ultralytics model to another by structure.

    Args:
        source: The model to take weights from.
        target: The model to change.
        load: Ultralytics' own `load` of the target.
        logger: Where `load` reports a count of its own, which does not tell blocks from other layers; it is left out.

    Returns:
        What became of each of the target's tensors.
    """
    try:
        found = counterparts(_graph(source, "the source"), _graph(target, "the target"), registry.BLOCKS.get)
    except UserError as error:
        found = Counterparts({}, {}, str(error))
    offered, refused = _offer(source, target, found)
    shown = _Renumbered(source, offered, head=len(_layers(target)) - 1 in found.base)
    if found.base:
        with _without_count(logger):
            load(shown)
    ledger = _ledger(target, shown, refused, found.parted)
    if found.base:
        _take_names(source, target, ledger)
    return ledger


def rehearse(source: str, target: str) -> Ledger:
    """Load a checkpoint into a model that is thrown away afterwards, and tell what went where.

    Two models without blocks are matched by index, as Ultralytics does.

    Args:
        source: A checkpoint (.pt).
        target: A model YAML, or a checkpoint.

    Raises:
        UserError: If either cannot be read or built.
    """
    tasks = ultralytics_api.tasks()
    if PurePath(target).suffix in {".yaml", ".yml"}:
        find(target)  # tells what is wrong with a YAML in our own words
    old, new = _model(source), _model(target)
    stock = getattr(tasks.BaseModel.load, "__wrapped__", tasks.BaseModel.load)  # ours may be switched off
    load = functools.partial(stock, new)
    if has_blocks(old) or has_blocks(new):
        return carry(old, new, load, tasks.LOGGER)
    shown = _Renumbered(old, {key: key for key in old.state_dict()}, head=True)
    load(shown, verbose=False)
    return _ledger(new, shown, {}, "")


def _model(name: str) -> nn.Module:
    try:
        with ultralytics_api.quiet():  # its table of layers is not what was asked for
            model: nn.Module = ultralytics_api.model(name).model
        model.state_dict  # noqa: B018  # an exported model is a string here
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"{name}: cannot be loaded as an Ultralytics model ({reason})") from None
    return model


def _offer(source: nn.Module, target: nn.Module, found: Counterparts) -> tuple[dict[str, str], dict[str, str]]:
    """Return target key -> source key for what `load` is to be shown, and for what it is not as the types differ."""
    offered: dict[str, str] = {}
    refused: dict[str, str] = {}
    for row, origin in {**found.base, **found.blocks}.items():
        old, new = _layers(source)[origin], _layers(target)[row]
        if row in found.blocks and _shapes(old) != _shapes(new):
            continue  # the same block with other arguments starts anew: half of one and half of the other is neither
        keys = offered if _same_kind(old, new) else refused
        keys.update({f"model.{row}.{key}": f"model.{origin}.{key}" for key in old.state_dict()})
    return offered, refused


def _same_kind(old: nn.Module, new: nn.Module) -> bool:
    """Return whether one layer is of the other's type (a Segment is a Detect); repeated layers are asked one by one."""
    if isinstance(old, nn.Sequential) and isinstance(new, nn.Sequential):
        return all(map(_same_kind, old, new))
    return isinstance(old, type(new)) or isinstance(new, type(old))


class _Renumbered(wrapt.ObjectProxy):  # type: ignore[type-arg]  # generic in new versions of wrapt only
    """A model whose state dict has the keys of another model; all else is its own."""

    def __init__(self, model: nn.Module, keys: dict[str, str], head: bool) -> None:
        super().__init__(model)
        self._self_renamed = keys
        self._self_head = head
        self._self_state: dict[str, Tensor] = {}
        self._self_shapes: dict[str, torch.Size] = {}

    def float(self) -> _Renumbered:
        """Return itself in single precision, which is what `load` asks for first."""
        self.__wrapped__.float()
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors under their new keys."""
        state = self.__wrapped__.state_dict()
        self._self_state = {new: state[old] for new, old in self._self_renamed.items()}
        self._self_shapes = {key: tensor.shape for key, tensor in self._self_state.items()}
        return self._self_state

    @property
    def model(self) -> Any:
        """The layers; none where the head has no counterpart, since `load` copies class branches from the last one."""
        return self.__wrapped__.model if self._self_head else [None]

    @property
    def keys(self) -> dict[str, str]:
        """New key -> key of the model's own."""
        return self._self_renamed

    def arrived(self, key: str, tensor: Tensor) -> str:
        """Return what `load` did with what it was shown for the target's `tensor`; nothing if it was shown nothing."""
        shape = self._self_shapes.get(key)
        if shape is None:
            return ""
        if key not in self._self_state:
            return BY_NAME  # `load` takes out what it deals with by itself
        if shape == tensor.shape:
            return COPIED
        return ADAPTED if key == "model.0.conv.weight" and shape[2:] == tensor.shape[2:] else REFUSED


def _ledger(target: nn.Module, shown: _Renumbered, refused: dict[str, str], parted: str) -> Ledger:
    """Tell what became of each tensor of the target, as it is after `load`."""
    modules = {str(i): row[2] for i, row in enumerate(_rows(target))}
    origins = {**shown.keys, **refused}
    tensors = []
    for key, tensor in target.state_dict().items():
        module = modules.get(_row(key), "")
        block = module in registry.BLOCKS
        source = origins.get(key, "")
        state = shown.arrived(key, tensor) or (REFUSED if source else NEW if block else UNMATCHED)
        tensors.append(Carried(key, source, state, module, block))
    return Ledger(tensors, parted)


def _row(key: str) -> str:
    """Return the row in a state dict's key, `model.<row>.<name>`."""
    return key.split(".")[1] if key.startswith("model.") else ""


def _take_names(source: nn.Module, target: nn.Module, ledger: Ledger) -> None:
    """Give a target with a placeholder for each class the source's class names once its whole base has arrived.

    That is what `load` does where no tensor is left over, which a block's new ones would prevent.
    """
    complete = all(tensor.state in (*ARRIVED, NEW) for tensor in ledger.tensors)
    names = getattr(source, "names", {})
    placeholders = {i: str(i) for i in range(len(names))}
    if complete and getattr(target, "names", None) == placeholders and not hasattr(target, "set_classes"):
        target.names = dict(names)  # type: ignore[assignment]


@contextlib.contextmanager
def _without_count(logger: logging.Logger) -> Iterator[None]:
    def others(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Transferred ")

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def has_blocks(model: Any) -> bool:
    """Return whether a row of the YAML that an Ultralytics model was built from names a registered block."""
    return any(row[2] in registry.BLOCKS for row in _rows(model))


def _rows(model: Any) -> list[Any]:
    """Return the rows of the YAML that a model was built from; none for a model of another kind."""
    config = getattr(model, "yaml", None)
    return [*config.get("backbone", []), *config.get("head", [])] if isinstance(config, dict) else []


def _graph(model: nn.Module, name: str) -> Graph:
    config = getattr(model, "yaml", None)
    if not isinstance(config, dict):
        raise UserError(f"{name} was not built from a model YAML")
    return Graph.from_config(config, f"the YAML of {name}")


def _layers(model: nn.Module) -> nn.Sequential:
    layers: nn.Sequential = model.model  # type: ignore[assignment]  # what a BaseModel has
    return layers


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in module.state_dict().items()}
