"""GAM as the articles' code has it, to be measured and compared with: linear layers between permutes, nothing fused."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gam_yolo.blocks import GAM

__all__ = ["ReferenceGAM", "copy_state", "swap"]


class ReferenceGAM(nn.Module):
    """The formula in the steps of the articles' code: (B, C, H, W) -> (B, C, H, W).

    The map is permuted to (B, HW, C) for two linear layers with a ReLU between them and back, and multiplied by their
    raw output; then by the sigmoid of conv 7x7 C -> C/r, batch norm, ReLU, conv 7x7 C/r -> C, batch norm.

    Args:
        c: Channels C.
        reduction: The ratio r.
    """

    def __init__(self, c: int, reduction: int = 4) -> None:
        super().__init__()
        m = c // reduction
        self.mlp = nn.Sequential(nn.Linear(c, m), nn.ReLU(inplace=True), nn.Linear(m, c))
        self.convolutions = nn.Sequential(
            nn.Conv2d(c, m, 7, padding=3),
            nn.BatchNorm2d(m),
            nn.ReLU(inplace=True),
            nn.Conv2d(m, c, 7, padding=3),
            nn.BatchNorm2d(c),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        b, c, h, w = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(b, h * w, c)
        x = x * self.mlp(pixels).view(b, h, w, c).permute(0, 3, 1, 2)
        gate: Tensor = self.convolutions(x).sigmoid()
        return x * gate


@torch.no_grad()
def copy_state(source: nn.Module, target: nn.Module) -> None:
    """Copy the state of one form of the block into the other, batch norm settings included.

    Both keep the same layers in the same order; a linear layer's matrix is a 1x1 convolution's.

    Raises:
        ValueError: If the layers are not the same.
    """
    for theirs, ours in zip(source.state_dict().values(), target.state_dict().values(), strict=True):
        ours.copy_(theirs.view_as(ours))
    for a, b in zip(_norms(source), _norms(target), strict=True):
        b.eps, b.momentum = a.eps, a.momentum


def swap(model: nn.Module) -> None:
    """Replace every `GAM` of an Ultralytics model by the articles' code with the same weights."""
    for parent in list(model.modules()):
        for name, gam in list(parent.named_children()):
            if isinstance(gam, GAM):
                first = next(m for m in gam.modules() if isinstance(m, nn.Conv2d))
                reference = ReferenceGAM(first.in_channels, first.in_channels // first.out_channels)
                copy_state(gam, reference)
                for key in ("i", "f", "type", "np"):  # what Ultralytics keeps of a row at the layer that it makes
                    setattr(reference, key, getattr(gam, key))
                setattr(parent, name, reference)


def _norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
