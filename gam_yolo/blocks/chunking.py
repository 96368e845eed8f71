"""Process a batch a few images at a time, so that intermediate maps stay in the cache until they are used.

On a CPU the images are also converted to the channels-last format. With few images oneDNN's convolutions gain more from
that format than the conversion costs: up to twice the speed for grouped convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil

import torch
from torch import Tensor

from gam_yolo.blocks.parts import tracing

__all__ = ["DEVICES", "applies", "by_images", "format_of", "pieces", "room", "working_format"]

DEVICES = {"cpu": 1 << 21, "cuda": 1 << 24}
"""Device types where this is known to be faster, and the bytes of a map processed at a time: about the second-level
caches of two server cores, and a third of the cache of a large GPU."""


def applies(x: Tensor) -> bool:
    """Return whether inference by images is faster for the format alone: on a CPU, unless traced or compiled."""
    return x.device.type == "cpu" and not (torch.is_grad_enabled() or tracing() or torch.compiler.is_compiling())


def format_of(x: Tensor) -> torch.memory_format:
    """Return the memory format of a map."""
    plain = x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last)
    return torch.contiguous_format if plain else torch.channels_last


def working_format(x: Tensor) -> torch.memory_format:
    """Return the memory format in which images of `x` are processed."""
    on_onednn = x.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return torch.channels_last if on_onednn else format_of(x)  # elsewhere conversion gains nothing


def pieces(x: Tensor, *others: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yield slices of the batch and the parts of the maps there, in the working format.

    Args:
        x: (B, C, H, W); its size decides how many images are taken at a time.
        others: Maps of the same batch.
    """
    memory = working_format(x)
    fit = max(1, DEVICES[x.device.type] * len(x) // max(1, x.nbytes))
    step = ceil(len(x) / ceil(len(x) / fit)) if len(x) else 1  # pieces of about equal size
    for first in range(0, max(1, len(x)), step):
        piece = slice(first, first + step)
        yield piece, [whole[piece].contiguous(memory_format=memory) for whole in (x, *others)]


def room(x: Tensor, dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    """Return an empty map of the shape of `x`."""
    return torch.empty(x.shape, dtype=dtype, device=x.device, memory_format=memory_format)


def by_images(function: Callable[..., Tensor], *maps: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Return the result of a function that treats each image independently, computed a few images at a time.

    Args:
        function: Takes some images of each map.
        maps: (B, C, H, W) each; the size of the first decides how many images are taken at a time.
        memory_format: Memory format of the result.
    """
    batch = len(maps[0])
    out: Tensor | None = None
    for piece, parts in pieces(*maps):
        made = function(*parts)
        if len(made) == batch:
            return made.contiguous(memory_format=memory_format)
        if out is None:
            out = room(made[:1].expand(batch, *made.shape[1:]), made.dtype, memory_format)
        out[piece] = made
    assert out is not None  # noqa: S101  # for the type checker: there is at least one piece
    return out
