"""EMA, efficient multi-scale attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gam_yolo.blocks.parts import Start, check_divides, largest_divisor

__all__ = ["EMA"]


class EMA(nn.Module):
    """Efficient multi-scale attention, one spatial gate per group of channels: (B, C, H, W) -> (B, C, H, W).

        [h; w] = W1 [mean_w x; mean_h x]                  x: one of g groups of n = C/g channels; W1: 1x1, n -> n
        x1 = GN(x * sigmoid(h) * sigmoid(w)),  x2 = conv_3x3(x)               GN: each channel by itself, with scale
        y = x * sigmoid(softmax(GAP x1)^T x2 + softmax(GAP x2)^T x1)          a map (1, H, W) for each group

    All groups share the weights. Convolutions have biases.

    Paper: Ouyang et al., "Efficient Multi-Scale Attention Module with Cross-Spatial Learning", ICASSP 2023,
    arXiv 2305.13563. Official code: github.com/YOLOonMe/EMA-attention-module, with g = 32. The paper puts it after the
    last two C3 of YOLOv5's backbone.

    Parameters: 10n^2 + 4n, multiply-adds: Cn (H + W + 9HW) + 2C HW. For detection the paper reports 38.4 mAP against
    37.2 of YOLOv5s on COCO. By the authors' scripts its variants start from the released weights and are trained for
    300 epochs more, while the baseline is the released file itself; we know of no gain published with equal training
    and more than one seed.

    Args:
        c: Channels C of the input and of the output.
        factor: Number of groups g. By default 32, or the largest divisor of C below that which leaves two channels
            per group.
        start: `default`, `identity` or `zero` (the scale of GN and the 3x3 convolution start at 0), see `Start`.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If the factor does not divide C, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in EMA(256).parameters())
        672
    """

    def __init__(
        self, c: int, factor: int | None = None, start: str = "default", residual: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        factor = largest_divisor(c, min(32, c // 2)) if factor is None else factor
        check_divides("factor", factor, c, "channels of the block's input")
        n = c // factor
        self.factor = factor
        self.conv1x1 = nn.Conv2d(n, n, 1)
        self.conv3x3 = nn.Conv2d(n, n, 3, padding=1)
        self.norm = nn.GroupNorm(n, n)
        self.start = Start(c, start, self.norm, self.conv3x3, residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with each group of channels scaled by its map."""
        b, c, h, w = x.shape
        group = x.reshape(b * self.factor, c // self.factor, h, w)
        along_h, along_w = group.mean(3, keepdim=True), group.mean(2, keepdim=True)
        f_h, f_w = self.conv1x1(torch.cat((along_h, along_w.transpose(2, 3)), 2)).split((h, w), 2)
        x1 = self.norm(group * f_h.sigmoid() * f_w.transpose(2, 3).sigmoid())
        x2 = self.conv3x3(group)
        gate = self.start.gate(_weighted(x1, x2) + _weighted(x2, x1)).view(b, self.factor, 1, h, w)
        y = x.view(b, self.factor, -1, h, w) * gate  # not of `group`, so that the memory format is kept
        out: Tensor = self.start(x, y.flatten(1, 2))
        return out

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"factor={self.factor}"


def _weighted(weights: Tensor, x: Tensor) -> Tensor:
    """Return the mean of the channels of `x`, weighted by a softmax over the means of `weights`: (B, 1, H, W)."""
    shares = weights.mean((2, 3)).softmax(1).unsqueeze(1)
    return (shares @ x.flatten(2)).view(x.shape[0], 1, x.shape[2], x.shape[3])
