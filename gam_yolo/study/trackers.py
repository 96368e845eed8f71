"""Study, variant and seed as tags of the experiment trackers that Ultralytics' own callbacks feed."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

__all__ = ["attach", "name"]

TAGS = "GAM_YOLO_STUDY_TAGS"  # reaches the processes of a training on several GPUs as well


def name(spec: dict[str, Any]) -> None:
    """Name a run for the trackers that read the environment; what the user has set there stays.

    Args:
        spec: What `run.json` says.
    """
    tags = {key: str(spec[key]) for key in ("study", "variant", "seed")}
    os.environ[TAGS] = json.dumps(tags)
    os.environ.setdefault("WANDB_RUN_GROUP", tags["study"])
    os.environ.setdefault("WANDB_TAGS", ",".join(f"{key}={value}" for key, value in tags.items()))
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", tags["study"])
    os.environ.setdefault("MLFLOW_RUN", f"{tags['variant']}-s{tags['seed']}")


def attach(model: Any) -> None:
    """Have an Ultralytics model's training tag the runs that trackers have begun for it."""
    model.add_callback("on_train_start", _tag)


def _tag(trainer: Any) -> None:  # noqa: ARG001  # as Ultralytics calls it
    """Tag through a tracker's public functions; one that is not imported has no run."""
    tags: dict[str, str] = json.loads(os.environ[TAGS])
    if (mlflow := sys.modules.get("mlflow")) and mlflow.active_run():
        mlflow.set_tags(tags)
    if (comet := sys.modules.get("comet_ml")) and (experiment := comet.get_running_experiment()):
        experiment.add_tags([f"{key}={value}" for key, value in tags.items()])
        experiment.log_others(tags)
