"""ECA, efficient channel attention."""

from __future__ import annotations

import math

from torch import Tensor, nn

from gam_yolo.blocks.parts import Start, check_kernel

__all__ = ["ECA"]


class ECA(nn.Module):
    """Efficient channel attention, gates from a short convolution along the channels: (B, C, H, W) -> (B, C, H, W).

        y = x * sigmoid(conv1d_k(GAP(x)))       along C, 1 -> 1 channels, no bias
        k = |(log2 C + b) / gamma| cut to a whole number, plus one where that is even; gamma = 2, b = 1

    Paper: Wang, Wu, Zhu, Li, Zuo, Hu, "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks",
    CVPR 2020, arXiv 1910.03151, equations 9 and 12. Official code: github.com/BangguWu/ECANet. The paper puts it on
    each residual block's output before the addition.

    Parameters: k (5 for C = 256), multiply-adds: kC; `start="identity"` adds C parameters. For detection the paper
    reports gains of 1 to 2 AP of Faster and Mask R-CNN over backbones pretrained with it in every block; for a few
    blocks added to a YOLO, Ultralytics' maintainers expect about zero or a small drop.

    Args:
        c: Channels C of the input and of the output.
        kernel: The kernel size k, odd; by default from C.
        start: `default`, or `identity`: the block passes its input on unchanged until it has learned (see `Start`).

    Raises:
        UserError: If the kernel is not one of 1, 3, 5, 7 and 9, or `start` is unknown.

    Examples:
        >>> sum(p.numel() for p in ECA(256).parameters())
        5
    """

    def __init__(self, c: int, kernel: int | None = None, start: str = "default") -> None:
        super().__init__()
        if kernel is None:
            k = int((math.log2(c) + 1) / 2)
            kernel = k if k % 2 else k + 1
        check_kernel(kernel, (1, 3, 5, 7, 9))
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.start = Start(c, start)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with each channel scaled by its gate."""
        gate = self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid()  # (B, 1, C)
        out: Tensor = self.start(x, x * gate.transpose(1, 2).unsqueeze(3))
        return out
