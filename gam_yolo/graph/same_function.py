"""Check that a row that got all its weights computes what its counterpart computes.

Equal tensors are not enough. Some Ultralytics releases build a layer from a YAML otherwise than it is in a checkpoint,
such as SPPF without its activation (8.4.0 to 8.4.140). Then every tensor is transferred and the model is another one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["changed_rows"]

SIZE = 64  # pixels; a map of at least one value at the largest stride in use, 64
TOLERANCE = 1e-3  # of the largest output; far above rounding, far below another activation


class _StopError(Exception):
    """The source has been run up to its head."""


def changed_rows(source: nn.Module, target: nn.Module, rows: Mapping[int, int]) -> list[int]:
    """Return the rows of a target that compute something else than their counterparts in the source.

    The source runs once, on noise of (1, channels, 64, 64), up to its head. Each row of the target then gets the input
    of its counterpart, so a difference in one row does not show in the next. A row that cannot be run in this way, such
    as one that reads text, is passed over. No random numbers are drawn from torch's global generator.

    Args:
        source: The model that the weights are from.
        target: The model that got them, on the same device.
        rows: Row of the target -> row of the source, without the head, for rows whose tensors are all equal.
    """
    layers, origins = target.model, set(rows.values())
    calls: dict[int, tuple[tuple[Any, ...], Any]] = {}
    image = _noise(source)
    if not rows or image is None or not isinstance(layers, nn.Sequential):
        return []
    with _evaluating(source), _evaluating(target), torch.no_grad():
        _record(source, image, origins, calls)
        return [row for row, origin in rows.items() if origin in calls and _differs(layers[row], *calls[origin])]


def _noise(model: nn.Module) -> Tensor | None:
    """Return an input for a model, or None if it has no convolution or no memory."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.weight.is_meta:
        return None
    generator = torch.Generator().manual_seed(0)
    shape = 1, first.in_channels, SIZE, SIZE
    return torch.rand(shape, generator=generator).to(first.weight)


def _record(model: nn.Module, image: Tensor, rows: set[int], calls: dict[int, tuple[tuple[Any, ...], Any]]) -> None:
    """Run a model up to its head, and keep the inputs and outputs of `rows`."""
    layers: Any = model.model

    def keep(row: int) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[row] = _copied(inputs), _copied(output)

        return hook

    def stop(*_: object) -> None:
        raise _StopError

    handles = [layers[row].register_forward_hook(keep(row)) for row in rows]
    handles.append(layers[-1].register_forward_pre_hook(stop))
    try:
        # What cannot be run on an image alone is not checked.
        with contextlib.suppress(Exception):
            model(image)
    finally:
        for handle in handles:
            handle.remove()


def _differs(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> bool:
    try:
        mine = layer(*_copied(inputs))
    except Exception:  # it needs more than its row's inputs
        return False
    if not (isinstance(mine, Tensor) and isinstance(output, Tensor)):
        return False
    if mine.shape != output.shape:
        return True
    return bool((mine - output).abs().max() > TOLERANCE * output.abs().max().clamp(min=1e-6))


def _copied(value: Any) -> Any:
    """Copy tensors, since a later layer may work in place."""
    if isinstance(value, Tensor):
        return value.clone()
    return type(value)(map(_copied, value)) if isinstance(value, (list, tuple)) else value


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
