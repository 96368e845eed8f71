"""What several blocks are made of: a convolution that folds its batch norm, the start switch, and argument checks."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from gam_yolo.errors import UserError, nearest

__all__ = [
    "STARTS",
    "ChannelShuffle",
    "ConvBN",
    "Sigmoid",
    "Start",
    "check_choice",
    "check_divides",
    "check_kernel",
    "check_whole",
    "hidden_channels",
    "times",
    "tracing",
]

STARTS = ("default", "identity")


def check_choice(key: str, value: object, choices: Collection[str]) -> None:
    """Raise `UserError` unless `value` is one of `choices`."""
    if value not in choices:
        hint = nearest(value, choices) if isinstance(value, str) else ""
        raise UserError(f"{key} is {value!r}, expected one of {', '.join(choices)}{hint}")


def check_divides(key: str, value: object, channels: int, what: str) -> None:
    """Raise `UserError` unless `value` is a whole number of at least 1 that divides `channels`, the count of `what`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or channels % value:
        fits = ", ".join(str(d) for d in range(1, min(channels, 32) + 1) if channels % d == 0)
        raise UserError(f"{key} {value!r} does not divide the {channels} {what}; write one of {fits}")


def check_kernel(kernel: object, kernels: Collection[int] = (3, 7)) -> None:
    """Raise `UserError` unless `kernel` is one of `kernels`; a channel count in its place is what rows get wrong."""
    if kernel not in kernels or isinstance(kernel, bool):
        raise UserError(
            f"kernel is {kernel!r}, expected {', '.join(map(str, kernels))}; a row's channels come from its input and "
            "are not written: write the kernel alone, or []"
        )


def check_whole(key: str, value: object) -> None:
    """Raise `UserError` unless `value` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{key} is {value!r}, expected a whole number of at least 1")


def hidden_channels(c: int, reduction: object) -> int:
    """Return the bottleneck's width, `c // reduction`.

    Args:
        c: Channels of the block's input.
        reduction: The reduction ratio r, a whole number from 1 to `c`.

    Raises:
        UserError: If `reduction` is anything else.
    """
    if not isinstance(reduction, int) or isinstance(reduction, bool) or not 1 <= reduction <= c:
        raise UserError(
            f"reduction is {reduction!r}, expected a whole number from 1 to {c}, the number of the block's channels"
        )
    return c // reduction


class ConvBN(nn.Module):
    """A convolution with "same" padding, then batch norm: (B, c1, H, W) -> (B, c2, H, W).

    `fuse` folds the batch norm into the convolution, which Ultralytics' own `model.fuse()` does for its own classes
    only; `gam_yolo.plugin.fuse` makes `model.fuse()` call it.

    Args:
        c1: Input channels.
        c2: Output channels.
        kernel: Kernel size, odd; or height and width of the kernel, both odd.
        groups: Groups of the convolution.
        dilation: Dilation of the convolution.
        bias: Whether the convolution has a bias of its own before the batch norm.
        momentum: Of the batch norm. A YOLO sets its own, 0.03, for every batch norm in it.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        kernel: int | tuple[int, int] = 1,
        groups: int = 1,
        dilation: int = 1,
        *,
        bias: bool = True,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (dilation * (height // 2), dilation * (width // 2))
        self.conv = nn.Conv2d(c1, c2, kernel, padding=padding, dilation=dilation, groups=groups, bias=bias)
        self.bn: nn.Module = nn.BatchNorm2d(c2, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised convolution of `x`."""
        x = self.conv(x)
        bn = self.bn
        if self.training and isinstance(bn, nn.BatchNorm2d) and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            # One value per channel (a 1x1 map of a last batch of one image) has no statistics, and torch would end
            # the training with an error; the running ones serve.
            return batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)
        out: Tensor = bn(x)
        return out

    def fuse(self) -> None:
        """Fold the batch norm's running statistics into the convolution; once done, does nothing."""
        bn = self.bn
        if not isinstance(bn, nn.BatchNorm2d):
            return
        assert bn.running_mean is not None  # noqa: S101  # for the type checker: made with the default statistics
        assert bn.running_var is not None  # noqa: S101
        self.conv.weight, self.conv.bias = fuse_conv_bn_weights(
            self.conv.weight, self.conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
        )
        self.conv.requires_grad_(False)  # as Ultralytics leaves what it fuses: for inference
        self.bn = nn.Identity()


def tracing() -> bool:
    """Return whether the model is being traced, for TorchScript or an export."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]  # torch leaves it untyped


def times(gate: Tensor, x: Tensor) -> Tensor:
    """Return the product of a gate, which nobody else reads, and `x`; in the gate's memory unless autograd needs it."""
    if torch.is_grad_enabled() or tracing() or torch.result_type(gate, x) != gate.dtype:
        return gate * x
    return gate.mul_(x)


class ChannelShuffle(nn.ChannelShuffle):
    """Channel shuffle, (B, C, H, W) -> (B, C, H, W), as a gathering of channels where it is traced for an export.

    torch's own operation keeps the memory format, but neither ONNX nor the converters that read TorchScript know it.

    Args:
        channels: C.
        groups: The groups between which channels are exchanged.
    """

    order: Tensor

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(groups)
        self.register_buffer("order", torch.arange(channels).view(groups, -1).t().flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with its channels shuffled."""
        return x.index_select(1, self.order) if tracing() else super().forward(x)


class Sigmoid(nn.Sigmoid):
    """Sigmoid in its input's memory, for what nobody else reads: behind a convolution or a batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the sigmoid of `x`."""
        return x.sigmoid() if tracing() else x.sigmoid_()


class Start(nn.Module):
    """How a block begins its training: `default` returns f(x); `identity` returns x + a (f(x) - x) with a = 0 at first.

    With `identity`, a pretrained detector predicts exactly as before at step 0, whatever was inserted, and each of
    the C learnable gains `a` lets its channel take up the block as far as that lowers the loss. It adds C parameters.
    The form is that of ReZero and LayerScale (arXiv 2003.04887, 2103.17239), on the block's change instead of its
    output.

    Args:
        c: Channels.
        start: `default` or `identity`.

    Raises:
        UserError: If `start` is neither.
    """

    def __init__(self, c: int, start: str) -> None:
        super().__init__()
        check_choice("start", start, STARTS)
        self.gain = nn.Parameter(torch.zeros(c, 1, 1)) if start == "identity" else None

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        """Return what the block passes on, given its input `x` and its own result `fx`, both (B, C, H, W)."""
        if self.gain is None:
            return fx
        return torch.lerp(x.to(fx.dtype), fx, self.gain.to(fx.dtype))  # one kernel; exact x where the gain is 0
