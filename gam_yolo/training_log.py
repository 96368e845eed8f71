"""What a training leaves in its folder: `results.csv`, one row per epoch, and `args.yaml`."""

from __future__ import annotations

import csv
import math
from pathlib import Path

__all__ = ["MAP", "MAP50", "TOP1", "TOP5", "read_results"]

MAP, MAP50 = "metrics/mAP50-95(B)", "metrics/mAP50(B)"
TOP1, TOP5 = "metrics/accuracy_top1", "metrics/accuracy_top5"
"""Ultralytics' names of the columns, of detectors and of classifiers."""


def read_results(path: Path) -> list[dict[str, float]]:
    """Read the complete rows of a `results.csv`, which may be written to at this moment.

    Returns:
        One mapping per epoch, from column name to number. Empty where the file is missing, or anything in it is not a
        finite number.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                {key.strip(): float(value) for key, value in row.items()}
                for row in csv.DictReader(file, skipinitialspace=True)
            ]
    except (OSError, ValueError, AttributeError, TypeError, csv.Error):
        return []
    return rows if all(math.isfinite(value) for row in rows for value in row.values()) else []
