"""One comparison from start to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gam_yolo.evaluation import GroundTruth, read_truth
from gam_yolo.report.comparison import compare_detections
from gam_yolo.report.cost import measure_costs
from gam_yolo.report.document import build
from gam_yolo.report.gallery import differing_images
from gam_yolo.report.predictions import Settings, collect
from gam_yolo.report.result import Comparison, Statistics
from gam_yolo.report.variants import Variant

__all__ = ["evaluate", "run"]


def run(
    variants: list[Variant],
    gt: Path | None,
    control: str | None,
    settings: Settings,
    statistics: Statistics,
    folder: Path,
    progress: Callable[[str], None],
) -> Comparison:
    """Compare variants and write the report; arguments and errors are those of `evaluate`.

    Args:
        variants: What to compare; the first is the baseline.
        gt: Ground truth, if not the one of the dataset YAML.
        control: Name of a second variant to subtract.
        settings: How to validate.
        statistics: How to compare.
        folder: Where the report goes, and in its `predictions` the predictions made on the way.
        progress: Called with a line of text at each step.
    """
    comparison = evaluate(variants, gt, control, settings, statistics, folder / "predictions", progress)
    comparison.save(folder)
    return comparison


def evaluate(
    variants: list[Variant],
    gt: Path | None,
    control: str | None,
    settings: Settings,
    statistics: Statistics,
    cache: Path,
    progress: Callable[[str], None],
) -> Comparison:
    """Compare variants.

    Args:
        variants: What to compare; the first is the baseline.
        gt: Ground truth, if not the one of the dataset YAML.
        control: Name of a second variant to subtract.
        settings: How to validate.
        statistics: How to compare.
        cache: Folder of predictions: where they are looked for, and where new ones are stored.
        progress: Called with a line of text at each step.

    Raises:
        UserError: An input cannot be read, or results must not be compared.
    """
    truth = read_truth(settings.data, gt, settings.split)
    predicted = collect(variants, truth, settings, cache, progress)
    references = [variants[0].name, *([control] if control else [])]
    detections = {name: [seed.detections for seed in seeds] for name, seeds in predicted.items()}
    compared = compare_detections(truth, detections, references, statistics, progress)
    checkpoints = {v.name: v.paths[0] for v in variants if v.paths[0].suffix == ".pt"}
    costs = {}
    if checkpoints:
        progress("measuring latency")
        imgsz = next(p.protocol.imgsz for seeds in predicted.values() for p in seeds if p.path in checkpoints.values())
        costs = measure_costs(checkpoints, imgsz or 640, settings.device)
    comparison = build(truth, predicted, costs, references, statistics, settings, compared)
    files = _image_files(truth, settings)
    base = variants[0].name
    pictures = [
        picture
        for name, seeds in detections.items()
        if name != base
        for picture in differing_images(truth, files, (base, detections[base][0]), (name, seeds[0]))
    ]
    return replace(comparison, pictures=tuple(pictures))


def _image_files(truth: GroundTruth, settings: Settings) -> dict[int, Path]:
    """Find the images of the ground truth by name among those of the dataset YAML; none without one."""
    from gam_yolo.evaluation.yolo import dataset, image_files

    if settings.data is None:
        return {}
    by_name = {
        path.name: path for path in image_files(dataset(settings.data, settings.split)[settings.split], settings.data)
    }
    found = {index: by_name.get(Path(file).name) for index, file in enumerate(truth.files)}
    return {index: path for index, path in found.items() if path is not None}
