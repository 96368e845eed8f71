"""The blocks that a model YAML may name: name -> class."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar, overload

import torch
from torch import nn

from gam_yolo import blocks as _blocks
from gam_yolo import ultralytics_api
from gam_yolo.discovery import discover
from gam_yolo.errors import UserError, nearest

__all__ = ["BLOCKS", "get", "not_loaded", "register"]

B = TypeVar("B", bound=type[nn.Module])

_registered: dict[str, type[nn.Module]] = {}

BLOCKS: Mapping[str, type[nn.Module]] = MappingProxyType(_registered)
"""Every registered block by name, in the order of registration; read-only."""


@overload
def register(block: B) -> B: ...
@overload
def register(block: None = None, *, name: str | None = None, override: bool = False) -> Callable[[B], B]: ...
def register(block: B | None = None, *, name: str | None = None, override: bool = False) -> B | Callable[[B], B]:
    """Make an `nn.Module` class placeable from a model YAML by name, and its checkpoints safe-loadable.

    The class's first argument is the channel count of its input, which the parser fills in; its other arguments are
    what a YAML row gives, by position or by name. It has to keep the shape (B, C, H, W) of its input.

    A registration lasts as long as its process. For the `yolo` command and the workers it starts to find a block,
    the module that registers it has to be found by them, see `gam_yolo.discovery` and `docs/own-block.md`.

    Args:
        block: The class, where `register` is used as a bare decorator.
        name: The name in YAML rows; by default the class's own.
        override: Replace a name that is taken, by a block or by anything in `ultralytics.nn.tasks`.

    Returns:
        The class itself, or, with options, a decorator that returns it.

    Raises:
        UserError: If the name is taken or is not a Python name, the object is no `nn.Module` class, or an argument
            can only be given by keyword.

    Examples:
        >>> @register(name="Halve")
        ... class Halve(nn.Module):
        ...     def __init__(self, c: int, by: float = 2.0) -> None:
        ...         super().__init__()
        ...         self.by = by
        ...
        ...     def forward(self, x):
        ...         return x / self.by
    """
    if block is None:
        return lambda block: _register(block, name or block.__name__, override)
    return _register(block, block.__name__, override=False)


def _register(block: B, name: str, override: bool) -> B:
    if not (isinstance(block, type) and issubclass(block, nn.Module)):
        raise UserError(f"cannot register '{name}': {block!r} is not a class derived from torch.nn.Module")
    parameters = list(inspect.signature(block).parameters.values())
    if not parameters or any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in parameters):
        raise UserError(
            f"cannot register '{name}': {block.__name__}{inspect.signature(block)} must take the channel count first "
            "and every further argument by position or by name (no *, *args or **kwargs)"
        )
    if not name.isidentifier():
        raise UserError(f"cannot register '{name}': a row's name is a Python name, of letters, digits and underscores")
    if not override and (taken := _taken(name, block)):
        raise UserError(f"cannot register '{name}': the name is taken by {taken}; choose another or pass override=True")
    _registered[name] = block
    # A checkpoint names the block's parts too: the modules that its file defines or imports.
    parts = [
        v for v in vars(sys.modules[block.__module__]).values() if isinstance(v, type) and issubclass(v, nn.Module)
    ]
    torch.serialization.add_safe_globals([block, *parts])
    return block


def _taken(name: str, block: type[nn.Module]) -> str:
    """Say what has the name already, or nothing. The same class defined again, as a notebook's cell does, may."""
    # Ultralytics is imported for this only where a user registers a block: our own names are known to be free.
    own = block.__module__.startswith("gam_yolo.")
    reserved = {} if own else vars(ultralytics_api.tasks())
    for taker in (_registered.get(name), reserved.get(name)):
        if taker is not None and _where(taker) != _where(block):
            return _where(taker)
    return ""


def _where(thing: object) -> str:
    """Return where a class or function is defined, `module.name`; of anything else what Python calls it."""
    return f"{thing.__module__}.{thing.__qualname__}" if hasattr(thing, "__qualname__") else repr(thing)


def get(name: str) -> type[nn.Module]:
    """Return the block registered under `name`.

    Raises:
        UserError: If there is none; the sentence names the nearest one.
    """
    try:
        return _registered[name]
    except KeyError:
        raise UserError(f"no block is named '{name}'{nearest(name, _registered)}{not_loaded()}") from None


def not_loaded() -> str:
    """Return `"; ..."` about the users' modules that could not be imported, or nothing where all were."""
    return "".join(f"; {failure}" for failure in _failures)


for _name in _blocks.__all__:
    register(getattr(_blocks, _name))
register(name="GAMAttention")(_blocks.GAM_Attention)

_failures: list[str] = []
_failures += discover()  # last: what it imports registers with this module
