"""The least time that a device can need, by its own measured FLOP/s and bytes/s."""

from __future__ import annotations

import time

import torch
from torch import nn

from gam_speed.cases import Case
from gam_speed.results import Json
from gam_speed.timing import Step, wall_time

__all__ = ["floor", "passes", "peaks", "rate_of"]


def peaks(device: torch.device, quick: bool) -> Json:
    """Measure the device: bytes/s of a large copy, read and write counted, and FLOP/s of a large matrix product.

    On a CPU, FLOP/s of a large convolution if that has more: there the two come from different libraries.
    """

    def best(step: Step, flush: float = 0.3 if quick else 1.0) -> float:
        shortest, until = float("inf"), time.perf_counter() + flush
        while time.perf_counter() < until or shortest == float("inf"):
            shortest = min(shortest, wall_time(step, device)[0])
        return shortest

    gpu = device.type == "cuda"
    source = torch.ones(2**31 if gpu else 2**26, dtype=torch.uint8, device=device).view(torch.float32)
    target = torch.empty_like(source)
    target.copy_(source)
    result: Json = {"bytes_per_s": 2 * source.nbytes / best(lambda: target.copy_(source)), "flops_per_s": {}}
    n = 8192 if gpu else 1024
    dtypes = (torch.float32, torch.bfloat16, torch.float16) if gpu else (torch.float32, torch.bfloat16)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if gpu else before)  # cuDNN convolves float32 in TF32 by default
    for dtype in dtypes:
        a = torch.randn(n, n, device=device, dtype=dtype)
        rate = 2 * n**3 / best(lambda a=a: torch.mm(a, a))  # type: ignore[misc]
        if not gpu:
            images, channels, size, kernel = 4, 256, 32, 7
            conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, dtype=dtype)
            x = torch.randn(images, channels, size, size, dtype=dtype).to(memory_format=torch.channels_last)
            seconds = best(torch.inference_mode()(lambda conv=conv, x=x: conv(x)))
            rate = max(rate, 2 * images * (channels * kernel * size) ** 2 / seconds)
        result["flops_per_s"][str(dtype).removeprefix("torch.")] = rate
    torch.set_float32_matmul_precision(before)
    return result


def passes(convolutions: list[nn.Conv2d], hidden: int, case: Case) -> list[tuple[int, int]]:
    """Return FLOPs and bytes of each pass over the maps that no fusion can merge with the next.

    Args:
        convolutions: One after the other.
        hidden: Hidden channels of the MLP before them, whose gates come with it; 0 for bare convolutions.
        case: Shape, precision and mode.
    """
    pixels = case.batch * case.size**2
    width = 4 if case.dtype == "float32" else 2
    c = case.channels
    done: list[tuple[int, int]] = []

    def add(macs: int, values: int, weights: int = 0) -> None:
        done.append((2 * macs * pixels, width * (values * pixels + weights)))

    training = case.mode == "training"
    if hidden:
        add(2 * c * hidden, 2 * c, 2 * c * hidden)
    for conv in convolutions:
        weights = conv.weight.numel()
        fused = hidden and not training and conv is convolutions[-1]  # with the gate, which reads the map again
        add(weights, conv.in_channels + conv.out_channels + (c if fused else 0), weights)
    if not training:
        return done
    if hidden:
        add(0, 3 * c)  # the batch norm needs the whole map before the gate can be: read both, write the product
        add(0, 5 * c)  # its gradient: read both and the gradient, write both gradients
    for conv in convolutions:
        weights = conv.weight.numel()
        add(weights, conv.in_channels + conv.out_channels, weights)  # for the input
        add(weights, conv.in_channels + conv.out_channels, weights)  # for the weights
    if hidden:
        add(4 * c * hidden, 3 * c, 4 * c * hidden)
    return done


def rate_of(case: Case, device: torch.device) -> str:
    """Return the precision whose FLOP/s bound a case."""
    return case.dtype if case.dtype != "amp" else "float16" if device.type == "cuda" else "bfloat16"


def floor(work: list[tuple[int, int]], measured: Json, dtype: str) -> float:
    """Return the seconds that passes need at least, given the measured peaks of the device."""
    flops_per_s, bytes_per_s = float(measured["flops_per_s"][dtype]), float(measured["bytes_per_s"])
    return sum(max(f / flops_per_s, b / bytes_per_s) for f, b in work)
