"""How predictions were made, and what has to agree before two results may be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np

from gam_yolo.errors import UserError
from gam_yolo.evaluation import Detections
from gam_yolo.io import read_json, write
from gam_yolo.report.records import read_record

__all__ = ["Protocol", "read_protocol", "reject_differences", "write_protocol"]


@dataclass(frozen=True)
class Protocol:
    """The settings a prediction file was made with; None where they are not recorded.

    Attributes:
        data: Digest of the ground truth (`GroundTruth.digest`).
        imgsz: Image size of the network's input in pixels.
        conf: Lowest confidence kept.
        iou: IoU above which non-maximum suppression drops the less confident of two boxes.
        max_det: Most detections per image.
        ultralytics: Version that made the predictions.
        weights: SHA-256 of the checkpoint.
        device: The kind of device that made the predictions, such as "cpu" or "cuda".
    """

    data: str | None = None
    imgsz: int | None = None
    conf: float | None = None
    iou: float | None = None
    max_det: int | None = None
    ultralytics: str | None = None
    weights: str | None = None
    device: str | None = None


# These must agree. Versions, weights and devices are only reported.
_BINDING = {
    "data": "ground truth",
    "imgsz": "image size",
    "conf": "lowest confidence",
    "iou": "IoU of non-maximum suppression",
    "max_det": "most detections per image",
}


@dataclass(frozen=True)
class _Stored(Protocol):
    """A protocol as its file holds it, with Ultralytics' own scores of the predictions."""

    own: Mapping[str, float] = field(default_factory=dict)


def _beside(predictions: Path) -> Path:
    return predictions.with_suffix(".protocol.json")


def write_protocol(predictions: Path, protocol: Protocol, own: dict[str, float]) -> None:
    """Put the protocol, and Ultralytics' own scores, beside a prediction file."""
    write(_beside(predictions), json.dumps({**asdict(protocol), "own": own}, indent=1))


def read_protocol(predictions: Path) -> tuple[Protocol, dict[str, float]]:
    """Read what `write_protocol` wrote; nothing but Nones where there is no such file.

    Raises:
        UserError: The file is broken.
    """
    path = _beside(predictions)
    if not path.is_file():
        return Protocol(), {}
    content = read_json(path)
    known = [f.name for f in fields(_Stored)]
    if not isinstance(content, dict) or not set(known) >= content.keys():
        raise UserError("is not a protocol", at=path, expected=f"an object with the keys {', '.join(known)}")
    stored = read_record(_Stored, content, str(path))
    return Protocol(**{f.name: getattr(stored, f.name) for f in fields(Protocol)}), dict(stored.own)


def reject_differences(results: Sequence[tuple[str, Protocol, object]]) -> None:
    """Reject results that were not made under one protocol, with the setting in which they differ.

    A setting that is recorded for one result and not for another is checked against the other's detections.

    Args:
        results: Name, protocol and predictions of each.

    Raises:
        UserError: Two results differ.
    """
    fix = "Make both with the same settings"
    for key, what in _BINDING.items():
        recorded = [(name, value) for name, protocol, _ in results if (value := getattr(protocol, key)) is not None]
        if not recorded:
            continue
        first, expected = recorded[0]
        for name, value in recorded[1:]:
            if value != expected:
                raise UserError(
                    f"'{first}' and '{name}' differ in {what} ({expected!s:.12} and {value!s:.12})", fix=fix
                )
        for name, protocol, detections in results:
            if getattr(protocol, key) is not None or not isinstance(detections, Detections):
                continue
            lowest = detections.score.min(initial=1.0)
            if key == "conf" and lowest < expected:
                raise UserError(
                    f"'{name}' has detections of confidence {lowest:.2g}, but '{first}' has none below {expected:g}",
                    fix=fix,
                )
            most = np.bincount(detections.image).max(initial=0)
            if key == "max_det" and most > expected:
                raise UserError(
                    f"'{name}' has {most} detections on an image, but '{first}' is limited to {expected}", fix=fix
                )
