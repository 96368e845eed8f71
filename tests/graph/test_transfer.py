"""A small detector's weights, tensor by tensor: what arrives where, how each is reported, and what is no checkpoint."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

from gam_yolo.errors import UserError
from gam_yolo.graph.edit import insert, rewrite
from gam_yolo.graph.model import Document
from gam_yolo.graph.transfer import (
    TensorTransfer,
    TransferReport,
    has_blocks,
    modules,
    transfer,
    transfer_weights,
)

from .samples import TINY

STOCK: Any = getattr(tasks.BaseModel.load, "__wrapped__", tasks.BaseModel.load)  # Ultralytics' own


def build(text: str = TINY, **keys: Any) -> Any:
    """A detector whose parameters are all random: a batch norm's too, which are the same in every new model."""
    model = tasks.DetectionModel(yaml.safe_load(text), verbose=False, **keys)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.1)
    return model


def placed(rows: list[int], block: str = "SE", args: list[Any] | None = None, text: str = TINY) -> str:
    document = Document(text, "tiny.yaml")
    return rewrite(document, insert(document.graph, rows, block, args or []))


def transferred(source: Any, target: Any) -> tuple[TransferReport, dict[str, torch.Tensor]]:
    """The report, and the target's tensors as they were."""
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    return transfer_weights(source, target, functools.partial(STOCK, target), LOGGER), before


def moved(key: str, rows: list[int]) -> str:
    """The key of a base's tensor in the model with blocks after `rows`."""
    _, row, rest = key.split(".", 2)
    return f"model.{int(row) + sum(r < int(row) for r in rows)}.{rest}"


@pytest.mark.parametrize(("there", "here"), [([], [1]), ([2], []), ([1], [1]), ([0, 6], [0, 3, 6]), ([6], [2, 9])])
def test_each_tensor_is_its_counterparts_and_is_reported_so(there: list[int], here: list[int]) -> None:
    source, target = build(placed(there)), build(placed(here))
    report, before = transferred(source, target)
    old, new = source.state_dict(), target.state_dict()
    expected = {moved(key, here): moved(key, there) for key in build().state_dict()}
    for row in {*there} & {*here}:  # the blocks that both have
        a, b = (f"model.{row + 1 + sum(r < row for r in rows)}." for rows in (there, here))
        expected |= {b + key.removeprefix(a): key for key in old if key.startswith(a)}
    blocks = {str(row + 1 + sum(r < row for r in here)) for row in here}
    assert [tensor.key for tensor in report.tensors] == list(new)
    for tensor in report.tensors:
        place = tensor.key.split(".")[1]
        origin = expected.get(tensor.key, "")
        assert torch.equal(new[tensor.key], old[origin] if origin else before[tensor.key]), tensor.key
        assert tensor.source == origin
        assert tensor.state == ("copied" if origin else "new")
        assert tensor.block == (place in blocks)
        assert tensor.module == modules(target)[int(place)]
        assert (tensor.module == "SE") == tensor.block
    assert (report.mismatch, report.changed, report.lost, report.warns()) == ("", (), 0, False)
    assert has_blocks(target) == bool(here)
    counts = report.counts()
    assert counts["base"] == counts["base_total"] == len(build().state_dict())
    assert counts["base_total"] + counts["blocks_total"] == len(new)
    assert counts["blocks"] + counts["new"] == counts["blocks_total"]
    assert counts["rejected"] == counts["unmatched"] == 0


def test_class_names_come_along_once_the_whole_base_has_arrived() -> None:
    source = build(placed([1]))
    source.names = {0: "ant", 1: "bee", 2: "cat"}
    target, other, named = build(placed([2])), build(placed([2]), nc=4), build(placed([2]))
    named.names = {0: "a", 1: "b", 2: "c"}
    open_vocabulary = build(placed([2]))
    open_vocabulary.set_classes = print  # its names are those it was asked for
    for model in (target, other, named, open_vocabulary):
        transferred(source, model)
    assert open_vocabulary.names == {i: str(i) for i in range(3)}
    assert target.names == source.names
    assert target.names is not source.names
    assert other.names == {i: str(i) for i in range(4)}
    assert named.names == {0: "a", 1: "b", 2: "c"}


@pytest.mark.since("8.4.95")  # an older `load` does not look at names
def test_rows_of_the_class_head_go_to_the_classes_of_their_names() -> None:
    source, target = build(), build(placed([1]), nc=2)
    source.names, target.names = {0: "ant", 1: "bee", 2: "cat"}, {0: "cat", 1: "ant"}
    report, _ = transferred(source, target)
    by_name = {tensor.key: tensor.source for tensor in report.tensors if tensor.state == "by class name"}
    assert by_name
    for key, origin in by_name.items():
        assert torch.equal(target.state_dict()[key], source.state_dict()[origin][[2, 0]])
    assert report.counts()["base"] == report.counts()["base_total"]


