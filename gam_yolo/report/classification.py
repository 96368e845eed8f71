"""Comparisons of classifiers: from checkpoints or rankings to the same result that detectors have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from gam_yolo.evaluation.groups import Groups, read_groups
from gam_yolo.report.comparison import compare_samples, headline
from gam_yolo.report.document import assemble, describe_variants, group_notes, seed_notes
from gam_yolo.report.formatting import points, printable
from gam_yolo.report.gallery import as_url
from gam_yolo.report.groups import describe_groups
from gam_yolo.report.predictions import Predicted, Settings, Validated, Validation, run_validator
from gam_yolo.report.result import Comparison
from gam_yolo.report.schema import Cost, Data, Panel, Picture, Statistics, VariantResult
from gam_yolo.report.tasks import CLASSIFY
from gam_yolo.report.variants import Variant

__all__ = ["ClassifierValidation", "build", "compare_rankings", "declared_groups", "pictures", "read_truth"]

_INTERVAL = "Bayesian image bootstrap, paired; Student's factor over images that differ and seeds"
_GROUPED = _INTERVAL.replace("image bootstrap", "bootstrap of groups of images").replace("over images", "over groups")
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


def read_truth(variants: Sequence[Variant], gt: Path | None, settings: Settings) -> LabelledImages:
    """Read the images and their classes.

    Raises:
        UserError: There is no dataset, or it cannot be read.
    """
    if gt is not None:
        raise UserError(f"{option('gt')} is {gt}", expected="it with detectors only", fix="Leave it out")
    if settings.data is None:
        raise UserError(
            "there is no dataset to compare classifiers on",
            at=variants[0].paths[0],
            expected="a folder with train/ and val/",
            fix=f"Give it: {option('data')}",
        )
    return read_labelled_images(settings.data, settings.split)


def declared_groups(settings: Settings, truth: LabelledImages) -> Groups | None:
    """Read the groups that the user declares; None if each image is its own.

    Raises:
        UserError: They cannot be read, or an image has no group.
    """
    if settings.groups is None:
        return None
    others = [path.as_posix() for path in truth.root.parent.glob("*/*/*") if not path.is_relative_to(truth.root)]
    return read_groups(settings.groups, truth.files, option("groups"), others)


def compare_rankings(
    truth: LabelledImages,
    variants: Mapping[str, list[Rankings]],
    references: list[str],
    statistics: Statistics,
    progress: Callable[[str], None],
    groups: Groups | None = None,
) -> dict[str, VariantResult]:
    """Estimate every classifier and its difference to each reference; see `compare_detections`."""
    draws = draw_weights(len(groups.names if groups else truth.files), statistics.replicates, statistics.seed)
    index = groups.index if groups else None
    samples: dict[str, Samples] = {}
    for name, seeds in variants.items():
        progress(f"{name}: {statistics.replicates} bootstrap replicates of {len(seeds)} seed(s)")
        samples[name] = accuracy.resample(truth, seeds, draws, index)

    def subtract(name: str, reference: str) -> Estimate:
        ours, theirs = ((variants[key], samples[key]) for key in (name, reference))
        return accuracy.difference(truth, ours, theirs, statistics.level, paired=statistics.pair_seeds, groups=index)

    counts = np.bincount(truth.label, minlength=len(truth.classes))
    return compare_samples(samples, subtract, references, statistics, CLASSIFY, truth.classes, counts)


def build(
    truth: LabelledImages,
    predicted: Mapping[str, list[Predicted[Rankings]]],
    costs: Mapping[str, Cost],
    references: list[str],
    statistics: Statistics,
    settings: Settings,
    compared: Mapping[str, VariantResult],
    notes: Sequence[str] = (),
    groups: Groups | None = None,
) -> Comparison:
    """Assemble the result, without pictures; the arguments are those of `gam_yolo.report.document.build`."""
    variants = describe_variants(compared, predicted, costs)
    return assemble(
        variants,
        predicted,
        references,
        headline=headline(compared, references[0], truth, statistics.level, CLASSIFY),
        notes=(
            *_doubts(variants),
            *truth.notes,
            *seed_notes(predicted, "the image size agrees"),
            *notes,
            *group_notes(groups),
        ),
        data=Data(
            yaml=settings.data,
            split=truth.split,
            ground_truth=truth.source,
            digest=truth.digest,
            images=len(truth.files),
            objects=len(truth.files),
            crowds=0,
            difficult=0,
            classes=truth.classes,
            groups=describe_groups(groups),
        ),
        statistics=replace(statistics, interval=_GROUPED if groups else _INTERVAL),
        task="classify",
    )


def pictures(truth: LabelledImages, variants: Mapping[str, list[Rankings]]) -> tuple[Picture, ...]:
    """Draw images that the first seed of a variant classifies correctly and the baseline's does not, and vice versa."""
    baseline, *others = ((name, seeds[0].best[:, 0]) for name, seeds in variants.items())
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
