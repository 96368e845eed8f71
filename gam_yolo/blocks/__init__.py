"""Attention blocks, one a file. Each takes its channel count first and keeps the shape (B, C, H, W) of its input."""

from gam_yolo.blocks.forks import GAM_Attention
from gam_yolo.blocks.gam import GAM

__all__ = ["GAM", "GAM_Attention"]
