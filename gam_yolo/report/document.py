"""Assemble a comparison's result: scores, costs, each run's file and training, data, versions and notes."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import numpy as np

from gam_yolo.checkpoints import written_by
from gam_yolo.evaluation import Detections, GroundTruth
from gam_yolo.evaluation.groups import Groups
from gam_yolo.evaluation.matching import MAX_DETECTIONS
from gam_yolo.evaluation.statistics import MIN_IMAGES
from gam_yolo.io import file_sha256, read_yaml
from gam_yolo.known_faults import fault_notes
from gam_yolo.report.comparison import headline
from gam_yolo.report.formatting import points
from gam_yolo.report.groups import describe_groups
from gam_yolo.report.predictions import Predicted, Settings
from gam_yolo.report.protocol import Protocol
from gam_yolo.report.result import Comparison
from gam_yolo.report.schema import (
    BestEpoch,
    CommonProtocol,
    Cost,
    Data,
    RunResult,
    Scores,
    Statistics,
    Training,
    Value,
    VariantResult,
)
from gam_yolo.report.tasks import TaskName
from gam_yolo.training_log import MAP, MAP50, TOP1, TOP5, read_results

__all__ = ["assemble", "build", "describe_variants", "group_notes", "seed_notes"]

P = TypeVar("P")

_OFTEN_EMPTY = 0.05  # of the images with objects; YOLOv8n at confidence 0.001 has detections on all of COCO's
_APART, _LEAST_APART = 0.06, 0.035  # about twice the largest distance seen, and just above it where scores are low
_COLUMNS = {"AP": MAP, "AP50": MAP50, "top1": TOP1, "top5": TOP5}
_GROUPED = Statistics().interval.replace("image bootstrap", "bootstrap of groups of images")
_PACKAGES = ("gam-yolo", "ultralytics", "torch", "numpy", "scipy", "pycocotools")


def build(
    truth: GroundTruth,
    predicted: Mapping[str, list[Predicted[Detections]]],
    costs: Mapping[str, Cost],
    references: list[str],
    statistics: Statistics,
    settings: Settings,
    compared: Mapping[str, VariantResult],
    notes: Sequence[str] = (),
    groups: Groups | None = None,
) -> Comparison:
    """Assemble the result, without pictures.

    Args:
        truth: The ground truth.
        predicted: The predictions of each seed of each variant.
        costs: The costs of the variants that have checkpoints.
        references: Baseline and, if there is one, control.
        statistics: How the comparison was made.
        settings: What the user chose.
        compared: What `compare_detections` returned.
        notes: What else a reader has to know.
        groups: The groups of images that were resampled.
    """
    variants = describe_variants(compared, predicted, costs)
    return assemble(
        variants,
        predicted,
        references,
        headline=headline(compared, references[0], truth, statistics.level),
        notes=(*_doubts(variants, truth), *truth.notes, *_notes(truth, predicted), *notes, *group_notes(groups)),
        data=Data(
            yaml=settings.data,
            split=settings.split,
            ground_truth=truth.source,
            digest=truth.digest,
            images=len(truth.ids),
            objects=len(truth.image),
            crowds=int(truth.crowd.sum()),
            difficult=int(truth.difficult.sum()),
            classes=truth.classes,
            groups=describe_groups(groups),
        ),
        statistics=replace(statistics, interval=_GROUPED) if groups else statistics,
        task="detect",
    )


def describe_variants(
    compared: Mapping[str, VariantResult], predicted: Mapping[str, list[Predicted[P]]], costs: Mapping[str, Cost]
) -> dict[str, VariantResult]:
    """Return what was compared, with its costs and a description of each seed."""
    return {
        name: replace(
            found,
            cost=costs.get(name),
            runs=tuple(
                _describe_run(seed.path, seed.protocol, seed.own, i, found.metrics)
                for i, seed in enumerate(predicted[name])
            ),
        )
        for name, found in compared.items()
    }


def assemble(
    variants: Mapping[str, VariantResult],
    predicted: Mapping[str, list[Predicted[P]]],
    references: list[str],
    *,
    headline: str,
    notes: tuple[str, ...],
    data: Data,
    statistics: Statistics,
    task: TaskName,
) -> Comparison:
    """Assemble the result of any task, without pictures."""
    return Comparison(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        headline=headline,
        notes=notes,
        baseline=references[0],
        control=references[1] if len(references) > 1 else None,
        data=data,
        protocol=_common_protocol([seed.protocol for seeds in predicted.values() for seed in seeds]),
        statistics=statistics,
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


def group_notes(groups: Groups | None) -> Iterator[str]:
    """Say that groups were resampled, and whether they are enough."""
    found = describe_groups(groups)
    if groups is None or found is None:
        return
    yield (
        f"Groups of images were resampled instead of images: {found.number} groups of {len(groups.index)} images, by "
        f"{found.by}. The largest, '{found.largest_name}', has {found.largest} images."
    )
    equal = groups.sizes.sum() ** 2 / (groups.sizes**2).sum()
    if equal < MIN_IMAGES:
        yield f"They tell as much as {equal:.1f} groups of equal size. There are intervals from {MIN_IMAGES} on."


def _nms_stops(weights: Path) -> int:
    """Count how often a training's log, in or beside its run folder, says that suppression ran out of time."""
    if weights.parent.name != "weights":
        return 0
    run = weights.parent.parent
    logs = [log for log in (run / "log.txt", run.parent / "log.txt") if log.is_file()]
    return sum(log.read_bytes().count(b"NMS time limit") for log in logs)


def _describe_run(
    path: Path, protocol: Protocol, own: Mapping[str, float], index: int, metrics: Mapping[str, Value]
) -> RunResult:
    """Describe one seed: its file, its own scores, and its training where the run folder records it."""
    folder = path.parent.parent if path.parent.name == "weights" else None
    theirs = {metric: own[column] for metric, column in _COLUMNS.items() if column in own}
    return RunResult(
        path=str(path),
        sha256=protocol.weights or file_sha256(path),
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
