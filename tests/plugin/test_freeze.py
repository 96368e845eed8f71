"""`freeze` means rows of the base model where blocks were inserted, and never freezes a block with new weights."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from ultralytics import YOLO
from ultralytics.nn import tasks

from gam_yolo.graph.place import place
from gam_yolo.plugin.freeze import _mapped

TINY = """\
nc: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 4]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [-1, 1, Conv, [16, 3, 2]]
  - [[1, 2, 3], 1, Detect, [nc]]
"""
QUICK = {"epochs": 2, "imgsz": 64, "batch": 2, "workers": 0, "plots": False, "val": False, "device": "cpu"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "yolov8-tiny.yaml").write_text(TINY)
    place(tmp_path / "yolov8-tiny.yaml", block="GAM", at="0,2", args=[2]).save(tmp_path / "yolov8-gam.yaml")
    torch.save({"model": YOLO(tmp_path / "yolov8-tiny.yaml").model.half(), "train_args": {}}, tmp_path / "plain.pt")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for i in range(2):
        Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "images" / f"{i} a.jpg")
        (tmp_path / "labels" / f"{i} a.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [thing]\n")
    return tmp_path


def frozen(model: Any) -> list[int]:
    """The rows of which no parameter but the constants of the head is trainable."""
    rows: dict[int, set[bool]] = {}
    for key, parameter in model.named_parameters():
        rows.setdefault(int(re.findall(r"model\.(\d+)\.", key)[0]), set()).add(parameter.requires_grad)
    return sorted(row for row, states in rows.items() if True not in states)


class Stop(Exception):  # noqa: N818
    pass


def stop(trainer: Any) -> None:
    if trainer.epoch == 0:
        raise Stop


@pytest.mark.since("8.3.160")  # an older `train` ignores `pretrained`
def test_training_freezes_the_base_rows_and_resumes_so(folder: Path) -> None:
    """Rows 0 to 2 of the base are 0, 2 and 3 with GAM after rows 0 and 2; blocks are rows 1 and 4."""
    seen: list[Any] = []
    run = YOLO(folder / "yolov8-gam.yaml")
    run.add_callback("on_train_start", lambda trainer: seen.append((frozen(trainer.model), trainer.args.freeze)))
    run.add_callback("on_model_save", stop)
    with pytest.raises(Stop):
        run.train(
            data=str(folder / "data.yaml"), pretrained=str(folder / "plain.pt"), freeze=3, project=str(folder), **QUICK
        )
    last = next(folder.glob("*/weights/last.pt"))
    again = YOLO(last)
    again.add_callback("on_train_start", lambda trainer: seen.append((frozen(trainer.model), trainer.args.freeze)))
    again.train(resume=True)
    # A training of its own, from a checkpoint with these very blocks: the numbers are those of the checkpoint's rows.
    more = YOLO(last)
    more.add_callback("on_train_start", lambda trainer: seen.append((frozen(trainer.model), trainer.args.freeze)))
    more.train(data=str(folder / "data.yaml"), freeze=[0, 1], project=str(folder / "more"), **QUICK | {"epochs": 1})
    assert seen == [([0, 2, 3], 3), ([0, 2, 3], 3), ([0, 1], [0, 1])]
    trainer: Any = again.trainer
    start, end = torch.load(folder / "plain.pt", weights_only=False)["model"], trainer.model
    assert torch.equal(start.float().model[2].conv.weight, end.model[3].conv.weight)
    assert not torch.equal(start.float().model[3].conv.weight, end.model[5].conv.weight)


@pytest.mark.parametrize(
    ("block", "args"), [("GAM", [2]), ("SimAM", [])]
)  # the second has no weights, but shifts the rows too
@pytest.mark.parametrize(
    ("freeze", "rows"), [(3, [0, 2, 3]), ([1, 3], [2, 5]), ([2, 99, -1], [3]), (["3.conv"], ["5.conv"]), (0, 0)]
)  # fmt: skip
def test_the_list_is_mapped_by_structure(folder: Path, block: str, args: list[Any], freeze: Any, rows: Any) -> None:
    path = place(folder / "yolov8-tiny.yaml", block=block, at="0,2", args=args).save(folder / "yolov8-other.yaml")
    model = tasks.DetectionModel(path, verbose=False)
    model.load(tasks.DetectionModel(folder / "yolov8-tiny.yaml", verbose=False))
    said: list[str] = []
    assert _mapped(SimpleNamespace(model=model, resume=False), freeze, said.append) == rows
    if rows:
        assert f"row 1 ({block}), row 4 ({block}) stay trainable" in said[0]


def test_a_model_without_blocks_is_left_to_ultralytics(folder: Path) -> None:
    model = tasks.DetectionModel(folder / "yolov8-tiny.yaml", verbose=False)
    assert _mapped(SimpleNamespace(model=model, resume=False), [0, 4], pytest.fail) == [0, 4]
