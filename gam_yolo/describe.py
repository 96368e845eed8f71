"""Describe registered blocks: what they compute and cost, and what a row of a model YAML can say about them."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gam_yolo.errors import UserError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Argument", "BlockInfo", "Preset", "blocks", "describe", "make_callable"]


@dataclass(frozen=True)
class Argument:
    """An argument of a block's row.

    Attributes:
        name: Its name.
        default: Its default; None where it has none.
        required: Whether it has no default.
        meaning: What the block's docstring says about it.
    """

    name: str
    default: object
    required: bool
    meaning: str


@dataclass(frozen=True)
class Preset:
    """A named choice of a block's arguments.

    Attributes:
        name: Its name.
        arguments: The arguments that it sets.
        parameters: Learnable numbers, or None where the block cannot be built with these channels.
        macs: Multiply-adds, or None where it does not run.
    """

    name: str
    arguments: Mapping[str, object]
    parameters: int | None
    macs: int | None


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
        equation: The formula in its docstring, or an empty string.
        arguments: What a row can give, in the order of positions.
        presets: The named choices of its arguments.
        starts: The values of `start` that it accepts.
        row: A row of a model YAML that places it, with the start that changes a pretrained model least.
    """

    name: str
    parameters: int | None
    macs: int | None
    source: str
    description: str
    problem: str
    equation: str
    arguments: tuple[Argument, ...]
    presets: tuple[Preset, ...]
    starts: tuple[str, ...]
    row: str


def describe(name: str, channels: int = 256, size: int = 20) -> BlockInfo:
    """Build a block and count it, on the meta device, which takes no memory at any size.

    Args:
        name: The name that it is registered under.
        channels: Channels of the feature map.
        size: Height and width of the feature map.

    Raises:
        UserError: There is no such block.
    """
    from gam_yolo import registry
    from gam_yolo.blocks.parts import STARTS

    block = registry.get(name)
    text = inspect.getdoc(block) or ""
    parameters, macs, problem = _count(block, channels, size)
    _, *others = inspect.signature(block).parameters.values()
    meanings = _meanings(text)
    arguments = tuple(
        Argument(p.name, None if (required := p.default is p.empty) else p.default, required, meanings.get(p.name, ""))
        for p in others
    )
    accepts = {argument.name for argument in arguments}
    presets = getattr(sys.modules[block.__module__], "PRESETS", {}) if "preset" in accepts else {}
    starts = tuple(
        start for start in (STARTS if "start" in accepts else ()) if not _count(block, channels, size, start=start)[2]
    )
    paper = re.search(r"arXiv \d{4}\.\d{4,5}", text) or re.search(r"github\.com/[\w.-]+/[\w-]+", text)
    formula = re.match(r"[^\n]*\n\n((?:    .*\n?)+)", text)
    return BlockInfo(
        name=name,
        parameters=parameters,
        macs=macs,
        source=paper[0] if paper else block.__module__,
        description=text.partition("\n")[0].partition(": (")[0].rstrip("."),
        problem=problem,
        equation=inspect.cleandoc("\n" + formula[1]) if formula else "",
        arguments=arguments,
        presets=tuple(
            Preset(key, given, *_count(block, channels, size, preset=key)[:2]) for key, given in presets.items()
        ),
        starts=starts,
        row=f"[-1, 1, {name}, [{'{start: ' + starts[-1] + '}' if len(starts) > 1 else ''}]]",
    )


def blocks(names: Iterable[str] | None = None, *, channels: int = 256, size: int = 20) -> list[BlockInfo]:
    """Describe the named blocks, or all that are registered, in the order of their names.

    Args:
        names: One name, or several; None or nothing for all.
        channels: Channels of the feature map.
        size: Height and width of the feature map.

    Raises:
        UserError: There is no block of a name.

    Examples:
        >>> import gam_yolo
        >>> [(info.name, info.parameters) for info in gam_yolo.blocks(["GAM", "SimAM"])]
        [('GAM', 1639680), ('SimAM', 0)]
        >>> gam_yolo.blocks("GAM")[0].row
        '[-1, 1, GAM, [{start: zero}]]'
    """
    from gam_yolo import registry

    chosen = [names] if isinstance(names, str) else list(names or sorted(registry.BLOCKS, key=str.lower))
    for key, value in (("channels", channels), ("size", size)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{key} is {value!r}", expected="a whole number from 1")
    return [describe(name, channels, size) for name in chosen]


def _count(block: type[nn.Module], channels: int, size: int, **arguments: Any) -> tuple[int | None, int | None, str]:
    """Return parameters, multiply-adds, and why one of them is missing."""
    import torch

    from gam_yolo.meta import meta_device

    parameters = macs = None
    try:
        with meta_device():
            built = block(channels, **arguments).eval()
        parameters = sum(p.numel() for p in built.parameters())
        with meta_device() as shapes, torch.no_grad():
            image = torch.empty(1, channels, size, size)
            built(image)
        macs = shapes.macs
        if not shapes.complete:  # the block calls functions that may hide products
            from torch.utils.flop_counter import FlopCounterMode

            with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
                built(image)
            macs = counter.get_total_flops() // 2
    except Exception as error:  # a block of the user's own may raise anything
        return parameters, None, str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return parameters, macs, ""


def _meanings(text: str) -> dict[str, str]:
    """Return what the section `Args` of a docstring says about each argument."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, re.M)
    found = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.M)
    return {name: " ".join(meaning.split()) for name, meaning in found}


class _CallablePackage(ModuleType):
    def __call__(
        self, names: Iterable[str] | None = None, *, channels: int = 256, size: int = 20
    ) -> list[BlockInfo]:  # what `inspect.signature` and editors show
        return blocks(names, channels=channels, size=size)

    __call__.__doc__ = blocks.__doc__


def make_callable(package: ModuleType) -> None:
    """Let the package `gam_yolo.blocks` be called as the function `blocks`.

    The package needs its name because checkpoints name its modules, and the function needs the same name to be what a
    user expects.
    """
    package.__class__ = _CallablePackage
    package.__doc__ = f"{package.__doc__}\nblocks{inspect.signature(blocks)}\n    {blocks.__doc__}"  # what `help` shows
