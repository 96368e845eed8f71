"""The blocks that a model YAML can name: name -> class."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, overload

import torch
from torch import nn

from gam_yolo import ultralytics_api
from gam_yolo.discovery import discover
from gam_yolo.errors import UserError, similar

__all__ = ["BLOCKS", "blocks_in", "get", "not_loaded", "register", "registered_at", "suggest"]

B = TypeVar("B", bound=type[nn.Module])

_registered: dict[str, type[nn.Module]] = {}
_times: dict[type[nn.Module], float] = {}

BLOCKS: Mapping[str, type[nn.Module]] = MappingProxyType(_registered)
"""Every registered block by name, in the order of registration; read-only."""

# Names in forks and papers from which the rule in `_plain` does not lead to ours.
_ALIASES = {
    "ca": "CoordAtt",
    "coordinate": "CoordAtt",
    "em": "EMA",
    "efficientchannel": "ECA",
    "squeezeexcitation": "SE",
    "squeezeandexcitation": "SE",
    "global": "GAM",
    "globalattentionmechanism": "GAM",
}
# Other blocks in forks and papers, as `_plain` writes them; those whose names contain "att" need not be here.
_ABSENT = frozenset({
    "a2", "ac", "acmix", "aff", "afgc", "axial", "axialimagetransformer", "biformer", "bilevelrouting", "bra",
    "cc", "cot", "cpca", "crisscross", "csam", "da", "dat", "dca", "dlka", "double", "effectivese", "epsa",
    "ese", "fca", "focalmodulation", "gatherexcite", "gc", "gct", "ge", "globalcontext", "halo", "ham", "iaff",
    "irmb", "lka", "lsk", "mca", "mhsa", "mlla", "mpca", "msca", "msda", "mspa", "multiseam", "nam", "nonlocal",
    "outlook", "pam", "par", "polarizedself", "ppa", "psap", "psas", "resblockcbam", "rfa", "rfca", "rfcbam",
    "s2", "sa", "sam", "scam", "seam", "sge", "shuffle", "sk", "soca", "spatialgroupenhance", "srm", "ssa",
    "swin", "ufo",
})  # fmt: skip
# Rows of Ultralytics whose bottlenecks can hold a block; of two that a name begins with, the longer one.
_HOLDERS = ("RepNCSPELAN4", "A2C2f", "C3k2", "C2f", "C2", "C3")

_NO_ROW = re.compile(r"^((module|_orig_mod|student_model|model)\.)+")  # before the row in a module's name


@overload
def register(block: B) -> B: ...
@overload
def register(block: None = None, *, name: str | None = None, override: bool = False) -> Callable[[B], B]: ...
def register(block: B | None = None, *, name: str | None = None, override: bool = False) -> B | Callable[[B], B]:
    """Let model YAMLs name an `nn.Module` class, and restricted loading accept its checkpoints.

    The class's first argument is the channel count of its input, which the parser fills in. Its other arguments are
    what a YAML row gives, by position or by name. The block has to keep the shape (B, C, H, W) of its input.

    A registration lasts as long as its process. For the `yolo` command and the workers it starts, see
    `gam_yolo.discovery` and `docs/own-block.md`.

    Args:
        block: The class, where `register` is used as a bare decorator.
        name: The name in YAML rows; by default the class's own.
        override: Replace a name that is taken, by a block or by anything in `ultralytics.nn.tasks`.

    Returns:
        The class itself, or, with options, a decorator that returns it.

    Raises:
        UserError: The name is taken or is not a Python name, the object is not an `nn.Module` class, or an argument
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
    at = f"cannot register '{name}'"
    if not (isinstance(block, type) and issubclass(block, nn.Module)):
        raise UserError(f"{block!r} is not a class derived from torch.nn.Module", at=at)
    parameters = list(inspect.signature(block).parameters.values())
    if not parameters or any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in parameters):
        raise UserError(
            f"{block.__name__}{inspect.signature(block)} must take the channel count first and every further argument "
            "by position or by name (no *, *args or **kwargs)",
            at=at,
        )
    if not name.isidentifier():
        raise UserError("a row's name is a Python name, of letters, digits and underscores", at=at)
    if not override and (taken := _taken(name, block)):
        raise UserError(f"the name is taken by {taken}", at=at, fix="Choose another, or pass override=True")
    _registered[name] = block
    _times[block] = time.time()
    # A checkpoint names the block's parts too: the modules that its file defines or imports.
    parts = [
        v for v in vars(sys.modules[block.__module__]).values() if isinstance(v, type) and issubclass(v, nn.Module)
    ]
    torch.serialization.add_safe_globals([block, *parts])
    return block


def _taken(name: str, block: type[nn.Module]) -> str:
    """Return what has the name already; nothing for the same class defined again, as in a notebook's cell."""
    # Ultralytics is imported for this only where a user registers a block; our own names are known to be free.
    own = block.__module__.startswith("gam_yolo.")
    reserved = {} if own else vars(ultralytics_api.tasks())
    for taker in (_registered.get(name), reserved.get(name)):
        if taker is not None and _where(taker) != _where(block):
            return _where(taker)
    return ""


def _where(thing: object) -> str:
    """Return where a class or function is defined, `module.name`; for anything else, its `repr`."""
    return f"{thing.__module__}.{thing.__qualname__}" if hasattr(thing, "__qualname__") else repr(thing)


