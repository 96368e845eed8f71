"""Comparisons of classifiers: from checkpoints or rankings to the same result that detectors have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from gam_yolo import ultralytics_api
from gam_yolo.annotations.classes import (
    LabelledImages,
    Rankings,
    map_classes,
    ranking_records,
    read_labelled_images,
    read_rankings,
)
from gam_yolo.errors import UserError, option
from gam_yolo.evaluation import Estimate, Samples, accuracy, draw_weights
from gam_yolo.evaluation.groups import read_groups
from gam_yolo.report.comparison import compare_samples
from gam_yolo.report.document import seed_notes
from gam_yolo.report.formatting import points, printable
from gam_yolo.report.gallery import as_url
from gam_yolo.report.groups import describe_groups
from gam_yolo.report.predictions import Predicted, Settings, Validated, Validation, run_validator
from gam_yolo.report.schema import Data, Panel, Picture, VariantResult
from gam_yolo.report.task_evaluation import Request, TaskEvaluation
from gam_yolo.report.tasks import CLASSIFY

__all__ = ["ClassifierEvaluation", "ClassifierValidation"]

_APART = 1e-6  # Ultralytics computes its accuracy in single precision
_SIDE, _SHOWN = 160, 6  # longer side of a drawn image in pixels; images drawn for either side


@dataclass(frozen=True)
class ClassifierValidation(Validation[Rankings]):
    """How rankings are read, and how classifiers are validated; see `Validation`."""

    truth: LabelledImages
    settings: Settings

    task = "classify"
    method = "top classes, whole images in order"

    def images(self) -> Sequence[Path]:
        """Return the images of the split."""
        return [self.truth.root / file for file in self.truth.files]

    def read(self, path: Path, *, ours: bool) -> Rankings:  # noqa: ARG002  every file is read as strictly
        """Read a file of rankings."""
        return read_rankings(path, self.truth)

    def check_classes(self, model: Any, path: Path) -> None:
        """Check that the model's classes are those of the data."""
        map_classes(model.names, self.truth, path)

    def validate(self, model: Any, path: Path, imgsz: int) -> Validated[Rankings]:
        """Run Ultralytics' validation on the images in the order of its dataset."""
        truth, base = self.truth, model._smart_load("validator")

        class Validator(base):  # type: ignore[misc, valid-type]
            """Ultralytics' validator without shuffling."""

            def get_dataloader(self, dataset_path: str, batch_size: int) -> Any:
                build: Any = ultralytics_api.get("build_dataloader")
                return build(self.build_dataset(dataset_path), batch_size, self.args.workers, shuffle=False)

        done, own = run_validator(model, Validator, self.settings, str(truth.root.parent), imgsz)
        files = [Path(sample[0]).relative_to(truth.root).as_posix() for sample in done.dataloader.dataset.samples]
        best = np.concatenate([batch.numpy() for batch in done.pred]).astype(np.intp)
        row = {file: i for i, file in enumerate(files)}
        if row.keys() != set(truth.files) or len(best) != len(files):
            raise UserError(f"Ultralytics validated {len(best)} of the {len(truth.files)} images", at=path)
        classes = map_classes(model.names, truth, path)
        rankings = Rankings(str(path), classes[best[[row[file] for file in truth.files]]])
        return Validated(rankings, ranking_records(rankings, truth), own)


