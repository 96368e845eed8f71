"""How many trainings run at a time on this machine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gam_yolo.study import local


def plan_of(*runs: tuple[float, dict[str, Any]]) -> Any:
    """A plan as far as the choice of places reads it: the GFLOPs and the train arguments of each run."""
    made = [SimpleNamespace(label=f"v{i}", train=train) for i, (_, train) in enumerate(runs)]
    return SimpleNamespace(runs=made, gflops={f"v{i}": cost for i, (cost, _) in enumerate(runs)})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(*, cores: int, gpus: int = 0, gigabytes: float = 1000, threads: str = "1") -> None:
        monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=gigabytes * 1e9))
        monkeypatch.setenv("OMP_NUM_THREADS", threads)

    return of


def test_without_gpus_each_core_has_a_training(machine: Any) -> None:
    machine(cores=8)
    assert local.this_machine(plan_of((1.0, {"device": "cpu"}))).places == 8
    assert local.this_machine(plan_of((1.0, {}))).places == 8
    assert local.this_machine(plan_of((1.0, {})), workers=3).places == 3
    machine(cores=8, threads="3")
    assert local.this_machine(plan_of((1.0, {}))).places == 2


def test_memory_bounds_the_trainings_of_large_models(machine: Any) -> None:
    machine(cores=16, gigabytes=16)
    assert local.this_machine(plan_of((1.1, {"batch": 16}))).places == 8  # YOLOv8n at 224 px
    assert local.this_machine(plan_of((1.1, {"batch": 16}), (8.9, {"batch": 16}))).places == 3  # the largest decides
    assert local.this_machine(plan_of((258.0, {"batch": 16}))).places == 1


def test_gpus_take_one_training_each_unless_the_recipe_is_for_the_cpu(machine: Any) -> None:
    machine(cores=8, gpus=2)
    found = local.this_machine(plan_of((1.0, {})))
    assert (found.places, found.devices) == (2, ["0", "1"])
    assert local.this_machine(plan_of((1.0, {"device": "0,1"}))).places == 2
    assert local.this_machine(plan_of((1.0, {"device": "cpu"}))).places == 8
    machine(cores=8)
    assert local.this_machine(plan_of((1.0, {"device": "mps"}))).places == 1
