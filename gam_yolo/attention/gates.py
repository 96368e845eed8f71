"""Read the gates of an attention block: what it multiplies its feature map by.

A block may say so itself. That is the whole protocol:

    def gates(self, x: Tensor) -> dict[str, Tensor]    # name -> (B, C, 1, 1), (B, 1, H, W) or (B, C, H, W)

A block without such a method is followed while it runs. Wherever its feature map is multiplied by another tensor, that
tensor is a gate. This finds the gates of all blocks of this package, of Ultralytics' CBAM, and of most blocks that end
in a product. For any other block, the size of its output relative to its input is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gam_yolo import registry, ultralytics_api
from gam_yolo.errors import UserError

__all__ = ["BY_CHANNEL", "BY_POSITION", "attention_blocks", "read_gates", "without"]

BY_POSITION, BY_CHANNEL = "output / input, by position", "output / input, by channel"
"""Names of what is shown for a block whose gates are not known."""

_PRODUCTS = {"mul", "mul_", "multiply", "multiply_", "__mul__", "__rmul__", "__imul__"}
_SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__", "lerp"}
_SAME_VALUES = {"view", "reshape", "flatten", "unflatten", "contiguous", "clone", "to", "float", "half", "detach"}
_KINDS = {
    (True, False, False): "channel",
    (False, True, True): "spatial",
    (True, True, False): "rows",
    (True, False, True): "columns",
    (True, True, True): "gate",
}
_Gates = tuple[tuple[str, Tensor], ...]


def attention_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Return the attention blocks of a model by path, such as `model.16`: the outermost ones, in order.

    These are the registered blocks, Ultralytics' own attention modules, and every module with a method `gates`.
    """
    kinds = (*registry.BLOCKS.values(), *ultralytics_api.attention_modules())
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if not inside and (isinstance(module, kinds) or callable(getattr(module, "gates", None))):
            found[path] = module
    return found


def without(model: nn.Module, path: str) -> None:
    """Replace a block by the identity, in place. The model then computes what it would without the block's row.

    Args:
        model: An Ultralytics model.
        path: The block's path, from `attention_blocks`.
    """
    identity, block = nn.Identity(), model.get_submodule(path)
    for name in ("i", "f", "type", "np"):  # what Ultralytics writes on each row's module
        if name in vars(block):  # `type` is also a method of every module
            setattr(identity, name, getattr(block, name))
    model.set_submodule(path, identity)


