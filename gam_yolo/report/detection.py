"""Comparisons of detectors: detections, read from COCO result files or made by Ultralytics' validation, and notes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gam_yolo import ultralytics_api
from gam_yolo.annotations.caches import settle_caches
from gam_yolo.annotations.images import ImageFinder, base_name, image_files, images_unused
from gam_yolo.annotations.yolo import dataset
from gam_yolo.errors import UserError, noting, similar
from gam_yolo.evaluation import Detections, GroundTruth, parse_detections, read_detections, read_truth
from gam_yolo.evaluation.matching import MAX_DETECTIONS
from gam_yolo.report.comparison import compare_detections
from gam_yolo.report.document import seed_notes
from gam_yolo.report.formatting import points, printable
from gam_yolo.report.gallery import differing_images, match_confident
from gam_yolo.report.groups import declared_groups, describe_groups
from gam_yolo.report.predictions import Predicted, Settings, Validated, Validation, run_validator
from gam_yolo.report.schema import Data, Picture, Statistics, VariantResult
from gam_yolo.report.task_evaluation import Request, TaskEvaluation

__all__ = ["DetectorEvaluation", "DetectorValidation"]

_MANY_OBJECTS = 10  # of a class: at a low confidence, some detection of it is nearly certain
_OFTEN_EMPTY = 0.05  # of the images with objects; YOLOv8n at confidence 0.001 has detections on all of COCO's
_APART, _LEAST_APART = 0.06, 0.035  # about twice the largest distance seen, and just above it where scores are low
_CONF, _IOU, _MAX_DET = 0.001, 0.7, 300  # Ultralytics' defaults, so that no configuration file changes a comparison


@dataclass(frozen=True)
class DetectorValidation(Validation[Detections]):
    """How detections are read, and how detectors are validated; see `Validation`."""

    truth: GroundTruth
    settings: Settings

    task = "detect"
    method = "NMS without time limit"
    thresholds: ClassVar = {"conf": _CONF, "iou": _IOU, "max_det": _MAX_DET}

    def images(self) -> Sequence[Path]:
        """Return the images of the dataset YAML's split."""
        split = self.settings.split
        return sorted(image_files(dataset(self.settings.data or "", split)[split], split))

    def labels(self) -> Sequence[Path]:
        """Return the label files of these images."""
        return [Path(label) for label in ultralytics_api.label_files([str(image) for image in self.images()])]

    def read(self, path: Path, *, ours: bool) -> Detections:
        """Read a COCO result file."""
        return read_detections(path, self.truth, whole=ours)

    def check_classes(self, model: Any, path: Path) -> None:
        """Check that each class of the model has a name of its own, which is one of the data's classes."""
        repeated = [name for name, count in Counter(model.names.values()).items() if count > 1]
        if repeated:
            raise UserError(
                f"has two classes named '{repeated[0]}'", at=path, expected="a name of its own for each class"
            )
        unknown = [name for name in model.names.values() if name not in self.truth.classes]
        if unknown:
            raise UserError(
                f"detects '{unknown[0]}', which is not one of the {len(self.truth.classes)} classes of "
                f"{self.truth.source}",
                at=path,
                similar=similar(unknown[0], self.truth.classes),
            )

    def validate(self, model: Any, path: Path, imgsz: int) -> Validated[Detections]:
        """Run Ultralytics' validation of all images with all detections, whatever time their suppression takes."""
        truth, alike = self.truth, Counter(base_name(file) for file in self.truth.files)

        def in_folders(file: Path) -> str | None:
            """Name an image with its folders, as the annotations do, where several images have its name."""
            if alike[file.name] < 2:
                return None
            return next((name for name in truth.files if file.parts[-len(p := Path(name).parts) :] == p), None)

        base, images, data = model._smart_load("validator"), self.images(), str(self.settings.data)
        settle_caches(images, self.labels())

        class Validator(base):  # type: ignore[misc, valid-type]
            """Ultralytics' validator without its own COCO evaluation, which needs another package."""

            def get_dataloader(self, *args: Any, **options: Any) -> Any:
                loader = super().get_dataloader(*args, **options)
                if unused := images_unused(images, loader.dataset.im_files):
                    raise UserError(unused, at=data, fix="Correct these files, or take the images out of the split")
                return loader

            def pred_to_json(self, predn: Any, pbatch: Any) -> None:
                known = len(self.jdict)
                super().pred_to_json(predn, pbatch)
                if isinstance(pbatch, dict) and (name := in_folders(Path(pbatch["im_file"]))):
                    for record in self.jdict[known:]:
                        record["file_name"] = name

            def eval_json(self, stats: dict[str, Any]) -> dict[str, Any]:
                return stats

        with ultralytics_api.unlimited_nms():
            done, own = run_validator(model, Validator, self.settings, data, imgsz, save_json=True, **self.thresholds)
        class_of = {category: index for index, category in enumerate(done.class_map)}
        label_of = dict(zip(truth.classes, truth.category_ids, strict=True))
        records = [
            {**record, "category_id": label_of[model.names[class_of[record["category_id"]]]]} for record in done.jdict
        ]
        return Validated(parse_detections(records, truth, str(path)), records, own, int(done.args.max_det))


