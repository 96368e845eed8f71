"""LSKA, large separable kernel attention."""

from __future__ import annotations

from torch import Tensor, nn

from gam_yolo.blocks.parts import Scale, Start, check_kernel, times

__all__ = ["LSKA"]

KERNELS = (7, 11, 23, 35, 41, 53)


class LSKA(nn.Module):
    """Large separable kernel attention, a raw gate from four strips and a 1x1: (B, C, H, W) -> (B, C, H, W).

        y = x * conv_1x1(DW_mx1,d(DW_1xm,d(DW_lx1(DW_1xl(x)))))      d = 2 for k <= 11, else 3; l = 2d - 1; m = k // d

    DW: one kernel per channel, the last two with dilation d; all with biases.

    Paper: Lau, Po, Rehman, "Large Separable Kernel Attention: Rethinking the Large Kernel Attention Design in CNN",
    Expert Systems with Applications 236, 2024, arXiv 2309.01439. Official code:
    github.com/StevenLauHKHK/Large-Separable-Kernel-Attention. There it is a part of VAN's attention, between two 1x1
    convolutions.

    Parameters: C^2 + C (2l + 2m + 5), multiply-adds: HW (C^2 + C (2l + 2m)). For detection the paper reports VAN
    backbones of equal accuracy and lower cost than with the unseparated kernel. For the block on its own in a YOLO we
    know of no published gain with more than one seed. With the `default` start the raw gate is about 0 with random
    signs, which a pretrained detector must recover from.

    Args:
        c: Channels C of the input and of the output.
        kernel: The size k of the kernel that the strips amount to: 7, 11, 23, 35, 41 or 53.
        start: `default`, `identity` or `zero` (the 1x1 convolution starts at weight 0 and bias 1), see `Start`.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If the kernel is none of these, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in LSKA(256).parameters())
        69888
    """

    def __init__(
        self, c: int, kernel: int = 7, start: str = "default", residual: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        check_kernel(kernel, KERNELS)
        d = 2 if kernel <= 11 else 3
        near, far = 2 * d - 1, kernel // d
        reach = d * (far // 2)
        self.attention = nn.Sequential(
            nn.Conv2d(c, c, (1, near), padding=(0, near // 2), groups=c),
            nn.Conv2d(c, c, (near, 1), padding=(near // 2, 0), groups=c),
            nn.Conv2d(c, c, (1, far), padding=(0, reach), dilation=(1, d), groups=c),
            nn.Conv2d(c, c, (far, 1), padding=(reach, 0), dilation=(d, 1), groups=c),
            nn.Conv2d(c, c, 1),
        )
        raw = self.attention[4]
        if start == "zero" and gain != 1:
            self.attention.append(Scale(gain))
        self.start = Start(c, start, raw=raw, residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        out: Tensor = self.start(x, times(self.attention(x), x))
        return out
