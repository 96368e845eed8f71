"""Let `model.fuse()` fold the batch norms of blocks too; Ultralytics folds only those of its own classes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt
from torch import nn

from gam_yolo import ultralytics_api
from gam_yolo.blocks.parts import ConvBN

__all__ = ["patch"]


def patch(tasks: ModuleType) -> None:
    """Wrap `BaseModel.fuse` of the module `ultralytics.nn.tasks`.

    Raises:
        UserError: It is missing.
    """
    ultralytics_api.ASSUMPTIONS["BaseModel.fuse"].get(tasks)

    def fuse(wrapped: Callable[..., Any], instance: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for module in instance.modules():
            if isinstance(module, ConvBN):
                module.fuse()
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(tasks, "BaseModel.fuse", fuse)
