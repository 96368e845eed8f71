"""Attention in the bottlenecks of Ultralytics' C2f, C3, C3k2 and others, as the articles' C2f-GAM has it.

A bottleneck computes x + cv2(cv1(x)), or cv2(cv1(x)) where it has no shortcut. With attention it computes
x + attention(cv2(cv1(x))): after the second convolution, before the addition. Public code that puts attention into C2f
and C3k2 has it there, in every bottleneck of the row (`Bottleneck_EMA`, `Bottleneck_MLCA`, `Bottleneck_CAA`, ...).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gam_yolo import ultralytics_api

__all__ = ["AttendedBottleneck", "attend", "bottlenecks", "channels", "is_attention", "parts_of_base"]

Bottleneck: Any = ultralytics_api.get("Bottleneck")


class AttendedBottleneck(Bottleneck):  # type: ignore[misc]  # Ultralytics has no types
    """Ultralytics' `Bottleneck` with `attention` on its output before the addition, (B, c1, H, W) -> (B, c2, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the bottleneck's output for `x`."""
        y: Tensor = self.attention(self.cv2(self.cv1(x)))
        return x + y if self.add else y


def bottlenecks(layer: nn.Module) -> list[Any]:
    """Return the bottlenecks of a layer that attention can be put into, itself included, in their order."""
    return [m for m in layer.modules() if getattr(type(m), "forward", None) is Bottleneck.forward]


def channels(bottleneck: Any) -> int:
    """Return the channels that attention in a bottleneck gets."""
    found: int = bottleneck.cv2.conv.out_channels
    return found


def attend(bottleneck: Any, attention: nn.Module) -> None:
    """Put attention into a bottleneck, in place; all names and values of its state are kept."""
    bottleneck.attention = attention
    bottleneck.__class__ = AttendedBottleneck


def is_attention(layer: nn.Module, key: str) -> bool:
    """Return whether a name in a layer's state or of its parts belongs to attention that was put into a bottleneck."""
    owner, found, _ = f".{key}".partition(".attention.")
    return bool(found) and isinstance(layer.get_submodule(owner[1:]), AttendedBottleneck)


def parts_of_base(layer: nn.Module) -> list[str]:
    """Return the names of the largest parts of a layer that hold no attention, and together all else."""
    found = []
    for name, part in layer.named_children():
        if any(isinstance(m, AttendedBottleneck) for m in part.modules()):
            found += [f"{name}.{inner}" for inner in parts_of_base(part)]
        elif not (name == "attention" and isinstance(layer, AttendedBottleneck)):
            found.append(name)
    return found


torch.serialization.add_safe_globals([AttendedBottleneck])
