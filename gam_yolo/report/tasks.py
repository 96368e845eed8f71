"""What a comparison is about, by task: its metrics, and the words for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gam_yolo.evaluation import METRICS
from gam_yolo.evaluation.accuracy import ACCURACY_METRICS
from gam_yolo.evaluation.metrics import COCO_METRICS

__all__ = ["CLASSIFY", "DETECT", "TASKS", "Task", "TaskName"]

TaskName = Literal["detect", "classify"]
"""Ultralytics' name of a task that models are compared on."""


@dataclass(frozen=True)
class Task:
    """The metrics and words of one task.

    Attributes:
        main: The metric the headline is about.
        second: The metric that the main table shows as well.
        metrics: All metrics, in the order of the arrays.
        charted: Those whose differences are drawn together.
        models: What the models are, in the plural.
        short: The main metric's name in a sentence.
        nothing: What a model with a score of 0 fails to do, after "neither A nor B".
    """

    main: str
    second: str
    metrics: tuple[str, ...]
    charted: tuple[str, ...]
    models: str
    short: str
    nothing: str


DETECT = Task("AP", "AP50", METRICS, COCO_METRICS, "detectors", "mAP", "finds any object")
CLASSIFY = Task(
    "top1", "top5", ACCURACY_METRICS, ACCURACY_METRICS, "classifiers", "top-1", "classifies any image correctly"
)
TASKS = {"detect": DETECT, "classify": CLASSIFY}
"""By Ultralytics' name."""
