"""Let the `yolo` command end with a one-line error and exit status 2 where the input is wrong, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from gam_yolo import ultralytics_api
from gam_yolo.errors import EXIT_STATUS, UserError, find_cause

__all__ = ["patch"]


def patch(cfg: ModuleType) -> None:
    """Wrap `entrypoint` of the module `ultralytics.cfg`, which the `yolo` script calls.

    Raises:
        UserError: It is missing.
    """
    ultralytics_api.ASSUMPTIONS["entrypoint"].get(cfg)

    def entrypoint(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return wrapped(*args, **kwargs)
        except Exception as error:
            if (known := find_cause(error, UserError)) is None:
                raise
            cfg.LOGGER.error(str(known))
            sys.exit(EXIT_STATUS)

    wrapt.wrap_function_wrapper(cfg, "entrypoint", entrypoint)