def test_a_repeated_row_is_not_the_row_built_once() -> None:
    source, target = build(), build(placed([1]))
    once = target.model[3]
    target.model[3] = nn.Sequential(once)
    target.model[3].i, target.model[3].f, target.model[3].np = once.i, once.f, once.np
    report, before = transferred(source, target)
    assert {t.key: t.state for t in report.tensors if t.key.startswith("model.3.")} == {
        f"model.3.0.{key}": "unmatched" for key in once.state_dict()
    }
    assert all(torch.equal(tensor, before[f"model.3.0.{key}"]) for key, tensor in once.state_dict().items())
    assert report.lost == len(once.state_dict())


def test_other_classes_are_no_loss() -> None:
    report, before = transferred(build(), target := build(placed([1]), nc=7))
    head = f"model.{len(modules(target)) - 1}."
    rejected = {tensor.key for tensor in report.tensors if tensor.state == "rejected"}
    assert rejected
    assert all(key.startswith(head) for key in rejected)
    assert all(torch.equal(target.state_dict()[key], before[key]) for key in rejected)
    assert (report.lost, report.warns()) == (0, False)


@pytest.mark.since("8.3.140")  # an older `load` leaves such a convolution
def test_other_image_channels_are_adapted() -> None:
    report, _ = transferred(build(), build(placed([1]), ch=1))
    assert [tensor.key for tensor in report.tensors if tensor.state == "adapted"] == ["model.0.conv.weight"]
    assert report.counts()["base"] == report.counts()["base_total"]


def test_a_wider_row_loses_its_weights() -> None:
    text = TINY.replace("[-1, 1, Conv, [32, 1, 1]] # 9", "[-1, 1, Conv, [32, 3, 1]] # 9")
    report, before = transferred(build(), target := build(placed([1], text=text)))
    (lost,) = [tensor for tensor in report.tensors if tensor.state != "copied" and not tensor.block]
    assert (lost.key, lost.source, lost.state) == ("model.10.conv.weight", "model.9.conv.weight", "rejected")
    assert (report.lost, report.changed, report.warns()) == (1, (), True)
    assert torch.equal(target.state_dict()[lost.key], before[lost.key])


