"""A row of a model YAML, `[from, repeats, module, arguments]`: how it is shown in errors, what its arguments mean."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from gam_yolo.blocks.forks import FEWEST_CHANNELS
from gam_yolo.errors import UserError, brief, reason, similar
from gam_yolo.meta import meta_device

__all__ = [
    "INSIDE",
    "MOST_VALUES",
    "REPLACES",
    "RESNET",
    "RowError",
    "as_list",
    "bind",
    "is_placed",
    "is_small",
    "leaves",
    "literal",
    "row_error",
    "source",
    "take",
    "with_named",
    "zero_start",
]

MOST_VALUES = 1000

INSIDE = "inside"
"""The key that puts a block into a row's bottlenecks: `[-1, 3, C2f, [128, True, {inside: GAM}]]`."""
REPLACES = "replaces"
"""The key that records which row of the base a row stands for: `[-1, 1, GAM, [{replaces: [2, C2PSA, [1024]]}]]`."""
RESNET = "AttentionResNet"
"""The row that is a whole network, of `gam_yolo.resnet`, which is imported where a row names it, as torchvision is."""


class RowError(UserError):
    """A row of a model YAML that cannot be built or run.

    Attributes:
        row: The row's number, counted through backbone and head.
    """

    def __init__(self, file: str, index: int, row: object, problem: object, **parts: str) -> None:
        super().__init__(problem, at=f"{file}, row {index} {_shown(row)}", **parts)
        self.row = index


def row_error(model: Mapping[str, Any], index: int, row: object, problem: object, **parts: str) -> RowError:
    """Return the error about a row of a parsed model YAML; `parts` are those of `UserError`."""
    return RowError(source(model), index, row, problem, **parts)


def source(model: Mapping[str, Any]) -> str:
    """Return the name of the file that a parsed model YAML came from."""
    return str(model.get("yaml_file") or "model YAML")


def as_list(args: Any) -> list[Any]:
    """Return a block's arguments as a row has them; a single value or a mapping may stand without brackets.

    Examples:
        >>> as_list(None), as_list(16), as_list({"gate": "sigmoid"}), as_list((16, "none"))
        ([], [16], [{'gate': 'sigmoid'}], [16, 'none'])
    """
    if args is None:
        return []
    if isinstance(args, Mapping):
        return [dict(args)]
    return list(args) if isinstance(args, (list, tuple)) else [args]


def take(args: Sequence[Any], key: str) -> tuple[list[Any], Any]:
    """Return a row's arguments without one that is given by name, and its value, or None.

    Examples:
        >>> take([128, True, {"inside": "GAM"}], "inside")
        ([128, True], 'GAM')
    """
    if not args or not isinstance(args[-1], Mapping) or key not in args[-1]:
        return [*args], None
    named = {k: v for k, v in args[-1].items() if k != key}
    return [*args[:-1], *([named] if named else [])], args[-1][key]


def with_named(args: Sequence[Any], key: str, value: Any) -> list[Any]:
    """Return a row's arguments with one more that is given by name.

    Examples:
        >>> with_named([16, {"start": "zero"}], "replaces", [1, "SPPF", [1024, 5]])
        [16, {'start': 'zero', 'replaces': [1, 'SPPF', [1024, 5]]}]
    """
    *others, last = args or [{}]
    return [*others, {**last, key: value}] if isinstance(last, Mapping) else [*args, {key: value}]


def is_placed(row: object) -> bool:
    """Return whether the last argument of a row, of whatever form, is a mapping that says `inside` or `replaces`."""
    args = row[3] if isinstance(row, (list, tuple)) and len(row) > 3 else None
    named = args[-1] if isinstance(args, (list, tuple)) and args else None
    return isinstance(named, Mapping) and bool({INSIDE, REPLACES} & {*named})