@dataclass(frozen=True)
class ClassifierEvaluation(TaskEvaluation[Rankings]):
    """How classifiers are compared; see `TaskEvaluation`."""

    validation: ClassifierValidation

    interval = "Bayesian image bootstrap, paired; Student's factor over images that differ and seeds"
    grouped_interval = interval.replace("image bootstrap", "bootstrap of groups of images").replace(
        "over images", "over groups"
    )

    @classmethod
    def open(cls, request: Request) -> ClassifierEvaluation:
        """Read the images, their classes and the groups.

        Raises:
            UserError: There is no dataset, or it cannot be read.
        """
        settings = request.settings
        if request.gt is not None:
            raise UserError(f"{option('gt')} is {request.gt}", expected="it with detectors only", fix="Leave it out")
        if settings.data is None:
            raise UserError(
                "there is no dataset to compare classifiers on",
                at=request.variants[0].paths[0],
                expected="a folder with train/ and val/",
                fix=f"Give it: {option('data')}",
            )
        truth = read_labelled_images(settings.data, settings.split)
        files = {i: truth.root / file for i, file in enumerate(truth.files)}
        groups = None
        if settings.groups is not None:
            others = [p.as_posix() for p in truth.root.parent.glob("*/*/*") if not p.is_relative_to(truth.root)]
            groups = read_groups(settings.groups, truth.files, option("groups"), others)
        return cls(ClassifierValidation(truth, settings), files, groups, settings.groups is not None)

    def compare(self, predictions: Mapping[str, list[Rankings]], request: Request) -> dict[str, VariantResult]:
        """Count correct classifications, and estimate top-1 and top-5."""
        truth, groups, statistics = self.validation.truth, self.groups, request.statistics
        draws = draw_weights(len(groups.names if groups else truth.files), statistics.replicates, statistics.seed)
        index = groups.index if groups else None
        samples: dict[str, Samples] = {}
        for name, seeds in predictions.items():
            request.progress(f"{name}: {statistics.replicates} bootstrap replicates of {len(seeds)} seed(s)")
            samples[name] = accuracy.resample(truth, seeds, draws, index)

        def subtract(name: str, reference: str) -> Estimate:
            ours, theirs = ((predictions[key], samples[key]) for key in (name, reference))
            paired = statistics.pair_seeds
            return accuracy.difference(truth, ours, theirs, statistics.level, paired=paired, groups=index)

        counts = np.bincount(truth.label, minlength=len(truth.classes))
        return compare_samples(samples, subtract, request.references, statistics, CLASSIFY, truth.classes, counts)

    def pictures(self, predictions: Mapping[str, list[Rankings]], notes: list[str]) -> tuple[Picture, ...]:  # noqa: ARG002
        """Draw images that one of two classifiers gets right and the other does not."""
        truth = self.validation.truth
        baseline, *others = ((name, seeds[0].best[:, 0]) for name, seeds in predictions.items())
        found = []
        for variant in others:
            for (right, ours), (wrong, theirs) in ((variant, baseline), (baseline, variant)):
                chosen = np.flatnonzero((ours == truth.label) & (theirs != truth.label))
                if not len(chosen):
                    continue
                # Evenly over the images, which are sorted by class.
                shown = chosen[np.unique(np.linspace(0, len(chosen) - 1, _SHOWN).astype(int))]
                panels = tuple(_panel(truth, int(i), f"{wrong}: {truth.classes[theirs[i]]}") for i in shown)
                note = f"{len(chosen)} of {len(truth.files)} images, {len(shown)} of them shown"
                found.append(Picture(variant[0], f"{right} is right, {wrong} is wrong", note, panels))
        return tuple(found)

    def notes(
        self, variants: Mapping[str, VariantResult], predicted: Mapping[str, list[Predicted[Rankings]]]
    ) -> list[str]:
        """Return doubts about the numbers, and what the reading of the data found."""
        return [*_doubts(variants), *self.validation.truth.notes, *seed_notes(predicted, "the image size agrees")]

    def data(self) -> Data:
        """Describe the dataset."""
        truth = self.validation.truth
        return Data(
            yaml=self.validation.settings.data,
            split=truth.split,
            ground_truth=truth.source,
            digest=truth.digest,
            images=len(truth.files),
            objects=len(truth.files),
            crowds=0,
            difficult=0,
            classes=truth.classes,
            groups=describe_groups(self.groups),
        )


def _panel(truth: LabelledImages, index: int, said: str) -> Panel:
    with Image.open(truth.root / truth.files[index]) as opened:
        image = ImageOps.contain(ImageOps.exif_transpose(opened).convert("RGB"), (_SIDE, _SIDE))
    return Panel(printable(f"{truth.classes[truth.label[index]]} ({said})"), as_url(image))


def _doubts(variants: Mapping[str, VariantResult]) -> list[str]:
    """Warn where Ultralytics' top-1 of the same predictions differs."""
    return [
        f"Warning: top-1 of {name} ({run.path}) is {points(ours)} here and {points(theirs)} by Ultralytics. It numbers "
        "the classes by their folders, here they are found by name. Check the names of the model and of the folders."
        for name, variant in variants.items()
        for run in variant.runs
        if (ours := run.ours.top1) is not None
        and run.ultralytics
        and (theirs := run.ultralytics.top1) is not None
        and abs(ours - theirs) > _APART
    ]
