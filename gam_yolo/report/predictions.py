"""Predictions of every seed of every variant: read where they exist, made by Ultralytics' validation where not."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError, nearest
from gam_yolo.evaluation import Detections, GroundTruth, parse_detections, read_detections
from gam_yolo.io import file_sha256, write
from gam_yolo.report.protocol import Protocol, read_protocol, refuse_differences, write_protocol
from gam_yolo.report.variants import Variant

__all__ = ["CONF", "IOU", "MAX_DET", "Predicted", "Settings", "collect", "load"]

CONF, IOU, MAX_DET = 0.001, 0.7, 300
"""Ultralytics' own defaults for validation, written out so that no configuration file changes a comparison."""


@dataclass(frozen=True)
class Settings:
    """What the user chose for validation.

    Attributes:
        data: Dataset YAML.
        split: Split of it.
        imgsz: Image size in pixels; None for the size the checkpoints were trained at.
        batch: Images a batch.
        device: Device in Ultralytics' notation, "" for its choice.
    """

    data: str | None
    split: str
    imgsz: int | None
    batch: int
    device: str


@dataclass(frozen=True)
class Predicted:
    """One seed's predictions.

    Attributes:
        path: The checkpoint or prediction file the user named.
        detections: What it predicts.
        protocol: How that was made.
        own: What Ultralytics' validation says of the same predictions, by its own names; empty if it did not run.
    """

    path: Path
    detections: Detections
    protocol: Protocol
    own: dict[str, float]


def collect(
    variants: Sequence[Variant], truth: GroundTruth, settings: Settings, cache: Path, progress: Callable[[str], None]
) -> dict[str, list[Predicted]]:
    """Get the predictions of all variants and refuse what differs in protocol.

    Args:
        variants: What to compare.
        truth: What to compare it with.
        settings: What the user chose.
        cache: Folder for predictions made here; those found in it are used if weights and protocol are the same.
        progress: Called with a line of text at each step.

    Raises:
        UserError: A file is unfit, or protocols differ.
    """
    _refuse_copies(variants)
    imgsz = _common_imgsz(variants, settings)
    total = sum(len(variant.paths) for variant in variants)
    result: dict[str, list[Predicted]] = {variant.name: [] for variant in variants}
    for number, (name, path) in enumerate(((v.name, path) for v in variants for path in v.paths), 1):
        progress(f"[{number}/{total}] {name}: {path}")
        of_file = path.suffix == ".json"
        result[name].append(
            _read(path, truth) if of_file else _validated(path, truth, settings, imgsz, cache / name, progress)
        )
    refuse_differences(
        [
            (str(p.path), p.protocol, p.detections, int(_per_image(p.detections).max(initial=0)))
            for predicted in result.values()
            for p in predicted
        ]
    )
    return result


def _refuse_copies(variants: Sequence[Variant]) -> None:
    """Refuse copies of one file, which would pass for seeds that agree to the last digit."""
    seen: dict[str, Path] = {}
    for path in (path for variant in variants for path in variant.paths):
        digest = file_sha256(path)
        if digest in seen:
            raise UserError(f"{path} and {seen[digest]} have the same content; expected different trainings")
        seen[digest] = path


def _read(path: Path, truth: GroundTruth) -> Predicted:
    """Read a prediction file the user gave."""
    protocol, own = read_protocol(path)
    if protocol.data not in (None, truth.digest):
        raise UserError(
            f"{path}: was made for another ground truth ({str(protocol.data)[:12]}) than {truth.source} "
            f"({truth.digest[:12]})"
        )
    return Predicted(path, read_detections(path, truth, whole=protocol.data is not None), protocol, own)


def _per_image(detections: Detections) -> NDArray[np.intp]:
    return np.bincount(detections.image)


