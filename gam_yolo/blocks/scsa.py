"""SCSA, spatial and channel synergistic attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from gam_yolo.blocks.parts import Start, check_divides, check_whole, largest_divisor
from gam_yolo.errors import UserError

__all__ = ["SCSA"]

KERNELS = (3, 5, 7, 9)


class SCSA(nn.Module):
    """Spatial and channel synergistic attention: (B, C, H, W) -> (B, C, H, W).

        s(z) = the quarters of z's channels through depthwise conv1d of size 3, 5, 7 and 9, with biases
        F1 = x * sigmoid(GN_h(s(mean_w x))) * sigmoid(GN_w(s(mean_h x)))           GN of 4 groups; s is shared
        p = GN_1(mean of F1 in windows of 7 x 7, stride 7);  q, k, v = p scaled per channel, (heads, C/heads, N)
        y = F1 * sigmoid(mean_N(softmax(q k^T / sqrt(C/heads)) v))                 attention between channels

    Paper: Si et al., "SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention", Neurocomputing
    2025, arXiv 2407.05128. Official code: github.com/HZAI-ZJNU/SCSA. Windows are cut to the map where that is smaller
    than 7 pixels; the official code raises an error there. The code puts it into each residual block.

    Parameters: 16C, multiply-adds: 6C (H + W) + 3CN + (C^2 / heads) (N + 1), with N = (H // 7) (W // 7). For detection
    the paper reports gains on COCO over backbones pretrained with it in every block. For a few blocks added to a YOLO
    we know of no published gain with more than one seed.

    Args:
        c: Channels C of the input and of the output, a multiple of 4.
        heads: Number of heads. By default the largest divisor of C up to 8.
        window: Size of the windows.
        start: `default`, `identity` or `zero` (the scales of GN_h and GN_w, and v, start at 0), see `Start`.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If C is no multiple of 4, the heads do not divide C, or `window`, `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in SCSA(256).parameters())
        4096
    """

    def __init__(
        self,
        c: int,
        heads: int | None = None,
        window: int = 7,
        start: str = "default",
        residual: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        heads = largest_divisor(c, 8) if heads is None else heads
        if c % len(KERNELS):
            raise UserError(f"the block's input has {c} channels", expected="a multiple of 4")
        check_divides("heads", heads, c, "channels of the block's input")
        check_whole("window", window)
        self.heads, self.window = heads, window
        quarter = c // len(KERNELS)
        self.strips = nn.ModuleList(nn.Conv1d(quarter, quarter, k, padding=k // 2, groups=quarter) for k in KERNELS)
        self.norm_h, self.norm_w, self.norm = nn.GroupNorm(4, c), nn.GroupNorm(4, c), nn.GroupNorm(1, c)
        self.q, self.k, self.v = (nn.Conv2d(c, c, 1, groups=c, bias=False) for _ in range(3))
        self.start = Start(c, start, self.norm_h, self.norm_w, self.v, residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        b, c, h, w = x.shape
        gate = self.start.gate
        along_h = gate(self.norm_h(self._strips(x.mean(3)))).unsqueeze(3)
        along_w = gate(self.norm_w(self._strips(x.mean(2)))).unsqueeze(2)
        f1 = x * along_h * along_w
        p = self.norm(avg_pool2d(f1, (min(self.window, h), min(self.window, w))))
        q, k, v = (layer(p).reshape(b, self.heads, c // self.heads, -1) for layer in (self.q, self.k, self.v))
        attention = (q @ k.transpose(2, 3) * (c // self.heads) ** -0.5).softmax(3)
        logits = attention @ v.mean(3, keepdim=True)  # the mean of the products, as it is linear in v
        out: Tensor = self.start(x, f1 * gate(logits.view(b, c, 1, 1)))
        return out

    def _strips(self, z: Tensor) -> Tensor:
        return torch.cat([strip(part) for strip, part in zip(self.strips, z.chunk(len(KERNELS), 1), strict=True)], 1)

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"heads={self.heads}, window={self.window}"
