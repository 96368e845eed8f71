"""Let Ultralytics' `BaseModel.load` carry weights by structure wherever a model has blocks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt
from torch import nn

from gam_yolo.errors import UserError

__all__ = ["patch"]


def patch(tasks: ModuleType) -> None:
    """Wrap `BaseModel.load` of the module `ultralytics.nn.tasks`.

    Raises:
        UserError: If the method does not take what it takes in the versions we know.
    """
    signature = inspect.signature(tasks.BaseModel.load)
    if [*signature.parameters] != ["self", "weights", "verbose"]:
        raise UserError(f"ultralytics.nn.tasks.BaseModel.load takes {signature}, expected (self, weights, verbose)")

    def load(wrapped: Callable[..., None], instance: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Imported here, so that importing Ultralytics does not wait for it.
        from gam_yolo.graph.transfer import carry, has_blocks

        def given(weights: Any, verbose: bool = True) -> tuple[Any, bool]:
            return weights, verbose

        weights, verbose = given(*args, **kwargs)
        source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
        if not (has_blocks(source) or has_blocks(instance)):
            wrapped(*args, **kwargs)
            return
        ledger = carry(source, instance, lambda shown: wrapped(shown, verbose=verbose), tasks.LOGGER)
        instance.transferred = ledger.counts()  # type: ignore[assignment]  # plain numbers: checkpoints keep them
        if verbose:
            (tasks.LOGGER.warning if ledger.parted else tasks.LOGGER.info)(ledger.line())

    wrapt.wrap_function_wrapper(tasks, "BaseModel.load", load)
