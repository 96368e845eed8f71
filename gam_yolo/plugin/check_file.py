"""Let Ultralytics find the YAMLs that come with this package by bare name, as it finds its own.

Where `run2s/yolov8n.yaml` does not exist, it looks for `run2/yolov8.yaml`. Here the folder's name keeps its letter, so
`run2s/yolov8.yaml` is found.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import PurePath
from types import ModuleType
from typing import Any

import wrapt

from gam_yolo import ultralytics_api
from gam_yolo.resources import shipped, without_letter

__all__ = ["patch"]


def patch(checks: ModuleType) -> None:
    """Wrap `check_file` of `ultralytics.utils.checks`, also for modules that have imported it by name already.

    Raises:
        UserError: It is missing, or has other parameters than those we know.
    """
    original = ultralytics_api.ASSUMPTIONS["check_file"].get(checks)

    def check_file(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        file = str(args[0] if args else kwargs.get("file", "")).strip()
        is_yaml = PurePath(file).suffix in {".yaml", ".yml"}
        bare_yaml = is_yaml and file == PurePath(file).name
        try:
            found = wrapped(*args, **kwargs)
        except FileNotFoundError:
            if bare_yaml and (ours := shipped(file)):
                return str(ours)
            raise
        if not found and bare_yaml and (ours := shipped(file)):
            return str(ours)
        serves_all = without_letter(file)
        if not found and is_yaml and not bare_yaml and os.path.isfile(serves_all):  # noqa: PTH113  # never raises
            return serves_all
        return found

    wrapper = wrapt.FunctionWrapper(original, check_file)
    for module in [m for name, m in sys.modules.items() if name.startswith("ultralytics")]:
        if getattr(module, "check_file", None) is original:
            module.check_file = wrapper  # type: ignore[attr-defined]  # a name some of its modules have
