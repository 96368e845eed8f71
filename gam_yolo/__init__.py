"""gam_yolo: put an attention block anywhere in a YOLO, train it, and know, with error bars, whether it was worth it.

Importing it registers the blocks with Ultralytics, which an installed package does by itself (see
`gam_yolo.plugin.autoload`). The public names load when they are first used, so that neither torch nor Ultralytics is
imported before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from gam_yolo.plugin import autoload as _autoload

if TYPE_CHECKING:
    from gam_yolo.blocks import GAM as GAM
    from gam_yolo.errors import UserError as UserError
    from gam_yolo.registry import BLOCKS as BLOCKS
    from gam_yolo.registry import register as register

__version__ = "0.2.0"

_PUBLIC = {
    "BLOCKS": "gam_yolo.registry",
    "GAM": "gam_yolo.blocks",
    "UserError": "gam_yolo.errors",
    "register": "gam_yolo.registry",
}
__all__ = ["BLOCKS", "GAM", "UserError", "__version__", "register"]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'gam_yolo' has no attribute '{name}'")


_autoload.autoload()
