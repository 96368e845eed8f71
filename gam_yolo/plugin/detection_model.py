"""Report a model with blocks that builds but does not run, such as one with stale row numbers, as a one-line error.

Ultralytics runs a detector once while it is constructed, to find its strides.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError

__all__ = ["patch"]


def patch(tasks: ModuleType) -> None:
    """Wrap `DetectionModel.__init__` of the module `ultralytics.nn.tasks`.

    Raises:
        UserError: It is missing.
    """
    ultralytics_api.ASSUMPTIONS["DetectionModel.__init__"].get(tasks)

    def init(wrapped: Callable[..., None], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            wrapped(*args, **kwargs)
        except UserError:
            raise
        except Exception as error:
            from gam_yolo.graph.lint import explain
            from gam_yolo.graph.transfer import has_blocks

            if has_blocks(instance) and (reason := explain(instance.yaml)):
                raise reason from error
            raise

    wrapt.wrap_function_wrapper(tasks, "DetectionModel.__init__", init)