def _common_imgsz(variants: Sequence[Variant], settings: Settings) -> int:
    """The image size of all checkpoints; 0 where there are none."""
    checkpoints = [path for variant in variants for path in variant.paths if path.suffix == ".pt"]
    if not checkpoints:
        return 0
    if settings.data is None:
        raise UserError(f"{checkpoints[0]}: is a checkpoint, so --data must name the dataset YAML to validate it on")
    if settings.imgsz is not None:
        return settings.imgsz
    sizes = {path: _trained_imgsz(path) for path in checkpoints}
    if len(set(sizes.values())) > 1:
        (a, size_a), (b, size_b) = sorted(sizes.items(), key=lambda item: item[1])[:: len(sizes) - 1]
        raise UserError(
            f"{a} was trained at {size_a} pixels and {b} at {size_b}; give --imgsz to compare them at one size"
        )
    return sizes[checkpoints[0]]


def load(path: Path) -> Any:
    """Load a detection checkpoint as an Ultralytics model.

    Raises:
        UserError: It cannot be loaded or is no detector.
    """
    try:
        model = ultralytics_api.model(path)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be loaded as a checkpoint ({reason})") from None
    if model.task != "detect":
        raise UserError(f"{path}: is a model for '{model.task}'; expected one for 'detect'")
    return model


def _trained_imgsz(path: Path) -> int:
    size = load(path).model.args.get("imgsz", 640)
    return int(size if isinstance(size, int) else max(size))


def _validated(
    path: Path, truth: GroundTruth, settings: Settings, imgsz: int, cache: Path, progress: Callable[[str], None]
) -> Predicted:
    """Return a checkpoint's predictions from the cache, or validate it and put them there."""
    protocol = Protocol(
        data=truth.digest,
        imgsz=imgsz,
        conf=CONF,
        iou=IOU,
        max_det=MAX_DET,
        ultralytics=ultralytics_api.version(),
        weights=file_sha256(path),
    )
    key = hashlib.sha256(repr(protocol).encode()).hexdigest()[:16]
    stored = cache / f"{key}.json"
    if stored.is_file():
        progress("its predictions are at hand")
        known, own = read_protocol(stored)
        return Predicted(path, read_detections(stored, truth, whole=True), known, own)
    progress(f"validating on {len(truth.ids)} images at {imgsz} pixels")
    records, own, max_det = _validate(path, truth, settings, imgsz)
    protocol = replace(protocol, max_det=max_det)
    detections = parse_detections(records, truth, str(path))
    cache.mkdir(parents=True, exist_ok=True)
    write_protocol(stored, protocol, own)
    write(stored, json.dumps(records))  # last: a prediction file is never there without its protocol
    return Predicted(path, detections, protocol, own)


def _validate(
    path: Path, truth: GroundTruth, settings: Settings, imgsz: int
) -> tuple[list[dict[str, Any]], dict[str, float], int]:
    """Run Ultralytics' validation; return COCO result records, Ultralytics' own metrics and its limit of detections."""
    model = load(path)
    label_of = dict(zip(truth.classes, truth.category_ids, strict=True))
    unknown = [name for name in model.names.values() if name not in label_of]
    if unknown:
        raise UserError(
            f"{path}: detects '{unknown[0]}', which is none of the {len(label_of)} classes of {truth.source}"
            f"{nearest(unknown[0], label_of)}"
        )
    seen: list[Any] = []
    base = model._smart_load("validator")

    class Validator(base):  # type: ignore[misc, valid-type]
        """Ultralytics' validator without its own COCO evaluation, which needs a further package and is not wanted."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            seen.append(self)  # `eval_json` is not called where nothing at all was detected, which scores 0

        def eval_json(self, stats: dict[str, Any]) -> dict[str, Any]:
            return stats

    with tempfile.TemporaryDirectory() as scratch:
        metrics = model.val(
            validator=Validator,
            data=settings.data,
            split=settings.split,
            imgsz=imgsz,
            batch=settings.batch,
            device=settings.device or None,
            conf=CONF,
            iou=IOU,
            max_det=MAX_DET,
            save_json=True,
            plots=False,
            verbose=False,
            project=scratch,
            name="val",
        )
    (validator,) = seen
    class_of = {category: index for index, category in enumerate(validator.class_map)}
    records = [
        {**record, "category_id": label_of[model.names[class_of[record["category_id"]]]]} for record in validator.jdict
    ]
    own = {key: float(value) for key, value in metrics.results_dict.items() if isinstance(value, (int, float))}
    return records, own, int(validator.args.max_det)
