"""The definition of every block but GAM, written a second time without torch's layers, and its cost formulas.

The definitions read the block's own weights by their order, so a block with a layer more, less or elsewhere fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor, nn

from gam_yolo.blocks import (
    BAM,
    CAA,
    CBAM,
    ECA,
    ELA,
    EMA,
    LSKA,
    MLCA,
    SCSA,
    SE,
    CoordAtt,
    SimAM,
    Triplet,
    UltralyticsCBAM,
)
from gam_yolo.blocks.parts import ConvBN


def randomised(block: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and running statistic a value that leaves no term of the formula out."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for t in [*block.parameters(), *block.buffers()]:
            if t.is_floating_point():
                t.copy_(torch.rand(t.shape, generator=g, dtype=t.dtype) * 0.4 + (0.8 if t.ndim == 1 else -0.2))
    return block


def sigma(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


class Gates:
    """The two kinds of gates, `peak * sigmoid(gain z)` and the raw `gain z`; a test of `start: zero` sets them."""

    peak, gain = 1.0, 1.0


def gate(z: Tensor) -> Tensor:
    return Gates.peak * sigma(Gates.gain * z)


def raw(z: Tensor) -> Tensor:
    return Gates.gain * z


def conv(x: Tensor, layer: nn.Module, dilation: int = 1) -> Tensor:
    """A zero-padded "same" convolution from patches and one einsum, without torch's convolution."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    b, _, h, w = x.shape
    out, _, k, _ = weight.shape
    patches = F.unfold(x, k, padding=dilation * (k // 2), dilation=dilation)
    y = torch.einsum("bip,oi->bop", patches, weight.flatten(1)).view(b, out, h, w)
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def conv_bn(x: Tensor, layer: ConvBN, dilation: int = 1) -> Tensor:
    x, bn = conv(x, layer.conv, dilation), layer.bn
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    many = x[:, 0].numel() > 1  # one value has no statistics: the running ones serve
    mean = x.mean((0, 2, 3)) if bn.training and many else bn.running_mean
    var = x.var((0, 2, 3), unbiased=False) if bn.training and many else bn.running_var
    x = (x - mean.view(1, -1, 1, 1)) / torch.sqrt(var.view(1, -1, 1, 1) + bn.eps)
    return x * bn.weight.view(1, -1, 1, 1) + bn.bias.view(1, -1, 1, 1)


def convs(block: nn.Module) -> list[Any]:
    """The block's convolutions, with their batch norms where they have one, in the order of definition."""
    inside = {m.conv for m in block.modules() if isinstance(m, ConvBN)}
    kinds = (ConvBN, nn.Conv2d, nn.Conv1d)
    return [m for m in block.modules() if isinstance(m, kinds) and m not in inside]


def max_mean(x: Tensor, axis: int) -> Tensor:
    return torch.cat((x.max(axis, keepdim=True)[0], x.sum(axis, keepdim=True) / x.shape[axis]), axis)


def se(block: nn.Module, x: Tensor) -> Tensor:
    w1, w2 = convs(block)
    squeezed = x.flatten(2).sum(2) / x[0, 0].numel()
    hidden = (squeezed @ w1.weight.flatten(1).T + w1.bias).clamp(min=0)
    return x * gate(hidden @ w2.weight.flatten(1).T + w2.bias)[:, :, None, None]


def cbam(block: nn.Module, x: Tensor) -> Tensor:
    w1, w2, spatial = convs(block)
    logits = torch.zeros(x.shape[:2], dtype=x.dtype)
    for pooled in (x.flatten(2).mean(2), x.flatten(2).max(2)[0]):
        logits = logits + (pooled @ w1.weight.flatten(1).T + w1.bias).clamp(min=0) @ w2.weight.flatten(1).T + w2.bias
    f1 = x * gate(logits)[:, :, None, None]
    return f1 * gate(conv_bn(max_mean(f1, 1), spatial))


def ultralytics_cbam(block: nn.Module, x: Tensor) -> Tensor:
    channel, spatial = convs(block)
    f1 = x * gate(x.flatten(2).mean(2) @ channel.weight.flatten(1).T + channel.bias)[:, :, None, None]
    return f1 * gate(conv(max_mean(f1, 1).flip(1), spatial))  # [mean; max], the other way round


def bam(block: nn.Module, x: Tensor) -> Tensor:
    fc1, fc2, *layers, last = convs(block)
    mc = conv(conv_bn(x.mean((2, 3), keepdim=True), fc1).clamp(min=0), fc2)
    ms = x
    for layer, dilation in zip(layers, (1, 4, 4), strict=True):
        ms = conv_bn(ms, layer, dilation).clamp(min=0)
    return x + x * gate(mc + conv(ms, last))


def triplet(block: nn.Module, x: Tensor) -> Tensor:
    """As the official code has it: rotate the map, pool its first axis, gate, rotate back; mean of the three."""
    cw, hc, hw = convs(block)
    out = torch.zeros_like(x)
    for layer, turn in ((cw, (0, 2, 1, 3)), (hc, (0, 3, 2, 1)), (hw, (0, 1, 2, 3))):
        turned = x.permute(turn)
        out = out + (turned * gate(conv_bn(max_mean(turned, 1), layer))).permute(turn)  # each turn undoes itself
    return out / 3


def eca(block: nn.Module, x: Tensor) -> Tensor:
    (layer,) = convs(block)
    k = layer.weight.numel()
    padded = F.pad(x.flatten(2).mean(2), (k // 2, k // 2))
    along = gate(padded.unfold(1, k, 1) @ layer.weight.flatten())
    return x * along[:, :, None, None]


def coordatt(block: nn.Module, x: Tensor) -> Tensor:
    shared, conv_h, conv_w = convs(block)
    h = x.shape[2]
    strip = torch.cat((x.mean(3), x.mean(2)), 2).unsqueeze(3)  # (B, C, H + W, 1)
    f = conv_bn(strip, shared)
    f = f * (f + 3).clamp(0, 6) / 6
    g_h = gate(conv(f[:, :, :h], conv_h))
    g_w = gate(conv(f[:, :, h:], conv_w)).permute(0, 1, 3, 2)
    return x * g_h * g_w


def simam(_: nn.Module, x: Tensor) -> Tensor:
    n = x.shape[2] * x.shape[3] - 1
    d = (x - x.mean((2, 3), keepdim=True)) ** 2
    return x * sigma(d / (4 * (d.sum((2, 3), keepdim=True) / n + 1e-4)) + 0.5)


def depthwise(x: Tensor, layer: Any, dilation: int = 1) -> Tensor:
    """One kernel per channel, tap by tap, over a map (B, C, H, W) or a strip (B, C, L)."""
    weight = layer.weight.flatten(1)
    kh, kw = layer.kernel_size if x.ndim == 4 else (1, layer.kernel_size[0])
    y4 = x if x.ndim == 4 else x.unsqueeze(2)
    h, w = y4.shape[2:]
    ph, pw = dilation * (kh // 2), dilation * (kw // 2)
    padded = F.pad(y4, (pw, pw, ph, ph))
    out = torch.zeros_like(y4)
    for tap in range(kh * kw):
        i, j = dilation * (tap // kw), dilation * (tap % kw)
        out = out + weight[:, tap].view(1, -1, 1, 1) * padded[:, :, i : i + h, j : j + w]
    if layer.bias is not None:
        out = out + layer.bias.view(1, -1, 1, 1)
    return out.view(x.shape)


def group_norm(x: Tensor, layer: Any, groups: int) -> Tensor:
    parts = x.reshape(x.shape[0], groups, -1)
    centred = parts - parts.mean(2, keepdim=True)
    scaled = (centred / torch.sqrt((centred**2).mean(2, keepdim=True) + layer.eps)).view(x.shape)
    shape = (1, -1, *[1] * (x.ndim - 2))
    out: Tensor = scaled * layer.weight.view(shape) + layer.bias.view(shape)
    return out


def norms(block: nn.Module) -> list[Any]:
    return [m for m in block.modules() if isinstance(m, nn.GroupNorm)]


def ema(block: nn.Module, x: Tensor) -> Tensor:
    """Group by group, where the block folds the groups into the batch."""
    (conv1, conv3), (norm,) = convs(block), norms(block)
    n = {32: 2, 64: 2, 128: 4}[x.shape[1]]
    h, out = x.shape[2], []
    for part in x.split(n, 1):
        strip = conv(torch.cat((part.mean(3), part.mean(2)), 2).unsqueeze(3), conv1).squeeze(3)
        scaled = part * sigma(strip[:, :, :h, None]) * sigma(strip[:, :, None, h:])
        x1, x2 = group_norm(scaled, norm, n), conv(part, conv3)
        logits = torch.zeros_like(part[:, :1])
        for a, b in ((x1, x2), (x2, x1)):
            e = torch.exp(a.flatten(2).mean(2))
            logits = logits + torch.einsum("bc,bchw->bhw", e / e.sum(1, keepdim=True), b).unsqueeze(1)
        out.append(part * gate(logits))
    return torch.cat(out, 1)


def spans(n: int, m: int) -> list[slice]:
    """The m cells of an adaptive mean over n values."""
    return [slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def adaptive(x: Tensor, height: int, width: int) -> Tensor:
    rows = torch.stack([x[:, :, cell].mean(2) for cell in spans(x.shape[2], height)], 2)
    return torch.stack([rows[..., cell].mean(3) for cell in spans(x.shape[3], width)], 3)


def mlca(block: nn.Module, x: Tensor) -> Tensor:
    whole, cells = (layer.weight.flatten() for layer in convs(block))
    p, k = adaptive(x, 5, 5), len(whole)

    def along(line: Tensor, weight: Tensor) -> Tensor:
        return F.pad(line, (k // 2, k // 2)).unfold(1, k, 1) @ weight

    everywhere = gate(along(p.mean((2, 3)), whole))[:, :, None, None]
    line = torch.cat([p[:, :, i, j] for i in range(5) for j in range(5)], 1)
    local = torch.stack(along(line, cells).split(x.shape[1], 1), 2).view(p.shape)
    return x * adaptive((everywhere + gate(local)) / 2, *x.shape[2:])


def caa(block: nn.Module, x: Tensor) -> Tensor:
    first, wide, tall, second = convs(block)
    y = F.unfold(x, 7, padding=3).view(*x.shape[:2], 49, *x.shape[2:]).sum(2) / 49
    y = conv_bn(y, first)
    y = conv_bn(depthwise(depthwise(y * sigma(y), wide), tall), second)
    return x * gate(y * sigma(y))


def lska(block: nn.Module, x: Tensor, d: int = 2) -> Tensor:
    *strips, last = convs(block)
    y = x
    for layer, dilation in zip(strips, (1, 1, d, d), strict=True):
        y = depthwise(y, layer, dilation)
    return x * raw(conv(y, last))


def ela(block: nn.Module, x: Tensor) -> Tensor:
    (layer,), (norm,) = convs(block), norms(block)
    a_h, a_w = (gate(group_norm(depthwise(x.mean(axis), layer), norm, 16)) for axis in (3, 2))
    return x * a_h[:, :, :, None] * a_w[:, :, None]


def scsa(block: nn.Module, x: Tensor) -> Tensor:
    """With the products of attention and values at each window, and their mean last, as the official code has it."""
    *strips, q, k, v = convs(block)
    norm_h, norm_w, norm = norms(block)
    b, c, h, w = x.shape

    def strip(z: Tensor) -> Tensor:
        return torch.cat([depthwise(part, layer) for part, layer in zip(z.split(c // 4, 1), strips, strict=True)], 1)

    f1 = x * gate(group_norm(strip(x.mean(3)), norm_h, 4))[:, :, :, None]
    f1 = f1 * gate(group_norm(strip(x.mean(2)), norm_w, 4))[:, :, None]
    height, width = min(7, h), min(7, w)
    windows = f1[:, :, : h // height * height, : w // width * width]
    p = windows.reshape(b, c, h // height, height, w // width, width).mean((3, 5))
    p = group_norm(p, norm, 1).flatten(2)
    q, k, v = ((p * layer.weight.view(1, c, 1)).view(b, 8, c // 8, -1) for layer in (q, k, v))
    e = torch.exp(torch.einsum("bhin,bhjn->bhij", q, k) / (c // 8) ** 0.5)
    attended = torch.einsum("bhij,bhjn->bhin", e / e.sum(3, keepdim=True), v)
    return f1 * gate(attended.mean(3).view(b, c))[:, :, None, None]


Definition = Callable[[nn.Module, Tensor], Tensor]
DEFINITIONS: dict[type[nn.Module], Definition] = {
    SE: se,
    CBAM: cbam,
    UltralyticsCBAM: ultralytics_cbam,
    BAM: bam,
    Triplet: triplet,
    ECA: eca,
    CoordAtt: coordatt,
    SimAM: simam,
    EMA: ema,
    MLCA: mlca,
    CAA: caa,
    LSKA: lska,
    ELA: ela,
    SCSA: scsa,
}
ECA_KERNEL = {8: 3, 64: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 2048: 7}  # (log2 C + 1) / 2, cut, made odd


def parameters(c: int) -> dict[type[nn.Module], int]:
    m, n, strip = c // 16, c // 32, max(8, c // 32)
    return {
        SE: 2 * c * m + c + m,
        CBAM: 2 * c * m + c + m + 2 * 49 + 2,
        UltralyticsCBAM: c * c + c + 2 * 49,
        BAM: 3 * c * m + 18 * m * m + c + 13 * m + 1,
        Triplet: 300,
        ECA: ECA_KERNEL[c],
        CoordAtt: 3 * c * strip + 2 * c + 3 * strip,
        SimAM: 0,
        EMA: 10 * n * n + 4 * n,
        MLCA: 2 * ECA_KERNEL[c],
        CAA: 2 * c * c + 28 * c,
        LSKA: c * c + 17 * c,
        ELA: 9 * c,
        SCSA: 16 * c,
    }


def multiply_adds(c: int, h: int, w: int) -> dict[type[nn.Module], int]:
    m, n, strip = c // 16, c // 32, max(8, c // 32)
    windows = max(1, h // 7) * max(1, w // 7)
    return {
        SE: 2 * c * m,
        CBAM: 4 * c * m + 98 * h * w,
        UltralyticsCBAM: c * c + 98 * h * w,
        BAM: 2 * c * m + h * w * (c * m + 18 * m * m + m),
        Triplet: 98 * (c * w + h * c + h * w),
        ECA: c * ECA_KERNEL[c],
        CoordAtt: 2 * c * strip * (h + w),
        SimAM: 0,
        EMA: c * n * (h + w + 9 * h * w) + 2 * c * h * w,
        MLCA: 26 * c * ECA_KERNEL[c],
        CAA: h * w * (2 * c * c + 22 * c),
        LSKA: h * w * (c * c + 12 * c),
        ELA: 7 * c * (h + w),
        SCSA: 6 * c * (h + w) + 3 * c * windows + c * c // 8 * (windows + 1),
    }
