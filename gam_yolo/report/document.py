"""Assemble a comparison's result: scores, costs, each run's file and training, data, versions and notes."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import numpy as np

from gam_yolo.checkpoints import training_seed, written_by
from gam_yolo.evaluation.groups import Groups
from gam_yolo.evaluation.statistics import MIN_IMAGES
from gam_yolo.io import file_sha256, read_yaml
from gam_yolo.known_faults import fault_notes
from gam_yolo.report.comparison import headline
from gam_yolo.report.predictions import Predicted
from gam_yolo.report.protocol import Protocol
from gam_yolo.report.result import Comparison
from gam_yolo.report.schema import (
    BestEpoch,
    CommonProtocol,
    Cost,
    ImageGroups,
    RunResult,
    Scores,
    Training,
    Value,
    VariantResult,
)
from gam_yolo.report.task_evaluation import Request, TaskEvaluation
from gam_yolo.report.tasks import TASKS
from gam_yolo.training_log import MAP, MAP50, TOP1, TOP5, read_results

__all__ = ["assemble", "seed_notes"]

P = TypeVar("P")

_COLUMNS = {"AP": MAP, "AP50": MAP50, "top1": TOP1, "top5": TOP5}
_PACKAGES = ("gam-yolo", "ultralytics", "torch", "numpy", "scipy", "pycocotools")


def assemble(
    evaluation: TaskEvaluation[P],
    request: Request,
    predicted: Mapping[str, list[Predicted[P]]],
    compared: Mapping[str, VariantResult],
    costs: Mapping[str, Cost],
    notes: Sequence[str],
) -> Comparison:
    """Assemble the result, without pictures.

    Args:
        evaluation: The task.
        request: What was asked for.
        predicted: The predictions of each seed of each variant.
        compared: What the evaluation found.
        costs: The costs of the variants that have checkpoints.
        notes: What else a reader has to know.
    """
    statistics, groups, task, data = (
        request.statistics,
        evaluation.groups,
        evaluation.validation.task,
        evaluation.data(),
    )
    variants = {
        name: replace(
            found,
            cost=costs.get(name),
            runs=tuple(_describe_run(seed, i, found.metrics) for i, seed in enumerate(predicted[name])),
        )
        for name, found in compared.items()
    }
    baseline, truth = request.references[0], evaluation.validation.truth
    return Comparison(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        headline=headline(variants, baseline, truth, statistics.level, TASKS[task]),
        notes=(*evaluation.notes(variants, predicted), *notes, *_group_notes(groups, data.groups)),
        baseline=baseline,
        control=request.control,
        data=data,
        protocol=_common_protocol([seed.protocol for seeds in predicted.values() for seed in seeds]),
        statistics=replace(statistics, interval=evaluation.grouped_interval if groups else evaluation.interval),
        versions={name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        variants=variants,
        task=task,
    )


def seed_notes(predicted: Mapping[str, list[Predicted[P]]], unverified: str) -> list[str]:
    """Return what a reader has to know of faults, of too few seeds, and of files that do not say how they were made."""
    checkpoints = [p.path for seeds in predicted.values() for p in seeds if p.path.suffix == ".pt"]
    notes = [*fault_notes(map(written_by, checkpoints))]
    single = [name for name, seeds in predicted.items() if len(seeds) == 1]
    if single:
        notes.append(
            f"One training seed of {', '.join(single)}: the intervals hold for these weights only. How much another "
            "seed would change cannot be known from one; train three seeds or more of each variant."
        )
    if any(len(seeds) == 2 for seeds in predicted.values()):
        notes.append("Two training seeds say little about the spread between seeds: expect wide intervals.")
    for name, seeds in predicted.items():
        trained = Counter(training_seed(p.path) for p in seeds if p.path.suffix == ".pt")
        notes += [
            f"Warning: {count} checkpoints of {name} were trained with the same seed, {seed}. They show less than the "
            "spread between seeds, so the intervals may be too narrow. Train with seed=1, seed=2, ..."
            for seed, count in trained.items()
            if count > 1 and seed is not None
        ]
    devices = {p.protocol.device: str(p.path) for seeds in predicted.values() for p in seeds if p.protocol.device}
    if len(devices) > 1:
        where = ", ".join(f"{path} on {device}" for device, path in devices.items())
        notes.append(
            f"Predictions were made on devices of several kinds, such as {where}. They round differently, which can "
            "move a score a little; --device makes all of them on one."
        )
    unknown = [name for name, seeds in predicted.items() if any(p.protocol.imgsz is None for p in seeds)]
    if unknown:
        notes.append(
            f"The prediction files of {', '.join(unknown)} do not record how they were made. We could not verify that "
            f"{unverified}."
        )
    return notes


def _common_protocol(protocols: list[Protocol]) -> CommonProtocol:
    """Merge protocols, which agree in all that binds: the first recorded value of each; versions as a list."""
    imgsz, conf, iou, max_det = (
        next((found for p in protocols if (found := getattr(p, key)) is not None), None)
        for key in ("imgsz", "conf", "iou", "max_det")
    )
    return CommonProtocol(imgsz, conf, iou, max_det, tuple(sorted({p.ultralytics for p in protocols if p.ultralytics})))


def _group_notes(groups: Groups | None, found: ImageGroups | None) -> Iterator[str]:
    """Say that groups were resampled, and whether they are enough."""
    if groups is None or found is None:
        return
    yield (
        f"Groups of images were resampled instead of images: {found.number} groups of {len(groups.index)} images, by "
        f"{found.by}. The largest, '{found.largest_name}', has {found.largest} images."
    )
    equal = groups.sizes.sum() ** 2 / (groups.sizes**2).sum()
    if equal < MIN_IMAGES:
        yield f"They tell as much as {equal:.1f} groups of equal size. There are intervals from {MIN_IMAGES} on."


def _describe_run(seed: Predicted[P], index: int, metrics: Mapping[str, Value]) -> RunResult:
    """Describe one seed: its file, its own scores, and its training where the run folder records it."""
    path = seed.path
    folder = path.parent.parent if path.parent.name == "weights" else None
    theirs = {metric: seed.own[column] for metric, column in _COLUMNS.items() if column in seed.own}
    return RunResult(
        path=str(path),
        sha256=seed.protocol.weights or file_sha256(path),
        ours=Scores(**{metric: metrics[metric].seeds[index] for metric in _COLUMNS if metric in metrics}),
        ultralytics=Scores(**theirs) if theirs else None,
        training=_training(folder) if folder else None,
    )


def _training(folder: Path) -> Training | None:
    """Read what Ultralytics' training left in a run folder: seed, curve and the best epoch's own scores."""
    rows, arguments = read_results(folder / "results.csv"), folder / "args.yaml"
    if not rows:
        return None
    try:
        epochs = tuple(int(row["epoch"]) for row in rows)
        main, second = ("AP", "AP50") if MAP in rows[0] else ("top1", "top5")
        curve = tuple(row[_COLUMNS[main]] for row in rows)
        others = [row[_COLUMNS[second]] for row in rows]
        settings = read_yaml(arguments, "train arguments") if arguments.is_file() else {}
    except (KeyError, ValueError, OverflowError):  # a `UserError` is a `ValueError`
        return None
    seed = settings.get("seed") if isinstance(settings, dict) else None
    best = int(np.argmax(curve))
    return Training(
        seed=seed if isinstance(seed, int) else None,
        epochs=epochs,
        AP=curve if main == "AP" else (),
        best=BestEpoch(epochs[best], **{main: curve[best], second: others[best]}),
        seconds=rows[-1].get("time"),
        top1=curve if main == "top1" else (),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