def literal(value: Any) -> Any:
    """Read one argument by the rule of Ultralytics' parser: text that is a Python literal means that literal.

    YAML 1.1 reads `1e-4` and `None` as text. Nothing is evaluated but literals.

    Examples:
        >>> literal("1e-4"), literal("16"), literal("None"), literal("sigmoid")
        (0.0001, 16, None, 'sigmoid')
    """
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def bind(name: str, block: type[nn.Module], channels: int, args: Sequence[Any]) -> list[Any]:
    """Turn a row's arguments into the full positional arguments of the block.

    The channels are not written in a row; they come first in the result. A mapping as the last argument gives
    arguments by name; its key `replaces` is not for the block. The block is built once on the meta device, where it
    costs neither memory nor random numbers, so that whatever it rejects is found here.

    Args:
        name: The block's name in the row.
        block: Its class.
        channels: Channels of the row's input.
        args: The row's arguments as the YAML has them, for example `[]`, `[16]` or `[16, {gate: sigmoid}]`.

    Returns:
        The arguments by position, up to the last one given.

    Raises:
        UserError: An argument is unknown, given twice, one too many, or rejected by the block.

    Examples:
        >>> from gam_yolo.blocks import GAM
        >>> bind("GAM", GAM, 64, [16, {"gate": "sigmoid"}])
        [64, 16, 'sigmoid']
    """
    given = [literal(arg) for arg in take(args, REPLACES)[0]]
    named = given.pop() if given and isinstance(given[-1], dict) else {}
    keywords = {key: literal(value) for key, value in named.items()}
    signature = inspect.signature(block)
    _, *others = signature.parameters
    for key in keywords:
        if key not in others:
            raise UserError(
                f"{name} has no argument '{key}'", expected=_listed(signature), similar=similar(str(key), others)
            )
    for value in given:
        if isinstance(value, dict) and value and set(value) <= set(others):
            raise UserError(f"{name}'s arguments by name, {_flow(value)}, are not the last", fix="Write them last")
    if len(given) > len(others):
        raise UserError(
            f"{name} takes at most {len(others)} arguments, but the row has {len(given)}",
            expected=f"{_listed(signature)} without channels, which come from the row's input",
        )
    for key in others[: len(given)]:
        if key in keywords:
            raise UserError(f"{name}'s argument '{key}' is given by position and by name", fix="Write it once")
    try:
        bound = signature.bind(channels, *given, **keywords)
    except TypeError as error:
        raise UserError(f"{name}: {error}", expected=_listed(signature)) from None
    last = max(i for i, key in enumerate(signature.parameters) if key in bound.arguments)
    bound.apply_defaults()
    arguments = list(bound.args[: last + 1])
    try:
        with meta_device():
            block(*arguments)
    except UserError as error:
        rest = _without_channels(given)
        if rest == given:
            raise
        raise UserError(error, fix=_leave_out(block, channels, rest, keywords)) from error
    except Exception as error:  # a block of the user's own may raise anything
        raise UserError(f"{name} rejects its arguments ({reason(error)})") from error
    return arguments


def zero_start(name: str, block: type[nn.Module], args: Sequence[Any]) -> str:
    """Return what to write in a row of a YAML so that its block starts as the identity.

    Examples:
        >>> from gam_yolo.blocks import GAM
        >>> zero_start("GAM", GAM, [16, {"pool": "max"}])
        'GAM, [{reduction: 16, pool: max, start: zero}]'
    """
    start = {"start": "zero"}
    _, *keys = inspect.signature(block).parameters
    if "start" not in keys:  # the forks' names
        return f"GAM, [{_flow(start)}], and before these the arguments that the warning about the row names"
    given = list(args)
    named = given.pop() if given and isinstance(given[-1], dict) else {}
    return f"{name}, [{_flow({**dict(zip(keys, given, strict=False)), **named, **start})}]"


def _without_channels(given: list[Any]) -> list[Any]:
    """Return a row's numbers without the channels that forks write first."""
    for position, value in enumerate(given):
        if type(value) is not int or value < FEWEST_CHANNELS:
            return given[position:]
    return []


def _leave_out(block: type[nn.Module], channels: int, rest: list[Any], named: dict[str, Any]) -> str:
    """Return what to write instead of a row that gives the channels: its other arguments, if the block accepts them."""
    try:
        with meta_device():
            block(channels, *rest, **named)
    except Exception:  # a block of the user's own may raise anything
        rest, named = [], {}
    return f"Write {_flow([*rest, named] if named else rest)}: the channels come from the row's input"


def _listed(signature: inspect.Signature) -> str:
    parameters = list(signature.parameters.values())[1:]
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    return f"({', '.join(shown)})"


def is_small(value: Any) -> bool:
    """Return whether nested values are few enough to walk; YAML aliases can make them cyclic or astronomical."""
    pending: list[Any] = [value]
    for _ in range(MOST_VALUES):
        if not pending:
            return True
        value = pending.pop()
        pending.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    return False


def leaves(value: Any) -> Iterator[Any]:
    """Yield what nested lists and mappings hold, without the keys.

    Examples:
        >>> [*leaves([1, {"a": [2, "b"]}])]
        [1, 2, 'b']
    """
    if isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


def _shown(row: object) -> str:
    """Write a row as a model YAML would, on one line, shortened where it is long."""
    text = _flow(row) if is_small(row) else ""
    return text if 0 < len(text) <= 300 else brief(row)


def _flow(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return " ".join(str(value).split()) if isinstance(value, str) else brief(value)
