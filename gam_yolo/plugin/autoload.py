"""Register with Ultralytics in every process that imports torch, before Ultralytics parses a model.

`import torch` calls the entry points of the group `torch.backends` (torch 2.5 and newer), and Ultralytics imports torch
before anything that we patch. So `autoload`, listed there, reaches the `yolo` script, notebooks, DDP and data-loader
workers. `import gam_yolo` calls it too. It imports neither torch nor Ultralytics: it registers import hooks that patch
each Ultralytics module when that is imported.

The environment variable `GAM_YOLO=0` switches it off: nothing is patched, whatever is imported.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from types import ModuleType

__all__ = ["PATCHES", "autoload"]

SWITCH = "GAM_YOLO"

PATCHES = {
    "ultralytics.utils.checks": ("gam_yolo.plugin.check_file",),
    "ultralytics.nn.tasks": (
        "gam_yolo.plugin.load",
        "gam_yolo.plugin.fuse",
        "gam_yolo.plugin.detection_model",
        "gam_yolo.plugin.parse_model",  # after these: where one of them does not fit, no block is built
    ),
    "ultralytics.engine.trainer": ("gam_yolo.plugin.freeze", "gam_yolo.plugin.block_training"),
    "ultralytics.cfg": ("gam_yolo.plugin.entrypoint",),
}
"""Ultralytics' module -> our modules whose `patch` is called with it once it is imported."""

_done = False


def autoload() -> None:
    """Register unless switched off or done. An exception would break `import torch`, so none leaves this function."""
    global _done  # one per process, as the import system's own state is
    if _done or os.environ.get(SWITCH, "1").lower() in {"0", "off", "false", "no"}:
        return
    _done = True
    try:
        import wrapt  # here, where a broken installation of it costs a warning instead of `import torch`

        for name in PATCHES:
            wrapt.register_post_import_hook(_apply, name)
    except Exception as error:
        warnings.warn(f"gam_yolo did not register with Ultralytics: {error}", stacklevel=2)


def _apply(module: ModuleType) -> None:
    """Apply our patches to a module of Ultralytics. Where one does not fit, our blocks cannot be used, all else can."""
    for patch in PATCHES[module.__name__]:
        try:
            importlib.import_module(patch).patch(module)
        except Exception as error:
            _decline(module, f"{patch}: {error}")
            return


def _decline(module: ModuleType, why: str) -> None:
    version = getattr(sys.modules.get("ultralytics"), "__version__", "of unknown version")
    reason = (
        f"gam_yolo cannot serve ultralytics {version} ({why}); pip install -U gam-yolo, or an Ultralytics it supports"
    )
    warnings.warn(reason, stacklevel=2)
    if module.__name__ == "ultralytics.nn.tasks":
        with contextlib.suppress(Exception):  # the warning has been given; ordinary models must go on working
            importlib.import_module("gam_yolo.plugin.parse_model").unavailable(module, reason)
