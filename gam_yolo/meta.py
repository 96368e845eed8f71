"""Build and run layers on torch's meta device, where a tensor has a shape and no values, in a fraction of torch's time.

torch finds most shapes there with Python code made for its compiler: the first use imports that (about a second), and
each batch norm takes milliseconds. `meta_device` asks torch's CPU kernels instead, with a batch of no images. They
check their arguments, compute nothing, and give the same shape for any batch. Functions that are not in the lists
below, and calls that a kernel rejects, are left to torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # as torch's own documentation does
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

__all__ = ["Shapes", "meta_device"]

_T = torch.Tensor
_PRODUCTS: set[Any] = {F.conv1d, F.conv2d, F.linear}
"""Multiply a map of images and a weight."""

_JOIN: set[Any] = {_T.add, _T.sub, _T.mul, _T.div, _T.matmul, torch.cat, torch.lerp, torch.stack}
"""Take several maps of the same images."""

_BY_IMAGE: set[Any] = {
    *_PRODUCTS, *_JOIN, F.adaptive_avg_pool2d, F.avg_pool2d, F.batch_norm, F.channel_shuffle, F.gelu, F.group_norm,
    F.hardswish, F.interpolate, F.layer_norm, F.max_pool2d, F.relu, F.silu, F.softmax, _T.amax, _T.mean, _T.sigmoid,
    _T.softmax, _T.square,
}  # fmt: skip
"""Treat each image, one entry of dimension 0, by itself."""

_IN_PLACE = {_T.mul_, _T.add_, _T.sigmoid_, _T.normal_, _T.uniform_}
_INITIALISE = {value for name, value in vars(init).items() if name.endswith("_") and not name.startswith("_")}

_FREE = {
    "__get__", "_set_grad_enabled", "chunk", "contiguous", "device", "dim", "empty", "fill_", "flatten",
    "is_contiguous", "ones", "permute", "reshape", "result_type", "size", "split", "squeeze", "t", "tensor", "to",
    "transpose", "unsqueeze", "view", "zero_", "zeros",
}  # fmt: skip
"""Other functions without a multiply-add."""


class Shapes(TorchFunctionMode):
    """What `meta_device` puts between a layer and torch.

    Attributes:
        macs: Multiply-adds of the convolutions and matrix products that ran.
        complete: Whether all functions that ran are known, so that `macs` is the whole number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        self.complete = True

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Return what `func` would, without values."""
        kwargs = kwargs or {}
        if func in _INITIALISE:
            return args[0] if args else kwargs["tensor"]
        if func in _IN_PLACE and _broadcasts_to(*args[:2]):
            return args[0]
        if func is torch.arange and "device" not in kwargs:
            return _like(func(*args, **kwargs, device="cpu"))
        with torch._C.DisableTorchFunction():  # what this calls goes past the device's own mode
            out = _without_images(func, args, kwargs) if func in _BY_IMAGE else None
        if out is not None:
            if func in _PRODUCTS:
                self.macs += out.numel() * args[1][0].numel()
            elif func is _T.matmul:
                self.macs += out.numel() * args[0].shape[-1]
            return out
        self.complete = self.complete and (func in _IN_PLACE or func.__name__ in _FREE)
        return func(*args, **kwargs)


@contextlib.contextmanager
def meta_device() -> Iterator[Shapes]:
    """Create tensors on the meta device, and find the shapes of what is computed with them.

    Examples:
        >>> with meta_device() as shapes:
        ...     print(torch.nn.Conv2d(3, 16, 3, stride=2)(torch.empty(1, 3, 512, 512)).shape, shapes.macs)
        torch.Size([1, 16, 255, 255]) 28090800
    """
    with torch.device("meta"), Shapes() as shapes:
        yield shapes


def _without_images(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the shape of a function's result as a tensor, or None where torch has to find it."""
    several = bool(args) and isinstance(args[0], (list, tuple))
    maps = args[0] if several else args[: 2 if func in _JOIN else 1]  # a number may stand for one
    given = [value for value in (*maps, *args, *kwargs.values()) if isinstance(value, Tensor)]
    if not given or not all(each.is_meta and each.dtype == given[0].dtype and each.ndim for each in given):
        return None
    first = given[0]
    if func is F.batch_norm and any(each.ndim == 1 and len(each) != first.shape[1] for each in given):
        return None  # which its kernel does not notice without images
    if func is torch.cat and (args[1] if len(args) > 1 else kwargs.get("dim", 0)) == 0:
        return None

    def shrunk(value: Any, images: bool = False) -> Any:
        if not isinstance(value, Tensor):
            return value
        images = images and value.ndim == first.ndim and value.shape[0] == first.shape[0]
        return torch.empty((0, *value.shape[1:]) if images else value.shape, dtype=value.dtype, device="cpu")

    head = [shrunk(each, True) for each in maps]
    rest = {key: shrunk(value) for key, value in kwargs.items()}
    try:
        found = func(head, *args[1:], **rest) if several else func(*head, *map(shrunk, args[len(head) :]), **rest)
    except Exception:  # torch says what is wrong, with the true shapes
        return None
    if not isinstance(found, Tensor) or not found.ndim or found.shape[0]:
        return None
    shape = (first.shape[0], *found.shape[1:])
    if func in _PRODUCTS | {_T.matmul, _T.amax, _T.mean} or len(shape) != first.ndim or first.is_contiguous():
        return first.new_empty(shape)
    order = sorted(range(first.ndim), key=first.stride, reverse=True)  # the result is laid out as the operand is
    return first.new_empty([shape[d] for d in order]).permute([order.index(d) for d in range(first.ndim)])


def _like(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype)


def _broadcasts_to(x: Tensor, other: Any = None) -> bool:
    """Return whether `other` does not change the shape of `x`."""
    if not isinstance(other, Tensor):
        return x.is_meta
    fits = zip(reversed(x.shape), reversed(other.shape), strict=False)
    return other.ndim <= x.ndim and x.is_meta and other.is_meta and all(b in (1, a) for a, b in fits)
