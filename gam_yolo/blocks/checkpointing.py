"""GAM's products with less memory and time: which way to compute them, and the memory-saving training step.

`economical` chooses among three ways with the same result:

- as `GAM.forward` writes the two products;
- for inference on a CPU with grouped convolutions, a few images at a time (`gam_yolo.blocks.chunking`);
- for training, on request (`SWITCH`), with what is cheap to compute recomputed in the backward pass instead of kept:
  this file.

Besides the input, autograd would keep the maps of the bottlenecks and of the last convolution, both gates, the batch
norm's output and the product F2 from the forward to the backward pass. Here most of these are recomputed from what is
kept anyway. That costs a few hundredths of the convolutions' arithmetic. The images are processed a few at a time, so
that what is computed stays in the cache until it is used. (Gradient checkpointing, arXiv 1604.06174.)

The gradients are those of the plain products. They have no second derivative: torch raises an error for one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.module import _global_forward_hooks

from gam_yolo.blocks import chunking
from gam_yolo.blocks.chunking import DEVICES, by_images, format_of, pieces, room, working_format
from gam_yolo.blocks.parts import ConvBN, Scale, Sigmoid, times, tracing

__all__ = ["SWITCH", "Mlp", "applies", "channel_gate", "economical", "spatial_gate"]

SWITCH = "GAM_YOLO_SAVE_MEMORY"
"""The environment variable that chooses the form of a training step: with `1` it saves memory. That costs time, see
docs/speed.md, so it is not the default.
"""


def economical(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Decorate `GAM.forward`, so that each call is computed in the most economical way with the same result.

    Args:
        forward: Computes `start(x, F3)` with F2 = Mc(x) x and F3 = Ms(F2) F2, Mc and Ms being `channel` and `spatial`.
    """

    @functools.wraps(forward)
    def run(self: Any, x: Tensor) -> Tensor:
        if applies(x):
            out: Tensor = self.start(x, _products(self.channel, self.spatial, x))
            return out
        if not self.training and _grouped(self.spatial) and chunking.applies(x):
            return by_images(functools.partial(forward, self), x, memory_format=format_of(x))
        return forward(self, x)

    return run


def applies(x: Tensor) -> bool:
    """Return whether to compute a training step on `x` with recomputation, see `SWITCH`.

    Tracing and compilation need the plain products. A single image has little to save. Other devices are untested.
    """
    if not torch.is_grad_enabled() or tracing() or torch.compiler.is_compiling():
        return False
    if len(x) == 1 or x.device.type not in DEVICES:
        return False
    return os.environ.get(SWITCH) == "1"


def _grouped(spatial: nn.Sequential | None) -> bool:
    first: Any = None if spatial is None else spatial[0]
    return isinstance(first, ConvBN) and first.conv.groups > 1


def _products(channel: nn.Sequential | None, spatial: nn.Sequential | None, x: Tensor) -> Tensor:
    """Return F3 as `GAM.forward` defines it, and keep less of it for the backward pass."""
    mlp = None if channel is None else Mlp(channel, x)
    layers: list[Any] = [None] * 3 if spatial is None else list(spatial)
    first, *inner, last, sigmoid = layers
    bn = getattr(last, "bn", None)
    if not (isinstance(sigmoid, Sigmoid) and isinstance(bn, nn.BatchNorm2d) and bn.momentum is not None):
        # no spatial branch, or a shuffle after its gate, or a batch norm that is fused or of another kind
        f2 = x if mlp is None else channel_gate(x, mlp)[0]
        return f2 if spatial is None else times(spatial(f2), f2)
    if isinstance(first, ConvBN):
        first, inner = first.conv, [first.bn, *inner]
    f2, hidden, y = (x, None, first(x)) if mlp is None else channel_gate(x, mlp, first)
    for layer in inner:
        y = layer(y)
    return spatial_gate(last.conv, bn, sigmoid, y, f2, x, hidden, mlp)


