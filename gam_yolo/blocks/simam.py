"""SimAM, a gate without parameters."""

from __future__ import annotations

from torch import Tensor, nn

from gam_yolo.blocks.parts import Start
from gam_yolo.errors import UserError

__all__ = ["SimAM"]


class SimAM(nn.Module):
    """SimAM, each value gated by how far it stands out of its channel: (B, C, H, W) -> (B, C, H, W).

        y = x * sigmoid(d / (4 (v + lambda)) + 1/2)       d = (x - mean)^2, v = sum d / (HW - 1), over H and W

    Paper: Yang, Zhang, Li, Xie, "SimAM: A Simple, Parameter-Free Attention Module for Convolutional Neural Networks",
    ICML 2021 (proceedings.mlr.press/v139/yang21o.html). Official code: github.com/ZjjConan/SimAM. That code puts it
    right behind the 3x3 convolution of a residual block (the second one of a basic block), before the batch norm.

    A 1x1 map, where the formula divides zero by zero, has d = 0 and v = 0 here: every value is gated by sigmoid(1/2).

    Parameters: none, multiply-adds in convolutions: none; `start="identity"` adds C parameters. For detection the paper
    reports gains of Faster and Mask R-CNN over backbones pretrained with it; added to a pretrained YOLO it scales every
    feature by 0.62 to 1 from the first step on, and we know of no gain published there with more than one seed.

    Args:
        c: Channels C of the input and of the output.
        e_lambda: The regularisation lambda, above 0.
        start: `default`, or `identity`: the block passes its input on unchanged until it has learned (see `Start`).

    Raises:
        UserError: If lambda is not above 0, or `start` is unknown.

    Examples:
        >>> sum(p.numel() for p in SimAM(256).parameters())
        0
    """

    def __init__(self, c: int, e_lambda: float = 1e-4, start: str = "default") -> None:
        super().__init__()
        if not isinstance(e_lambda, (int, float)) or isinstance(e_lambda, bool) or not e_lambda > 0:
            raise UserError(f"e_lambda is {e_lambda!r}, expected a number above 0, such as 1e-4")
        self.e_lambda = e_lambda
        self.start = Start(c, start)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with each value scaled by its gate."""
        hw = x.shape[2] * x.shape[3]
        d = (x - x.mean((2, 3), keepdim=True)).square()
        free = hw - 1 + (hw == 1)  # 1 for a single pixel, without a branch, which a trace would freeze
        v = d.mean((2, 3), keepdim=True) * (hw / free)  # by the mean, as half precision overflows on the sum
        out: Tensor = self.start(x, x * (d / (4 * (v + self.e_lambda)) + 0.5).sigmoid())
        return out
