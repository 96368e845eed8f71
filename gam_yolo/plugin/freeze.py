"""Let the train argument `freeze` mean rows of the base model where blocks were inserted, and never freeze new blocks.

`freeze=10` freezes rows 0 to 9, `freeze=[0, 22]` the listed ones. Inserted blocks shift the rows. Such numbers would
then freeze blocks whose weights are random, for good, and leave base rows trainable. So the numbers count the rows
without blocks, unless all weights came from a checkpoint that has the same rows. A resumed training freezes what it
froze at its start.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt

from gam_yolo import ultralytics_api

if TYPE_CHECKING:
    from gam_yolo.graph.model import Graph

__all__ = ["patch"]


def patch(trainer: ModuleType) -> None:
    """Wrap `BaseTrainer._setup_train` of the module `ultralytics.engine.trainer`.

    Raises:
        UserError: It, or the method that it calls between building the model and freezing, is missing.
    """
    for name in ("BaseTrainer._setup_train", "BaseTrainer.set_model_attributes"):
        ultralytics_api.ASSUMPTIONS[name].get(trainer)

    def setup(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        written, attributes = instance.args.freeze, instance.set_model_attributes

        def set_model_attributes() -> None:
            attributes()
            instance.args.freeze = _mapped(instance, written, trainer.LOGGER.info)

        instance.set_model_attributes = set_model_attributes
        try:
            return wrapped(*args, **kwargs)
        finally:
            del instance.set_model_attributes
            instance.args.freeze = written  # what checkpoints record

    wrapt.wrap_function_wrapper(trainer, "BaseTrainer._setup_train", setup)


def _mapped(trainer: Any, freeze: Any, log: Callable[[str], None]) -> Any:
    """Return what `freeze` means for the trainer's model, and log it where that differs from what is written."""
    model = trainer.model
    config = getattr(model, "yaml", None)
    wanted = range(freeze) if isinstance(freeze, int) else freeze
    if not isinstance(config, dict) or not wanted or isinstance(freeze, bool):
        return freeze
    from gam_yolo import registry
    from gam_yolo.graph.edit import remove
    from gam_yolo.graph.model import Graph

    graph = Graph.from_config(config, "the model")
    blocks = [
        f"what is inside {layer}" if layer.inside else str(layer)
        for layer in graph.layers
        if layer.inside or layer.module in registry.BLOCKS
    ]
    if not blocks:
        return freeze
    if not getattr(trainer, "resume", False):
        origin = remove(graph, registry.BLOCKS.__contains__).origin
        moved = [row for item in wanted if (row := _moved(item, origin)) is not None]
        rows = [part for row in moved for part in _base_parts(model, graph, row)]
        model.frozen_rows = None if getattr(model, "same_rows", False) else rows
    if getattr(model, "frozen_rows", None) is None:
        return freeze
    rows = model.frozen_rows
    log(
        f"freeze={freeze} counts the rows of the model without its blocks: rows {', '.join(map(str, rows))} are "
        f"frozen; {', '.join(blocks)} stay trainable"
    )
    return rows


def _base_parts(model: Any, graph: Graph, row: Any) -> list[Any]:
    """Return what to freeze of a row: nothing of a block that replaced the base's, no block inside, or else all."""
    from gam_yolo.bottleneck import parts_of_base

    layer = graph.layers[row] if isinstance(row, int) else None
    if layer is None or not (layer.inside or layer.replaces):
        return [row]
    return [] if layer.replaces else [f"{row}.{part}" for part in parts_of_base(model.model[row])]


def _moved(item: Any, origin: tuple[int | None, ...]) -> Any:
    """Return the row of the model for a row without blocks, "22" or "22.cv2" for text; None where there is none."""
    row, dot, rest = str(item).partition(".")
    if not row.isdigit() or int(row) >= len(origin):
        return None
    new = origin[int(row)]
    return new if isinstance(item, int) else f"{new}{dot}{rest}"
