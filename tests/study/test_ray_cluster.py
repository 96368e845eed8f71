"""A study on a Ray cluster: a lost node costs time only, and what a cluster lacks is a one-line error."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from gam_yolo.errors import UserError
from gam_yolo.study.config import Study
from gam_yolo.study.folder import StudyFolder
from gam_yolo.study.plan import Run, plan
from gam_yolo.study.ray_cluster import connected, gpus_of, visible

from .helpers import COMMAND, PATIENCE, assert_same_result, log, until, worker

Write = Callable[[dict[str, Any]], Study]


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes with room for one run each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    utils = pytest.importorskip("ray.cluster_utils", reason="needs Ray: pip install gam-yolo[ray]")
    room = {"num_cpus": 1, "num_gpus": 0}
    nodes = utils.Cluster(initialize_head=True, head_node_args={**room, "include_dashboard": False})
    nodes.add_node(**room)
    yield nodes
    nodes.shutdown()


def training_on(raylet: psutil.Process, runs: list[Run]) -> tuple[Run, psutil.Process] | None:
    """The run that a node trains, and its process."""
    for process in raylet.children(recursive=True):
        try:
            command = process.cmdline()
        except psutil.Error:  # it has just ended
            continue
        if "gam_yolo.study.worker" in command:
            return next(run for run in runs if str(run.folder.path) in command), process
    return None


def test_a_node_lost_in_the_middle_costs_time_and_nothing_else(
    two_nodes: Any, content: dict[str, Any], undisturbed: list[Run], study_of: Write, tmp_path: Path
) -> None:
    runs = list(plan(study_of(content), StudyFolder(tmp_path / "tiny")).runs)
    command = [*COMMAND, str(tmp_path / "study.yaml"), "--project", str(tmp_path), "--ray", two_nodes.address]
    study = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (lost,) = two_nodes.worker_nodes
    raylet = psutil.Process(lost.all_processes["raylet"][0].process.pid)
    run, training = until(lambda: training_on(raylet, runs), study)
    until((run.folder.snapshots / "epoch-0").exists, study)
    raylet.kill()
    until(lambda: not training.is_running(), study)  # it does not go on while Ray gives its run to the other node
    two_nodes.remove_node(lost, allow_graceful=False)
    assert not run.finished

    output = study.communicate(timeout=PATIENCE)[0]
    assert study.returncode == 0, output
    for done, reference in zip(runs, undisturbed, strict=True):
        assert_same_result(done, reference)
        assert log(done).count("study: on the node") == (2 if done is run else 1)  # nothing finished was trained again
    assert "the training resumes after epoch-" in log(run)
    report = json.loads((tmp_path / "tiny" / "report" / "report.json").read_text())
    assert [variant["name"] for variant in report["variants"]] == ["plain", "gam"]


def test_what_a_machine_lacks_is_reported(content: dict[str, Any], study_of: Write, tmp_path: Path) -> None:
    run = plan(study_of(content), StudyFolder(tmp_path / "tiny")).runs[0]
    identity = run.spec["identity"]
    environment = {**identity["environment"], "torch": "0.1"}
    other = dataclasses.replace(run, spec={**run.spec, "identity": {**identity, "environment": environment}})
    assert worker(other) == 2
    assert f"environment: torch was 0.1 and is {torch.__version__}. Run the study again" in log(run).splitlines()[-1]
    train = {**run.spec["train"], "data": str(tmp_path / "elsewhere.yaml")}
    assert worker(dataclasses.replace(run, spec={**run.spec, "train": train})) == 2
    assert "elsewhere.yaml is missing on the machine" in log(run).splitlines()[-1]
    assert not run.folder.train.exists()


@pytest.mark.parametrize(
    ("device", "there_are", "gpus"),
    [
        (None, True, 1),
        (None, False, 0),
        ("cpu", True, 0),
        ("mps", True, 0),
        (3, False, 1),
        ("0,1", True, 2),
        ([0, 1, 2], True, 3),
        ("-1,-1", True, 2),
    ],
)
def test_a_run_takes_the_gpus_that_its_recipe_names(device: Any, there_are: bool, gpus: int) -> None:
    assert gpus_of({} if device is None else {"device": device}, there_are) == gpus


@pytest.mark.parametrize(
    ("given", "gpus", "device"),
    [("", 0, "cpu"), ("3", 1, "3"), ("5,2", 2, "5,2"), ("GPU-8a1f,GPU-77b2", 2, "0,1")],
)
def test_a_run_trains_on_the_gpus_that_ray_has_given_it(
    given: str, gpus: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible(gpus) == device


def test_a_cluster_that_does_not_answer_is_reported() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install gam-yolo[ray]")
    for address in ("nonsense", "127.0.0.1:9", "ray://127.0.0.1:9"):
        with pytest.raises(UserError, match=rf"--ray is '{address}' \(.*\)\. Expected 'auto' or the address") as error:
            connected(address, 0, print).__enter__()
        assert "\n" not in str(error.value)


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'pip install "gam-yolo\[ray\]"'):
        connected("auto", 0, print).__enter__()
