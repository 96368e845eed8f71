"""Load pretrained weights by the model's structure instead of by row number.

Ultralytics matches tensors by key (`model.<index>...`) and shape. An inserted row shifts all weights after it, some of
them into other layers of the same shape. Here the graphs of both models say which layer is which. The source is then
passed to Ultralytics' own `load` with its keys renumbered, so that the rest of its work (class heads, class names,
image channels) is done as always. Models without blocks are not handled here.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch
import wrapt
from torch import Tensor, nn

from gam_yolo import registry, ultralytics_api
from gam_yolo.arguments import is_placed
from gam_yolo.blocks.parts import form
from gam_yolo.bottleneck import AttendedBottleneck, is_attention
from gam_yolo.checkpoints import trusting
from gam_yolo.errors import UserError, brief, reason
from gam_yolo.graph import find
from gam_yolo.graph.match import Counterparts, counterparts
from gam_yolo.graph.model import Graph
from gam_yolo.graph.same_function import changed_rows
from gam_yolo.graph.shapes import harmless, measure, scales

__all__ = ["TensorTransfer", "TransferReport", "has_blocks", "modules", "transfer", "transfer_weights", "unwrapped"]

ARRIVED = COPIED, BY_NAME, ADAPTED = "copied", "by class name", "adapted"
NEW, REJECTED, UNMATCHED = "new", "rejected", "unmatched"

Load = Callable[[Any], None]


@dataclass(frozen=True)
class TensorTransfer:
    """What happened to one tensor of the target.

    Attributes:
        key: Its key in the target's state dict.
        source: The key of its counterpart in the source's, or an empty string.
        state: `copied`; `by class name` (rows of a class head, put in the order of the new classes); `adapted` (first
            convolution, for other image channels); `new` (a block's own, as initialised); `rejected` (its counterpart
            has another type or shape); `unmatched` (it has no counterpart).
        module: The module of its row.
        block: Whether that is a block.
    """

    key: str
    source: str
    state: str
    module: str
    block: bool


@dataclass(frozen=True)
class TransferReport:
    """What a transfer did.

    Attributes:
        tensors: Each of the target's tensors.
        mismatch: Where the graphs of source and target diverge; empty where only their blocks differ.
        changed: Rows that got all their weights and still compute something else than in the source, as "9 (SPPF)".
        lost: Number of base tensors that start untrained although the source has a layer of the same name in their
            place. The head of a model with other classes, or of another task, does not count.
        fused: Whether the source has no batch norms, as after a fusion for inference, and the target does.
    """

    tensors: tuple[TensorTransfer, ...]
    mismatch: str
    changed: tuple[str, ...] = ()
    lost: int = 0
    fused: bool = False

    def counts(self) -> dict[str, int]:
        """Return how many tensors of `base` and `blocks` got weights, their totals, and the counts of other states."""
        states = Counter(tensor.state for tensor in self.tensors)
        arrived = Counter(tensor.block for tensor in self.tensors if tensor.state in ARRIVED)
        of_blocks = sum(tensor.block for tensor in self.tensors)
        return {
            "base": arrived[False],
            "base_total": len(self.tensors) - of_blocks,
            "blocks": arrived[True],
            "blocks_total": of_blocks,
            **{state: states[state] for state in (NEW, REJECTED, UNMATCHED)},
        }

    def line(self) -> str:
        """Return the line for the log; its numbers add up to all tensors of the model."""
        n = self.counts()
        blocks = f", {n['blocks']}/{n['blocks_total']} block tensors" if n["blocks"] else ""
        line = f"Transferred {n['base']}/{n['base_total']} base tensors{blocks}, {n[NEW]} new, {n[REJECTED]} rejected"
        line += f", {n[UNMATCHED]} without a counterpart" if n[UNMATCHED] else ""
        if self.mismatch:
            return f"{line}; {'nothing after that row' if n['base'] else 'nothing'} was loaded: {self.mismatch}"
        if self.fused:
            line += (
                f". {self.lost} base tensors start untrained: the checkpoint is fused, so its batch norms are part of "
                "its convolutions, which are wrong beside new ones. Use the checkpoint that the training wrote"
            )
        elif self.lost:
            line += (
                f". {self.lost} base tensors start untrained: Ultralytics {ultralytics_api.version()} builds these "
                "layers otherwise than they are in the checkpoint"
            )
        if self.changed:
            line += (
                f". Row {', '.join(self.changed)} got all weights but computes something else than in the checkpoint: "
                f"Ultralytics {ultralytics_api.version()} builds it otherwise. Results are not comparable with those "
                "of the checkpoint"
            )
        return line

    def warns(self) -> bool:
        """Return whether the line is a warning: trained layers of the source were lost or changed."""
        return bool(self.mismatch or self.changed or self.lost)

    def rows(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield one line per row and state: row, module, the source's row, number of tensors, state."""
        lines = Counter((_row(t.key), t.module, _row(t.source), t.state) for t in self.tensors)
        for (row, module, source, state), n in lines.items():
            yield row, module, source, str(n), state


