"""Attention blocks, one a file. Each takes its channel count first and keeps the shape (B, C, H, W) of its input."""

from gam_yolo.blocks.bam import BAM
from gam_yolo.blocks.cbam import CBAM, UltralyticsCBAM
from gam_yolo.blocks.coordatt import CoordAtt
from gam_yolo.blocks.eca import ECA
from gam_yolo.blocks.forks import GAM_Attention
from gam_yolo.blocks.gam import GAM
from gam_yolo.blocks.se import SE
from gam_yolo.blocks.simam import SimAM
from gam_yolo.blocks.triplet import Triplet

__all__ = ["BAM", "CBAM", "ECA", "GAM", "SE", "CoordAtt", "GAM_Attention", "SimAM", "Triplet", "UltralyticsCBAM"]
