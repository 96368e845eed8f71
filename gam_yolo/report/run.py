"""One comparison from start to end."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from gam_yolo import ultralytics_api
from gam_yolo.annotations.classes import LabelledImages
from gam_yolo.annotations.images import ImageFinder, base_name, image_files
from gam_yolo.annotations.yolo import dataset
from gam_yolo.evaluation import Detections, GroundTruth, read_truth
from gam_yolo.movement import Movement
from gam_yolo.report import classification
from gam_yolo.report.comparison import compare_detections
from gam_yolo.report.cost import measure_costs
from gam_yolo.report.detection import DetectorValidation
from gam_yolo.report.document import build
from gam_yolo.report.files import REPORT, output_folder, write_files
from gam_yolo.report.gallery import differing_images, match_confident
from gam_yolo.report.groups import declared_groups, undeclared_groups
from gam_yolo.report.movement import mean_movements, still_notes
from gam_yolo.report.predictions import Predicted, Settings, collect, find_task
from gam_yolo.report.render import files as report_files
from gam_yolo.report.result import Comparison
from gam_yolo.report.schema import Cost, Picture, Statistics, VariantResult
from gam_yolo.report.tasks import TaskName
from gam_yolo.report.variants import Variant

__all__ = ["run"]

P = TypeVar("P")
T = TypeVar("T")


def run(
    variants: list[Variant],
    gt: Path | None,
    control: str | None,
    settings: Settings,
    statistics: Statistics,
    folder: Path | None,
    progress: Callable[[str], None],
    notes: Sequence[str] = (),
    scores_only: bool = False,
) -> Comparison:
    """Compare variants and write the report.

    Args:
        variants: What to compare; the first is the baseline.
        gt: Ground truth, if not the one of the dataset YAML.
        control: Name of a second variant to subtract.
        settings: How to validate.
        statistics: How to compare.
        folder: Where the report goes, and in its `predictions` the predictions made on the way; None to write nothing.
        progress: Called with a line of text at each step.
        notes: What else a reader of the report has to know.
        scores_only: Leave out costs, pictures and warnings of detectors, where no one will read the report.

    Raises:
        UserError: An input cannot be read, results must not be compared, or the report cannot be written.
    """
    if folder is None:
        with TemporaryDirectory(prefix="gam-yolo-") as cache:
            return _evaluate(variants, gt, control, settings, statistics, Path(cache), progress, None, scores_only)
    listing = folder / "near-duplicates.csv"
    with output_folder(folder, REPORT):
        comparison = _evaluate(variants, gt, control, settings, statistics, folder / "predictions", progress, listing)
        comparison, texts = report_files(replace(comparison, notes=(*notes, *comparison.notes)))
        write_files(folder, texts)
        return comparison


def _evaluate(
    variants: list[Variant],
    gt: Path | None,
    control: str | None,
    settings: Settings,
    statistics: Statistics,
    cache: Path,
    progress: Callable[[str], None],
    listing: Path | None = None,
    scores_only: bool = False,
) -> Comparison:
    if find_task(variants) == "classify":
        return _evaluate_classifiers(variants, gt, control, settings, statistics, cache, progress, listing)
    # The notes are the report's. Without a dataset YAML nothing here needs Ultralytics, nor its two seconds of imports.
    with ultralytics_api.quiet() if settings.data else contextlib.nullcontext():
        truth = read_truth(settings.data, gt, settings.split, log=False)
    notes: list[str] = []
    files = _or_note(notes, "No image could be drawn", partial(_image_files, truth, settings)) or {}
    declared, groups = declared_groups(settings, truth, files)
    predicted = collect(variants, DetectorValidation(truth, settings), cache, progress)
    references = [variants[0].name, *([control] if control else [])]
    detections = {name: [seed.predictions for seed in seeds] for name, seeds in predicted.items()}
    compared = compare_detections(truth, detections, references, statistics, progress, groups)
    if scores_only:
        return build(truth, predicted, {}, references, statistics, settings, compared, notes, groups)
    # What follows only decorates the result.
    if not declared:
        _warn_of_groups(notes, truth, files, listing)
    compared, costs = _describe(variants, predicted, compared, files, settings, progress, notes, "detect")
    firsts = {name: seeds[0] for name, seeds in detections.items()}
    pictures = _or_note(notes, "No image could be drawn", partial(_pictures, truth, files, firsts, notes))
    comparison = build(truth, predicted, costs, references, statistics, settings, compared, notes, groups)
    return replace(comparison, pictures=pictures or ())


def _evaluate_classifiers(
    variants: list[Variant],
    gt: Path | None,
    control: str | None,
    settings: Settings,
    statistics: Statistics,
    cache: Path,
    progress: Callable[[str], None],
    listing: Path | None,
) -> Comparison:
    truth = classification.read_truth(variants, gt, settings)
    files = {i: truth.root / file for i, file in enumerate(truth.files)}
    groups = classification.declared_groups(settings, truth)
    predicted = collect(variants, classification.ClassifierValidation(truth, settings), cache, progress)
    references = [variants[0].name, *([control] if control else [])]
    rankings = {name: [seed.predictions for seed in seeds] for name, seeds in predicted.items()}
    compared = classification.compare_rankings(truth, rankings, references, statistics, progress, groups)
    notes: list[str] = []
    if settings.groups is None:
        _warn_of_groups(notes, truth, files, listing)
    compared, costs = _describe(variants, predicted, compared, files, settings, progress, notes, "classify")
    pictures = _or_note(notes, "No image could be drawn", partial(classification.pictures, truth, rankings))
    comparison = classification.build(
        truth, predicted, costs, references, statistics, settings, compared, notes, groups
    )
    return replace(comparison, pictures=pictures or ())


def _warn_of_groups(
    notes: list[str], truth: GroundTruth | LabelledImages, files: Mapping[int, Path], listing: Path | None
) -> None:
    """Note what suggests that images are not independent."""
    warnings = partial(undeclared_groups, truth, files, listing)
    notes += _or_note(notes, "Images could not be searched for groups", lambda: list(warnings())) or []


def _describe(
    variants: list[Variant],
    predicted: Mapping[str, Sequence[Predicted[P]]],
    compared: Mapping[str, VariantResult],
    files: Mapping[int, Path],
    settings: Settings,
    progress: Callable[[str], None],
    notes: list[str],
    task: TaskName,
) -> tuple[dict[str, VariantResult], dict[str, Cost]]:
    """Measure what describes the models: how far their blocks have moved, and their costs. Failures become notes."""
    checkpoints = {v.name: v.paths for v in variants if v.paths[0].suffix == ".pt"}
    if not checkpoints:
        return dict(compared), {}
    imgsz = next(seeds[0].protocol.imgsz for name, seeds in predicted.items() if name in checkpoints) or 640
    progress("measuring latency")
    firsts = {name: paths[0] for name, paths in checkpoints.items()}
    costs = _or_note(
        notes, "The cost could not be measured", partial(measure_costs, firsts, imgsz, settings.device, task)
    )
    movements: dict[str, tuple[Movement, ...]] = {}
    if files:
        measure = partial(mean_movements, checkpoints, [*files.values()], imgsz, settings.device, task)
        movements = _or_note(notes, "How far the blocks have moved could not be measured", measure) or {}
    notes += still_notes(movements)
    return {name: replace(found, movement=movements.get(name, ())) for name, found in compared.items()}, costs or {}


def _or_note(notes: list[str], failure: str, make: Callable[[], T]) -> T | None:
    try:
        return make()
    except Exception as error:
        notes.append(f"{failure} ({' '.join(str(error).split())[:200] or type(error).__name__}).")
        return None


def _pictures(
    truth: GroundTruth, files: dict[int, Path], firsts: dict[str, Detections], notes: list[str]
) -> tuple[Picture, ...]:
    """Draw the images on which the first seed of each variant differs most from the baseline's."""
    if not files:
        return ()
    baseline, *others = ((name, match_confident(truth, detections)) for name, detections in firsts.items())
    found = [differing_images(truth, files, baseline, other) for other in others]
    failed = {name: reason for _, reasons in found for name, reason in reasons.items()}
    if failed:
        name, reason = next(iter(failed.items()))
        what = "1 image could not be drawn:" if len(failed) == 1 else ""
        what = what or f"{len(failed)} images could not be drawn, the first of them"
        notes.append(f"{what} {name} ({reason}).")
    return tuple(picture for pictures, _ in found for picture in pictures)


def _image_files(truth: GroundTruth, settings: Settings) -> dict[int, Path]:
    """Find the images of the ground truth among those of the dataset YAML; none without one.

    A file fits by its name, with its folders where several have that name; else by its stem, if only one has it.
    """
    if settings.data is None:
        return {}
    paths = image_files(dataset(settings.data, settings.split)[settings.split], settings.data)
    finder, alike = ImageFinder(paths), Counter(path.stem for path in paths)
    by_stem = {path.stem: path for path in paths if alike[path.stem] == 1}
    found = {i: finder.find(file) or by_stem.get(Path(base_name(file)).stem) for i, file in enumerate(truth.files)}
    return {index: path for index, path in found.items() if path is not None}
