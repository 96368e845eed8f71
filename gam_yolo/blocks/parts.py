"""What several blocks share: a convolution that folds its batch norm, the start of a block, and argument checks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from gam_yolo.errors import UserError, similar

__all__ = [
    "STARTS",
    "ChannelShuffle",
    "ConvBN",
    "Scale",
    "Sigmoid",
    "Start",
    "check_choice",
    "check_divides",
    "check_kernel",
    "check_whole",
    "form",
    "hidden_channels",
    "largest_divisor",
    "times",
    "tracing",
]

STARTS = ("default", "identity", "zero")


def check_choice(key: str, value: object, choices: Collection[str]) -> None:
    """Raise `UserError` unless `value` is one of `choices`."""
    if value not in choices:
        near = similar(value, choices) if isinstance(value, str) else ""
        raise UserError(f"{key} is {value!r}", expected=f"one of {', '.join(choices)}", similar=near)


def check_divides(key: str, value: object, channels: int, what: str) -> None:
    """Raise `UserError` unless `value` is a whole number of at least 1 that divides `channels`, a number of `what`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or channels % value:
        fits = ", ".join(str(d) for d in range(1, min(channels, 32) + 1) if channels % d == 0)
        raise UserError(f"{key} {value!r} does not divide the {channels} {what}", fix=f"Write one of {fits}")


def check_kernel(kernel: object, kernels: Collection[int] = (3, 7)) -> None:
    """Raise `UserError` unless `kernel` is one of `kernels`."""
    if kernel not in kernels or isinstance(kernel, bool):
        raise UserError(f"kernel is {kernel!r}", expected=f"one of {', '.join(map(str, kernels))}")


def check_whole(key: str, value: object) -> None:
    """Raise `UserError` unless `value` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{key} is {value!r}", expected="a whole number of at least 1")


def hidden_channels(c: int, reduction: object) -> int:
    """Return the width of the bottleneck, `c // reduction`.

    Args:
        c: Channels of the block's input.
        reduction: The reduction ratio r, a whole number from 1 to `c`.

    Raises:
        UserError: If `reduction` is anything else.
    """
    if not isinstance(reduction, int) or isinstance(reduction, bool) or not 1 <= reduction <= c:
        raise UserError(
            f"reduction is {reduction!r}", expected=f"a whole number from 1 to {c}, the channels of the block's input"
        )
    return c // reduction


def largest_divisor(c: int, limit: int) -> int:
    """Return the largest divisor of `c` that is at most `limit`, and at least 1."""
    return max(d for d in range(1, max(limit, 1) + 1) if c % d == 0)


def form(module: nn.Module) -> str:
    """Return what decides, besides its tensors, what a module computes: types, strides, gates, starts.

    Two blocks compute the same function if their forms, and the names and shapes of their tensors, are equal. A
    sigmoid gate and a centred one have the same tensors and different forms.
    """
    return repr(module)


class ConvBN(nn.Module):
    """A convolution with "same" padding, then batch norm: (B, c1, H, W) -> (B, c2, H, W).

    `fuse` folds the batch norm into the convolution. Ultralytics' `model.fuse()` does that for its own classes only;
    `gam_yolo.plugin.fuse` makes it call `fuse` here.

    Args:
        c1: Input channels.
        c2: Output channels.
        kernel: Kernel size, odd; or height and width of the kernel, both odd.
        groups: Groups of the convolution.
        dilation: Dilation of the convolution.
        bias: Whether the convolution has a bias of its own before the batch norm.
        momentum: Momentum of the batch norm. A YOLO sets 0.03 for every batch norm in it.
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
            # One value per channel (a 1x1 map of a last batch of one image) has no statistics. torch would stop the
            # training with an error, so the running statistics are used.
            return batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)
        out: Tensor = bn(x)
        return out

    def fuse(self) -> None:
        """Fold the batch norm's running statistics into the convolution. A second call does nothing."""
        bn = self.bn
        if not isinstance(bn, nn.BatchNorm2d):
            return
        assert bn.running_mean is not None  # noqa: S101  # for the type checker: made with the default statistics
        assert bn.running_var is not None  # noqa: S101
        self.conv.weight, self.conv.bias = fuse_conv_bn_weights(
            self.conv.weight, self.conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
        )
        self.conv.requires_grad_(False)  # for inference, as Ultralytics leaves what it fuses
        self.bn = nn.Identity()


