"""A run's validations: all detections are kept, and where Ultralytics dropped some, the run's record says so."""

from __future__ import annotations

from typing import Any

from gam_yolo import ultralytics_api
from gam_yolo.annotations.classes import read_labelled_images
from gam_yolo.evaluation import read_truth
from gam_yolo.report.classification import ClassifierValidation
from gam_yolo.report.detection import DetectorValidation
from gam_yolo.report.predictions import Settings, collect
from gam_yolo.report.variants import Variant
from gam_yolo.study.classification import task_of
from gam_yolo.study.folder import RunFolder

__all__ = ["BATCH", "attach", "predict", "times_limited"]

BATCH = 16
LIMITED = "NMS time limit"  # how Ultralytics' warning begins


def attach(model: Any) -> None:
    """Lift the time limit of non-maximum suppression in an Ultralytics model's training, on several GPUs as well."""
    model.add_callback("on_pretrain_routine_start", _lift_limit)


def predict(run: RunFolder, variant: str, data: str, imgsz: int, device: str) -> None:
    """Write the predictions of a run's checkpoint on the validation split to where the report looks for them.

    Args:
        run: The run.
        variant: Name of its variant.
        data: Dataset YAML; for classifiers, the folder.
        imgsz: Image size in pixels.
        device: Where to validate, as Ultralytics names it; empty for its choice.
    """
    settings, variants = Settings(data, "val", imgsz, BATCH, device), [Variant(variant, (run.best,))]
    if task_of(data) == "classify":
        collect(variants, ClassifierValidation(read_labelled_images(data), settings), run.study.predictions, print)
    else:
        collect(variants, DetectorValidation(read_truth(data, None), settings), run.study.predictions, print)


def times_limited(run: RunFolder) -> int:
    """Return how often a validation of the run met the time limit, and lost detections."""
    return sum(LIMITED in line for line in run.log_lines())


def _lift_limit(_: Any) -> None:
    ultralytics_api.lift_nms_time_limit()
