"""What is known of each registered block, and `gam-yolo blocks`, which shows it."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from gam_yolo.errors import UserError

__all__ = ["Entry", "catalogue", "describe"]


@dataclass(frozen=True)
class Entry:
    """A registered block with its default arguments, at a given size.

    Attributes:
        name: What a YAML row calls it.
        parameters: Learnable numbers; None where the block refuses the channels.
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


def describe(name: str, channels: int = 256, size: int = 20) -> Entry:
    """Build a block and count it. It is built and run on the meta device, which takes no memory at any size.

    Args:
        name: The name that it is registered under.
        channels: Channels of the feature map.
        size: Height and width of the feature map.

    Raises:
        UserError: If there is no such block.
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
    return Entry(
        name=name,
        parameters=parameters,
        macs=macs,
        source=paper[0] if paper else block.__module__,
        description=text.partition("\n")[0].partition(": (")[0].rstrip("."),
        problem=problem,
    )


def catalogue(names: list[str] | None = None, channels: int = 256, size: int = 20) -> list[Entry]:
    """Describe the named blocks, or all that are registered, in the order of their names.

    Raises:
        UserError: If there is no block of a name.
    """
    from gam_yolo import registry

    return [describe(name, channels, size) for name in names or sorted(registry.BLOCKS, key=str.lower)]
