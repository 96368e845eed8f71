"""Which tags trackers get, tested on stand-ins with their public functions: the real ones need accounts."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from gam_yolo.study import trackers

SPEC = {"study": "tiny", "variant": "gam", "seed": 3, "train": {"epochs": 3}}
TAGS = {"study": "tiny", "variant": "gam", "seed": "3"}
VARIABLES = ("WANDB_RUN_GROUP", "WANDB_TAGS", "WANDB_NAME", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN", trackers.TAGS)


class Model:
    """Keeps the callback for the start of a training."""

    def add_callback(self, event: str, callback: object) -> None:
        self.event, self.callback = event, callback


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)  # so that what the test sets goes with it
    for module in ("mlflow", "comet_ml", "wandb"):
        monkeypatch.delitem(sys.modules, module, raising=False)


def train() -> None:
    model = Model()
    trackers.attach(model)
    assert model.event == "on_train_start"  # after Ultralytics' callbacks have begun runs
    model.callback(SimpleNamespace())


def test_the_environment_names_runs_where_the_user_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    trackers.describe(SPEC)
    assert os.environ["WANDB_RUN_GROUP"] == "tiny"
    assert os.environ["WANDB_TAGS"] == "study=tiny,variant=gam,seed=3"
    assert os.environ["MLFLOW_EXPERIMENT_NAME"] == "mine"
    assert os.environ["MLFLOW_RUN"] == "gam-s3"


def test_what_trackers_have_started_is_tagged(monkeypatch: pytest.MonkeyPatch) -> None:
    received: dict[str, object] = {}
    experiment = SimpleNamespace(
        set_name=lambda name: received.update(comet_name=name),
        add_tags=lambda tags: received.update(comet_tags=tags),
        log_others=lambda others: received.update(comet_others=others),
    )
    run = SimpleNamespace(name="train")
    mlflow = SimpleNamespace(active_run=lambda: object(), set_tags=lambda tags: received.update(mlflow=tags))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "comet_ml", SimpleNamespace(get_running_experiment=lambda: experiment))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=run))
    trackers.describe(SPEC)
    train()
    assert received == {
        "mlflow": TAGS,
        "comet_name": "gam-s3",
        "comet_tags": ["study=tiny", "variant=gam", "seed=3"],
        "comet_others": TAGS,
    }
    assert run.name == "gam-s3"

    monkeypatch.setenv("WANDB_NAME", "mine")
    run.name = "mine"
    train()
    assert run.name == "mine"


def test_trackers_without_a_run_or_out_of_reach_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(_: object) -> None:
        raise ConnectionError("no route")

    trackers.describe(SPEC)
    train()  # none is imported
    monkeypatch.setitem(sys.modules, "comet_ml", SimpleNamespace(get_running_experiment=lambda: None))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None))
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(active_run=lambda: object(), set_tags=lost))
    train()
    assert capsys.readouterr().out == "study: mlflow has no tags for study, variant and seed (no route)\n"
