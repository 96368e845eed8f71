"""Register with Ultralytics in every process that imports torch, before Ultralytics parses a model.

`import torch` calls the entry points of the group `torch.backends` (torch 2.5 and newer), and Ultralytics imports
torch before anything that we patch; so `autoload`, listed there, reaches the `yolo` script, notebooks, DDP and
data-loader workers alike. It imports neither torch nor Ultralytics: it leaves a note for the import system to patch
each Ultralytics module when that is imported. Set `GAM_YOLO_AUTOLOAD=0` to switch it off; `import gam_yolo` then
still registers by hand.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from types import ModuleType

import wrapt

__all__ = ["PATCHES", "autoload", "install", "switched_on"]

SWITCH = "GAM_YOLO_AUTOLOAD"

PATCHES = {
    "ultralytics.utils.checks": ("gam_yolo.plugin.files",),
    "ultralytics.nn.tasks": ("gam_yolo.plugin.parser", "gam_yolo.plugin.fuse"),
    "ultralytics.cfg": ("gam_yolo.plugin.command",),
}
"""Ultralytics' module -> our modules whose `patch` is called with it once it is imported."""

_installed = False


def switched_on() -> bool:
    """Return whether the environment leaves automatic registration on."""
    return os.environ.get(SWITCH, "1").lower() not in {"0", "off", "false", "no"}


def autoload() -> None:
    """Register unless switched off. `import torch` calls it and would break on an exception, so none leaves it."""
    try:
        if switched_on():
            install()
    except Exception as error:
        warnings.warn(f"gam_yolo did not register with Ultralytics: {error}", stacklevel=2)


def install() -> None:
    """Patch each Ultralytics module when it is imported, at once where it is already; a second call does nothing."""
    global _installed  # one per process, as the import system's own state is
    if not _installed:
        _installed = True
        for name in PATCHES:
            wrapt.register_post_import_hook(_apply, name)


def _apply(module: ModuleType) -> None:
    """Apply our patches to a module of Ultralytics; one that they do not fit is left as it is, our blocks refused."""
    for patch in PATCHES[module.__name__]:
        try:
            importlib.import_module(patch).patch(module)
        except Exception as error:
            _refuse(module, f"gam_yolo {patch.rpartition('.')[2]}: {error}")


def _refuse(module: ModuleType, why: str) -> None:
    version = getattr(sys.modules.get("ultralytics"), "__version__", "of unknown version")
    reason = (
        f"gam_yolo cannot serve ultralytics {version} ({why}); pip install -U gam-yolo, or an Ultralytics it supports"
    )
    warnings.warn(reason, stacklevel=2)
    if module.__name__ == "ultralytics.nn.tasks":
        from gam_yolo.plugin.parser import unavailable

        unavailable(module, reason)
