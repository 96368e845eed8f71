"""Predictions of every seed of every variant: read where they exist, else made by Ultralytics' validation."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gam_yolo import ultralytics_api
from gam_yolo.annotations.classes import is_ranking_file
from gam_yolo.annotations.images import base_name, image_files
from gam_yolo.annotations.yolo import dataset
from gam_yolo.errors import UserError, similar
from gam_yolo.evaluation import Detections, GroundTruth, parse_detections, read_detections
from gam_yolo.evaluation.groups import GroupSpec
from gam_yolo.file_digests import FileDigests
from gam_yolo.identity import checkpoint_code_digest, environment
from gam_yolo.io import file_sha256, is_number, text_sha256, write
from gam_yolo.known_faults import reject_broken_numpy
from gam_yolo.report.protocol import Protocol, read_protocol, reject_differences, write_protocol
from gam_yolo.report.tasks import TaskName
from gam_yolo.report.variants import Variant

__all__ = [
    "CONF",
    "IOU",
    "MAX_DET",
    "Predicted",
    "Settings",
    "collect",
    "common_imgsz",
    "find_task",
    "folder_name",
    "load",
    "reject_copies",
]

CONF, IOU, MAX_DET = 0.001, 0.7, 300
"""Ultralytics' own defaults for validation, written out so that no configuration file changes a comparison."""

_METHOD = "NMS without time limit"  # in the name of a stored prediction file; those made otherwise are not used again
_CLASSES = {
    "detect": ("DetectionModel", "a detection model"),
    "classify": ("ClassificationModel", "a classification model"),
}
_LEAST_STRIDE = 32  # Ultralytics rounds image sizes up to a multiple of it, or of a model's larger stride


@dataclass(frozen=True)
class Settings:
    """What the user chose for validation.

    Attributes:
        data: Dataset YAML.
        split: Split of it.
        imgsz: Image size in pixels; None for the size the checkpoints were trained at.
        batch: Images per batch.
        device: Device in Ultralytics' notation, "" for its choice.
        groups: Which images are not independent; None for what the dataset YAML says.

    Raises:
        UserError: A number is not positive.
    """

    data: str | None
    split: str
    imgsz: int | None
    batch: int
    device: str
    groups: GroupSpec = None

    def __post_init__(self) -> None:
        for name, value in (("imgsz", self.imgsz), ("batch", self.batch)):
            if value is not None and value < 1:
                raise UserError(f"--{name} (in Python {name}=) is {value}", expected="1 or more")


@dataclass(frozen=True)
class Predicted:
    """One seed's predictions.

    Attributes:
        path: The checkpoint or prediction file the user named.
        detections: What it predicts.
        protocol: How that was made.
        own: Scores of the same predictions by Ultralytics' validation, under its names; empty if it did not run.
    """

    path: Path
    detections: Detections
    protocol: Protocol
    own: dict[str, float]


def collect(
    variants: Sequence[Variant], truth: GroundTruth, settings: Settings, cache: Path, progress: Callable[[str], None]
) -> dict[str, list[Predicted]]:
    """Get the predictions of all variants. Results of different protocols are rejected.

    Args:
        variants: What to compare.
        truth: What to compare it with.
        settings: What the user chose.
        cache: Folder for predictions made here; those found in it are used if weights and protocol are the same.
        progress: Called with a line of text at each step.

    Raises:
        UserError: A file is unfit, or protocols differ.
    """
    reject_copies(variants)
    imgsz = common_imgsz(variants, settings, progress)
    images = _images_digest(settings, cache) if imgsz else ""
    total = sum(len(variant.paths) for variant in variants)
    result: dict[str, list[Predicted]] = {variant.name: [] for variant in variants}
    for number, (name, path) in enumerate(((v.name, path) for v in variants for path in v.paths), 1):
        progress(f"[{number}/{total}] {name}: {path}")
        if path.suffix == ".json":
            result[name].append(_read(path, truth))
        else:
            stored = cache / folder_name(name)
            result[name].append(_validated(path, truth, settings, imgsz, images, stored, progress))
    reject_differences(
        [
            (str(p.path), p.protocol, p.detections, int(_per_image(p.detections).max(initial=0)))
            for predicted in result.values()
            for p in predicted
        ]
    )
    return result