def tracing() -> bool:
    """Return whether the model is being traced, for TorchScript or an export."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]  # torch leaves it untyped


def times(gate: Tensor, x: Tensor) -> Tensor:
    """Return the product of a gate that nothing else reads and `x`, in the gate's memory unless autograd needs it."""
    if torch.is_grad_enabled() or tracing() or torch.result_type(gate, x) != gate.dtype:
        return gate * x
    return gate.mul_(x)


class ChannelShuffle(nn.ChannelShuffle):
    """Channel shuffle, (B, C, H, W) -> (B, C, H, W).

    torch's own operation keeps the memory format, but ONNX and the converters that read TorchScript do not know it. An
    index selection is one operation in ONNX. NCNN does not know that, but what a transposition of the groups does.

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
        if not tracing():
            return super().forward(x)
        if torch.onnx.is_in_onnx_export():
            return x.index_select(1, self.order)
        b, _, h, w = x.shape
        return x.view(b, self.groups, -1, h, w).transpose(1, 2).reshape(x.shape)


class Scale(nn.Module):
    """A raw gate times a constant, `gain * z`.

    Args:
        gain: The constant.
    """

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, z: Tensor) -> Tensor:
        """Return the gate."""
        return z * self.gain

    def backward_(self, grad: Tensor, gate: Tensor) -> Tensor:
        """Turn the gate's gradient into that of the input, in place."""
        del gate
        return grad.mul_(self.gain)

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"{self.gain:g}"


class Sigmoid(nn.Sigmoid):
    """The gate `peak * sigmoid(gain * z)`, in its input's memory: only after a convolution or a batch norm.

    Args:
        peak: 1, or 2 for a centred gate, which is 1 where `z` is 0.
        gain: The constant that `z` is multiplied by.
    """

    # Defaults on the class, because a module from an older checkpoint is unpickled without `__init__`.
    peak: float = 1.0
    gain: float = 1.0

    def __init__(self, peak: float = 1.0, gain: float = 1.0) -> None:
        super().__init__()
        self.peak, self.gain = peak, gain

    def forward(self, z: Tensor) -> Tensor:
        """Return the gate."""
        if self.gain != 1:
            z = z * self.gain
        gate = z.sigmoid() if tracing() else z.sigmoid_()
        return gate if self.peak == 1 else gate * self.peak

    def backward_(self, grad: Tensor, gate: Tensor) -> Tensor:
        """Turn the gate's gradient into that of the input, in place."""
        if self.peak != 1:
            gate = gate / self.peak
        grad = torch.ops.aten.sigmoid_backward(grad, gate, grad_input=grad)
        return grad if self.peak * self.gain == 1 else grad.mul_(self.peak * self.gain)

    def extra_repr(self) -> str:
        """Return what `print` shows; nothing for the plain sigmoid."""
        return "" if self.peak == self.gain == 1 else f"{self.peak:g} * sigmoid({self.gain:g} z)"


