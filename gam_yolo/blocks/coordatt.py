"""CoordAtt, coordinate attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gam_yolo.blocks.parts import ConvBN, Start, check_whole

__all__ = ["CoordAtt"]


class CoordAtt(nn.Module):
    """Coordinate attention, one gate along each axis of the map: (B, C, H, W) -> (B, C, H, W).

        [f_h; f_w] = hswish(BN(W1 [mean_w x; mean_h x]))      along H + W; W1: C -> m = max(8, C/r)
        y = x * sigmoid(Wh f_h) * sigmoid(Ww f_w)             Wh, Ww: m -> C; all with biases

    Paper: Hou, Zhou, Feng, "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, arXiv 2103.02907,
    equations 4 to 9. Official code: github.com/houqb/CoordAttention. The paper puts it where MobileNetV2's inverted
    residual blocks would have their SE, before the last 1x1 convolution, with r = 32.

    Parameters: 3Cm + 2C + 3m, multiply-adds: 2Cm (H + W). For detection the paper reports gains of SSDLite over SE and
    CBAM with a MobileNetV2 pretrained with it. For a few blocks added to a YOLO we know of no published gain with more
    than one seed.

    Args:
        c: Channels C of the input and of the output.
        reduction: The ratio r of the bottleneck, which keeps at least 8 channels.
        start: `default`, `identity` or `zero` (Wh and Ww start at 0), see `Start`.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If the reduction is not a whole number of at least 1, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in CoordAtt(256).parameters())
        6680
    """

    def __init__(
        self, c: int, reduction: int = 32, start: str = "default", residual: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        check_whole("reduction", reduction)
        m = max(8, c // reduction)
        self.encode = nn.Sequential(ConvBN(c, m), nn.Hardswish(inplace=True))
        self.h = nn.Conv2d(m, c, 1)
        self.w = nn.Conv2d(m, c, 1)
        self.start = Start(c, start, self.h, self.w, residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        gate = self.start.gate
        along_h, along_w = x.mean(3, keepdim=True), x.mean(2, keepdim=True)  # (B, C, H, 1), (B, C, 1, W)
        both = self.encode(torch.cat((along_h, along_w.transpose(2, 3)), 2))  # (B, m, H + W, 1)
        f_h, f_w = both.split((x.shape[2], x.shape[3]), 2)
        y = x * gate(self.h(f_h)) * gate(self.w(f_w.transpose(2, 3)))
        out: Tensor = self.start(x, y)
        return out
