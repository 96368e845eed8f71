"""Attention blocks, one per file. Each takes its channel count first and keeps the shape (B, C, H, W) of its input.

Called as a function, `gam_yolo.blocks()` lists the registered blocks: see `gam_yolo.describe.blocks`. The package needs
its name because checkpoints name its modules, and the function needs the same name to be what a user expects.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING

from gam_yolo.blocks.bam import BAM
from gam_yolo.blocks.caa import CAA
from gam_yolo.blocks.cbam import CBAM, UltralyticsCBAM
from gam_yolo.blocks.coordatt import CoordAtt
from gam_yolo.blocks.eca import ECA
from gam_yolo.blocks.ela import ELA
from gam_yolo.blocks.ema import EMA
from gam_yolo.blocks.forks import GAM_Attention
from gam_yolo.blocks.gam import GAM
from gam_yolo.blocks.lska import LSKA
from gam_yolo.blocks.mlca import MLCA
from gam_yolo.blocks.scsa import SCSA
from gam_yolo.blocks.se import SE
from gam_yolo.blocks.simam import SimAM
from gam_yolo.blocks.triplet import Triplet

if TYPE_CHECKING:
    from gam_yolo.describe import BlockInfo

__all__ = [
    "BAM",
    "CAA",
    "CBAM",
    "ECA",
    "ELA",
    "EMA",
    "GAM",
    "LSKA",
    "MLCA",
    "SCSA",
    "SE",
    "CoordAtt",
    "GAM_Attention",
    "SimAM",
    "Triplet",
    "UltralyticsCBAM",
]


_list_blocks = importlib.import_module("gam_yolo.describe").blocks


class _CallablePackage(ModuleType):
    def __call__(
        self, names: Iterable[str] | None = None, *, channels: int = 256, size: int = 20
    ) -> list[BlockInfo]:  # what `inspect.signature` and editors show
        found: list[BlockInfo] = _list_blocks(names, channels=channels, size=size)
        return found

    __call__.__doc__ = _list_blocks.__doc__


__doc__ = f"{__doc__}\nblocks{inspect.signature(_list_blocks)}\n    {_list_blocks.__doc__}"  # what `help` shows

sys.modules[__name__].__class__ = _CallablePackage
