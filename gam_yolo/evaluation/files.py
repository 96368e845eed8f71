"""Checks of JSON records, under the name that the report uses."""

from __future__ import annotations

from gam_yolo.annotations.images import image_id_of
from gam_yolo.annotations.records import number_of, shown

__all__ = ["image_id_of", "number_of", "shown"]