@dataclass(frozen=True)
class DetectorEvaluation(TaskEvaluation[Detections]):
    """How detectors are compared; see `TaskEvaluation`."""

    validation: DetectorValidation
    problems: tuple[str, ...] = ()
    """Reasons why images could not be found."""

    interval = Statistics().interval
    grouped_interval = interval.replace("image bootstrap", "bootstrap of groups of images")

    @classmethod
    def open(cls, request: Request) -> DetectorEvaluation:
        """Read the truth and the groups.

        Raises:
            UserError: They cannot be read.
        """
        settings = request.settings
        # The notes are the report's. Without a dataset YAML nothing needs Ultralytics and its two seconds of imports.
        with ultralytics_api.quiet() if settings.data else contextlib.nullcontext():
            # Ultralytics validates a checkpoint on the images of the YAML alone.
            validated = any(path.suffix == ".pt" for variant in request.variants for path in variant.paths)
            truth = read_truth(settings.data, request.gt, settings.split, log=False, leave_out=validated)
        problems: list[str] = []
        files: dict[int, Path] = {}
        with noting(problems, "No image could be drawn"):
            files = _image_files(truth, settings)
        declared, groups = declared_groups(settings, truth, files)
        return cls(DetectorValidation(truth, settings), files, groups, declared, tuple(problems))

    def compare(self, predictions: Mapping[str, list[Detections]], request: Request) -> dict[str, VariantResult]:
        """Match detections and objects, and estimate every metric."""
        truth, references = self.validation.truth, request.references
        return compare_detections(truth, predictions, references, request.statistics, request.progress, self.groups)

    def pictures(self, predictions: Mapping[str, list[Detections]], notes: list[str]) -> tuple[Picture, ...]:
        """Draw the detections of the first seeds."""
        truth, files = self.validation.truth, self.files
        if not files:
            return ()
        baseline, *others = ((name, match_confident(truth, seeds[0])) for name, seeds in predictions.items())
        found = [differing_images(truth, files, baseline, other) for other in others]
        failed = {name: reason for _, reasons in found for name, reason in reasons.items()}
        if failed:
            name, reason = next(iter(failed.items()))
            what = "1 image could not be drawn:" if len(failed) == 1 else ""
            what = what or f"{len(failed)} images could not be drawn, the first of them"
            notes.append(f"{what} {name} ({reason}).")
        return tuple(picture for pictures, _ in found for picture in pictures)

    def notes(
        self, variants: Mapping[str, VariantResult], predicted: Mapping[str, list[Predicted[Detections]]]
    ) -> list[str]:
        """Return doubts about the numbers, and what the reading of the data found."""
        truth = self.validation.truth
        return [*_doubts(variants, truth), *truth.notes, *_notes(truth, predicted), *self.problems]

    def data(self) -> Data:
        """Describe the dataset."""
        truth = self.validation.truth
        return Data(
            yaml=self.validation.settings.data,
            split=self.validation.settings.split,
            ground_truth=truth.source,
            digest=truth.digest,
            images=len(truth.ids),
            objects=len(truth.image),
            crowds=int(truth.crowd.sum()),
            difficult=int(truth.difficult.sum()),
            classes=truth.classes,
            groups=describe_groups(self.groups),
        )


