"""Let Ultralytics find the YAMLs that come with this package by bare name, as it finds its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import PurePath
from types import ModuleType
from typing import Any

import wrapt

from gam_yolo import ultralytics_api
from gam_yolo.resources import shipped

__all__ = ["patch"]


def patch(checks: ModuleType) -> None:
    """Wrap `check_file` of `ultralytics.utils.checks`, also for modules that have imported it by name already.

    Raises:
        UserError: It is missing, or has other parameters than those we know.
    """
    original = ultralytics_api.ASSUMPTIONS["check_file"].get(checks)

    def check_file(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        file = str(args[0] if args else kwargs.get("file", "")).strip()
        bare_yaml = file == PurePath(file).name and PurePath(file).suffix in {".yaml", ".yml"}
        try:
            found = wrapped(*args, **kwargs)
        except FileNotFoundError:
            if bare_yaml and (ours := shipped(file)):
                return str(ours)
            raise
        if not found and bare_yaml and (ours := shipped(file)):
            return str(ours)
        return found

    wrapper = wrapt.FunctionWrapper(original, check_file)
    for module in [m for name, m in sys.modules.items() if name.startswith("ultralytics")]:
        if getattr(module, "check_file", None) is original:
            module.check_file = wrapper  # type: ignore[attr-defined]  # a name some of its modules have
