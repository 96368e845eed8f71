"""Study, variant and seed as tags in the trackers that Ultralytics' own callbacks report to."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

__all__ = ["attach", "describe"]

TAGS = "GAM_YOLO_STUDY_TAGS"  # reaches the processes of a training on several GPUs as well


def describe(spec: dict[str, Any]) -> None:
    """Name a run for the trackers that read the environment. What the user has set there takes precedence.

    Args:
        spec: The content of `run.json`.
    """
    tags = {key: str(spec[key]) for key in ("study", "variant", "seed")}
    os.environ[TAGS] = json.dumps(tags)
    os.environ.setdefault("WANDB_RUN_GROUP", tags["study"])
    os.environ.setdefault("WANDB_TAGS", ",".join(_pairs(tags)))
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", tags["study"])
    os.environ.setdefault("MLFLOW_RUN", _name(tags))


def attach(model: Any) -> None:
    """Have an Ultralytics model's training tag the experiments that its trackers have started."""
    model.add_callback("on_train_start", _tag)


def _tag(trainer: Any) -> None:  # noqa: ARG001  # Ultralytics passes it
    """Tag by the trackers' public functions; a tracker that has not been imported has started nothing."""
    tags: dict[str, str] = json.loads(os.environ[TAGS])
    for module, tag in (("mlflow", _tag_mlflow), ("comet_ml", _tag_comet), ("wandb", _tag_wandb)):
        try:
            if tracker := sys.modules.get(module):
                tag(tracker, tags)
        except Exception as error:  # an unreachable tracker must not end a training
            print(f"study: {module} has no tags for study, variant and seed ({error})")


def _tag_mlflow(mlflow: Any, tags: dict[str, str]) -> None:
    if mlflow.active_run():
        mlflow.set_tags(tags)


def _tag_comet(comet: Any, tags: dict[str, str]) -> None:
    if experiment := comet.get_running_experiment():
        experiment.set_name(_name(tags))
        experiment.add_tags(_pairs(tags))
        experiment.log_others(tags)


def _tag_wandb(wandb: Any, tags: dict[str, str]) -> None:
    if wandb.run and "WANDB_NAME" not in os.environ:
        wandb.run.name = _name(tags)  # Ultralytics names it after the folder, which is `train` in every run


def _name(tags: dict[str, str]) -> str:
    return f"{tags['variant']}-s{tags['seed']}"


def _pairs(tags: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in tags.items()]