def transfer_weights(source: nn.Module, target: nn.Module, load: Load, logger: logging.Logger) -> TransferReport:
    """Load weights from one Ultralytics model into another by structure.

    Args:
        source: The model that has the weights.
        target: The model to change.
        load: Ultralytics' own `load` of the target.
        logger: Where `load` logs a count of its own, which is left out, as it does not tell blocks from other layers.

    Returns:
        What happened to each of the target's tensors.
    """
    try:
        found = counterparts(_graph(source, "the source"), _graph(target, "the target"), registry.BLOCKS.get)
    except UserError as error:
        found = Counterparts({}, {}, str(error))
    offered, rejected = _offer(source, target, found)
    shown = _Renumbered(source, target, offered, head=len(_layers(target)) - 1 in found.base)
    if found.base:
        with _without_count(logger):
            load(shown)
    report = _report(target, shown, rejected, found.mismatch)
    if found.base:
        _take_names(source, target, report)
    return replace(
        report,
        fused=_has_norms(target) and not _has_norms(source),
        changed=tuple(_changed(source, target, report, found.base)),
        lost=sum(_is_lost(tensor, modules(source), modules(target)) for tensor in report.tensors),
    )


def unwrapped(model: Any) -> Any:
    """Return the model inside what trains it on several GPUs, and inside a compiled model; both prefix its keys."""
    while isinstance(inner := getattr(model, "_orig_mod", None) or getattr(model, "module", None), nn.Module):
        model = inner
    return model


