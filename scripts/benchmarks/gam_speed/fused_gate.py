"""GAM's channel gate x * MLP(x) as one GPU kernel that reads x once, a candidate in `benchmark_gam.py`.

torch's own operations read or write the whole map five times (two convolutions, the ReLU, the product); this reads it
once, keeps the hidden values of its pixels on the chip, and writes the result. It is for the forward pass. It goes into
the package if it wins on a GPU; until it has been measured on one, nothing uses it.

Without a GPU, `TRITON_INTERPRET=1` runs it on the CPU, which is how the tests hold it against the plain form.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

__all__ = ["fused_gate"]

PIXELS, CHANNELS = 64, 32  # of a tile


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]  # a language of its own
    x, out, w1, b1, w2, b2, pixels, channels, hidden,
    image_stride, channel_stride, pixel_stride,
    sigmoid_gate: tl.constexpr, precision: tl.constexpr, tile_pixels: tl.constexpr, tile_channels: tl.constexpr,
    units: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * tile_pixels + tl.arange(0, tile_pixels)
    base = tl.program_id(1).to(tl.int64) * image_stride
    unit = tl.arange(0, units)
    total = tl.full((tile_pixels, units), 0.0, tl.float32)
    for first in range(0, channels, tile_channels):
        channel = first + tl.arange(0, tile_channels)
        inside = (pixel[:, None] < pixels) & (channel[None, :] < channels)
        at = base + pixel[:, None] * pixel_stride + channel[None, :] * channel_stride
        part = tl.load(x + at, mask=inside, other=0.0)
        known = (unit[None, :] < hidden) & (channel[:, None] < channels)
        weight = tl.load(w1 + unit[None, :] * channels + channel[:, None], mask=known, other=0.0)
        total = tl.dot(part, weight, total, input_precision=precision)
    total += tl.load(b1 + unit, mask=unit < hidden, other=0.0)[None, :]
    relu = tl.maximum(total, 0.0).to(x.dtype.element_ty)
    for first in range(0, channels, tile_channels):
        channel = first + tl.arange(0, tile_channels)
        inside = (pixel[:, None] < pixels) & (channel[None, :] < channels)
        at = base + pixel[:, None] * pixel_stride + channel[None, :] * channel_stride
        known = (unit[:, None] < hidden) & (channel[None, :] < channels)
        weight = tl.load(w2 + channel[None, :] * hidden + unit[:, None], mask=known, other=0.0)
        gate = tl.dot(relu, weight, input_precision=precision)
        gate += tl.load(b2 + channel, mask=channel < channels, other=0.0)[None, :]
        if sigmoid_gate:
            gate = 1 / (1 + tl.exp(-gate))
        part = tl.load(x + at, mask=inside, other=0.0)  # from the cache by now
        tl.store(out + at, (gate * part).to(x.dtype.element_ty), mask=inside)


def fused_gate(x: Tensor, mlp: nn.Sequential) -> Tensor:
    """Return `mlp(x) * x`.

    Args:
        x: (B, C, H, W), contiguous or channels-last, of the parameters' dtype.
        mlp: The channel branch of `GAM`: 1x1 convolution, ReLU, 1x1 convolution, and perhaps a sigmoid.
    """
    first, _, second, *sigmoid = mlp
    batch, channels, height, width = x.shape
    out = torch.empty_like(x)
    hidden = first.out_channels
    grid = (triton.cdiv(height * width, PIXELS), batch)
    _kernel[grid](
        x, out, first.weight, first.bias, second.weight, second.bias, height * width, channels, hidden,
        x.stride(0), x.stride(1), x.stride(3),
        sigmoid_gate=bool(sigmoid), precision="ieee", tile_pixels=PIXELS, tile_channels=CHANNELS,
        units=max(16, triton.next_power_of_2(hidden)),
    )  # fmt: skip
    return out