def _doubts(variants: Mapping[str, VariantResult], truth: GroundTruth) -> list[str]:
    """Warn where our mAP 50 and Ultralytics' of one run are further apart than two definitions of it can be.

    In 119 real runs (on COCO, VOC 2007 and BCCD, 4 to 350 images) they were at most 0.031 apart.
    """
    doubtful = []
    for name, variant in variants.items():
        for run in variant.runs:
            ours, theirs = run.ours.AP50, run.ultralytics.AP50 if run.ultralytics else None
            if ours is None or theirs is None:
                continue
            if abs(ours - theirs) > max(_LEAST_APART, min(_APART, max(ours, theirs) / 2)):
                doubtful.append(
                    f"mAP 50 of {name} ({run.path}) is {points(ours)} here and {points(theirs)} by Ultralytics"
                )
    if not doubtful:
        return []
    others = len(doubtful) - 1
    more = f" The same holds for {others} other run{'s' if others > 1 else ''}." if others else ""
    most = np.unique(truth.image * len(truth.classes) + truth.label, return_counts=True)[1].max(initial=0)
    dense = f"; or the {most} objects of one class on one image, of which COCO's rule counts at most 100"
    return [
        f"Warning: {doubtful[0]}.{more} Two definitions of one metric are not that far apart. The likely "
        "reason is that the annotations scored here and the labels of the dataset YAML differ in image size, image ids "
        f"or classes; or that images cannot be read{dense if most > MAX_DETECTIONS else ''}. "
        "Do not trust the numbers until this is resolved."
    ]


def _notes(truth: GroundTruth, predicted: Mapping[str, list[Predicted[Detections]]]) -> list[str]:
    """Return what a reader has to know before trusting the numbers."""
    notes = seed_notes(predicted, "image size and thresholds agree")
    for seed in (p for seeds in predicted.values() for p in seeds if p.protocol.imgsz is None):
        without, images = seed.predictions.left_out(truth)
        if not len(seed.predictions.image):
            notes.append(
                f"Warning: {seed.path} holds no detections. It counts as a detector that finds nothing; at a low "
                "confidence that is rare, so check how the file was made."
            )
        elif without > _OFTEN_EMPTY * images:
            notes.append(
                f"{seed.path} has no detection at all on {without} of the {images} images with objects. At a low "
                "confidence that is rare: if these images were left out when it was made, its scores are too low."
            )
    objects = np.bincount(truth.label[~truth.crowd & ~truth.difficult], minlength=len(truth.classes))
    for seed in (p for seeds in predicted.values() for p in seeds if len(p.predictions.image)):
        found = np.bincount(seed.predictions.label, minlength=len(truth.classes))
        if len(never := np.flatnonzero((objects >= _MANY_OBJECTS) & (found == 0))):
            classes = "1 class" if len(never) == 1 else f"{len(never)} classes"
            notes.append(
                f"{seed.path} has no detection at all of {classes} with {_MANY_OBJECTS} objects or more, such as "
                f"'{printable(truth.classes[never[0]])}' ({objects[never[0]]} objects). They count with an AP of 0 in "
                "its means, also where the model does not know them."
            )
    for name, path in ((name, p.path) for name, seeds in predicted.items() for p in seeds):
        stopped = _nms_stops(path)
        if stopped:
            notes.append(
                f"During the training of {name} ({path}), non-maximum suppression ran out of time {stopped} times, and "
                "Ultralytics dropped detections. Its scores during training, and so the choice of the best epoch, "
                "depended on how busy the machine was. The scores here do not: they were made without a time limit."
            )
    if not truth.crowd.any() and truth.source.endswith((".yaml", ".yml")):
        notes.append(
            "The ground truth is read from label files, which have no crowds, difficult objects or mask areas; small, "
            "medium and large are by the area of the box. Against original annotations the numbers differ slightly."
        )
    return notes


def _nms_stops(weights: Path) -> int:
    """Count how often a training's log, in or beside its run folder, says that suppression ran out of time."""
    if weights.parent.name != "weights":
        return 0
    run = weights.parent.parent
    logs = [log for log in (run / "log.txt", run.parent / "log.txt") if log.is_file()]
    return sum(log.read_bytes().count(b"NMS time limit") for log in logs)


def _image_files(truth: GroundTruth, settings: Settings) -> dict[int, Path]:
    """Find the images of the ground truth among those of the dataset YAML; none without one."""
    if settings.data is None:
        return {}
    finder = ImageFinder(image_files(dataset(settings.data, settings.split)[settings.split], settings.data))
    found = {i: finder.find(file) for i, file in enumerate(truth.files)}
    return {index: path for index, path in found.items() if path is not None}