def _has_norms(model: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def _is_lost(tensor: TensorTransfer, old: list[str], new: list[str]) -> bool:
    if tensor.block or tensor.state not in {REJECTED, UNMATCHED}:
        return False
    if _row(tensor.key) != str(len(new) - 1):
        return True
    return tensor.state == UNMATCHED and old[-1:] == new[-1:]


def _changed(source: nn.Module, target: nn.Module, report: TransferReport, base: dict[int, int]) -> Iterator[str]:
    """Yield the rows before the head whose weights are all the source's, and whose function is not."""
    incomplete = {_row(t.key) for t in report.tensors if t.state not in {COPIED, BY_NAME}}
    names, head = modules(target), len(_layers(target)) - 1
    rows = {row: origin for row, origin in base.items() if row != head and str(row) not in incomplete}
    for row in changed_rows(source, target, rows):
        yield f"{row} ({names[row]})"


def transfer(source: str | Path, target: str | Path, *, trust: bool = False) -> TransferReport:
    """Show which weights of a checkpoint a model would get, without writing or training anything.

    No code in either file is executed. Two models without blocks are matched by index, as in Ultralytics.

    Args:
        source: A checkpoint (.pt).
        target: A model YAML, or a checkpoint.
        trust: Let checkpoints run code, for layers of your own that are not registered. By default they are rejected.

    Raises:
        UserError: Either cannot be read or built.
    """
    tasks = ultralytics_api.tasks()
    with trusting(trust):
        old, new = _checkpoint(str(source)), _model(str(target))
    stock = getattr(tasks.BaseModel.load, "__wrapped__", tasks.BaseModel.load)  # ours may be switched off
    load = functools.partial(stock, new)
    try:
        with ultralytics_api.quiet():
            if has_blocks(old) or has_blocks(new):
                return transfer_weights(old, new, load, tasks.LOGGER)
            shown = _Renumbered(old, new, {key: key for key in old.state_dict()}, head=True)
            load(shown, verbose=False)
        return _report(new, shown, {}, "")
    except Exception as error:  # a layer without one of its attributes, or a row without its module
        expected = "a checkpoint that Ultralytics wrote"
        raise UserError(f"holds a damaged model ({reason(error)})", at=source, expected=expected) from None


def _checkpoint(name: str) -> nn.Module:
    """Read a checkpoint."""
    if PurePath(name).suffix != ".pt":
        expected = "a name that ends in .pt: the checkpoint, then the model"
        raise UserError(f"{brief(name)} is not the name of a checkpoint", expected=expected)
    try:
        with ultralytics_api.quiet():
            model: nn.Module = ultralytics_api.safe_checkpoint(name)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no file {brief(name)}", expected="a checkpoint") from None
    except Exception as error:
        expected = "a checkpoint that Ultralytics wrote"
        raise UserError(f"cannot be read ({reason(error)})", at=name, expected=expected) from None
    return unwrapped(model)  # type: ignore[no-any-return]


def _model(name: str) -> nn.Module:
    """Build the model of a YAML, with nothing in the file executed, or read a checkpoint."""
    if PurePath(name).suffix not in {".yaml", ".yml"}:
        return _checkpoint(name)
    document, letter = find.load(name), find.scale_letter(name)
    offered = scales(document.config)
    letter = letter if letter in offered else offered[0]
    measure(document.config, document.name, letter)  # also lets no row name anything but a layer
    config = harmless(document.config, letter)
    with ultralytics_api.quiet():  # its table of layers was not asked for
        try:
            model: nn.Module = ultralytics_api.model_class(config)(config, verbose=False)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"cannot be built ({reason(error)})", at=name) from None
    return model


def _offer(source: nn.Module, target: nn.Module, found: Counterparts) -> tuple[dict[str, str], dict[str, str]]:
    """Return target key -> source key for what `load` gets, and for what it does not get as the types differ."""
    offered: dict[str, str] = {}
    rejected: dict[str, str] = {}
    for row, origin in {**found.base, **found.blocks}.items():
        old, new = _layers(source)[origin], _layers(target)[row]
        if row in found.blocks and (_shapes(old), form(old)) != (_shapes(new), form(new)):
            continue  # another function, such as a centred gate: the weights would mean something else in it
        keys = offered if _same_kind(old, new) else rejected
        whole = _inside(old) == _inside(new)
        for key in old.state_dict():
            if whole or not is_attention(old, key):
                keys[f"model.{row}.{key}"] = f"model.{origin}.{key}"
    return offered, rejected


def _inside(layer: nn.Module) -> list[tuple[str, str, dict[str, torch.Size]]]:
    """Return what decides whether the blocks in a layer's bottlenecks compute the same as those of another layer."""
    found = [m.attention for m in layer.modules() if isinstance(m, AttendedBottleneck)]
    return [(type(m).__name__, form(m), _shapes(m)) for m in found]


def _same_kind(old: nn.Module, new: nn.Module) -> bool:
    """Return whether one layer is of the other's type (a Segment is a Detect), also within repeated ones."""
    if isinstance(old, nn.Sequential) and isinstance(new, nn.Sequential):
        return all(map(_same_kind, old, new))
    return isinstance(old, type(new)) or isinstance(new, type(old))


