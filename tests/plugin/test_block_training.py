"""`block_lr` and `block_epochs`: which parameter learns at which rate and when, also after an interruption."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from ultralytics import YOLO
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

from gam_yolo.blocks import GAM, SE
from gam_yolo.errors import UserError
from gam_yolo.registry import blocks_in
from gam_yolo.resnet import AttentionResNet
from gam_yolo.study import snapshots
from gam_yolo.study.folder import RunFolder
from gam_yolo.training_keys import BlockTraining
from gam_yolo.training_log import read_results

TINY = """\
nc: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, GAM, [{reduction: 2, start: zero}]]
  - [-1, 1, Conv, [8, 3, 4]]
  - [-1, 2, SE, [2]] # two SE blocks
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [-1, 1, Conv, [16, 3, 2]]
  - [[3, 4, 5], 1, Detect, [nc]]
"""
OPTIMIZERS = ("SGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSProp", "MuSGD", "auto")
QUICK = {"epochs": 4, "imgsz": 64, "batch": 2, "nbs": 2, "workers": 0, "plots": False, "device": "cpu"}
stock: Any = vars(BaseTrainer)["build_optimizer"].__wrapped__


def tiny(**keys: Any) -> Any:
    return tasks.DetectionModel(yaml.safe_load(TINY) | {"yaml_file": "my.yaml", **keys}, verbose=False)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    LOGGER.addHandler(handler)
    yield said
    LOGGER.removeHandler(handler)


@pytest.fixture
def data(tmp_path: Path) -> str:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i in range(4):
        Image.effect_noise((70, 60), 50).convert("RGB").save(tmp_path / "images" / f"{i} ä.jpg")
        (tmp_path / "labels" / f"{i} ä.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    file = tmp_path / "data.yaml"
    file.write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [thing]\n")
    return str(file)


def trainer(**attributes: Any) -> Any:
    """A trainer with as much as its optimizer needs."""
    made: Any = object.__new__(BaseTrainer)
    args = SimpleNamespace(lr0=0.01, optimizer="auto", warmup_bias_lr=0.1, momentum=0.9, compile=False)
    vars(made).update({"args": args, "data": {"nc": 1}, "world_size": 0, "callbacks": defaultdict(list)} | attributes)
    return made


def settings(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Each parameter's name and its group's settings; each is in one group."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = [(names[id(p)], group) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(name for name, _ in found) == sorted(names.values())
    return {name: {k: v for k, v in group.items() if k != "params"} for name, group in found}


@pytest.mark.parametrize("iterations", [100, 20000])  # with "auto": AdamW, MuSGD
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_the_learning_rate_of_block_parameters_changes_in_every_optimizer(
    name: str, iterations: int, lines: list[str]
) -> None:
    model = tiny(block_lr=10)
    options = {"name": name, "lr": 0.02, "momentum": 0.8, "decay": 0.001, "iterations": iterations}
    theirs = settings(stock(trainer(), model, **options), model)
    optimizer = trainer().build_optimizer(model, **options)
    ours = settings(optimizer, model)
    for key, group in theirs.items():
        block = key.startswith(("model.1.", "model.3."))
        assert ours[key] == group | {"lr": group["lr"] * (10 if block else 1)}, key
    assert len(optimizer.param_groups) in (6, 8 + 3)
    rates = sorted({group["lr"] for key, group in theirs.items()})
    of_blocks = sorted({10 * group["lr"] for key, group in theirs.items() if key.startswith(("model.1.", "model.3."))})
    shown = [", ".join(f"{rate:g}" for rate in found) for found in (of_blocks, rates)]
    assert lines[-1] == (
        f"block_lr=10: lr={shown[0]} for row 1 (GAM), row 3.0 (SE), row 3.1 (SE) (20 parameters), "
        f"lr={shown[1]} for all others"
    )
    for p in model.parameters():  # it can be used
        p.grad = torch.ones_like(p)
    optimizer.step()


@pytest.mark.parametrize("keys", [{}, {"block_lr": 1}])
def test_without_a_factor_the_optimizer_is_ultralytics_own(keys: dict[str, Any], lines: list[str]) -> None:
    model = tiny(**keys)
    assert len(trainer().build_optimizer(model, name="SGD").param_groups) == 3
    assert not any("block_lr" in line for line in lines)


def test_blocks_inside_other_modules_are_found_and_counted_once() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Conv2d(4, 4, 1), GAM(4, 2)])

    model = nn.Sequential(Outer(), SE(4, 2))
    assert list(blocks_in(model)) == ["row 0.layers.1 (GAM)", "row 1 (SE)"]
    names = list(blocks_in(AttentionResNet(3, "resnet18", "SE")))
    assert len(names) == 8
    assert names[0].endswith("(SE)")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("block_lr", 0, "block_lr is 0. Expected a number above 0"),
        ("block_lr", -1.5, "block_lr is -1.5. Expected"),
        ("block_lr", True, "block_lr is True. Expected"),
        ("block_lr", None, "block_lr is None. Expected"),
        ("block_lr", [10], r"block_lr is \[10\]. Expected"),
        ("block_lr", float("nan"), "block_lr is nan. Expected"),
        ("block_lr", "ten", "block_lr is 'ten'. Expected"),
        ("block_epochs", 1.5, "block_epochs is 1.5. Expected a whole number from 0"),
        ("block_epochs", -1, "block_epochs is -1. Expected"),
        ("block_epochs", True, "block_epochs is True. Expected"),
    ],
)
def test_a_bad_value_is_reported_when_the_model_is_built(key: str, value: Any, says: str) -> None:
    with pytest.raises(UserError, match=rf"^my\.yaml: {says}") as caught:
        tiny(**{key: value})
    assert "\n" not in str(caught.value)


def test_a_number_that_yaml_reads_as_text_is_a_number() -> None:
    assert BlockTraining.of({"block_lr": "1e1", "block_epochs": "2"}, "") == BlockTraining(10.0, 2)


@pytest.mark.since("8.4.40")  # which names the groups
def test_warm_up_schedule_log_and_results_treat_them_as_ultralytics_own_groups(
    tmp_path: Path, data: str, lines: list[str]
) -> None:
    (tmp_path / "yolov8-my.yaml").write_text(TINY + "block_lr: 10\n")
    seen: list[tuple[int, list[tuple[str, float]]]] = []
    run = YOLO(tmp_path / "yolov8-my.yaml")
    run.add_callback(
        "on_train_batch_end",
        lambda t: seen.append((t.epoch, [(g["param_group"], g["lr"]) for g in t.optimizer.param_groups])),
    )
    run.train(
        data=data, project=str(tmp_path), name="run", optimizer="SGD", lr0=0.01, warmup_epochs=2, val=False, **QUICK
    )
    # From Ultralytics' documentation: biases start at warmup_bias_lr (0.1), all others at 0; two batches an epoch.
    for i, (epoch, groups) in enumerate(seen):
        linear = (1 - epoch / 4) * 0.99 + 0.01
        share = min(i / 4, 1)
        expected = [
            (kind, (0.1 * (1 - share) if kind == "bias" else 0) + share * rate * linear)
            for rate in (0.01, 0.1)
            for kind in ("bn", "weight", "bias")
        ]
        for (kind, rate), (wanted, its_rate) in zip(sorted(groups), sorted(expected), strict=True):
            assert kind == wanted, i
            assert rate == pytest.approx(its_rate, rel=1e-5), i
    rows = read_results(tmp_path / "run" / "results.csv")
    assert [key for key in rows[0] if key.startswith("lr/")] == [f"lr/pg{i}" for i in range(6)]
    assert rows[3]["lr/pg3"] == pytest.approx(10 * rows[3]["lr/pg0"])
    assert sum(line.startswith("block_lr=10: lr=0.1 for row 1 (GAM)") for line in lines) == 1
    moved = [line for line in lines if "changes its input by" in line]
    assert [line.split(" changes")[0] for line in moved] == ["row 1 (GAM)", "row 3.0 (SE)", "row 3.1 (SE)"]


@pytest.mark.since("8.3.160")  # an older one cannot save a new model
def test_a_key_set_in_python_holds_for_a_model_with_loaded_weights(tmp_path: Path, data: str, lines: list[str]) -> None:
    (tmp_path / "yolov8-my.yaml").write_text(TINY)
    YOLO(tmp_path / "yolov8-my.yaml").save(tmp_path / "weights.pt")
    for model in (YOLO(tmp_path / "weights.pt"), YOLO(tmp_path / "yolov8-my.yaml").load(tmp_path / "weights.pt")):
        model.model.yaml["block_lr"] = 10
        lines.clear()
        model.train(data=data, project=str(tmp_path), optimizer="SGD", val=False, **QUICK | {"epochs": 1})
        assert sum(line.startswith("block_lr=10: lr=0.1 for row 1 (GAM)") for line in lines) == 1
        assert model.model.yaml["block_lr"] == 10


class Stop(Exception):  # noqa: N818
    pass


State = dict[str, torch.Tensor]


def state(model: Any) -> State:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def train(folder: Path, data: str, interrupt: int | None = None) -> tuple[list[State], list[State]]:
    """Train, with the snapshots of a study; return the states of model and average after each epoch from the start."""
    run = RunFolder(folder / "study" / f"run-{interrupt}")
    states: list[State] = []
    averages: list[State] = []

    def record(trainer: Any) -> None:
        states.append(state(trainer.model))
        averages.append(state(trainer.ema.ema))

    def stop(trainer: Any) -> None:
        if trainer.epoch == interrupt:
            raise Stop

    def start(model: Any, **arguments: Any) -> None:
        snapshots.attach(model)
        model.add_callback("on_model_save", stop)
        model.add_callback("on_train_epoch_end", record)
        model.train(save_dir=str(run.train), **arguments)

    model = YOLO(folder / "yolov8-my.yaml")
    model.add_callback("on_train_start", record)
    arguments = {"data": data, "optimizer": "AdamW", "lr0": 0.01, "warmup_epochs": 1, "val": False, **QUICK}
    if interrupt is None:
        start(model, **arguments)
        return states, averages
    with pytest.raises(Stop):
        start(model, **arguments)
    snapshot, damaged = snapshots.newest(run)
    assert snapshot is not None
    assert not damaged
    snapshots.restore_files(run, snapshot)
    interrupt = None
    start(YOLO(snapshot / snapshots.LAST), resume=True, data=data)
    return states, averages


@pytest.mark.since("8.4.4")  # an older one ignores save_dir
def test_only_the_blocks_learn_at_first_and_resuming_is_exact_in_and_after_that_phase(
    tmp_path: Path, data: str, lines: list[str]
) -> None:
    """Stopped after epoch 1 (in the phase), 2 (at its end) and 3, a resumed training ends with the same bits."""
    (tmp_path / "yolov8-my.yaml").write_text(TINY + "block_lr: 10\nblock_epochs: 2\n")
    states, averages = train(tmp_path, data)
    assert len(states) == 5  # at the start, and after each epoch
    assert (
        "block_epochs=2: until epoch 2 has ended, only the blocks learn: row 1 (GAM), row 3.0 (SE), row 3.1 (SE)"
        in lines
    )
    blocks = {key for key in states[0] if key.startswith(("model.1.", "model.3."))}
    for epoch, (before, after) in enumerate(itertools.pairwise(states)):
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        assert changed >= (blocks if epoch else {"model.1.channel.2.bias"})  # the last layers are the first to learn
        base = {key for key in before if key.startswith(("model.0.", "model.2.", "model.4."))}
        assert (changed - blocks >= base) if epoch > 1 else not changed - blocks
    for key, value in averages[2].items():  # an average of constants
        if key not in blocks:
            torch.testing.assert_close(value, states[0][key], rtol=1e-5, atol=1e-7)
    for interrupt in (0, 1, 2):
        again, average = train(tmp_path, data, interrupt)
        assert len(again) == 5
        for one, other in zip([*states, averages[-1]], [*again, average[-1]], strict=True):
            assert all(torch.equal(other[key], one[key]) for key in one)


def test_what_freeze_has_frozen_stays_frozen(tmp_path: Path, data: str) -> None:
    (tmp_path / "yolov8-my.yaml").write_text(TINY + "block_epochs: 1\n")
    seen: list[set[str]] = []
    run = YOLO(tmp_path / "yolov8-my.yaml")
    run.add_callback(
        "on_train_batch_end",
        lambda t: seen.append({key.split(".")[1] for key, p in t.model.named_parameters() if p.requires_grad}),
    )
    run.train(data=data, project=str(tmp_path), freeze=[0], val=False, **QUICK | {"epochs": 2})
    assert seen == 2 * [{"1", "3"}] + 2 * [{"1", "2", "3", "4", "5", "6"}]


def test_blocks_without_parameters_cannot_learn_alone() -> None:
    model = tasks.DetectionModel(
        {"nc": 1, "block_epochs": 1, "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "SimAM", []]]}
        | {"head": [[[1], 1, "Detect", ["nc"]]], "yaml_file": "my.yaml"},
        verbose=False,
    )
    with pytest.raises(UserError, match=r"my\.yaml: block_epochs is given, but no block has parameters"):
        trainer().build_optimizer(model, name="SGD")


def test_the_phase_works_in_a_multi_gpu_model(tmp_path: Path) -> None:
    """DistributedDataParallel with one process on the CPU: it has seen all parameters as trainable."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(tiny(block_lr=10, block_epochs=1), find_unused_parameters=True)
        one = trainer(world_size=2)
        optimizer = one.build_optimizer(model, name="AdamW", lr=0.001)
        assert len(optimizer.param_groups) == 6
        for one.epoch in (0, 0, 1, 1):
            model.train()
            one.run_callbacks("on_train_batch_start")
            sum(out.float().square().mean() for out in _tensors(model(torch.rand(2, 3, 64, 64)))).backward()
            learning = {name.split(".")[2] for name, p in model.named_parameters() if p.grad is not None}
            assert learning == ({"1", "3"} if one.epoch == 0 else {"0", "1", "2", "3", "4", "5", "6"})
            optimizer.step()
            optimizer.zero_grad()
        one.args.compile = True
        with pytest.raises(UserError, match="block_epochs does not work with compile on several GPUs"):
            one.build_optimizer(model, name="AdamW")
    finally:
        dist.destroy_process_group()


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in _tensors(part)]