def read_gates(block: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return the gates of a block on its input, and its output.

    Args:
        block: The block, in evaluation mode.
        x: (B, C, H, W).

    Returns:
        Name -> (B, C, 1, 1), (B, 1, H, W), (B, C, H, 1), (B, C, 1, W) or (B, C, H, W); and (B, C, H, W).

    Raises:
        UserError: The block's own `gates` returns something else.

    Examples:
        >>> from gam_yolo import CBAM
        >>> gates, y = read_gates(CBAM(32).eval(), torch.rand(1, 32, 8, 8))
        >>> {name: tuple(gate.shape) for name, gate in gates.items()}
        {'channel': (1, 32, 1, 1), 'spatial': (1, 1, 8, 8)}
    """
    # Image by image with gradients: the plain equation, without the shortcuts of training and of batches.
    with torch.inference_mode(False), torch.enable_grad():
        found = [_read(block, image.detach().clone()) for image in torch.split(x, 1)]
    names = found[0][0]
    gates = {name: torch.cat([one[name] for one, _ in found]).detach() for name in names}
    return gates, torch.cat([y for _, y in found]).detach()


def _read(block: nn.Module, x: Tensor) -> tuple[Mapping[str, Tensor], Tensor]:
    own: Callable[[Tensor], Any] | None = getattr(block, "gates", None)
    if callable(own):
        y = block(x.clone())
        return _checked(own(x), x, type(block).__name__), y
    with _Follow(block, x) as follow:
        y = block(x)
    return follow.gates(y) or _relative(x, y), y


def _checked(gates: Any, x: Tensor, name: str) -> dict[str, Tensor]:
    """Return what a block's own `gates` gave, if it is maps that can be multiplied with `x`."""
    at, expected = f"{name}.gates(x)", "a dict of names and tensors that broadcast to the input (B, C, H, W)"
    if not isinstance(gates, dict) or not gates:
        raise UserError(f"returned a {type(gates).__name__}", at=at, expected=expected)
    for key, gate in gates.items():
        shapes = zip(gate.shape, x.shape, strict=False) if isinstance(gate, Tensor) and gate.ndim == 4 else [(0, 1)]
        fits = all(size in (1, whole) for size, whole in shapes)
        if not fits:
            shape = tuple(gate.shape) if isinstance(gate, Tensor) else type(gate).__name__
            raise UserError(f"returned {shape} for '{key}' with an input {tuple(x.shape)}", at=at, expected=expected)
    return gates


def _relative(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return the root mean square of the output divided by that of the input, by position and by channel."""

    def ratio(over: tuple[int, ...]) -> Tensor:
        sizes = [z.float().square().mean(over, keepdim=True).sqrt() for z in (y, x)]
        return sizes[0] / sizes[1].clamp(min=1e-6)

    return {BY_POSITION: ratio((1,)), BY_CHANNEL: ratio((2, 3))}


class _Follow(TorchFunctionMode):
    """Follows a feature map through a block, and keeps what it is multiplied by on the way.

    Args:
        block: The block; a gate that one of its children returns has the child's name.
        x: Its input, (1, C, H, W).
    """

    def __init__(self, block: nn.Module, x: Tensor) -> None:
        super().__init__()
        self._shape = x.shape
        self._followed: dict[int, tuple[Tensor, _Gates]] = {id(x): (x, ())}  # the tensors are kept: ids are not reused
        self._returned: dict[int, tuple[Tensor, str]] = {}
        self._handles = [child.register_forward_hook(self._name(name)) for name, child in block.named_children()]

    def _name(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, out: Any) -> None:
            self._returned[id(out)] = (out, name)

        return hook

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for handle in self._handles:
            handle.remove()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        name = getattr(function, "__name__", "")
        operands = [a for a in args[:2] if isinstance(a, Tensor)] if name in _PRODUCTS | _SUMS | _SAME_VALUES else []
        followed = [self._followed[id(a)][1] for a in operands if id(a) in self._followed]
        gate = None
        if name in _PRODUCTS and len(operands) == 2 and len(followed) == 1:
            other = operands[id(operands[0]) in self._followed]
            gate = self._returned.get(id(other), (other, ""))[1], other.clone()  # the product may take its memory
        out = function(*args, **(kwargs or {}))
        if followed and isinstance(out, Tensor) and out.numel() == self._shape.numel():
            so_far = max(followed, key=len)
            added = () if gate is None else ((gate[0], self._as_map(gate[1], out.shape)),)
            self._followed[id(out)] = out, (*so_far, *added)
        return out

    def _as_map(self, gate: Tensor, shape: torch.Size) -> Tensor:
        """Return a factor of a map of some shape, such as one split into groups, as a factor of the block's input."""
        if shape != self._shape:
            return gate.expand(shape).reshape(self._shape)
        return gate.reshape((1,) * (4 - gate.ndim) + gate.shape)

    def gates(self, y: Any) -> dict[str, Tensor]:
        """Return the gates on the way to the block's output, named after what they select."""
        named: dict[str, Tensor] = {}
        for child, gate in self._followed.get(id(y), (y, ()))[1]:
            name = child or _KINDS.get(tuple(size > 1 for size in gate.shape[1:]), "scale")
            repeats = sum(key.partition(" ")[0] == name for key in named)
            named[f"{name} {repeats + 1}" if repeats else name] = gate
        return named
