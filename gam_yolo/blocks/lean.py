"""GAM's two products in a training step, with what is cheap computed anew in the backward pass instead of kept.

Autograd would keep, besides the input and the large convolutions' maps, the MLP's hidden map, both gates and the
product F2 from the forward to the backward pass. Here these are made again from what is kept anyway. That costs some
hundredths of the convolutions' arithmetic, and the images are worked through a few at a time, so that what is made
stays in the cache until it has been used. (Trading arithmetic for memory is the idea of arXiv 1604.06174.)

The gradients are those of the plain products. They cannot be differentiated once more: torch says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.module import _global_forward_hooks

from gam_yolo.blocks.parts import tracing

__all__ = ["Mlp", "applies", "apply_to_product", "channel_gate", "spatial_gate"]

CACHE = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Bytes of a map worked on at a time: half of a server core's second-level cache, a third of a large GPU's. What is on
other devices is left to autograd."""


def applies(x: Tensor) -> bool:
    """Return whether a training step on `x` is to be computed by what is here.

    Not where it is traced or compiled, whose ways are their own; and not on a CPU in the contiguous format, where
    convolving a few images at a time costs more than it saves.
    """
    if not torch.is_grad_enabled() or tracing() or torch.compiler.is_compiling():
        return False
    several = x.numel() > x.shape[1]  # a batch norm of one value a channel is a case of its own, see `ConvBN`
    in_batches = x.device.type != "cpu" or x.is_contiguous(memory_format=torch.channels_last)
    return several and x.device.type in CACHE and in_batches


class Mlp:
    """The channel branch's MLP, in the autocast mode in which it is first used."""

    def __init__(self, layers: nn.Module, x: Tensor) -> None:
        self.layers = layers
        device = x.device.type
        self.mode = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the gate for some of the images, (b, C, H, W)."""
        with torch.autocast(*self.mode, cache_enabled=False):
            gate: Tensor = self.layers(x)
        return gate

    def product(self, x: Tensor) -> Tensor:
        """Return F2, the gate times `x`."""
        out: Tensor | None = None
        for piece in _pieces(x):
            gate = self(x[piece])
            if out is None:
                out = torch.empty_like(x, dtype=torch.result_type(gate, x))
            torch.mul(gate, x[piece], out=out[piece])
        return torch.empty_like(x) if out is None else out


def channel_gate(x: Tensor, mlp: Mlp) -> Tensor:
    """Return F2 = `mlp(x) * x` and keep only `x`.

    Args:
        x: The feature map F1, (B, C, H, W).
        mlp: The channel branch.
    """
    f2: Tensor = _ChannelGate.apply(x, mlp, *mlp.layers.parameters())
    return f2


def apply_to_product(layer: nn.Module, f2: Tensor, x: Tensor, mlp: Mlp) -> Tensor:
    """Return `layer(f2)` and, instead of `f2`, keep the `x` that it is the product of."""
    facts = _facts(f2)  # and not `f2` itself, which autograd would keep for as long as this function
    kept = (mlp, x.detach())

    def pack(tensor: Tensor) -> Any:
        return kept if _facts(tensor) == facts else tensor

    with saved_tensors_hooks(pack, _unpack):
        out: Tensor = layer(f2)
    return out


def spatial_gate(conv: nn.Module, bn: nn.BatchNorm2d, inner: Tensor, f2: Tensor, x: Tensor, mlp: Mlp | None) -> Tensor:
    """Return F3 = `sigmoid(bn(z)) * f2` with `z = conv(inner)`, update the running statistics, and keep `z` and `x`.

    Args:
        conv: The last convolution, C/r -> C.
        bn: Its batch norm, with scale, shift, running statistics and a momentum.
        inner: The bottleneck's map, (B, C/r, H, W).
        f2: What the gate multiplies, (B, C, H, W).
        x: What `f2` is the product of.
        mlp: The other factor; None where `f2` is `x`.
    """
    z = conv(inner)
    alone = not (conv._forward_hooks or _global_forward_hooks)  # else a hook may have kept `z`
    if bn.training and bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
    out: Tensor = _SpatialGate.apply(z, f2, bn.weight, bn.bias, bn, x.detach(), mlp, alone)
    return out


def _pieces(x: Tensor) -> Iterator[slice]:
    """Yield slices of the batch whose maps fit into the cache."""
    image = x[0].numel() * x.element_size() if len(x) else 1
    step = max(1, CACHE[x.device.type] // image)
    for first in range(0, len(x), step):
        yield slice(first, first + step)


def _facts(tensor: Tensor) -> tuple[object, ...]:
    """Return what tells a tensor from all others that are there at the same time."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _unpack(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    mlp, x = kept
    with torch.no_grad():
        f2: Tensor = mlp.product(x)
    return f2


