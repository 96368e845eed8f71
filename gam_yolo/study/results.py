"""Where a study meets the evaluator and the report: the only place that calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["predict", "report"]

FOLDER = "report"
BATCH = 16


def predict(study: Path, variant: str, weights: Path, data: str, imgsz: int, device: str) -> None:
    """Write a checkpoint's detections on the validation split to where the report looks for them.

    Args:
        study: The study's folder.
        variant: Name of the variant.
        weights: The checkpoint.
        data: Dataset YAML.
        imgsz: Image size in pixels.
        device: Where to validate, as Ultralytics names it; empty for its choice.
    """
    from gam_yolo.evaluation import read_truth
    from gam_yolo.report.predictions import Settings, collect
    from gam_yolo.report.variants import Variant

    truth = read_truth(data, None)
    settings = Settings(data, "val", imgsz, BATCH, device)
    collect([Variant(variant, (weights,))], truth, settings, study / FOLDER / "predictions", print)


def report(
    study: Path,
    weights: Mapping[str, Sequence[Path]],
    data: str,
    imgsz: int,
    baseline: str,
    control: str,
    device: str,
    say: Callable[[str], None],
) -> tuple[str, Path]:
    """Write the report on all variants that have finished runs, from the detections that their runs have left.

    Args:
        study: The study's folder.
        weights: The checkpoints of each variant's seeds.
        data: Dataset YAML.
        imgsz: Image size in pixels.
        baseline: The variant that the others are compared with.
        control: The cost-matched variant, or an empty string.
        device: Where latency is measured, as in `predict`.
        say: Is told what is going on.

    Returns:
        What came out, in one sentence, and the report's page.
    """
    from gam_yolo.report.comparison import Statistics
    from gam_yolo.report.predictions import Settings
    from gam_yolo.report.run import run
    from gam_yolo.report.variants import Variant

    names = sorted(weights, key=lambda name: name != baseline)  # the first is the one that others are compared with
    variants = [Variant(name, tuple(weights[name])) for name in names]
    settings = Settings(data, "val", imgsz, BATCH, device)
    written = run(variants, None, control or None, settings, Statistics(), study / FOLDER, say)
    return written.headline, study / FOLDER / "report.html"
