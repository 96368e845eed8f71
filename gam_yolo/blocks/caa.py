"""CAA, the context anchor attention of PKINet."""

from __future__ import annotations

from torch import Tensor, nn

from gam_yolo.blocks.parts import ConvBN, Start, check_kernel

__all__ = ["CAA"]


class CAA(nn.Module):
    """Context anchor attention, a gate from long strips of a smoothed map: (B, C, H, W) -> (B, C, H, W).

        y = x * sigmoid(conv_1x1(DW_kx1(DW_1xk(conv_1x1(mean_7x7(x))))))

    conv_1x1: C -> C, no bias, BN, SiLU. DW: one kernel per channel, with bias. mean_7x7: stride 1, zeros outside count.

    Paper: Cai et al., "Poly Kernel Inception Network for Remote Sensing Detection", CVPR 2024, arXiv 2403.06258.
    Official code: github.com/PKINet/PKINet. There the gate multiplies the output of a parallel branch of large
    convolutions; here it multiplies its own input, as a block on its own must.

    Parameters: 2C^2 + (2k + 6) C, multiply-adds: HW (2C^2 + 2kC). For detection the paper reports gains on the oriented
    boxes of DOTA as a part of PKINet. For the block on its own in a YOLO we know of no published gain with more than
    one seed. The SiLU before the sigmoid keeps the gate above 0.43.

    Args:
        c: Channels C of the input and of the output.
        kernel: Length k of the strips, odd.
        start: `default`, `identity` or `zero` (the scale of the last batch norm starts at 0), see `Start`.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If the kernel is not an odd number from 3 to 31, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in CAA(256).parameters())
        138240
    """

    def __init__(
        self, c: int, kernel: int = 11, start: str = "default", residual: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        check_kernel(kernel, range(3, 32, 2))
        self.context = nn.Sequential(
            nn.AvgPool2d(7, 1, 3),
            ConvBN(c, c, bias=False),
            nn.SiLU(inplace=True),
            nn.Conv2d(c, c, (1, kernel), padding=(0, kernel // 2), groups=c),
            nn.Conv2d(c, c, (kernel, 1), padding=(kernel // 2, 0), groups=c),
            ConvBN(c, c, bias=False),
            nn.SiLU(inplace=True),
        )
        self.start = Start(c, start, self.context[5], residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        out: Tensor = self.start(x, x * self.start.gate(self.context(x)))
        return out
