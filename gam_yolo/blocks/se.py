"""SE, squeeze and excitation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gam_yolo.blocks.parts import Start, hidden_channels

__all__ = ["SE"]


class SE(nn.Module):
    """Squeeze and excitation, channel gates from the global mean: (B, C, H, W) -> (B, C, H, W).

        y = x * sigmoid(W2 relu(W1 GAP(x)))       W1: C -> C/r, W2: C/r -> C, with biases; GAP: mean over H and W

    Paper: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, arXiv 1709.01507, equations 2 to 4.
    Official code: github.com/hujie-frank/SENet. The paper puts it on each residual block's output before the
    addition, with r = 16.

    Parameters: 2Cm + C + m, multiply-adds: 2Cm, with m = C // r. For detection the paper reports gains of Faster
    R-CNN over backbones pretrained with it in every block. For a few blocks added to a YOLO we know of no published
    gain with more than one seed.

    Args:
        c: Channels C of the input and of the output.
        reduction: The ratio r of the bottleneck.
        start: `default`, `identity` or `zero` (W2 starts at 0), see `Start`.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If the reduction exceeds C, or `start` or `gain` is invalid.

    Examples:
        >>> sum(p.numel() for p in SE(256).parameters())
        8464
    """

    def __init__(
        self, c: int, reduction: int = 16, start: str = "default", residual: bool = False, gain: float = 1.0
    ) -> None:
        super().__init__()
        m = hidden_channels(c, reduction)
        self.excite = nn.Sequential(nn.Conv2d(c, m, 1), nn.ReLU(inplace=True), nn.Conv2d(m, c, 1))
        self.start = Start(c, start, self.excite[2], residual=residual, gain=gain)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        del self.excite[3:]  # checkpoints of version 0.1.0 have the sigmoid here

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with each channel scaled by its gate."""
        gate = self.start.gate(self.excite(x.mean((2, 3), keepdim=True)))
        out: Tensor = self.start(x, x * gate)
        return out
