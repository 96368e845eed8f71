"""Shapes on the meta device are those of torch: of its CPU kernels, of its own meta device and of its counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gam_yolo.meta import meta_device
from gam_yolo.registry import BLOCKS

Made = Callable[[], Tensor]


def image(*shape: int) -> Tensor:
    return torch.ones(*shape)


X = (2, 6, 9, 8)
CALLS: dict[str, Made] = {
    "strided convolution": lambda: F.conv2d(image(*X), image(4, 6, 3, 3), stride=2, padding=1),
    "convolution to as many channels as images": lambda: F.conv2d(image(*X), image(2, 6, 1, 1)),
    "grouped, dilated, same": lambda: F.conv2d(image(*X), image(6, 1, 3, 5), padding="same", dilation=2, groups=6),
    "convolution in 1D": lambda: F.conv1d(image(3, 4, 9), image(5, 4, 3)),
    "ceiling of a pooling": lambda: F.max_pool2d(image(*X), 2, ceil_mode=True),
    "mean pooling": lambda: F.avg_pool2d(image(*X), 3, 1, 1),
    "pooling to one row": lambda: F.adaptive_avg_pool2d(image(*X), (None, 1)),
    "upsampling": lambda: F.interpolate(image(*X), scale_factor=2.5, mode="nearest"),
    "upsampling to a size": lambda: F.interpolate(image(*X), size=(3, 5), mode="bilinear"),
    "concatenation of channels": lambda: torch.cat([image(*X), image(2, 3, 9, 8)], 1),
    "concatenation of images": lambda: torch.cat([image(*X), image(*X)]),
    "stack": lambda: torch.stack([image(*X), image(*X)], dim=-1),
    "stack in front": lambda: torch.stack([image(*X), image(*X)]),
    "gate per channel": lambda: image(*X) * image(2, 6, 1, 1),
    "scale per channel": lambda: image(*X) * image(6, 1, 1),
    "one image by several": lambda: image(1, 6, 9, 8) * image(*X),
    "mixture": lambda: torch.lerp(image(*X), image(*X), image(6, 1, 1)),
    "shuffle": lambda: F.channel_shuffle(image(*X), 3),
    "number": lambda: (2 - image(*X)) / 3,
    "rows of images": lambda: image(2, 3, 4) @ image(2, 4, 5),
    "transposed rows": lambda: image(2, 3, 4).transpose(1, 2) @ image(2, 3, 5),
    "one matrix for all": lambda: image(2, 3, 4) @ image(4, 5),
    "matrix by matrix": lambda: image(3, 3) @ image(3, 4),
    "linear": lambda: F.linear(image(2, 3, 4), image(7, 4)),
    "linear on vectors": lambda: F.linear(image(4), image(7, 4)),
    "mean over the map": lambda: image(*X).mean((2, 3), keepdim=True),
    "mean over channels": lambda: image(*X).mean(1),
    "mean over images": lambda: image(*X).mean(0),
    "mean of all": lambda: image(*X).mean(),
    "maximum, transposed": lambda: image(*X).permute(0, 3, 2, 1).amax(1, keepdim=True).sigmoid(),
    "in place": lambda: image(*X).sigmoid_().mul_(image(6, 1, 1)),
    "range": lambda: torch.arange(3, 17, 2),
}


def layout(x: Tensor) -> tuple[tuple[int, ...], list[int]]:
    """Return shape and strides; the stride of a dimension of size 1 means nothing."""
    return tuple(x.shape), [stride for stride, length in zip(x.stride(), x.shape, strict=True) if length > 1]


@pytest.mark.parametrize("name", CALLS)
def test_a_function_gives_what_the_cpu_gives(name: str) -> None:
    want = CALLS[name]()
    with meta_device():
        found = CALLS[name]()
    assert found.is_meta
    assert (layout(found), found.dtype) == (layout(want), want.dtype)


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.conv2d(image(*X), image(4, 5, 3, 3)),
        lambda: F.batch_norm(image(*X), image(5), image(5)),
        lambda: torch.cat([image(*X), image(2, 6, 4, 8)], 1),
        lambda: image(*X) + image(2, 5, 9, 8),
        lambda: image(*X).mul_(image(7, 1, 1)),
        lambda: image(*X).view(2, 4, -1, 9, 8),
        lambda: image(*X).permute(0, 2, 3, 1).sigmoid().view(2, -1),
        lambda: image(2, 3, 4) @ image(2, 5, 4),
        lambda: F.group_norm(image(*X), 4),
    ],
)
def test_what_the_cpu_rejects_is_rejected(call: Made) -> None:
    with pytest.raises(RuntimeError):
        call()
    with meta_device(), pytest.raises(RuntimeError):
        call()


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("shape", [(1, 64, 20, 20), (3, 128, 13, 7)])
def test_blocks_have_the_shape_and_the_count_of_torch(name: str, shape: tuple[int, ...]) -> None:
    def run(block: nn.Module) -> Tensor:
        out: Tensor = block.eval()(torch.empty(shape))
        return out

    with torch.no_grad():
        with meta_device() as shapes:
            found = run(BLOCKS[name](shape[1]))
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            want = run(BLOCKS[name](shape[1]))
    assert layout(found) == layout(want)
    assert shapes.complete
    assert shapes.macs * 2 == counter.get_total_flops()


def test_a_count_that_may_lack_something_says_so() -> None:
    def product(*_: Any) -> Tensor:
        return torch.einsum("bchw,dc->bdhw", image(*X), image(3, 6))

    with meta_device() as shapes:
        assert product().shape == (2, 3, 9, 8)
    assert not shapes.complete
