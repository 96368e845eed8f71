"""CBAM, the Convolutional Block Attention Module: the paper's, and the one that Ultralytics calls by its name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gam_yolo.blocks.parts import ConvBN, Start, check_kernel, hidden_channels

__all__ = ["CBAM", "UltralyticsCBAM"]


class CBAM(nn.Module):
    """Convolutional Block Attention Module: (B, C, H, W) -> (B, C, H, W).

        F1 = F * sigmoid(MLP(GAP(F)) + MLP(GMP(F)))           one MLP for both: C -> C/r -> C, ReLU, biases
        F2 = F1 * sigmoid(BN(conv_kxk([max_c F1; mean_c F1])))    2 -> 1 channels, no bias

    with GAP and GMP the mean and the maximum over H and W, and max_c and mean_c those over the channels.

    Paper: Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv 1807.06521, equations
    1 to 3. Official code: github.com/Jongchan/attention-module, whose batch norm (momentum 0.01) before the spatial
    sigmoid the paper does not write; its ResNet starts that batch norm's weight at 0, here it starts at 1. The paper
    puts the block on each residual block's output before the addition, with r = 16 and k = 7.

    Parameters: 2Cm + C + m + 2k^2 + 2, multiply-adds: 4Cm + 2k^2 HW, with m = C // r; `start="identity"` adds C
    parameters. For detection the paper reports gains of 1 to 2 mAP of Faster R-CNN over backbones pretrained with
    it in every block; for a few blocks added to a YOLO, Ultralytics' maintainers expect about zero or a small drop.

    Ultralytics' class of the same name is another block, `UltralyticsCBAM`; a row that gives a kernel, as one does
    for that class, is read alike here.

    Args:
        c: Channels C of the input and of the output.
        kernel: Kernel size k of the spatial convolution: 3 or 7.
        reduction: The MLP's ratio r.
        start: `default`, or `identity`: the block passes its input on unchanged until it has learned (see `Start`).

    Raises:
        UserError: If the kernel is neither 3 nor 7, the reduction exceeds C, or `start` is unknown.

    Examples:
        >>> sum(p.numel() for p in CBAM(256).parameters())
        8564
    """

    def __init__(self, c: int, kernel: int = 7, reduction: int = 16, start: str = "default") -> None:
        super().__init__()
        check_kernel(kernel)
        m = hidden_channels(c, reduction)
        self.mlp = nn.Sequential(nn.Conv2d(c, m, 1), nn.ReLU(inplace=True), nn.Conv2d(m, c, 1))
        self.spatial = ConvBN(2, 1, kernel, bias=False, momentum=0.01)
        self.start = Start(c, start)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        logits = self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True))
        f1 = x * logits.sigmoid()
        pooled = torch.cat((f1.amax(1, keepdim=True), f1.mean(1, keepdim=True)), 1)
        f2 = f1 * self.spatial(pooled).sigmoid()
        out: Tensor = self.start(x, f2)
        return out


class UltralyticsCBAM(nn.Module):
    """What Ultralytics names CBAM, which is not the paper's: (B, C, H, W) -> (B, C, H, W).

        F1 = F * sigmoid(W GAP(F) + b)                        W: one full C x C matrix; no MLP, no max-pooling
        F2 = F1 * sigmoid(conv_kxk([mean_c F1; max_c F1]))    2 -> 1 channels, no bias, no batch norm

    Source: `ultralytics.nn.modules.conv.CBAM`, github.com/ultralytics/ultralytics; its channel gate is that of
    RTMDet. It is here so that results obtained with it can be repeated and set beside those of `CBAM`,
    from which it differs in each of its two gates. Ultralytics places it nowhere: no model YAML can name it there.

    Parameters: C^2 + C + 2k^2, multiply-adds: C^2 + 2k^2 HW; `start="identity"` adds C parameters. For detection we
    know of nothing published that tells it from the paper's block; results "with CBAM in YOLOv8" may mean either.

    Args:
        c: Channels C of the input and of the output.
        kernel: Kernel size k of the spatial convolution: 3 or 7.
        start: `default`, or `identity`: the block passes its input on unchanged until it has learned (see `Start`).

    Raises:
        UserError: If the kernel is neither 3 nor 7, or `start` is unknown.

    Examples:
        >>> sum(p.numel() for p in UltralyticsCBAM(256).parameters())
        65890
    """

    def __init__(self, c: int, kernel: int = 7, start: str = "default") -> None:
        super().__init__()
        check_kernel(kernel)
        self.channel = nn.Conv2d(c, c, 1)
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.start = Start(c, start)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map, of the shape of `x`."""
        f1 = x * self.channel(x.mean((2, 3), keepdim=True)).sigmoid()
        pooled = torch.cat((f1.mean(1, keepdim=True), f1.amax(1, keepdim=True)), 1)
        f2 = f1 * self.spatial(pooled).sigmoid()
        out: Tensor = self.start(x, f2)
        return out
