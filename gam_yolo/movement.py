"""How far blocks have moved from the identity: how much each changes its input, measured on images.

A block that starts as the identity (`start: zero` or `identity`) may hardly have changed when the training ends. A
comparison of such a model with one without the block then says nothing about attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["STILL", "Movement", "describe", "movement"]

STILL = 0.01
"""A block that changes its input by less than this counts as the identity."""

_SAMPLE = 1 << 20  # values of which the quantiles are taken


@dataclass(frozen=True)
class Movement:
    """How much one block changes its input x to its output y.

    Attributes:
        block: Its row and class.
        change: The root mean square of y - x, divided by that of x; 0 for the identity.
        low: The 5 % quantile of y / x, which is the gate of a block that multiplies.
        high: The 95 % quantile.
    """

    block: str
    change: float
    low: float
    high: float

    @property
    def still(self) -> bool:
        """Whether the block is practically the identity."""
        return self.change < STILL

    @property
    def percent(self) -> str:
        """The change in percent, as a text: two digits, and never an exponent."""
        return f"{100 * self.change:{'.2g' if self.change < 0.995 else '.0f'}}"


def movement(model: nn.Module, images: Tensor) -> tuple[Movement, ...]:
    """Measure how much each block of a model changes its input.

    Args:
        model: An Ultralytics model; of a `YOLO` object, its `.model`.
        images: (B, 3, H, W), from 0 to 1, on the model's device and in its precision.

    Returns:
        One entry for each block, in the order of the model.

    Examples:
        >>> import torch
        >>> from gam_yolo import GAM
        >>> model = torch.nn.Sequential(GAM(8, start="zero"))
        >>> [found] = movement(model, torch.rand(2, 8, 16, 16))
        >>> found.block, found.change, found.still
        ('row 0 (GAM)', 0.0, True)
    """
    import torch

    from gam_yolo.registry import blocks_in

    found: dict[str, Movement] = {}

    def hook(name: str) -> Any:
        return lambda _, inputs, output: found.update({name: _measure(name, inputs[0], output)})

    hooks = [block.register_forward_hook(hook(name)) for name, block in blocks_in(model).items()]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        model.train(training)
        for each in hooks:
            each.remove()
    return tuple(found.values())


def describe(found: Sequence[Movement]) -> list[str]:
    """Return one line for each block, and a last one where all of them are still the identity."""
    lines = [f"{m.block} changes its input by {m.percent} %, output / input {m.low:.2f} to {m.high:.2f}" for m in found]
    if found and all(m.still for m in found):
        lines.append("All blocks are still the identity, so this training says nothing about them: docs/blocks.md")
    return lines


def _measure(name: str, x: Tensor, y: Tensor) -> Movement:
    import torch

    x, y = x.detach().float(), y.detach().float()
    size = x.square().mean().sqrt()
    change = (y - x).square().mean().sqrt() / size if size else size
    ratio = (y / x)[x.abs() > 1e-3 * size]  # a value near 0 has no meaningful ratio
    ratio = ratio[:: len(ratio) // _SAMPLE + 1]
    low, high = (
        torch.quantile(ratio, torch.tensor([0.05, 0.95], device=x.device)).tolist() if len(ratio) else (1.0, 1.0)
    )
    return Movement(name, float(change), low, high)
