"""Let Ultralytics' `BaseModel.load` load weights by structure wherever a model has blocks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt
from torch import nn

from gam_yolo import ultralytics_api

__all__ = ["patch"]


def patch(tasks: ModuleType) -> None:
    """Wrap `BaseModel.load` of the module `ultralytics.nn.tasks`.

    Raises:
        UserError: The method is missing, or has other parameters than those we know.
    """
    signature = inspect.signature(ultralytics_api.ASSUMPTIONS["BaseModel.load"].get(tasks))

    def load(wrapped: Callable[..., None], instance: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Imported here, so that importing Ultralytics does not wait for it.
        from gam_yolo.graph.transfer import has_blocks, modules, transfer_weights

        given = signature.bind(instance, *args, **kwargs)
        given.apply_defaults()
        weights, verbose = given.arguments["weights"], given.arguments["verbose"]
        source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
        if not (has_blocks(source) or has_blocks(instance)):
            wrapped(*args, **kwargs)
            return
        report = transfer_weights(source, instance, lambda shown: wrapped(shown, verbose=verbose), tasks.LOGGER)
        # Plain values, as checkpoints keep them.
        vars(instance)["transferred"] = report.counts()
        # For `gam_yolo.plugin.freeze`.
        vars(instance)["same_rows"] = not report.counts()["new"] and modules(source) == modules(instance)
        vars(instance)["frozen_rows"] = getattr(source, "frozen_rows", None)
        if verbose:
            (tasks.LOGGER.warning if report.warns() else tasks.LOGGER.info)(report.line())

    wrapt.wrap_function_wrapper(tasks, "BaseModel.load", load)
