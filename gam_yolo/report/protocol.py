"""How predictions were made: what has to agree before two results may be compared."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gam_yolo.errors import UserError
from gam_yolo.evaluation import Detections
from gam_yolo.evaluation.files import number_of, shown
from gam_yolo.io import read_json, write

__all__ = ["Protocol", "read_protocol", "refuse_differences", "write_protocol"]


@dataclass(frozen=True)
class Protocol:
    """The settings a prediction file was made with; None where they are not on record.

    Attributes:
        data: Digest of the ground truth (`GroundTruth.digest`).
        imgsz: Image size of the network's input in pixels.
        conf: Lowest confidence kept.
        iou: IoU at which non-maximum suppression takes two boxes for one.
        max_det: Most detections of an image.
        ultralytics: Version that made the predictions.
        weights: SHA-256 of the checkpoint.
    """

    data: str | None = None
    imgsz: int | None = None
    conf: float | None = None
    iou: float | None = None
    max_det: int | None = None
    ultralytics: str | None = None
    weights: str | None = None


# Versions and weights are reported; these decide.
_BINDING = {
    "data": "ground truth",
    "imgsz": "image size",
    "conf": "lowest confidence",
    "iou": "IoU of non-maximum suppression",
    "max_det": "most detections of an image",
}


_TEXTS = {"data", "ultralytics", "weights"}  # all else is numbers


def _beside(predictions: Path) -> Path:
    return predictions.with_suffix(".protocol.json")


def write_protocol(predictions: Path, protocol: Protocol, own: dict[str, float]) -> None:
    """Put the protocol, and what Ultralytics itself measured, beside a prediction file."""
    write(_beside(predictions), json.dumps({**asdict(protocol), "own": own}, indent=1))


def read_protocol(predictions: Path) -> tuple[Protocol, dict[str, float]]:
    """Read what `write_protocol` wrote; nothing but Nones where there is no such file."""
    path = _beside(predictions)
    if not path.is_file():
        return Protocol(), {}
    content: Any = read_json(path)
    known = {field.name for field in fields(Protocol)}
    if not isinstance(content, dict) or not known >= content.keys() - {"own"}:
        raise UserError(f"{path}: is not a protocol; expected an object with the keys {', '.join(sorted(known))}")
    own = content.pop("own", {})
    if not isinstance(own, dict):
        raise UserError(f"{path}: 'own' is {shown([own])}; expected an object of numbers")
    for key, value in content.items():
        if key in _TEXTS and not isinstance(value, str | None):
            raise UserError(f"{path}: '{key}' is {shown([value])}; expected a text")
        if key not in _TEXTS and value is not None:
            number_of(content, key, str(path))
    return Protocol(**content), {key: number_of(own, key, f"{path}: own") for key in own}


def refuse_differences(results: list[tuple[str, Protocol, Detections, int]]) -> None:
    """Refuse results that were not made under one protocol, and say in what they differ.

    A setting that is on record for one result and not for another is held against what the other's detections show.

    Args:
        results: Name, protocol, detections and most detections of an image, for each.

    Raises:
        UserError: Two results differ.
    """
    for key, what in _BINDING.items():
        on_record = [(name, getattr(protocol, key)) for name, protocol, _, _ in results]
        values = [(name, value) for name, value in on_record if value is not None]
        for name, value in values[1:]:
            if value != values[0][1]:
                shown = [str(v)[:12] for v in (values[0][1], value)]
                raise UserError(
                    f"'{values[0][0]}' and '{name}' differ in {what} ({shown[0]} and {shown[1]}) and cannot be compared"
                )
        off_record = [(name, d, most) for name, protocol, d, most in results if getattr(protocol, key) is None]
        for name, detections, most in off_record if values else []:
            lowest = detections.score.min(initial=1.0)
            if key == "conf" and lowest < values[0][1]:
                raise UserError(
                    f"'{name}' has detections of confidence {lowest:.2g}, but '{values[0][0]}' was cut at "
                    f"{values[0][1]:g}; they cannot be compared"
                )
            if key == "max_det" and most > values[0][1]:
                raise UserError(
                    f"'{name}' has {most} detections on an image, but '{values[0][0]}' was limited to {values[0][1]}; "
                    "they cannot be compared"
                )
