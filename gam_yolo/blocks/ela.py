"""ELA, efficient local attention."""

from __future__ import annotations

from torch import Tensor, nn

from gam_yolo.blocks.parts import Start, check_kernel, largest_divisor

__all__ = ["ELA"]


class ELA(nn.Module):
    """Efficient local attention, one gate along each axis without a bottleneck: (B, C, H, W) -> (B, C, H, W).

        f(z) = sigmoid(GN(conv1d_k(z)))         one kernel per channel, no bias; GN: 16 groups, with scale and shift
        y = x * f(mean_w x) * f(mean_h x)       the same f along H and along W

    Paper: Xu, Wan, "ELA: Efficient Local Attention for Deep Convolutional Neural Networks", arXiv 2403.01123; this is
    its ELA-B, k = 7. There is no official code. Implementations in circulation, such as the one in
    github.com/HZAI-ZJNU/SCSA, share convolution and norm between the axes, as here.

    Parameters: (k + 2) C, multiply-adds: kC (H + W). For detection the paper reports gains on COCO and PASCAL VOC over
    CoordAtt and others in YOLO detectors. We know of none with more than one seed.

    Args:
        c: Channels C of the input and of the output.
        kernel: The kernel size k: 3, 5, 7 or 9.
        start: `default`, `identity` or `zero` (the scale of GN starts at 0), see `Start`.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    The groups of GN are the largest divisor of C up to 16.

    Raises:
        UserError: If the kernel is none of these, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in ELA(256).parameters())
        2304
    """

    def __init__(
        self, c: int, kernel: int = 7, start: str = "default", residual: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        check_kernel(kernel, (3, 5, 7, 9))
        self.encode = nn.Sequential(
            nn.Conv1d(c, c, kernel, padding=kernel // 2, groups=c, bias=False),
            nn.GroupNorm(largest_divisor(c, 16), c),
        )
        self.start = Start(c, start, self.encode[1], residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        along_h = self.start.gate(self.encode(x.mean(3))).unsqueeze(3)  # (B, C, H, 1)
        along_w = self.start.gate(self.encode(x.mean(2))).unsqueeze(2)  # (B, C, 1, W)
        out: Tensor = self.start(x, x * along_h * along_w)
        return out
