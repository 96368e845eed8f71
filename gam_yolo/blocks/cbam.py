"""CBAM, the Convolutional Block Attention Module: the paper's, and Ultralytics' class of that name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gam_yolo.blocks.parts import ConvBN, Start, check_kernel, hidden_channels

__all__ = ["CBAM", "UltralyticsCBAM"]


class CBAM(nn.Module):
    """Convolutional Block Attention Module: (B, C, H, W) -> (B, C, H, W).

        F1 = F * sigmoid(MLP(GAP(F)) + MLP(GMP(F)))           one MLP for both: C -> C/r -> C, ReLU, biases
        F2 = F1 * sigmoid(BN(conv_kxk([max_c F1; mean_c F1])))    2 -> 1 channels, no bias

    GAP and GMP are the mean and the maximum over H and W, max_c and mean_c those over the channels.

    Paper: Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv 1807.06521, equations
    1 to 3. Official code: github.com/Jongchan/attention-module. It has a batch norm (momentum 0.01) before the spatial
    sigmoid, which the paper does not write. Its ResNet starts that batch norm's weight at 0; here it starts at 1. The
    paper puts the block on each residual block's output before the addition, with r = 16 and k = 7.

    Parameters: 2Cm + C + m + 2k^2 + 2, multiply-adds: 4Cm + 2k^2 HW, with m = C // r. For detection the paper reports
    gains of 1 to 2 mAP of Faster R-CNN over backbones pretrained with it in every block. For a few blocks added to a
    YOLO, Ultralytics' maintainers expect about zero or a small drop.

    Ultralytics' class of the same name is another block, `UltralyticsCBAM`. A row that gives a kernel, as rows for that
    class do, is read in the same way here.

    Args:
        c: Channels C of the input and of the output.
        kernel: Kernel size k of the spatial convolution: 3 or 7.
        reduction: The ratio r of the MLP.
        start: `default`, `identity` or `zero` (the MLP's last layer and the batch norm's scale start at 0), see
            `Start`.
        residual: Whether the output is added to the input, as in ResCBAM, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If the kernel is neither 3 nor 7, the reduction exceeds C, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in CBAM(256).parameters())
        8564
    """

    def __init__(
        self,
        c: int,
        kernel: int = 7,
        reduction: int = 16,
        start: str = "default",
        residual: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_kernel(kernel)
        m = hidden_channels(c, reduction)
        self.mlp = nn.Sequential(nn.Conv2d(c, m, 1), nn.ReLU(inplace=True), nn.Conv2d(m, c, 1))
        self.spatial = ConvBN(2, 1, kernel, bias=False, momentum=0.01)
        self.start = Start(c, start, self.mlp[2], self.spatial, residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        logits = self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True))
        f1 = x * self.start.gate(logits)
        pooled = torch.cat((f1.amax(1, keepdim=True), f1.mean(1, keepdim=True)), 1)
        f2 = f1 * self.start.gate(self.spatial(pooled))
        out: Tensor = self.start(x, f2)
        return out


class UltralyticsCBAM(nn.Module):
    """The block that Ultralytics names CBAM, which is not the paper's: (B, C, H, W) -> (B, C, H, W).

        F1 = F * sigmoid(W GAP(F) + b)                        W: one full C x C matrix; no MLP, no max-pooling
        F2 = F1 * sigmoid(conv_kxk([mean_c F1; max_c F1]))    2 -> 1 channels, no bias, no batch norm

    Source: `ultralytics.nn.modules.conv.CBAM`, github.com/ultralytics/ultralytics. Its channel gate is that of RTMDet.
    It differs from `CBAM` in both gates. Use it to repeat results that were obtained with it, and to compare the two.
    Ultralytics places it in none of its models, and no model YAML can name it there.

    Parameters: C^2 + C + 2k^2, multiply-adds: C^2 + 2k^2 HW. For detection we know of no publication that separates it
    from the paper's block; results "with CBAM in YOLOv8" may mean either.

    Args:
        c: Channels C of the input and of the output.
        kernel: Kernel size k of the spatial convolution: 3 or 7.
        start: `default`, `identity` or `zero` (W, b and the spatial convolution start at 0), see `Start`.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If the kernel is neither 3 nor 7, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in UltralyticsCBAM(256).parameters())
        65890
    """

    def __init__(
        self, c: int, kernel: int = 7, start: str = "default", residual: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        check_kernel(kernel)
        self.channel = nn.Conv2d(c, c, 1)
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.start = Start(c, start, self.channel, self.spatial, residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        f1 = x * self.start.gate(self.channel(x.mean((2, 3), keepdim=True)))
        pooled = torch.cat((f1.mean(1, keepdim=True), f1.amax(1, keepdim=True)), 1)
        f2 = f1 * self.start.gate(self.spatial(pooled))
        out: Tensor = self.start(x, f2)
        return out
