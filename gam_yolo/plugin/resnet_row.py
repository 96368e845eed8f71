"""Let a classification model's YAML name `AttentionResNet`, whose class is imported only where one does.

The row is a whole network, so it is the last one, and the number of classes takes the place that a block's channels
have. Other runs do not import torchvision's models, which takes about a second.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from gam_yolo.arguments import bind, row_error
from gam_yolo.errors import UserError

__all__ = ["patch"]

NAME = "AttentionResNet"


def patch(tasks: ModuleType) -> None:
    """Wrap `parse_model` of the module `ultralytics.nn.tasks`."""
    if getattr(tasks, "SAFE_LOAD", False):
        importlib.import_module("gam_yolo.resnet")  # a checkpoint cannot ask for it: it has to be allowed before

    def parse(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        _place(tasks, args[0] if args else kwargs["d"])
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(tasks, "parse_model", parse)


def _place(tasks: ModuleType, model: dict[str, Any]) -> None:
    """Complete the row that names the network, in place as the parser itself does, and hand the parser its class."""
    rows = [*(model.get("backbone") or ()), *(model.get("head") or ())]
    for i, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) > 2 and row[2] == NAME):
            continue
        network = importlib.import_module("gam_yolo.resnet").AttentionResNet
        if len(row) != 4 or row[:2] != [-1, 1] or len(rows) > 1:
            only = f"Write it as the only row, [-1, 1, {NAME}, [nc]]"
            raise row_error(model, i, row, f"{NAME} is a whole network", fix=only)
        if not isinstance(row[3], list) or row[3][:1] != ["nc"]:
            fix = f"Write [-1, 1, {NAME}, [nc]]"
            raise row_error(model, i, row, "the first argument is not the number of classes", fix=fix)
        try:
            bound = bind(NAME, network, model["nc"], row[3][1:])
        except UserError as error:
            raise row_error(model, i, row, error) from error.__cause__
        row[3] = ["nc", *(repr(a) if isinstance(a, str) else a for a in bound[1:])]
        setattr(tasks, NAME, network)
