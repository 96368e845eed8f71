"""Describe registered blocks: parameters, multiply-adds, source."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass

from gam_yolo.errors import UserError

__all__ = ["BlockInfo", "blocks", "describe"]


@dataclass(frozen=True)
class BlockInfo:
    """A registered block with its default arguments, at a given size.

    Attributes:
        name: What a YAML row calls it.
        parameters: Learnable numbers; None where the block cannot be built with these channels.
        macs: Multiply-adds of convolutions and matrix products for one image, as torch counts them; None where the
            block does not run at that size.
        source: The paper or repository that its docstring names first, or else the module that defines it.
        description: The first line of its docstring.
        problem: Why a number is missing, or an empty string.
    """

    name: str
    parameters: int | None
    macs: int | None
    source: str
    description: str
    problem: str


def describe(name: str, channels: int = 256, size: int = 20) -> BlockInfo:
    """Build a block and count it, on the meta device, which takes no memory at any size.

    Args:
        name: The name that it is registered under.
        channels: Channels of the feature map.
        size: Height and width of the feature map.

    Raises:
        UserError: There is no such block.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from gam_yolo import registry

    block = registry.get(name)
    text = inspect.getdoc(block) or ""
    parameters = macs = None
    problem = ""
    try:
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            built = block(channels).eval()
            parameters = sum(p.numel() for p in built.parameters())
            built(torch.empty(1, channels, size, size))
            macs = counter.get_total_flops() // 2
    except Exception as error:  # a block of the user's own may raise anything
        problem = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    paper = re.search(r"arXiv \d{4}\.\d{4,5}", text) or re.search(r"github\.com/[\w.-]+/[\w-]+", text)
    return BlockInfo(
        name=name,
        parameters=parameters,
        macs=macs,
        source=paper[0] if paper else block.__module__,
        description=text.partition("\n")[0].partition(": (")[0].rstrip("."),
        problem=problem,
    )


def blocks(names: Iterable[str] | None = None, *, channels: int = 256, size: int = 20) -> list[BlockInfo]:
    """Describe the named blocks, or all that are registered, in the order of their names.

    Args:
        names: Names of blocks; None or nothing for all.
        channels: Channels of the feature map.
        size: Height and width of the feature map.

    Raises:
        UserError: There is no block of a name.

    Examples:
        >>> import gam_yolo
        >>> [(info.name, info.parameters) for info in gam_yolo.blocks(["GAM", "SimAM"])]
        [('GAM', 1639680), ('SimAM', 0)]
    """
    from gam_yolo import registry

    chosen = [names] if isinstance(names, str) else list(names or sorted(registry.BLOCKS, key=str.lower))
    for key, value in (("channels", channels), ("size", size)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{key} is {value!r}", expected="a whole number from 1")
    return [describe(name, channels, size) for name in chosen]