def _images_digest(settings: Settings, cache: Path) -> str:
    """Return a digest of the content of all images of the split."""
    digests = FileDigests(cache / "digests.json")
    found = digests.of(
        sorted(image_files(dataset(settings.data or "", settings.split)[settings.split], settings.split))
    )
    with contextlib.suppress(UserError):  # it only saves time
        digests.save()
    return text_sha256(found)


def folder_name(name: str) -> str:
    """Name a variant's folder of predictions; not every name of a variant can be a folder's."""
    return re.sub(r"[^\w-]+", "-", name)[:80]


def reject_copies(variants: Sequence[Variant]) -> None:
    """Reject copies of one file, which would pass for seeds that agree to the last digit."""
    seen: dict[str, Path] = {}
    for path in (path for variant in variants for path in variant.paths):
        digest = file_sha256(path)
        if digest in seen:
            raise UserError(f"{path} and {seen[digest]} have the same content", expected="different trainings")
        seen[digest] = path


def _read(path: Path, truth: GroundTruth) -> Predicted:
    """Read a prediction file the user gave."""
    protocol, own = read_protocol(path)
    if protocol.data not in (None, truth.digest):
        raise UserError(
            f"was made for another ground truth ({str(protocol.data)[:12]}) than {truth.source} ({truth.digest[:12]})",
            at=path,
        )
    return Predicted(path, read_detections(path, truth, whole=protocol.data is not None), protocol, own)


def _per_image(detections: Detections) -> NDArray[np.intp]:
    return np.bincount(detections.image)


def find_task(variants: Sequence[Variant]) -> TaskName:
    """Return what the variants do, by the first file of each; of a file that cannot be loaded, `load` says more later.

    Raises:
        UserError: Detectors and classifiers are mixed.
    """
    found: dict[TaskName, Path] = {}
    for path in (variant.paths[0] for variant in variants):
        with contextlib.suppress(UserError):
            classifies = is_ranking_file(path) if path.suffix == ".json" else load(path, None).task == "classify"
            found.setdefault("classify" if classifies else "detect", path)
    if len(found) > 1:
        raise UserError(
            f"{found['classify']} is of a classifier and {found['detect']} is not", expected="models of one task"
        )
    return next(iter(found), "detect")


def common_imgsz(
    variants: Sequence[Variant], settings: Settings, progress: Callable[[str], None], task: TaskName = "detect"
) -> int:
    """Return the image size of all checkpoints, as Ultralytics rounds it; 0 where there are none.

    It loads every checkpoint and tries the device, so that what cannot work is found before anything takes time.
    """
    checkpoints = [path for variant in variants for path in variant.paths if path.suffix == ".pt"]
    if not checkpoints:
        return 0
    if settings.data is None:
        raise UserError(
            "is a checkpoint, and there is no dataset to validate it on",
            at=checkpoints[0],
            fix=f"Give a {'dataset YAML' if task == 'detect' else 'folder'}: --data, in Python data=",
        )
    reject_broken_numpy()
    _try_device(settings.device)
    sizes, stride = {}, _LEAST_STRIDE
    for path in checkpoints:
        model = load(path, task)
        size = model.model.args.get("imgsz", 640)
        sizes[path] = int(size if isinstance(size, int) else max(size))
        stride = max(stride, int(model.model.stride.max()))
    if settings.imgsz is None and len(set(sizes.values())) > 1:
        (a, size_a), (b, size_b) = sorted(sizes.items(), key=lambda item: item[1])[:: len(sizes) - 1]
        raise UserError(
            f"{a} was trained at {size_a} pixels and {b} at {size_b}",
            fix="Give --imgsz (in Python imgsz=) to compare them at one size",
        )
    wanted = settings.imgsz or sizes[checkpoints[0]]
    rounded = -(-wanted // stride) * stride
    if rounded != wanted:
        progress(f"image size {wanted} is rounded up to {rounded}, a multiple of {stride}, as Ultralytics does")
    return rounded


def _try_device(device: str) -> None:
    import torch

    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        torch.zeros(1, device=ultralytics_api.get("select_device")(device, verbose=False))
    except Exception:
        if before is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        raise UserError(
            f"device '{device}' is not available",
            expected=f"'cpu', 'mps', or numbers of CUDA devices, of which there are {torch.cuda.device_count()}",
        ) from None


def load(path: Path, task: TaskName | None = "detect") -> Any:
    """Load a checkpoint as an Ultralytics model.

    Args:
        path: The file.
        task: The task that it must be of; None for any.

    Raises:
        UserError: It cannot be loaded, or is of another task.
    """
    try:
        model = ultralytics_api.model(path)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot be loaded as a checkpoint ({reason})", at=path) from None
    if task is None:
        return model
    if model.task != task:
        raise UserError(f"is a model for '{model.task}'", at=path, expected=f"one for '{task}'")
    kind, words = _CLASSES[task]
    if not isinstance(model.model, ultralytics_api.get(kind)):
        raise UserError(f"holds a {type(model.model).__name__}", at=path, expected=words)
    return model


def _validated(
    path: Path,
    truth: GroundTruth,
    settings: Settings,
    imgsz: int,
    images: str,
    cache: Path,
    progress: Callable[[str], None],
) -> Predicted:
    """Return a checkpoint's predictions from the cache, or validate it and put them there.

    Stored predictions are used only if the weights, the code of the model, the images, the objects, the settings and
    the environment are the same.
    """
    model = load(path)
    protocol = Protocol(
        data=truth.digest,
        imgsz=imgsz,
        conf=CONF,
        iou=IOU,
        max_det=MAX_DET,
        ultralytics=ultralytics_api.version(),
        weights=file_sha256(path),
    )
    # Ultralytics pads each image to the shape of its batch, so the batch size changes the predictions a little.
    batch, code = settings.batch, checkpoint_code_digest(model.model)
    determines = (protocol, _METHOD, batch, images, code, environment())
    key = text_sha256(repr(determines))[:16]
    stored = cache / f"{key}.json"
    if stored.is_file():
        progress("its predictions are stored already")
        known, own = read_protocol(stored)
        return Predicted(path, read_detections(stored, truth, whole=True), known, own)
    try:  # before anything takes time
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"predictions cannot be stored there ({error.strerror})", at=cache) from None
    progress(f"validating on {len(truth.ids)} images at {imgsz} pixels")
    records, own, max_det = _validate(model, path, truth, settings, imgsz)
    protocol = replace(protocol, max_det=max_det)
    detections = parse_detections(records, truth, str(path))
    write_protocol(stored, protocol, own)
    write(stored, json.dumps(records))  # last: a prediction file is never there without its protocol
    return Predicted(path, detections, protocol, own)


