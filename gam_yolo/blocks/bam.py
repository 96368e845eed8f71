"""BAM, the Bottleneck Attention Module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gam_yolo.blocks.parts import ConvBN, Start, check_whole, hidden_channels

__all__ = ["BAM"]


class BAM(nn.Module):
    """Bottleneck Attention Module, a channel and a spatial branch side by side: (B, C, H, W) -> (B, C, H, W).

        y = x + x * sigmoid(Mc(x) + Ms(x))
        Mc: GAP, linear C -> C/r, BN, ReLU, linear C/r -> C                                    (B, C, 1, 1)
        Ms: conv 1x1 C -> C/r, twice conv 3x3 dilation d, each with BN and ReLU, conv 1x1 C/r -> 1      (B, 1, H, W)

    Paper: Park, Woo, Lee, Kweon, "BAM: Bottleneck Attention Module", BMVC 2018, arXiv 1807.06514, equations 1 to 5.
    Official code: github.com/Jongchan/attention-module. The paper adds Mc and Ms, as here; the code multiplies them.
    The layers of each branch are the code's: its batch norms follow the hidden layers, where the paper writes one at
    the end of each branch. The paper puts the block between a ResNet's stages, at its bottlenecks, not into the
    residual blocks, with r = 16 and d = 4.

    With a batch of a single image the batch norm of Mc, whose maps are 1x1, has no batch statistics. The official code
    raises an error there when training. Here the running statistics are used, so that the last batch of an epoch cannot
    stop a run.

    Parameters: 3Cm + 18m^2 + C + 13m + 1, multiply-adds: 2Cm + HW (Cm + 18m^2 + m), with m = C // r. For detection the
    paper reports small gains of Faster R-CNN and SSD over backbones pretrained with it. For blocks added to a YOLO we
    know of no published gain with more than one seed.

    Args:
        c: Channels C of the input and of the output.
        reduction: The ratio r of both branches.
        dilation: The dilation d of the 3x3 convolutions.
        start: `default`, `identity` or `zero` (the last layers of Mc and Ms start at 0), see `Start`. BAM is residual
            by definition, so that `zero` gives y = x (1/2 + sigmoid(Mc + Ms)).
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If the reduction exceeds C, the dilation is not a whole number, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in BAM(256).parameters())
        17361
    """

    def __init__(
        self, c: int, reduction: int = 16, dilation: int = 4, start: str = "default", gain: float = 1.0
    ) -> None:
        super().__init__()
        m = hidden_channels(c, reduction)
        check_whole("dilation", dilation)
        self.channel = nn.Sequential(ConvBN(c, m), nn.ReLU(inplace=True), nn.Conv2d(m, c, 1))
        self.spatial = nn.Sequential(
            ConvBN(c, m),
            nn.ReLU(inplace=True),
            ConvBN(m, m, 3, dilation=dilation),
            nn.ReLU(inplace=True),
            ConvBN(m, m, 3, dilation=dilation),
            nn.ReLU(inplace=True),
            nn.Conv2d(m, 1, 1),
        )
        self.start = Start(c, start, self.channel[2], self.spatial[6], residual=True, gain=gain)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.start.residual = True  # checkpoints of version 0.1.0 do not have it

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        mc = self.channel(x.mean((2, 3), keepdim=True))
        ms = self.spatial(x)
        out: Tensor = self.start(x, x * self.start.gate(mc + ms))
        return out
