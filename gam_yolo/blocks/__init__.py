"""Attention blocks, one per file. Each takes its channel count first and keeps the shape (B, C, H, W) of its input.

The package is also the function `gam_yolo.blocks()`: see `gam_yolo.describe`.
"""

from __future__ import annotations

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
