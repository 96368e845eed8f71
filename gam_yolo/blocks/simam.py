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
    right after the 3x3 convolution of a residual block (the second one of a basic block), before the batch norm.

    On a 1x1 map the formula divides zero by zero. Here d = 0 and v = 0, and every value is gated by sigmoid(1/2).

    Parameters: none, multiply-adds in convolutions: none. For detection the paper reports gains of Faster and Mask
    R-CNN over backbones pretrained with it. Added to a pretrained YOLO it scales every feature by 0.62 to 1 from the
    first step on. We know of no published gain there with more than one seed.

    Args:
        c: Channels C of the input and of the output.
        e_lambda: The regularisation lambda, above 0.
        start: `default` or `identity`, see `Start`. SimAM has no layer that could start at 0, so `zero` is rejected.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If lambda is not above 0, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in SimAM(256).parameters())
        0
    """

    def __init__(
        self, c: int, e_lambda: float = 1e-4, start: str = "default", residual: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        if not isinstance(e_lambda, (int, float)) or isinstance(e_lambda, bool) or not e_lambda > 0:
            raise UserError(f"e_lambda is {e_lambda!r}", expected="a number above 0, such as 1e-4")
        self.e_lambda = e_lambda
        self.start = Start(c, start, residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with each value scaled by its gate."""
        hw = x.shape[2] * x.shape[3]
        d = (x - x.mean((2, 3), keepdim=True)).square()
        free = hw - 1 + (hw == 1)  # 1 for a single pixel; a branch would be frozen by a trace
        v = d.mean((2, 3), keepdim=True) * (hw / free)  # by the mean, because the sum overflows in half precision
        out: Tensor = self.start(x, x * (d / (4 * (v + self.e_lambda)) + 0.5).sigmoid())
        return out

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"e_lambda={self.e_lambda:g}"