class Start(nn.Module):
    """How a block starts its training, and the form of its output, for all blocks alike.

    Let f(x) be the block's formula on its input x.

    | start | output y | at step 0 |
    | --- | --- | --- |
    | `default` | f(x), with the source's random start | f(x) |
    | `identity` | x + gain a (f(x) - x), a: one learnable number per channel, 0 at first; C more parameters | x |
    | `zero` | f(x) with every gate centred at 1; the last layer before each gate starts at 0 | x |

    With `zero`, a gate sigmoid(z) is 2 sigmoid(gain z), and a raw gate z is gain z with z = 1 / gain at first. It adds
    no parameters, and the last layers have their full gradient from the first step.

    `residual` gives x + f(x), as in ResGAM and ResCBAM. With `identity` that is x + gain a f(x). With `zero` it is
    (x + f(x)) / 2, which is x while f(x) is x.

    `gain` multiplies what starts at 0. Under Adam, whose steps do not depend on a gradient's size, the block then
    learns that many times faster than the layers around it. It changes nothing at step 0.

    The forms of `identity` and `zero` follow ReZero, LayerScale and the zero-initialised last batch norm of ResNets
    (arXiv 2003.04887, 2103.17239, 1706.02677).

    A block makes it last, because `reset_parameters` has to run after those of the layers.

    Args:
        c: Channels.
        start: `default`, `identity` or `zero`.
        last: The last layer before each sigmoid gate: a convolution, a normalisation, or a convolution with one.
        raw: The last layer of a raw gate, a convolution with bias.
        residual: Whether the block's output is added to its input.
        gain: The constant, above 0; 1 with `default`.

    Raises:
        UserError: If `start`, `residual` or `gain` is invalid, or no layer of the block can start at 0.
    """

    # Defaults on the class, because a module from an older checkpoint is unpickled without `__init__`.
    centred: bool = False
    residual: bool = False
    factor: float = 1.0
    hazardous: bool = False
    initial: tuple[tuple[nn.Module, float], ...] = ()

    def __init__(
        self,
        c: int,
        start: str,
        *last: nn.Module,
        raw: nn.Module | None = None,
        residual: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("start", start, STARTS)
        if isinstance(gain, bool) or not isinstance(gain, (int, float)) or not 0 < gain < float("inf"):
            raise UserError(f"gain is {gain!r}", expected="a number above 0, such as 10")
        if start == "default" and gain != 1:
            raise UserError(f"gain is {gain!r} with start 'default'", fix="Write start: zero or start: identity")
        if start == "zero" and not (last or raw):
            raise UserError("start is 'zero', but no layer of this block can start at 0", fix="Write start: identity")
        if not isinstance(residual, bool):
            raise UserError(f"residual is {residual!r}", expected="true or false")
        self.centred, self.residual, self.factor = start == "zero", residual, float(gain)
        # A random raw gate flips the sign of about half the features; `gam_yolo.plugin.load` warns about it.
        self.hazardous = raw is not None and start == "default" and not residual
        if self.centred:  # in a tuple, where they do not become children of this module too
            self.initial = (*((layer, 0.0) for layer in last), *([(raw, 1 / gain)] if raw else []))
        self.gain = nn.Parameter(torch.zeros(c, 1, 1)) if start == "identity" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set what this start sets. `YOLO.reset_weights()` calls it on every module, in the order of definition."""
        if self.gain is not None:
            nn.init.zeros_(self.gain)
        for layer, value in self.initial:
            last: Any = layer
            if isinstance(layer, ConvBN):  # its batch norm may have been folded into its convolution
                last = layer.conv if isinstance(layer.bn, nn.Identity) else layer.bn
            nn.init.zeros_(last.weight)
            if last.bias is not None:
                nn.init.constant_(last.bias, value)

    def gate(self, z: Tensor) -> Tensor:
        """Return the sigmoid gate of `z`, centred at 1 where the start asks for it."""
        return 2 * (self.factor * z).sigmoid() if self.centred else z.sigmoid()

    def forward(self, x: Tensor, fx: Tensor) -> Tensor:
        """Return the block's output, given its input `x` and f(x), both (B, C, H, W)."""
        if self.residual and not self.centred:
            fx = x + fx
        weight: Tensor | float
        if self.gain is not None:
            weight = self.gain.to(fx.dtype) * self.factor
        elif self.residual and self.centred:
            weight = 0.5
        else:
            return fx
        x = x.to(fx.dtype)
        if tracing():
            return x + weight * (fx - x)  # the converter of NCNN has no `lerp`
        return torch.lerp(x, fx, weight)  # one kernel; exactly x where the weight is 0 or fx is x

    def extra_repr(self) -> str:
        """Return what `print` shows; nothing for the default."""
        shown = {"zero": self.centred, "residual": self.residual, f"gain {self.factor:g}": self.factor != 1}
        return ", ".join(key for key, value in shown.items() if value)
