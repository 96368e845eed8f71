"""Predictions of every seed of every variant: read where they exist, else made by Ultralytics' validation.

What differs between detectors and classifiers is in `detection.py` and `classification.py`, each a `Validation`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from gam_yolo import ultralytics_api
from gam_yolo.annotations.classes import LabelledImages, is_ranking_file
from gam_yolo.errors import UserError, one_line, option
from gam_yolo.evaluation import Detections, GroundTruth
from gam_yolo.evaluation.groups import GroupSpec
from gam_yolo.file_digests import FileDigests
from gam_yolo.io import file_sha256, is_number, text_sha256, write
from gam_yolo.known_faults import reject_broken_numpy
from gam_yolo.report.protocol import Protocol, read_protocol, reject_differences, write_protocol
from gam_yolo.report.tasks import TaskName
from gam_yolo.report.variants import Variant

__all__ = [
    "Predicted",
    "Settings",
    "Validated",
    "Validation",
    "check_device",
    "collect",
    "common_imgsz",
    "find_task",
    "folder_name",
    "load",
    "reject_copies",
    "run_validator",
]

P = TypeVar("P")

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
                raise UserError(f"{option(name)} is {value}", expected="1 or more")


@dataclass(frozen=True)
class Predicted(Generic[P]):
    """One seed's predictions.

    Attributes:
        path: The checkpoint or prediction file the user named.
        predictions: What it predicts.
        protocol: How that was made.
        own: Scores of the same predictions by Ultralytics' validation, under its names; empty if it did not run.
    """

    path: Path
    predictions: P
    protocol: Protocol
    own: dict[str, float]


@dataclass(frozen=True)
class Validated(Generic[P]):
    """What a validation found.

    Attributes:
        predictions: What the model predicts.
        records: The same as its file holds it.
        own: Ultralytics' scores of it, under its names.
        max_det: Ultralytics' limit of detections per image; None for classifiers.
    """

    predictions: P
    records: list[dict[str, Any]]
    own: dict[str, float]
    max_det: int | None = None


class Validation(ABC, Generic[P]):
    """How the predictions of one task are read, and how its models are validated.

    Attributes:
        task: The task.
        method: What identifies this way to validate: stored predictions that were made otherwise are not used again.
        thresholds: What the protocol records besides the image size.
        truth: What predictions are compared with.
        settings: What the user chose.
    """

    task: ClassVar[TaskName]
    method: ClassVar[str]
    thresholds: ClassVar[Mapping[str, Any]] = {}
    truth: GroundTruth | LabelledImages
    settings: Settings

    @abstractmethod
    def images(self) -> Sequence[Path]:
        """Return the image files of the split, in an order that does not change."""

    def labels(self) -> Sequence[Path]:
        """Return the label files that Ultralytics computes its own scores with; none if it has no such files."""
        return ()

    @abstractmethod
    def read(self, path: Path, *, ours: bool) -> P:
        """Read a prediction file; `ours` if this package wrote it.

        Raises:
            UserError: It is unfit.
        """

    @abstractmethod
    def check_classes(self, model: Any, path: Path) -> None:
        """Check the classes of a checkpoint.

        Raises:
            UserError: They are not those of the data.
        """

    @abstractmethod
    def validate(self, model: Any, path: Path, imgsz: int) -> Validated[P]:
        """Run Ultralytics' validation of a checkpoint.

        Raises:
            UserError: It did not validate what it should.
        """


def collect(
    variants: Sequence[Variant], validation: Validation[P], cache: Path, progress: Callable[[str], None]
) -> dict[str, list[Predicted[P]]]:
    """Get the predictions of all variants. Results of different protocols are rejected.

    Args:
        variants: What to compare.
        validation: How predictions are read and made.
        cache: Folder for predictions made here; those found in it are used if weights and protocol are the same.
        progress: Called with a line of text at each step.

    Raises:
        UserError: A file is unfit, or protocols differ.
    """
    reject_copies(variants)
    imgsz = common_imgsz(variants, validation.settings, progress, validation.task)
    files = _files_digest(validation, cache) if imgsz else ""
    total = sum(len(variant.paths) for variant in variants)
    result: dict[str, list[Predicted[P]]] = {variant.name: [] for variant in variants}
    for number, (name, path) in enumerate(((v.name, path) for v in variants for path in v.paths), 1):
        progress(f"[{number}/{total}] {name}: {path}")
        if path.suffix == ".json":
            result[name].append(_read(path, validation))
        else:
            result[name].append(_validated(path, validation, imgsz, files, cache / folder_name(name), progress))
    for name, seeds in result.items():
        _reject_equal_seeds(name, seeds)
    reject_differences([(str(p.path), p.protocol, p.predictions) for seeds in result.values() for p in seeds])
    return result


def _files_digest(validation: Validation[P], cache: Path) -> str:
    """Return a digest of the content of all images of the split and their label files."""
    digests = FileDigests(cache / "digests.json")
    found = digests.of([*validation.images(), *validation.labels()])
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


def _reject_equal_seeds(name: str, seeds: Sequence[Predicted[P]]) -> None:
    """Reject detections that two seeds of a variant have in common, all of them: they are one training, saved twice."""
    for first, second in combinations(seeds, 2):
        a, b = first.predictions, second.predictions
        if not (isinstance(a, Detections) and isinstance(b, Detections) and len(a.score)):
            continue
        if all(np.array_equal(getattr(a, key), getattr(b, key)) for key in ("image", "score", "box")):
            raise UserError(
                f"variant '{name}': {first.path} and {second.path} have the same detections",
                expected="a different training for each seed",
            )


def _read(path: Path, validation: Validation[P]) -> Predicted[P]:
    """Read a prediction file the user gave."""
    protocol, own = read_protocol(path)
    truth = validation.truth
    if protocol.data not in (None, truth.digest):
        raise UserError(
            f"was made for another ground truth ({str(protocol.data)[:12]}) than {truth.source} ({truth.digest[:12]})",
            at=path,
        )
    return Predicted(path, validation.read(path, ours=protocol.data is not None), protocol, own)


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
            fix=f"Give a {'dataset YAML' if task == 'detect' else 'folder'}: {option('data')}",
        )
    reject_broken_numpy()
    check_device(settings.device)
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
            fix=f"Give {option('imgsz')} to compare them at one size",
        )
    wanted = settings.imgsz or sizes[checkpoints[0]]
    rounded = -(-wanted // stride) * stride
    if rounded != wanted:
        progress(f"image size {wanted} is rounded up to {rounded}, a multiple of {stride}, as Ultralytics does")
    return rounded


def check_device(device: str) -> str:
    """Try a device, in Ultralytics' notation, and return its kind, such as "cpu" or "cuda".

    Raises:
        UserError: It is not available.
    """
    import torch

    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        return torch.zeros(1, device=ultralytics_api.get("select_device")(device, verbose=False)).device.type
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
        raise UserError(f"cannot be loaded as a checkpoint ({one_line(error, 200)})", at=path) from None
    if task is None:
        return model
    if model.task != task:
        raise UserError(f"is a model for '{model.task}'", at=path, expected=f"one for '{task}'")
    kind, words = _CLASSES[task]
    if not isinstance(model.model, ultralytics_api.get(kind)):
        raise UserError(f"holds a {type(model.model).__name__}", at=path, expected=words)
    return model


def _validated(
    path: Path, validation: Validation[P], imgsz: int, files: str, cache: Path, progress: Callable[[str], None]
) -> Predicted[P]:
    """Return a checkpoint's predictions from the cache, or validate it and put them there.

    Stored predictions are used only if the weights, the code of the model, the images, their labels, the objects, the
    settings and the environment are the same, and the kind of device is, where the user chose one.
    """
    from gam_yolo.identity import checkpoint_code_digest, environment  # imports torch, which files do not need

    model = load(path, validation.task)
    protocol = Protocol(
        data=validation.truth.digest,
        imgsz=imgsz,
        ultralytics=ultralytics_api.version(),
        weights=file_sha256(path),
        **validation.thresholds,
    )
    # Ultralytics pads each image to the shape of its batch, so the batch size changes the predictions a little.
    batch, code = validation.settings.batch, checkpoint_code_digest(model.model)
    determines = (protocol, validation.method, batch, files, code, environment())
    stored = cache / f"{text_sha256(repr(determines))[:16]}.json"
    device = check_device(validation.settings.device)
    known, own = read_protocol(stored)
    if stored.is_file() and not (validation.settings.device and known.device and known.device != device):
        progress("its predictions are stored already")
        return Predicted(path, validation.read(stored, ours=True), known, own)
    validation.check_classes(model, path)
    try:  # before anything takes time
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"predictions cannot be stored there ({error.strerror})", at=cache) from None
    progress(f"validating on {len(validation.truth.ids)} images at {imgsz} pixels")
    found = validation.validate(model, path, imgsz)
    protocol = replace(protocol, max_det=found.max_det, device=device)
    write_protocol(stored, protocol, found.own)
    write(stored, json.dumps(found.records))  # last: a prediction file is never there without its protocol
    return Predicted(path, found.predictions, protocol, found.own)


def run_validator(
    model: Any, validator: type[Any], settings: Settings, data: str, imgsz: int, **options: Any
) -> tuple[Any, dict[str, float]]:
    """Run Ultralytics' validation without its output; return the validator, and its metrics under Ultralytics' names.

    Args:
        model: Ultralytics' model.
        validator: The class of the validator.
        settings: What the user chose.
        data: The dataset, as Ultralytics takes it.
        imgsz: Image size in pixels.
        options: More arguments of Ultralytics' `val`.
    """
    made: list[Any] = []

    def make(**arguments: Any) -> Any:
        made.append(validator(**arguments))
        return made[0]

    with (
        tempfile.TemporaryDirectory() as scratch,
        ultralytics_api.quiet(),  # its log names the folder of `scratch`
        contextlib.redirect_stdout(io.StringIO()),  # its progress bar
    ):
        metrics = model.val(
            validator=make,
            data=data,
            split=settings.split,
            imgsz=imgsz,
            batch=settings.batch,
            device=settings.device or None,
            plots=False,
            verbose=False,
            project=scratch,
            name="val",
            **options,
        )
    return made[0], {key: float(value) for key, value in metrics.results_dict.items() if is_number(value)}
