"""Let Ultralytics' `BaseModel.load` load weights by structure wherever a model has blocks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt
from torch import nn

from gam_yolo import ultralytics_api

if TYPE_CHECKING:
    from gam_yolo.graph.transfer import TransferReport

__all__ = ["patch"]


def patch(tasks: ModuleType) -> None:
    """Wrap `BaseModel.load` of the module `ultralytics.nn.tasks`.

    Raises:
        UserError: The method is missing, or has other parameters than those we know.
    """
    signature = inspect.signature(ultralytics_api.ASSUMPTIONS["BaseModel.load"].get(tasks))

    def load(wrapped: Callable[..., None], instance: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Imported here, so that importing Ultralytics does not wait for it.
        from gam_yolo.graph.transfer import has_blocks, modules, transfer_weights, unwrapped

        given = signature.bind(instance, *args, **kwargs)
        given.apply_defaults()
        weights, verbose = given.arguments["weights"], given.arguments["verbose"]
        source = unwrapped((weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights)
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
            if line := _hazard(instance, report):
                ultralytics_api.warn(line)
            (ultralytics_api.warn if report.warns() else ultralytics_api.info)(report.line())

    wrapt.wrap_function_wrapper(tasks, "BaseModel.load", load)


def _hazard(model: Any, report: TransferReport) -> str:
    """Return a warning about random raw gates between pretrained layers, or an empty string where there are none."""
    new = {int(t.key.split(".")[1]) for t in report.tensors if t.state == "new"}
    rows = [*model.yaml["backbone"], *model.yaml["head"]]
    found = [
        row for row in sorted(new) if any(getattr(part, "hazardous", False) for part in model.model[row].modules())
    ]
    if not found or not report.counts()["base"]:
        return ""
    from gam_yolo.arguments import source, zero_start
    from gam_yolo.registry import BLOCKS

    names = ", ".join(f"row {row} ({rows[row][2]})" for row in found)
    advice = dict.fromkeys(zero_start(rows[row][2], BLOCKS[rows[row][2]], rows[row][3]) for row in found)
    return (
        f"{source(model.yaml)}: {names}: a raw gate with random weights flips the sign of about half of the pretrained "
        f"features, and many epochs only repair that. To lose nothing, write {'; '.join(advice)}"
    )