class Mlp:
    """The MLP of the channel branch, in the autocast mode of its first use.

    Args:
        layers: 1x1 convolution, ReLU, 1x1 convolution, and perhaps an activation.
        x: The map that it will be used on.
    """

    def __init__(self, layers: nn.Sequential, x: Tensor) -> None:
        self.first: nn.Conv2d
        self.second: nn.Conv2d
        self.activation: list[Sigmoid | Scale]
        self.first, self._relu, self.second, *self.activation = layers  # type: ignore[assignment]
        device = x.device.type
        self._mode = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))

    def hidden(self, x: Tensor) -> Tensor:
        """Return the hidden map of some of the images, (b, C/r, H, W)."""
        with torch.autocast(*self._mode, cache_enabled=False):
            hidden: Tensor = self._relu(self.first(x))
        return hidden

    def gate(self, hidden: Tensor) -> Tensor:
        """Return the gate of some of the images, (b, C, H, W)."""
        with torch.autocast(*self._mode, cache_enabled=False):
            gate: Tensor = self.second(hidden)
        for layer in self.activation:
            gate = layer(gate)
        return gate

    def product(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Return F2, the gate times `x`, of some of the images."""
        return times(self.gate(hidden), x)

    def products(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Return F2 of all images."""
        f2 = room(x, torch.result_type(hidden, x), working_format(x))
        for piece, (part, of_hidden) in pieces(x, hidden):
            torch.mul(self.gate(of_hidden), part, out=f2[piece])
        return f2


def channel_gate(x: Tensor, mlp: Mlp, conv: nn.Conv2d | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return F2 = `mlp(x) * x`, the MLP's hidden map and, if `conv` is given, `conv(F2)`; keep `x` and the hidden map.

    Args:
        x: The feature map F1, (B, C, H, W).
        mlp: The channel branch.
        conv: The convolution that reads F2, of stride 1.
    """
    layers = [mlp.first, mlp.second, *([] if conv is None else [conv])]
    made: tuple[Tensor, Tensor, Tensor] = _ChannelGate.apply(
        x, mlp, conv, *(p for layer in layers for p in (layer.weight, layer.bias))
    )
    return made


def spatial_gate(
    conv: nn.Conv2d,
    bn: nn.BatchNorm2d,
    sigmoid: Sigmoid,
    inner: Tensor,
    f2: Tensor,
    x: Tensor,
    hidden: Tensor | None,
    mlp: Mlp | None,
) -> Tensor:
    """Return F3 = `sigmoid(bn(z)) * f2` with `z = conv(inner)`, update the running statistics, and keep `z` and `x`.

    Args:
        conv: The last convolution, C/r -> C.
        bn: Its batch norm, with scale, shift, running statistics and a momentum.
        sigmoid: The activation after it.
        inner: The bottleneck's map, (B, C/r, H, W).
        f2: What the gate multiplies, (B, C, H, W).
        x: The input, of which `f2` is the product with the channel gate.
        hidden: The MLP's hidden map, from which that gate is recomputed; None where `f2` is `x`.
        mlp: The channel branch.
    """
    z = conv(inner)
    alone = not (conv._forward_hooks or _global_forward_hooks)  # else a hook may have kept `z`
    if bn.training and bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
    factors = (x.detach(),) if hidden is None else (x.detach(), hidden)
    out: Tensor = _SpatialGate.apply(z, f2, bn.weight, bn.bias, bn, sigmoid, mlp, alone, *factors)
    return out


def _graph_is_kept() -> bool:
    """Return whether another backward pass over the same graph may follow the current one."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)  # as torch's own compiler does
    return ask is None or bool(ask())


def _conv_backward(conv: nn.Conv2d, grad: Tensor, x: Tensor, *needs: bool) -> tuple[Any, ...]:
    """Return the needed gradients of a convolution: for its input `x`, its weight and its bias.

    For the gradient of the input alone, `x` may be any map of its shape.
    """
    bias = None if conv.bias is None else [conv.out_channels]
    found: tuple[Any, ...] = torch.ops.aten.convolution_backward(
        grad, x.to(grad.dtype), conv.weight.to(grad.dtype), bias, conv.stride, conv.padding, conv.dilation,
        False, [0, 0], conv.groups, needs,
    )  # fmt: skip
    return found


class _ChannelGate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mlp: Mlp, conv: nn.Conv2d | None, *parameters: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        hidden = by_images(mlp.hidden, x, memory_format=working_format(x))
        f2 = mlp.products(x, hidden) if conv else by_images(mlp.product, x, hidden, memory_format=format_of(x))
        ctx.mlp, ctx.conv = mlp, conv
        ctx.save_for_backward(x, hidden, *parameters)
        ctx.mark_non_differentiable(hidden)
        return f2, hidden, None if conv is None else conv(f2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_f2: Tensor, _: Tensor, grad_y: Tensor | None) -> tuple[Tensor | None, ...]:
        mlp: Mlp = ctx.mlp
        x, hidden, *parameters = ctx.saved_tensors
        needs_x, _, _, *needed = ctx.needs_input_grad
        of_conv: tuple[Any, ...] = ()
        grad_x = None
        if grad_y is not None:
            # One after the other, so that F2 is freed before the next map is allocated.
            f2 = mlp.products(x, hidden)
            of_conv = _conv_backward(ctx.conv, grad_y, f2, False, *needed[4:])[1:]
            del f2
            grad_f2 += _conv_backward(ctx.conv, grad_y, grad_f2, True, False, False)[
                0
            ]  # `_SpatialGate` allocated it for this
            if grad_f2.dtype == x.dtype and grad_f2.stride() == x.stride():
                grad_x = grad_f2
        if grad_x is None:
            grad_x = torch.empty_like(x)
        sums = [torch.zeros_like(p) if need else None for p, need in zip(parameters[:4], needed[:4], strict=True)]

        def through_mlp(part: Tensor, of_hidden: Tensor, grad: Tensor) -> Tensor | None:
            gate = mlp.gate(of_hidden)
            g = (grad * part).to(gate.dtype)
            for layer in mlp.activation:  # one at most
                g = layer.backward_(g, gate)
            g, *of_second = _conv_backward(mlp.second, g, of_hidden, True, *needed[2:4])
            g = torch.ops.aten.threshold_backward(g, of_hidden, 0)
            g, *of_first = _conv_backward(mlp.first, g, part, needs_x, *needed[:2])
            for total, new in zip(sums, (*of_first, *of_second), strict=True):
                if total is not None:
                    total += new
            return g.to(x.dtype).addcmul_(grad, gate) if needs_x else None

        for piece, parts in pieces(x, hidden, grad_f2):
            of_part = through_mlp(*parts)
            if of_part is not None:
                grad_x[piece] = of_part
            del parts, of_part  # before the next ones are allocated
        return (grad_x if needs_x else None, None, None, *sums, *of_conv)


class _Norm:
    """A batch norm with given statistics and the gate after it, computed in single precision at least.

    Args:
        eps: What is added to the variance.
        sigmoid: The activation after it.
        numbers: Weight, bias, mean and variance.
    """

    def __init__(self, eps: float, sigmoid: Sigmoid, *numbers: Tensor) -> None:
        exact = torch.promote_types(numbers[0].dtype, torch.float32)
        self.weight, self.bias, self.mean, self.var = (number.to(exact) for number in numbers)
        self.eps, self.sigmoid, self.inverse = eps, sigmoid, torch.rsqrt(self.var + eps)

    def gate(self, z: Tensor) -> Tensor:
        """Return the gate of the normalised `z`."""
        cudnn = torch.backends.cudnn.enabled
        y = torch.batch_norm(z, self.weight, self.bias, self.mean, self.var, False, 0.0, self.eps, cudnn)
        return self.sigmoid.forward(y)  # without hooks, as in all versions of this step

    def sums(self, g: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of weight and bias, given that of the output."""
        found = torch.ops.aten.native_batch_norm_backward(
            g, z, self.weight, self.mean, self.var, self.mean, self.inverse, False, self.eps, [False, True, True]
        )
        return found[1], found[2]


class _SpatialGate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        f2: Tensor,
        weight: Tensor,
        bias: Tensor,
        bn: nn.BatchNorm2d,
        sigmoid: Sigmoid,
        mlp: Mlp | None,
        alone: bool,
        *factors: Tensor,
    ) -> Tensor:
        mean, var = bn.running_mean, bn.running_var
        assert mean is not None  # noqa: S101  # for the type checker
        assert var is not None  # noqa: S101
        if bn.training:
            mean, var = torch.ops.aten.batch_norm_update_stats(z, mean, var, bn.momentum)
        else:
            mean, var = mean.clone(), var.clone()
        norm = _Norm(bn.eps, sigmoid, weight, bias, mean, var)
        ctx.sigmoid = sigmoid
        ctx.training, ctx.eps, ctx.mlp, ctx.alone, ctx.dtype = bn.training, bn.eps, mlp, alone, f2.dtype
        ctx.save_for_backward(z, weight, bias, mean, var, *factors)

        def product(of_z: Tensor, of_f2: Tensor) -> Tensor:
            return times(norm.gate(of_z), of_f2)

        return by_images(product, z, f2, memory_format=format_of(factors[0]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, *saved = ctx.saved_tensors
        norm, factors = _Norm(ctx.eps, ctx.sigmoid, *saved[:4]), saved[4:]
        grad_z = torch.empty_like(z)  # the gradient of the batch norm's output, until the second loop
        grad_weight, grad_bias = torch.zeros_like(norm.weight), torch.zeros_like(norm.bias)
        for piece, (of_z, of_grad, *parts) in pieces(z, grad, *factors):
            f2 = parts[0] if ctx.mlp is None else ctx.mlp.product(*parts)
            g = torch.mul(of_grad, f2, out=grad_z[piece])
            del f2, of_grad, parts  # before more is allocated
            ctx.sigmoid.backward_(g, norm.gate(of_z))
            of_weight, of_bias = norm.sums(g, of_z)
            grad_weight += of_weight
            grad_bias += of_bias
        # Batch norm's backward pass (arXiv 1502.03167, section 3) is g a + z b + c with three numbers per channel.
        share = z.shape[1] / z.numel() if ctx.training else 0.0  # of one value in the statistics of its channel
        scale = norm.weight * norm.inverse
        by_z = -scale * norm.inverse * grad_weight * share
        rest = -scale * grad_bias * share - by_z * norm.mean
        scale, by_z, rest = (t.view(-1, 1, 1) for t in (scale, by_z, rest))
        # Where nothing reads z again, its memory takes the other gradient, piece by piece after it was read.
        reuses = ctx.alone and z.dtype == ctx.dtype and not _graph_is_kept()
        grad_f2 = z.detach() if reuses else torch.empty_like(z, dtype=ctx.dtype)
        for piece, (of_z, g, of_grad) in pieces(z, grad_z, grad):
            torch.addcmul(torch.addcmul(rest, of_z, by_z), g, scale, out=grad_z[piece])
            torch.mul(norm.gate(of_z), of_grad, out=grad_f2[piece])
        return grad_z, grad_f2, grad_weight, grad_bias, None, None, None, None, *(None for _ in factors)
