"""What the parts of a result are called."""

from __future__ import annotations

from typing import Any

__all__ = ["OURS", "PLAIN", "REFERENCE", "Json"]

Json = dict[str, Any]
"""Figures, as they are written to disk."""

PLAIN, REFERENCE, OURS = "YOLOv8n", "YOLOv8n-GAM, articles' code", "YOLOv8n-GAM blog"
"""The detectors that the others are compared with, and the one that is judged."""
