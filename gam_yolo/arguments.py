"""A row of a model YAML that names a block: `[from, repeats, name, arguments]`, and what its arguments mean."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from gam_yolo.errors import UserError, nearest

__all__ = ["bind", "row_error", "source"]


def bind(name: str, block: type[nn.Module], channels: int, args: list[Any]) -> list[Any]:
    """Turn a row's arguments into the full positional arguments of the block.

    The channels are not written in a row; they come first in the result. A mapping as the last argument gives
    arguments by name. The block is built once on the meta device, where it costs neither memory nor random numbers,
    so that whatever it refuses is found out here.

    Args:
        name: The block's name in the row.
        block: Its class.
        channels: Channels of the row's input.
        args: The row's arguments as the YAML has them, for example `[]`, `[16]` or `[16, {gate: sigmoid}]`.

    Returns:
        The arguments by position, up to the last one given.

    Raises:
        UserError: If an argument is unknown, given twice, one too many, or refused by the block.

    Examples:
        >>> from gam_yolo.blocks import GAM
        >>> bind("GAM", GAM, 64, [16, {"gate": "sigmoid"}])
        [64, 16, 'sigmoid']
    """
    if not isinstance(args, list):
        raise UserError(f"the arguments are {args!r}, expected a list; write [] or [{{key: value}}]")
    keywords = dict(args[-1]) if args and isinstance(args[-1], dict) else {}
    positional = args[:-1] if args and isinstance(args[-1], dict) else args
    signature = inspect.signature(block)
    _, *others = signature.parameters
    for key in keywords:
        if key not in others:
            raise UserError(f"{name} takes {_listed(signature)}, not '{key}'{nearest(str(key), others)}")
    if len(positional) > len(others):
        raise UserError(
            f"{name} takes at most {len(others)} arguments, {len(positional)} were given; write "
            f"{_listed(signature)} without channels, which come from the row's input"
        )
    for key in others[: len(positional)]:
        if key in keywords:
            raise UserError(f"{name}'s argument '{key}' is given twice, by position and by name; write it once")
    try:
        bound = signature.bind(channels, *positional, **keywords)
    except TypeError as error:
        raise UserError(f"{name}: {error}; write {_listed(signature)}") from None
    last = max(i for i, key in enumerate(signature.parameters) if key in bound.arguments)
    bound.apply_defaults()
    arguments = list(bound.args[: last + 1])
    try:
        with torch.device("meta"):
            block(*arguments)
    except UserError:
        raise
    except Exception as error:  # a block of the user's own may raise anything
        raise UserError(f"{name} refuses its arguments ({type(error).__name__}: {error})") from error
    return arguments


def _listed(signature: inspect.Signature) -> str:
    parameters = list(signature.parameters.values())[1:]
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    return f"({', '.join(shown)})"


def source(model: dict[str, Any]) -> str:
    """Return the name of the file that a parsed model YAML came from."""
    return str(model.get("yaml_file") or "model YAML")


def row_error(model: dict[str, Any], index: int, row: object, message: object) -> UserError:
    """Return the error that says which file and row `message` is about."""
    return UserError(f"{source(model)}, row {index} {_flow(row)}: {message}")


def _flow(value: object) -> str:
    """Write a value as a model YAML would, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return str(value)