def _validate(
    model: Any, path: Path, truth: GroundTruth, settings: Settings, imgsz: int
) -> tuple[list[dict[str, Any]], dict[str, float], int]:
    """Run Ultralytics' validation; return COCO result records, Ultralytics' own metrics and its limit of detections."""
    repeated = [name for name, count in Counter(model.names.values()).items() if count > 1]
    if repeated:
        raise UserError(f"has two classes named '{repeated[0]}'", at=path, expected="a name of its own for each class")
    label_of = dict(zip(truth.classes, truth.category_ids, strict=True))
    unknown = [name for name in model.names.values() if name not in label_of]
    if unknown:
        raise UserError(
            f"detects '{unknown[0]}', which is not one of the {len(label_of)} classes of {truth.source}",
            at=path,
            similar=similar(unknown[0], label_of),
        )
    alike = Counter(base_name(file) for file in truth.files)

    def in_folders(file: Path) -> str | None:
        """Name an image with its folders, as the annotations do, where several images have its name."""
        if alike[file.name] < 2:
            return None
        return next((name for name in truth.files if file.parts[-len(p := Path(name).parts) :] == p), None)

    seen: list[Any] = []
    base = model._smart_load("validator")

    class Validator(base):  # type: ignore[misc, valid-type]
        """Ultralytics' validator without its own COCO evaluation, which needs another package."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            seen.append(self)  # `eval_json` is not called where nothing at all was detected

        def pred_to_json(self, predn: Any, pbatch: Any) -> None:
            known = len(self.jdict)
            super().pred_to_json(predn, pbatch)
            if isinstance(pbatch, dict) and (name := in_folders(Path(pbatch["im_file"]))):
                for record in self.jdict[known:]:
                    record["file_name"] = name

        def eval_json(self, stats: dict[str, Any]) -> dict[str, Any]:
            return stats

    with (
        tempfile.TemporaryDirectory() as scratch,
        ultralytics_api.unlimited_nms(),
        ultralytics_api.quiet(),  # its log names the folder of `scratch`
        contextlib.redirect_stdout(io.StringIO()),  # its progress bar
    ):
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
    own = {key: float(value) for key, value in metrics.results_dict.items() if is_number(value)}
    return records, own, int(validator.args.max_det)
