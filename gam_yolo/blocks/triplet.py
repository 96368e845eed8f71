"""Triplet attention (TAM)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gam_yolo.blocks.parts import ConvBN, Start, check_kernel

__all__ = ["Triplet"]


class Triplet(nn.Module):
    """Triplet attention, one gate for each pair of axes: (B, C, H, W) -> (B, C, H, W).

        y = x * (g_CW + g_HC + g_HW) / 3
        g = sigmoid(BN(conv_kxk([max; mean])))       over the axis that the gate leaves out; 2 -> 1 channels, no bias

    Paper: Misra, Nalamada, Arasanipalai, Hou, "Rotate to Attend: Convolutional Triplet Attention Module", WACV 2021,
    arXiv 2010.03045, equations 1 to 3. Official code: github.com/landskape-ai/triplet-attention. It rotates the whole
    map three times and averages three products; here only the pooled planes are rotated. The paper puts it on each
    residual block's output before the addition, with k = 7.

    Parameters: 3 (2k^2 + 2), 300 for any C; multiply-adds: 2k^2 (CW + HC + HW). For detection the paper reports gains
    of Faster R-CNN over backbones pretrained with it in every block. For a few blocks added to a YOLO we know of no
    published gain with more than one seed. It has few parameters but is not fast: it reads the whole map once for each
    of its three planes.

    Args:
        c: Channels C of the input and of the output.
        kernel: Kernel size k of the three convolutions: 3 or 7.
        start: `default`, `identity` or `zero` (the scales of the batch norms start at 0), see `Start`.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If the kernel is neither 3 nor 7, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in Triplet(256).parameters())
        300
    """

    def __init__(
        self, c: int, kernel: int = 7, start: str = "default", residual: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        check_kernel(kernel)
        self.cw = ConvBN(2, 1, kernel, bias=False, momentum=0.01)
        self.hc = ConvBN(2, 1, kernel, bias=False, momentum=0.01)
        self.hw = ConvBN(2, 1, kernel, bias=False, momentum=0.01)
        self.start = Start(c, start, self.cw, self.hc, self.hw, residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        gate = self.start.gate
        cw = gate(self.cw(_pool(x, 2))).transpose(1, 2)  # (B, 1, C, W) -> (B, C, 1, W)
        hc = gate(self.hc(_pool(x, 3).transpose(2, 3))).permute(0, 3, 2, 1)  # (B, 1, H, C) -> (B, C, H, 1)
        hw = gate(self.hw(_pool(x, 1)))
        out: Tensor = self.start(x, x * ((cw + hc + hw) / 3))
        return out


def _pool(x: Tensor, axis: int) -> Tensor:
    """Return maximum and mean over an axis of (B, C, H, W), as the two channels of a map of the other two axes."""
    return torch.stack((x.amax(axis), x.mean(axis)), 1)