class Other(nn.Module):
    """The tensors of a `Conv`, in a layer of another type."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.conv, self.bn = conv.conv, conv.bn
        self.i, self.f, self.type, self.np = conv.i, conv.f, "Other", conv.np


def test_a_row_of_another_type_keeps_its_own_tensors() -> None:
    source, target = build(), build(placed([1]))
    target.model[3] = Other(target.model[3])
    report, before = transferred(source, target)
    rejected = {tensor.key: tensor.source for tensor in report.tensors if tensor.state == "rejected"}
    assert rejected == {f"model.3.{key}": f"model.2.{key}" for key in target.model[3].state_dict()}
    assert all(torch.equal(target.state_dict()[key], before[key]) for key in rejected)
    assert report.lost == len(rejected)


def test_a_row_with_all_weights_and_another_activation_is_named() -> None:
    source, target = build(placed([1])), build(placed([2]))
    target.model[1].act = nn.Tanh()
    report, _ = transferred(source, target)
    assert report.changed == ("1 (Conv)",)
    assert report.warns()


def test_what_was_not_built_from_a_yaml_gives_nothing() -> None:
    target = build(placed([1]))
    report, before = transferred(nn.Linear(1, 1), target)
    assert all(torch.equal(tensor, before[key]) for key, tensor in target.state_dict().items())
    assert {tensor.state for tensor in report.tensors} == {"new", "unmatched"}
    assert "the source was not built from a model YAML" in report.mismatch
    assert report.line().endswith(f"; nothing was loaded: {report.mismatch}")
    assert report.warns()
    assert not has_blocks(nn.Linear(1, 1))


def test_only_ultralytics_own_count_is_left_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("of the test")
    target = build(placed([1]))

    def load(model: Any) -> None:
        logger.warning("Transferred 1/2 items")
        logger.warning("Something else")
        STOCK(target, model, verbose=False)

    transfer_weights(build(), target, load, logger)
    logger.warning("Transferred 3/4 items")
    assert [record.getMessage() for record in caplog.records if record.name == logger.name] == [
        "Something else",
        "Transferred 3/4 items",
    ]


def tensors(**states: int) -> tuple[TensorTransfer, ...]:
    """So many tensors of each state; those of blocks are named `block_...`."""
    return tuple(
        TensorTransfer(f"model.{i}.w", f"model.{i}.w" if "copied" in state else "", state.removeprefix("block_"),
                       "SE" if state.startswith("block_") else "Conv", state.startswith("block_"))
        for state, n in states.items() for i in range(n)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("report", "line", "warns"),
    [
        (TransferReport(tensors(copied=3, block_new=2), ""), "3/3 base tensors, 2 new, 0 rejected", False),
        (
            TransferReport(tensors(copied=3, adapted=1, rejected=2, unmatched=1, block_copied=1, block_new=2), ""),
            "4/7 base tensors, 1/3 block tensors, 2 new, 2 rejected, 1 without a counterpart",
            False,
        ),
        (
            TransferReport(tensors(copied=1, unmatched=2), "row 4 differs"),
            "1/3 base tensors, 0 new, 0 rejected, 2 without a counterpart; nothing after that row was loaded: "
            "row 4 differs",
            True,
        ),
        (
            TransferReport(tensors(unmatched=2), "row 0 differs"),
            "0/2 base tensors, 0 new, 0 rejected, 2 without a counterpart; nothing was loaded: row 0 differs",
            True,
        ),
        (TransferReport(tensors(copied=1, rejected=1), "", lost=1), "1/2 .*, 1 rejected. 1 base tensors start", True),
        (TransferReport(tensors(copied=1), "", ("9 (SPPF)", "12 (C2f)")), "Row 9 (SPPF), 12 (C2f) got all", True),
    ],
)
def test_the_line_for_the_log_adds_up(report: TransferReport, line: str, warns: bool) -> None:
    assert report.line().startswith("Transferred ")
    for part in line.split(" .*"):
        assert part in report.line()
    if not report.changed and not report.lost:
        assert report.line() == f"Transferred {line}"
    assert report.warns() is warns


def test_the_rows_of_a_report_count_its_tensors() -> None:
    parts = [("0.a", "0.a", "copied"), ("0.b", "0.b", "copied"), ("1.a", "", "new"), ("2.a", "1.a", "rejected")]
    report = TransferReport(
        tuple(
            TensorTransfer(f"model.{new}", f"model.{old}" if old else "", state, f"M{new[0]}", block=False)
            for new, old, state in parts
        ),
        "",
    )
    assert [*report.rows()] == [
        ("0", "M0", "0", "2", "copied"),
        ("1", "M1", "", "1", "new"),
        ("2", "M2", "1", "1", "rejected"),
    ]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"model": build(placed([1])), "train_args": {}}, tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def test_a_checkpoint_can_be_compared_with_a_yaml_or_another_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    torch.save({"model": build(), "train_args": {}}, tmp_path / "plain.pt")
    (tmp_path / "other.yaml").write_text(placed([2, 6]))
    (tmp_path / "plain.yml").write_text(TINY)
    base = len(build().state_dict())
    for source, target, blocks in (
        (checkpoint, "tiny.pt", (1, 1)),
        (checkpoint, "other.yaml", (0, 2)),
        (checkpoint, "plain.pt", (0, 0)),
        (tmp_path / "plain.pt", "plain.yml", (0, 0)),  # neither has a block
        (tmp_path / "plain.pt", "other.yaml", (0, 2)),
    ):
        counts = transfer(source, tmp_path / target).counts()
        each = 4  # tensors of an SE
        assert (counts["base"], counts["base_total"]) == (base, base)
        assert (counts["blocks"], counts["blocks_total"]) == (each * blocks[0], each * blocks[1])


def test_a_damaged_model_in_a_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(placed([2, 6]))
    for damage in ("out_channels", "row"):
        model = build(placed([2]))
        block = next(module for module in model.modules() if type(module).__name__ == "SE")
        if damage == "row":
            del model.yaml["backbone"][1][2:]
        else:
            del next(m for m in block.modules() if isinstance(m, nn.Conv2d)).out_channels
        torch.save({"model": model, "train_args": {}}, tmp_path / "damaged.pt")
        with pytest.raises(
            UserError, match=r"damaged\.pt: holds a damaged model \(.*\)\. Expected a checkpoint"
        ) as error:
            transfer(tmp_path / "damaged.pt", tmp_path / "other.yaml")
        assert "\n" not in str(error.value)


def test_a_yaml_is_built_at_the_scale_that_its_name_says(tmp_path: Path) -> None:
    scaled = f"{placed([1])}scales:\n  n: [1.0, 1.0, 1024]\n  s: [1.0, 2.0, 1024]\n"
    torch.save({"model": build(), "train_args": {}}, tmp_path / "plain.pt")
    for name, arrives in (("yolov8n-tiny.yaml", True), ("yolov8s-tiny.yaml", False), ("yolov8-tiny.yaml", True)):
        (tmp_path / name).write_text(scaled)
        counts = transfer(tmp_path / "plain.pt", tmp_path / name).counts()
        assert (counts["base"] == counts["base_total"]) is arrives


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("tiny.yaml", "tiny.pt", "'.*tiny.yaml' is not the name of a checkpoint. Expected a name that ends in .pt"),
        ("no.pt", "tiny.pt", "there is no file '.*no.pt'. Expected a checkpoint"),
        ("broken.pt", "tiny.pt", "broken.pt: is empty, cut off or damaged. Expected a checkpoint"),
        ("odd.pt", "tiny.pt", "odd.pt: holds no Ultralytics model"),
        ("tiny.pt", "tiny.txt", "'.*tiny.txt' is not the name of a checkpoint"),
        ("tiny.pt", "broken.yaml", r"broken.yaml.*row 2"),
    ],
)
def test_what_cannot_be_read_or_built_is_one_line(checkpoint: Path, source: str, target: str, says: str) -> None:
    folder = checkpoint.parent
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "broken.pt").write_bytes(b"no archive")
    torch.save([1, 2], folder / "odd.pt")
    (folder / "broken.yaml").write_text(placed([1]).replace("SE, []", "SE, [9999]"))
    with pytest.raises(UserError, match=says) as error:
        transfer(folder / source, folder / target)
    assert "\n" not in str(error.value)