def _graph_is_kept() -> bool:
    """Return whether the backward pass under way may be followed by another one over the same graph."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)  # as torch's own compiler does
    return ask is None or bool(ask())


class _ChannelGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mlp: Mlp, *parameters: Tensor) -> Tensor:
        ctx.mlp = mlp
        ctx.save_for_backward(x, *parameters)
        return mlp.product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        needs_x, needed = ctx.needs_input_grad[0], ctx.needs_input_grad[2:]
        trained = [p for p, need in zip(parameters, needed, strict=True) if need]
        grad_x = torch.empty_like(x) if needs_x else None
        sums = [torch.zeros_like(p) for p in trained]
        for piece in _pieces(x):
            part = x[piece].detach().requires_grad_(needs_x)
            with torch.enable_grad():
                gate = ctx.mlp(part)
            inputs = [part, *trained] if needs_x else trained
            found = list(torch.autograd.grad(gate, inputs, (grad[piece] * part.detach()).to(gate.dtype)))
            if grad_x is not None:
                torch.addcmul(found.pop(0), grad[piece], gate.detach(), out=grad_x[piece])
            for total, new in zip(sums, found, strict=True):
                total += new
        of_parameters = iter(sums)
        return (grad_x, None, *(next(of_parameters) if need else None for need in needed))


class _SpatialGate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        f2: Tensor,
        weight: Tensor,
        bias: Tensor,
        bn: nn.BatchNorm2d,
        x: Tensor,
        mlp: Mlp | None,
        alone: bool,
    ) -> Tensor:
        gate, mean, inverse = torch.native_batch_norm(
            z, weight, bias, bn.running_mean, bn.running_var, bn.training, bn.momentum or 0.0, bn.eps
        )
        if not bn.training:
            assert bn.running_mean is not None  # noqa: S101  # for the type checker
            assert bn.running_var is not None  # noqa: S101
            mean, inverse = bn.running_mean.clone(), torch.rsqrt(bn.running_var + bn.eps)
        ctx.training, ctx.mlp, ctx.alone, ctx.dtype = bn.training, mlp, alone, f2.dtype
        ctx.save_for_backward(z, weight, bias, mean, inverse, x)
        gate.sigmoid_()
        return gate.mul_(f2) if torch.result_type(gate, f2) == gate.dtype else gate * f2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, bias, mean, inverse, x = ctx.saved_tensors
        exact = torch.promote_types(weight.dtype, torch.float32)
        mean, inverse = mean.to(exact), inverse.to(exact)
        column = (-1, 1, 1)
        scale = weight.to(exact) * inverse
        shift = (bias.to(exact) - mean * scale).view(column)
        grad_z = torch.empty_like(z)  # until the second loop that of the batch norm's output
        total, moment = torch.zeros_like(scale), torch.zeros_like(scale)
        for piece in _pieces(z):
            f2 = x[piece] if ctx.mlp is None else ctx.mlp(x[piece]).mul(x[piece])
            part = z[piece].to(exact)
            gate = torch.addcmul(shift, part, scale.view(column)).sigmoid_()
            g = f2.to(exact) * grad[piece]
            g *= gate.addcmul_(gate, gate, value=-1)  # sigmoid's derivative
            total += g.sum((0, 2, 3))
            moment += (g * part).sum((0, 2, 3))
            grad_z[piece] = g
        grad_weight = (moment - mean * total) * inverse
        # Batch norm's backward pass (arXiv 1502.03167, section 3) is g a + z b + c with three numbers for each channel.
        by_z = -scale * inverse * grad_weight * (z.shape[1] / z.numel())
        rest = -scale * total * (z.shape[1] / z.numel()) - by_z * mean
        # Where nobody reads z again, what has been read of it makes room for the other gradient.
        reuses = ctx.alone and z.dtype == ctx.dtype and not _graph_is_kept()
        grad_f2 = z.detach() if reuses else torch.empty_like(z, dtype=ctx.dtype)
        for piece in _pieces(z):
            part = z[piece].to(exact)
            g = grad_z[piece].to(exact) * scale.view(column)
            if ctx.training:
                g.addcmul_(part, by_z.view(column)).add_(rest.view(column))
            grad_z[piece] = g
            gate = torch.addcmul(shift, part, scale.view(column)).sigmoid_()
            grad_f2[piece] = gate.mul_(grad[piece])
        return grad_z, grad_f2, grad_weight.to(weight.dtype), total.to(bias.dtype), None, None, None, None
