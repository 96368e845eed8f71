"""One comparison from start to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from gam_yolo.errors import noting
from gam_yolo.movement import Movement
from gam_yolo.report.classification import ClassifierEvaluation
from gam_yolo.report.cost import measure_costs
from gam_yolo.report.detection import DetectorEvaluation
from gam_yolo.report.document import assemble
from gam_yolo.report.files import REPORT, output_folder, write_files
from gam_yolo.report.groups import undeclared_groups
from gam_yolo.report.movement import mean_movements, still_notes
from gam_yolo.report.predictions import Predicted, collect, find_task
from gam_yolo.report.render import files as report_files
from gam_yolo.report.result import Comparison
from gam_yolo.report.schema import Cost, Picture, VariantResult
from gam_yolo.report.task_evaluation import Request, TaskEvaluation
from gam_yolo.report.tasks import TaskName

__all__ = ["run"]

P = TypeVar("P")

_TASKS: dict[TaskName, type[TaskEvaluation[Any]]] = {"detect": DetectorEvaluation, "classify": ClassifierEvaluation}


def run(request: Request, folder: Path | None = None, *, scores_only: bool = False) -> Comparison:
    """Compare variants and write the report.

    Args:
        request: What to compare, and how.
        folder: Where the report goes, and in its `predictions` the predictions made on the way; None to write nothing.
        scores_only: Leave out costs, pictures and warnings of groups, where no one will read the report.

    Raises:
        UserError: An input cannot be read, results must not be compared, or the report cannot be written.
    """
    if folder is None:
        with TemporaryDirectory(prefix="gam-yolo-") as cache:
            return _evaluate(request, Path(cache), None, scores_only)
    with output_folder(folder, REPORT):
        comparison = _evaluate(request, folder / "predictions", folder / "near-duplicates.csv", scores_only)
        comparison, texts = report_files(replace(comparison, notes=(*request.notes, *comparison.notes)))
        write_files(folder, texts)
        return comparison


def _evaluate(request: Request, cache: Path, listing: Path | None, scores_only: bool) -> Comparison:
    """Compare variants; `listing` is where near-duplicate images are listed, if there are any."""
    evaluation = _TASKS[find_task(request.variants)].open(request)
    predicted = collect(request.variants, evaluation.validation, cache, request.progress)
    predictions = {name: [seed.predictions for seed in seeds] for name, seeds in predicted.items()}
    compared = evaluation.compare(predictions, request)
    if scores_only:
        return assemble(evaluation, request, predicted, compared, {}, ())
    # What follows only decorates the result.
    notes: list[str] = []
    if not evaluation.declares_groups:
        with noting(notes, "Images could not be searched for groups"):
            notes += [*undeclared_groups(evaluation.validation.truth, evaluation.files, listing)]
    compared, costs = _describe(evaluation, request, predicted, compared, notes)
    pictures: tuple[Picture, ...] = ()
    with noting(notes, "No image could be drawn"):
        pictures = evaluation.pictures(predictions, notes)
    return replace(assemble(evaluation, request, predicted, compared, costs, notes), pictures=pictures)


def _describe(
    evaluation: TaskEvaluation[P],
    request: Request,
    predicted: Mapping[str, Sequence[Predicted[P]]],
    compared: Mapping[str, VariantResult],
    notes: list[str],
) -> tuple[dict[str, VariantResult], dict[str, Cost]]:
    """Measure what describes the models: how far their blocks have moved, and their costs. Failures become notes."""
    checkpoints = {v.name: v.paths for v in request.variants if v.paths[0].suffix == ".pt"}
    if not checkpoints:
        return dict(compared), {}
    imgsz = next(seeds[0].protocol.imgsz for name, seeds in predicted.items() if name in checkpoints) or 640
    device, task = request.settings.device, evaluation.validation.task
    request.progress("measuring latency")
    costs: dict[str, Cost] = {}
    with noting(notes, "The cost could not be measured"):
        costs = measure_costs({name: paths[0] for name, paths in checkpoints.items()}, imgsz, device, task)
    movements: dict[str, tuple[Movement, ...]] = {}
    if evaluation.files:
        with noting(notes, "How far the blocks have moved could not be measured"):
            movements = mean_movements(checkpoints, [*evaluation.files.values()], imgsz, device, task)
    notes += still_notes(movements)
    return {name: replace(found, movement=movements.get(name, ())) for name, found in compared.items()}, costs
