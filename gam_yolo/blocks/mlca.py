"""MLCA, mixed local channel attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from gam_yolo.blocks.eca import KERNELS, kernel_for
from gam_yolo.blocks.parts import Start, check_kernel, check_whole, tracing

__all__ = ["MLCA"]


class MLCA(nn.Module):
    """Mixed local channel attention, ECA's gates globally and on a coarse grid: (B, C, H, W) -> (B, C, H, W).

        p = mean of x on a grid of s x s cells            (B, C, s, s), s = 5
        g = sigmoid(conv1d_k(GAP p)) / 2 + sigmoid(conv1d_k'(p)) / 2      along C, and along C in all cells in a row
        y = x * unpool(g)                                 the mean of the cells that a pixel touches

    Both convolutions have 1 -> 1 channels and no bias; k is ECA's kernel size for C.

    Paper: Wan et al., "Mixed local channel attention for object detection", Engineering Applications of Artificial
    Intelligence 123, 2023. Official code: github.com/wandahangFY/MLCA. Cells and unpooling are those of an adaptive
    mean, as in the code. GAP p is GAP x where s divides H and W.

    Parameters: 2k, multiply-adds: kC (s^2 + 1). For detection the paper reports a gain of about 1 mAP over SE on
    PASCAL VOC. For a few blocks added to a pretrained YOLO we know of no published gain with more than one seed.

    Args:
        c: Channels C of the input and of the output.
        size: Cells s along each axis.
        kernel: The kernel size k, odd; by default from C as for ECA.
        start: `default`, `identity` or `zero` (both convolutions start at 0), see `Start`.
        residual: Whether the output is added to the input, see `Start`.
        gain: Constant factor on what starts at 0, see `Start`.

    Raises:
        UserError: If the kernel is not one of 1, 3, 5, 7 and 9, the size is not a whole number, or `start` or `gain` is
            invalid.

    Examples:
        >>> sum(p.numel() for p in MLCA(256).parameters())
        10
    """

    def __init__(
        self,
        c: int,
        size: int = 5,
        kernel: int | None = None,
        start: str = "default",
        residual: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_whole("size", size)
        kernel = kernel_for(c) if kernel is None else kernel
        check_kernel(kernel, KERNELS)
        self.size = size
        self.whole = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.cells = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.start = Start(c, start, self.whole, self.cells, residual=residual, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with each channel scaled by its gate in each cell."""
        b, c, h, w = x.shape
        gate = self.start.gate
        p = _adaptive_mean(x, self.size, self.size)
        whole = gate(self.whole(p.mean((2, 3)).unsqueeze(1))).view(b, c, 1, 1)
        rows = p.flatten(2).transpose(1, 2)  # (B, s^2, C)
        cells = gate(self.cells(rows.reshape(b, 1, -1))).view(rows.shape).transpose(1, 2).reshape(p.shape)
        out: Tensor = self.start(x, x * _adaptive_mean((whole + cells) / 2, h, w))
        return out

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"size={self.size}"


def _adaptive_mean(x: Tensor, height: int, width: int) -> Tensor:
    """Return `adaptive_avg_pool2d`, traced as matrix products, because ONNX has it for divisors of the size only."""
    if not tracing():
        return adaptive_avg_pool2d(x, (height, width))
    return _cells(x, x.shape[2], height) @ x @ _cells(x, x.shape[3], width).transpose(0, 1)


def _cells(x: Tensor, n: int, m: int) -> Tensor:
    """Return the (m, n) matrix that takes the mean of n values in each of m cells, which may overlap."""
    cell, value = torch.arange(m, device=x.device).unsqueeze(1), torch.arange(n, device=x.device)
    first, end = cell * n // m, ((cell + 1) * n + m - 1) // m
    return ((value >= first) & (value < end)).to(x.dtype) / (end - first).to(x.dtype)
