"""ECA, efficient channel attention."""

from __future__ import annotations

import math

from torch import Tensor, nn

from gam_yolo.blocks.parts import Start, check_kernel

__all__ = ["ECA", "KERNELS", "kernel_for"]

KERNELS = (1, 3, 5, 7, 9)


def kernel_for(c: int) -> int:
    """Return ECA's kernel size for C channels: (log2 C + 1) / 2 rounded down, plus one where that is even."""
    k = int((math.log2(c) + 1) / 2)
    return k if k % 2 else k + 1


class ECA(nn.Module):
    """Efficient channel attention, gates from a short convolution along the channels: (B, C, H, W) -> (B, C, H, W).

        y = x * sigmoid(conv1d_k(GAP(x)))       along C, 1 -> 1 channels, no bias
        k = |(log2 C + b) / gamma| rounded down, plus one where that is even; gamma = 2, b = 1

    Paper: Wang, Wu, Zhu, Li, Zuo, Hu, "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks",
    CVPR 2020, arXiv 1910.03151, equations 9 and 12. Official code: github.com/BangguWu/ECANet. The paper puts it on
    each residual block's output before the addition.

    Parameters: k (5 for C = 256), multiply-adds: kC. For detection the paper reports gains of 1 to 2 AP of Faster and
    Mask R-CNN over backbones pretrained with it in every block. For a few blocks added to a YOLO, Ultralytics'
    maintainers expect about zero or a small drop.

    Args:
        c: Channels C of the input and of the output.
        kernel: The kernel size k, odd; by default from C.
        start: `default`, `identity` or `zero` (the convolution starts at 0), see `Start`.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If the kernel is not one of 1, 3, 5, 7 and 9, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in ECA(256).parameters())
        5
    """

    def __init__(
        self, c: int, kernel: int | None = None, start: str = "default", residual: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        kernel = kernel_for(c) if kernel is None else kernel
        check_kernel(kernel, KERNELS)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.start = Start(c, start, self.conv, residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with each channel scaled by its gate."""
        gate = self.start.gate(self.conv(x.mean((2, 3)).unsqueeze(1)))  # (B, 1, C)
        out: Tensor = self.start(x, x * gate.transpose(1, 2).unsqueeze(3))
        return out