def get(name: str) -> type[nn.Module]:
    """Return the block registered under `name`.

    Raises:
        UserError: There is none. The message names the nearest one.
    """
    try:
        return _registered[name]
    except KeyError:
        raise UserError(f"no block is named '{name}'{not_loaded()}", **suggest(name, _registered)) from None


def registered_at(block: type[nn.Module]) -> float:
    """Return when a block was registered, in seconds since the epoch: as its file is imported."""
    return _times.get(block, math.inf)


def blocks_in(model: nn.Module) -> dict[str, nn.Module]:
    """Return the blocks of a model, also those inside other modules; what is inside a block is a part of it.

    Args:
        model: An Ultralytics model, also wrapped for several GPUs or compiled.

    Returns:
        The blocks by row and class, such as "row 16 (GAM)", or "row 4.m.0.attention (GAM)" inside row 4.
    """
    classes = set(_registered.values())
    found: dict[str, nn.Module] = {}
    parts: set[int] = set()
    for name, module in model.named_modules():
        if type(module) in classes and id(module) not in parts:
            found[f"row {re.sub(_NO_ROW, '', name)} ({type(module).__name__})"] = module
            parts.update(map(id, module.modules()))
    return found


def suggest(name: str, known: Iterable[str]) -> dict[str, str]:
    """Return what an error says about a wrong name besides the problem: the parts `similar` or `fix` of a `UserError`.

    Forks and papers name blocks differently, put them into other modules (`C2f_CBAM`), and have blocks that are not
    here. A name that is neither of these nor a slip of one of `known` gets no suggestion.

    Args:
        name: The name that was read.
        known: The valid names.

    Examples:
        >>> suggest("SEAttention", ["SE", "Conv"]), suggest("Conw", ["SE", "Conv"]), suggest("SOCA", ["SCSA"])["fix"]
        ({'similar': 'SE'}, {'similar': 'Conv'}, 'gam_yolo does not have this block. See docs/own-block.md to add it')
        >>> suggest("C2f_CBAM", ["CBAM", "C2fCIB"])["fix"].split(", or ")
        ['Write [-1, n, C2f, [c, {inside: CBAM}]] for CBAM in its bottlenecks', '[-1, 1, CBAM, []] after the row']
    """
    known, plain = sorted(known), _plain(name)
    if same := _ours(plain, known) or {_spelled(k): k for k in known}.get(_spelled(name)):
        return {"similar": same}
    for holder in _HOLDERS:
        inner = plain.removeprefix(holder.lower()).removesuffix(holder.lower())
        if inner != plain and (ours := _ours(inner, BLOCKS)):
            inside, after = f"[-1, n, {holder}, [c, {{inside: {ours}}}]]", f"[-1, 1, {ours}, []]"
            return {"fix": f"Write {inside} for {ours} in its bottlenecks, or {after} after the row"}
    if plain not in _ABSENT and (meant := _mistyped(name, known)):
        return {"similar": meant}
    absent = plain in _ABSENT or "att" in name.lower()
    return {"fix": "gam_yolo does not have this block. See docs/own-block.md to add it"} if absent else {}


def _ours(plain: str, known: Iterable[str]) -> str:
    """Return which block among the known names a plain one stands for."""
    blocks = {_plain(k): k for k in reversed(_registered) if k in known}
    return blocks.get(plain) or next((k for k in known if k == _ALIASES.get(plain)), "")


def _mistyped(name: str, known: Iterable[str]) -> str:
    """Return the known name that differs by a slip; none where a short name is a slip of several."""
    plain = _spelled(name)
    most = 0 if len(plain) < 3 else 1 if len(plain) < 10 else 2
    close = [k for k in known if _slips(plain, _spelled(k)) <= most]
    if len(plain) == 3:  # NAM and GAM are two papers
        close = [k for k in close if _spelled(k)[0] == plain[0]]
        return close[0] if len(close) == 1 else ""
    return similar(name, close)


def _slips(a: str, b: str) -> int:
    """Count the letters that are wrong, missing, too many, or swapped with the next one."""
    if abs(len(a) - len(b)) > 2:
        return 3
    above: list[int] = []
    row: list[int] = [*range(len(b) + 1)]
    for i, x in enumerate(a):
        before, above, row = above, row, [i + 1]
        for j, y in enumerate(b):
            best = min(above[j + 1] + 1, row[j] + 1, above[j] + (x != y))
            swapped = i > 0 < j and x == b[j - 1] and y == a[i - 1]
            row.append(min(best, before[j - 1] + 1) if swapped else best)
    return row[-1]


def _plain(name: str) -> str:
    """Return a block's name without what forks vary: prefix `nn.`, case, underscores, "Attention", "Block"."""
    name = _spelled(name)
    return re.sub(r"(attention|atten|att|attn|module|block|layer|net)+$", "", name) or name


def _spelled(name: str) -> str:
    return name.lower().removeprefix("nn.").replace("_", "").replace("-", "")


def not_loaded() -> str:
    """Return `"; ..."` about the users' modules that could not be imported, or nothing where all were."""
    return "".join(f"; {failure}" for failure in _failures)


_blocks: Any = importlib.import_module("gam_yolo.blocks")  # to a type checker `gam_yolo.blocks` is the function
for _name in _blocks.__all__:
    register(getattr(_blocks, _name))
register(name="GAMAttention")(_blocks.GAM_Attention)

_failures: list[str] = []
_failures += discover()  # last: what it imports registers with this module