_FIRST = (
    "model.0.conv.weight"  # which `load` adapts to other input channels, since Ultralytics 8.3.140 or a little before
)


class _Renumbered(wrapt.ObjectProxy):  # type: ignore[type-arg]  # generic in new versions of wrapt only
    """A model whose state dict has the keys of another model, the target; everything else is its own."""

    def __init__(self, model: nn.Module, target: nn.Module, keys: dict[str, str], head: bool) -> None:
        super().__init__(model)
        self._self_renamed = keys
        self._self_head = head
        self._self_state: dict[str, Tensor] = {}
        self._self_shapes: dict[str, torch.Size] = {}
        self._self_first = target.state_dict().get(_FIRST, torch.empty(0)).clone()

    def float(self) -> _Renumbered:
        """Return itself in single precision, as `load` asks for."""
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
        """The layers; none where the head has no counterpart, as `load` copies class branches from the last one."""
        return self.__wrapped__.model if self._self_head else [None]

    @property
    def keys(self) -> dict[str, str]:
        """New key -> the model's own key."""
        return self._self_renamed

    def arrived(self, key: str, tensor: Tensor) -> str:
        """Return what `load` did with the counterpart of the target's `tensor`; nothing if it has none."""
        shape = self._self_shapes.get(key)
        if shape is None:
            return ""
        if key not in self._self_state:
            return BY_NAME  # `load` removes what it handles by itself
        if shape == tensor.shape:
            return COPIED
        return ADAPTED if key == _FIRST and not torch.equal(tensor, self._self_first) else REJECTED


def _report(target: nn.Module, shown: _Renumbered, rejected: dict[str, str], mismatch: str) -> TransferReport:
    """Report on each tensor of the target after `load`."""
    modules = {str(i): row[2] for i, row in enumerate(_rows(target))}
    origins = {**shown.keys, **rejected}
    tensors = []
    for key, tensor in target.state_dict().items():
        module = modules.get(_row(key), "")
        row, _, rest = key.removeprefix("model.").partition(".")
        block = module in registry.BLOCKS or is_attention(_layers(target)[int(row)], rest)
        source = origins.get(key, "")
        state = shown.arrived(key, tensor) or (REJECTED if source else NEW if block else UNMATCHED)
        tensors.append(TensorTransfer(key, source, state, module, block))
    return TransferReport(tuple(tensors), mismatch)


def _row(key: str) -> str:
    """Return the row in a state dict's key, `model.<row>.<name>`."""
    return key.split(".")[1] if key.startswith("model.") else ""


def _take_names(source: nn.Module, target: nn.Module, report: TransferReport) -> None:
    """Give a target with a placeholder for each class the source's class names once its whole base has arrived.

    That is what `load` does where no tensor is left over, which a block's new ones would prevent.
    """
    complete = all(tensor.state in (*ARRIVED, NEW) for tensor in report.tensors)
    names = getattr(source, "names", {})
    placeholders = {i: str(i) for i in range(len(names))}
    if complete and getattr(target, "names", None) == placeholders and not hasattr(target, "set_classes"):
        target.names = dict(names)  # type: ignore[assignment]


@contextlib.contextmanager
def _without_count(logger: logging.Logger) -> Iterator[None]:
    thread = threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.thread != thread or not record.getMessage().startswith("Transferred ")

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def has_blocks(model: Any) -> bool:
    """Return whether a row of the YAML that an Ultralytics model was built from is or has a block, or was replaced."""
    return any(row[2] in registry.BLOCKS or is_placed(row) for row in _rows(model))


def modules(model: Any) -> list[str]:
    """Return the module of each row of the YAML that an Ultralytics model was built from."""
    return [row[2] for row in _rows(model)]


def _rows(model: Any) -> list[Any]:
    """Return the rows of the YAML that a model was built from; nothing for a model of another kind."""
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
