"""The shapes, precisions and formats that blocks are measured in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["Case", "cases"]

WIDTHS = {"n": (64, 128, 256), "s": (128, 256, 512), "m": (192, 384, 576)}
SIZES = {"P3": 80, "P4": 40, "P5": 20}


@dataclass(frozen=True)
class Case:
    """What a block is measured on.

    Attributes:
        scale: Of YOLOv8, which gives the channels.
        level: Of the pyramid, which gives the size at 640 px.
        batch: Images.
        dtype: `float32`, `bfloat16` (weights and maps), or `amp` (autocast: float16 on a GPU, bfloat16 on a CPU).
        memory_format: Of weights and maps.
        mode: `inference` or `training`.
        compared: `all` presets, `blog` alone, or blog `compiled` too; always with the articles' code and the limits.
    """

    scale: str
    level: str
    batch: int
    dtype: str
    memory_format: str
    mode: str
    compared: str

    @property
    def channels(self) -> int:
        """Channels of the map."""
        return WIDTHS[self.scale][list(SIZES).index(self.level)]

    @property
    def size(self) -> int:
        """Height and width of the map."""
        return SIZES[self.level]

    def __str__(self) -> str:
        shape = f"{self.batch}x{self.channels}x{self.size}x{self.size}"
        return f"{self.scale} {self.level} {shape} {self.dtype} {self.memory_format} {self.mode}"


def cases(gpu: bool, quick: bool) -> Iterator[Case]:
    """Yield the cases, what the aims need first."""

    def product(
        scales: str, batches: Iterable[int], dtypes: str, formats: str, which: str, levels: str
    ) -> Iterator[Case]:
        for dtype, memory, batch, scale, level, mode in itertools.product(
            dtypes.split(), formats.split(), batches, scales, levels.split(), ("inference", "training")
        ):
            yield Case(scale, level, batch, dtype, memory, mode, which)

    every, both = "P3 P4 P5", "contiguous channels_last"
    if quick:
        batch = 16 if gpu else 8
        dtype = "bfloat16" if gpu else "float32"
        yield from product("n", [batch], dtype, "contiguous", "all", "P4")
        yield from product("n", [batch], dtype, "contiguous", "blog", "P3 P5")
        yield from product("n", [1], "float32 bfloat16 amp", both, "blog", "P5")
        if gpu:
            yield from product("n", [batch], "bfloat16", "channels_last", "compiled", "P4")
    elif gpu:
        yield from product("ns", [16], "bfloat16", both, "all", every)
        yield from product("ns", [1, 64], "bfloat16", both, "blog", every)
        yield from product("ns", [1, 16, 64], "amp float32", both, "blog", every)
        yield from product("n", [16], "bfloat16", "channels_last", "compiled", "P3 P5")
        yield from product("m", [16, 1, 64], "bfloat16 amp float32", "channels_last", "blog", every)
        yield from product("n", [16], "amp", "channels_last", "compiled", every)
        yield from product("n", [16], "amp float32", "contiguous", "all", every)
        yield from product("s", [16], "bfloat16", "channels_last", "compiled", every)
    else:
        yield from product("ns", [8, 1], "float32", "contiguous", "all", every)
        yield from product("ns", [8, 1], "float32", "channels_last", "blog", every)
        yield from product("n", [8, 1], "amp bfloat16", "contiguous", "all", every)
        yield from product("m", [1], "float32", "contiguous", "blog", every)
        yield from product("n", [8], "amp bfloat16", "channels_last", "blog", every)
        yield from product("s", [8], "amp bfloat16", "contiguous", "blog", every)
        yield from product("m", [8], "float32", "contiguous", "blog", every)
        yield from product("m", [8], "amp bfloat16", "contiguous", "blog", every)
