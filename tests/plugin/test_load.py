"""Weights go to their counterparts: proven by value, with a mapping of the test's own and with the stock `load`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
import yaml
from torch import nn
from typer.testing import CliRunner
from ultralytics import YOLO
from ultralytics.nn import tasks

import gam_yolo  # noqa: F401  # registers
from gam_yolo.cli import graph as commands
from gam_yolo.errors import UserError
from gam_yolo.graph import transfer
from gam_yolo.graph.edit import insert, rewrite
from gam_yolo.graph.find import load
from gam_yolo.graph.match import Counterparts, counterparts
from gam_yolo.graph.model import Document
from gam_yolo.plugin.load import patch

if not hasattr(tasks.BaseModel.load, "__wrapped__"):
    patch(tasks)
stock_load: Callable[..., None] = vars(tasks.BaseModel)["load"].__wrapped__  # Ultralytics' own
IDENTITY = [{"start": "identity"}]
LAYERS = {"yolov8n": 22, "yolov5nu": 24}  # rows before the head
FILES = {"yolov8n": "yolov8.yaml", "yolov5nu": "yolov5.yaml"}


read_checkpoint: Any = getattr(tasks, "load_checkpoint", None) or vars(tasks)["attempt_load_one_weight"]
"""Its present name, and that of the oldest releases."""


@pytest.fixture(scope="session")
def weights(shared: Path) -> dict[str, nn.Module]:
    return {name: read_checkpoint(shared / "weights" / f"{name}.pt")[0] for name in FILES}


def build(base: str, rows: Iterable[int] = (), block: str = "GAM", args: list[Any] = IDENTITY, **keys: Any) -> Any:
    document = load(FILES.get(base, base))
    return from_text(rewrite(document, insert(document.graph, rows, block, args)), **keys)


def from_text(text: str, **keys: Any) -> Any:
    return tasks.DetectionModel({**yaml.safe_load(text), "scale": "n"}, verbose=False, **keys)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def moved(row: int, rows: Iterable[int]) -> int:
    """Where a row of the base is once blocks are inserted after `rows`: a mapping that uses no graphs."""
    return row + sum(r < row for r in rows)


def assert_carried(source: nn.Module, rows: list[int], target: Any) -> None:
    """Every tensor of the base is in the layer that it belongs to, and no block has changed."""
    before = state(target)
    target.load(source)
    after = target.state_dict()
    seen = set()
    for row, layer in enumerate(source.model.children()):
        for key, tensor in layer.state_dict().items():
            new = f"model.{moved(row, rows)}.{key}"
            assert torch.equal(after[new], tensor), new
            seen.add(new)
    assert len(seen) == len(source.state_dict())
    for key in after.keys() - seen:
        assert torch.equal(after[key], before[key]), key


def placements(name: str) -> list[list[int]]:
    """Every single placement, and a sample of several at once."""
    chance = random.Random(0)  # noqa: S311  # no secrets here
    several = [sorted(chance.sample(range(LAYERS[name]), chance.randint(2, 6))) for _ in range(6)]
    return [[row] for row in range(LAYERS[name])] + several


@pytest.mark.parametrize("name", FILES)
def test_all_base_tensors_arrive_at_every_placement_and_none_elsewhere(
    weights: dict[str, nn.Module], lines: list[str], name: str
) -> None:
    total = len(weights[name].state_dict())
    for rows in placements(name):
        target = build(name, rows)
        lines.clear()
        assert_carried(weights[name], rows, target)
        new = len(target.state_dict()) - total
        assert lines == [f"Transferred {total}/{total} base tensors, {new} new, 0 rejected"]


@pytest.mark.parametrize(
    ("name", "model", "rows"),
    [
        ("rtdetr-l.yaml", tasks.RTDETRDetectionModel, [3, 16, 19, 27]),
        ("yolov8-world.yaml", tasks.WorldModel, [9, 15]),
        ("yolov10n.yaml", tasks.DetectionModel, [2, 22]),
        ("yolo26.yaml", tasks.DetectionModel, [4, 13, 16]),
        ("yolov8-cls.yaml", tasks.ClassificationModel, [4, 8]),
        ("yolo26-pose.yaml", tasks.PoseModel, [16]),
    ],
)
def test_other_families_and_tasks(name: str, model: Any, rows: list[int]) -> None:
    document = load(name)
    scale = {"scale": "l" if "rtdetr" in name else "n"}
    source = trained(model({**document.config, **scale}, verbose=False))
    text = rewrite(load(name), insert(load(name).graph, rows, "CBAM", []))
    assert_carried(source, rows, model({**yaml.safe_load(text), **scale}, verbose=False))


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_mapping_is_found(weights: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """What proves the transfer would not prove a mapping with two rows of one shape exchanged, or one row left out."""
    chance = random.Random(seed)  # noqa: S311
    alike = [(4, 15), (6, 12), (6, 18), (12, 18), (8, 21)]  # C2f rows: some of their tensors, or all, agree in shape

    def mutated(*args: Any) -> Counterparts:
        found = counterparts(*args)
        a, b = (moved(row, [9]) for row in chance.choice(alike))
        base = dict(found.base)
        if seed % 2:
            base[a], base[b] = base[b], base[a]
        else:
            del base[a]
        return Counterparts(base, found.blocks, found.mismatch)

    monkeypatch.setattr(transfer, "counterparts", mutated)
    with pytest.raises(AssertionError):
        assert_carried(weights["yolov8n"], [9], build("yolov8n", [9]))


@pytest.fixture(scope="session")
def images(shared: Path) -> torch.Tensor:
    files = sorted((shared / "data" / "coco" / "val2017").glob("*.jpg"))[:20]
    assert len(files) == 20
    return torch.stack([torch.from_numpy(_square(file)) for file in files])


def _square(file: Path) -> np.ndarray:
    image = cv2.imread(str(file))
    assert image is not None
    return cv2.resize(image, (192, 192))[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255


@pytest.mark.parametrize(
    ("name", "rows"), [("yolov8n", [4, 6, 9]), ("yolov8n", [15, 18, 21]), ("yolov5nu", [0, 10, 23])]
)
@torch.no_grad()
def test_with_identity_start_real_images_give_what_the_plain_detector_gives(
    weights: dict[str, nn.Module], images: torch.Tensor, name: str, rows: list[int]
) -> None:
    target = build(name, rows)
    target.load(weights[name])
    got, want = target.eval()(images)[0], weights[name].eval()(images)[0]
    assert torch.equal(got, want)
    # The blocks are at work: once their gains are not zero, the predictions are others.
    for layer in target.model:
        if layer.__class__.__name__ == "GAM":
            layer.start.gain.fill_(0.5)
    assert not torch.allclose(target(images)[0], want)


@pytest.mark.parametrize("base", ["yolov8", "yolo11", "yolo26"])
@pytest.mark.parametrize("place", ["gam", "gam-backbone"])
@torch.no_grad()
def test_shipped_gam_models_start_as_the_plain_detector(images: torch.Tensor, base: str, place: str) -> None:
    # Equality holds for any weights: here random ones, with the statistics of real images.
    torch.manual_seed(0)
    plain = tasks.DetectionModel(tasks.yaml_model_load(f"{base}n.yaml"), verbose=False).train()
    plain(images[:4])  # statistics of the batch norms
    target = tasks.DetectionModel(tasks.yaml_model_load(f"{base}n-{place}.yaml"), verbose=False)
    target.load(plain)
    got, want = target.eval()(images[:4])[0], plain.eval()(images[:4])[0]
    assert torch.equal(got, want)
    gates = [module for module in target.modules() if type(module).__name__ == "GAM"]
    assert len(gates) == 3
    for gam in gates:
        torch.nn.init.normal_(gam.channel[2].weight)
    assert not torch.equal(target(images[:4])[0], want)


def test_by_name_and_class_names_through_the_public_interface(shared: Path, tmp_path: Path) -> None:
    document = load("yolov8.yaml")
    path = tmp_path / "yolov8n-mine.yaml"
    path.write_text(rewrite(document, insert(document.graph, [4, 15], "GAM", IDENTITY)))
    plain, mine = YOLO(shared / "weights" / "yolov8n.pt"), YOLO(path).load(shared / "weights" / "yolov8n.pt")
    assert mine.model.names == plain.model.names
    image = sorted((shared / "data" / "coco" / "val2017").glob("*.jpg"))[3]
    results = [model.predict(image, imgsz=320, verbose=False)[0] for model in (mine, plain)]
    got, want = (torch.as_tensor(result.boxes.data) for result in results)
    assert len(want)
    assert torch.allclose(got, want, atol=1e-3)  # pixels; fused convolutions round, and both are fused


@pytest.mark.since("8.3.0")  # YOLO11
def test_models_without_blocks_are_left_to_ultralytics(
    weights: dict[str, nn.Module], lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "transfer_weights", None)  # would fail if it were called
    for base, nc in (("yolov8n", None), ("yolov8n", 20), ("yolo11.yaml", None)):
        ours, stock = build(base, nc=nc), build(base, nc=nc)
        stock.load_state_dict(ours.state_dict())
        lines.clear()
        torch.manual_seed(0)
        ours.load(weights["yolov8n"])
        said = [*lines]
        lines.clear()
        torch.manual_seed(0)
        stock_load(stock, weights["yolov8n"])
        assert said == lines
        assert "items from pretrained weights" in said[-1]
        assert not hasattr(ours, "transferred")
        for key, tensor in stock.state_dict().items():
            assert torch.equal(ours.state_dict()[key], tensor)


VOC = {0: "aeroplane", 1: "person", 2: "dog", 3: "sheep", 4: "sofa"}


@pytest.mark.parametrize("keys", [{"nc": 5}, {"nc": 5, "names": VOC}, {"nc": 300}, {"ch": 1}, {"ch": 6}], ids=str)
def test_class_counts_class_names_and_channels_do_what_they_do_without_blocks(
    weights: dict[str, nn.Module], lines: list[str], keys: dict[str, Any]
) -> None:
    """The second way: stock `load` into the plain model, from the same beginnings and the same seed."""
    keys = dict(keys)
    names, rows = keys.pop("names", None), [4, 15]
    ours, plain = build("yolov8n", rows, **keys), build("yolov8n", **keys)
    for row, layer in enumerate(plain.model):
        layer.load_state_dict(ours.model[moved(row, rows)].state_dict())
    for model in (ours, plain):
        model.names = names or model.names
    torch.manual_seed(0)
    ours.load(weights["yolov8n"])
    torch.manual_seed(0)
    stock_load(plain, weights["yolov8n"])
    for row, layer in enumerate(plain.model):
        for key, tensor in layer.state_dict().items():
            assert torch.equal(ours.model[moved(row, rows)].state_dict()[key], tensor), (row, key)
    if plain.names != {i: str(i) for i in range(plain.yaml["nc"])}:  # as older releases leave them
        assert ours.names == plain.names
    stock_count = next(line for line in lines if "items from pretrained weights" in line).split()[1]
    assert f"Transferred {stock_count} base tensors" in "".join(lines)  # the two counts agree


def trained(model: Any) -> Any:
    """A model whose every tensor is another, as after training."""
    with torch.no_grad():
        for i, tensor in enumerate(model.state_dict().values()):
            tensor.copy_(torch.full_like(tensor, 1 + i % 97) + torch.rand_like(tensor.float()).to(tensor.dtype))
    return model


def test_the_same_blocks_come_along(lines: list[str]) -> None:
    source, target = trained(build("yolov8n", [4, 9])), build("yolov8n", [4, 9])
    target.load(source)
    assert lines == ["Transferred 355/355 base tensors, 38/38 block tensors, 0 new, 0 rejected"]
    for key, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], tensor)


@pytest.mark.parametrize(
    ("there", "here", "line"),
    [
        (([4, 9], "GAM", IDENTITY), ([], "", []), "355/355 base tensors, 0 new"),
        (([4, 9], "GAM", IDENTITY), ([6, 9], "GAM", IDENTITY), "355/355 base tensors, 19/38 block tensors, 19 new"),
        (([4, 9], "GAM", IDENTITY), ([4, 9], "CBAM", []), "355/355 base tensors, "),
        (([4, 9], "GAM", IDENTITY), ([4, 9], "GAM", []), "355/355 base tensors, 36 new"),
        (([4, 9], "GAM", [4]), ([4, 9], "GAM", [8]), "355/355 base tensors, 36 new"),
        (([4, 9], "GAM", []), ([0, 4, 15], "GAM", []), "355/355 base tensors, 18/54 block tensors, 36 new"),
    ],
)
def test_other_blocks_and_other_places(lines: list[str], there: Any, here: Any, line: str) -> None:
    source, target = trained(build("yolov8n", *there)), build("yolov8n", *here)
    before = state(target)
    target.load(source)
    assert line in lines[-1]
    assert lines[-1].endswith(" 0 rejected")
    old, new = source.state_dict(), target.state_dict()
    for row in range(LAYERS["yolov8n"] + 1):
        a, b = moved(row, there[0]), moved(row, here[0])
        for key in source.model[a].state_dict():
            assert torch.equal(new[f"model.{b}.{key}"], old[f"model.{a}.{key}"])
    for row in here[0]:
        same = row in there[0] and there[1:] == here[1:]
        for key in target.model[moved(row, here[0]) + 1].state_dict():
            mine = f"model.{moved(row, here[0]) + 1}.{key}"
            origin = old[f"model.{moved(row, there[0]) + 1}.{key}"] if same else before[mine]
            assert torch.equal(new[mine], origin), mine


@pytest.mark.parametrize(
    ("block", "there", "here"),
    [
        ("SE", [16], [{"start": "zero"}]),
        ("SE", [{"start": "zero"}], [{"start": "zero", "gain": 10}]),
        ("GAM", [{"gate": "none"}], [{"gate": "sigmoid"}]),
        ("CBAM", [7], [{"residual": True}]),
    ],
)
def test_a_block_of_the_same_tensors_and_another_function_starts_new(
    block: str, there: list[Any], here: list[Any]
) -> None:
    source, target = build("yolov8n", [15], block, there), build("yolov8n", [15], block, here)
    tensors = {key: value.shape for key, value in source.model[16].state_dict().items()}
    assert tensors == {key: value.shape for key, value in target.model[16].state_dict().items()}
    before = state(target.model[16])
    target.load(source)
    assert all(torch.equal(value, before[key]) for key, value in state(target.model[16]).items())
    same = build("yolov8n", [15], block, there)
    same.load(source)
    assert all(torch.equal(v, source.model[16].state_dict()[k]) for k, v in state(same.model[16]).items())


@pytest.mark.parametrize(
    ("block", "args", "write"),
    [
        ("GAM", [], "GAM, [{start: zero}]"),
        ("GAM", [16, {"pool": "max"}], "GAM, [{reduction: 16, pool: max, start: zero}]"),
        ("GAM", [{"preset": "forks"}], "GAM, [{preset: forks, start: zero}]"),
        ("GAM_Attention", [], "GAM, [{start: zero}], and before these the arguments that the warning"),
        ("LSKA", [], "LSKA, [{start: zero}]"),
        ("GAM", [{"start": "zero"}], ""),
        ("GAM", IDENTITY, ""),
        ("GAM", [{"gate": "sigmoid"}], ""),
        ("GAM", [{"preset": "paper"}], ""),
        ("GAM", [{"residual": True}], ""),
        ("GAM", [{"channel": False}], ""),
        ("SE", [], ""),
    ],
)
def test_random_raw_gates_between_pretrained_layers_lead_to_one_warning(
    block: str, args: list[Any], write: str, weights: dict[str, nn.Module], lines: list[str]
) -> None:
    model = build("yolov8n", [15, 18], block, args, nc=80)
    model.load(weights["yolov8n"])
    found = [line for line in lines if "a raw gate with random weights" in line]
    assert len(found) == bool(write)
    if write:
        assert f"row 16 ({block}), row 20 ({block}): a raw gate" in found[0]
        assert f"To lose nothing, write {write}" in found[0]
        row = found[0].split("write ")[1].split(", and before")[0]
        name, _, arguments = row.partition(", ")
        mended = build("yolov8n", [15, 18], name, yaml.safe_load(arguments), nc=80)
        images = torch.rand(1, 3, 64, 64)
        mended.load(weights["yolov8n"])
        torch.testing.assert_close(
            mended.eval()(images)[0], weights["yolov8n"].float().eval()(images)[0], rtol=1e-4, atol=1e-3
        )
    lines.clear()
    model.load(model)  # as a resumed training does: the gates are not random any more
    model.load(build("yolov8n", [15, 18], block, args, nc=80), verbose=False)
    build("yolov8n", [15, 18], block, args).load(nn.Sequential(nn.Conv2d(3, 8, 3)))  # nothing is pretrained
    assert not any("a raw gate" in line for line in lines)


def test_blocks_one_after_the_other_are_paired_in_their_order() -> None:
    def stacked() -> Any:
        document = load("yolov8.yaml")
        for row, block in ((4, "GAM"), (5, "CBAM"), (6, "GAM")):
            document = Document(rewrite(document, insert(document.graph, [row], block, [])), "stacked")
        return from_text(document.text)

    source, target = trained(stacked()), stacked()
    target.load(source)
    assert target.transferred["new"] == 0
    assert torch.equal(target.model[5].channel[0].weight, source.model[5].channel[0].weight)
    assert torch.equal(target.model[7].channel[0].weight, source.model[7].channel[0].weight)


def test_feeding_the_next_row_only_changes_no_counterpart(weights: dict[str, nn.Module]) -> None:
    document = load("yolov8.yaml")
    text = rewrite(document, insert(document.graph, [12, 15], "GAM", IDENTITY, "next"))
    assert_carried(weights["yolov8n"], [12, 15], from_text(text))


def test_models_that_diverge_after_the_backbone_share_what_comes_before(
    weights: dict[str, nn.Module], lines: list[str]
) -> None:
    target = build("yolov8-p2.yaml", [4])
    before = state(target)
    target.load(weights["yolov8n"])
    assert "nothing after that row was loaded: row 16 of the source and row 17 of the target differ" in lines[-1]
    old, new = weights["yolov8n"].state_dict(), target.state_dict()
    for key, tensor in new.items():
        row, name = int(key.split(".")[1]), key.split(".", 2)[2]
        if row != 5 and row <= 16:  # the P2 model's rows 0 to 15, GAM being row 5
            assert torch.equal(tensor, old[f"model.{row - (row > 5)}.{name}"])
        else:
            assert torch.equal(tensor, before[key])
    assert target.transferred["unmatched"] > 0


def test_a_head_without_counterpart_gives_nothing_of_its_class_branch(weights: dict[str, nn.Module]) -> None:
    """Ultralytics copies the source head's branches by hand where class counts differ; not where the necks do."""
    document = load("yolov8.yaml")
    document = Document(rewrite(document, insert(document.graph, [17], "nn.Identity", [])), "other neck")
    text = rewrite(document, insert(document.graph, [4], "GAM", []))
    target = from_text(text, nc=20)
    before = state(target)
    target.load(weights["yolov8n"])
    head = len(target.model) - 1
    assert all(torch.equal(t, before[k]) for k, t in target.state_dict().items() if k.startswith(f"model.{head}."))


@pytest.mark.parametrize("source", [nn.Linear(1, 1), "yolo11.yaml"], ids=["no YAML", "yolo11"])
def test_where_structure_allows_no_map_nothing_is_loaded(lines: list[str], source: Any) -> None:
    model = build(source) if isinstance(source, str) else source
    target = build("yolov8n", [4])
    before = state(target)
    lines.clear()
    target.load(model)
    assert len(lines) == 1
    assert "Transferred 0/355 base tensors" in lines[0]
    assert "nothing was loaded: " in lines[0]
    assert all(torch.equal(tensor, before[key]) for key, tensor in target.state_dict().items())


def test_a_detector_gives_a_segmenter_what_both_have(weights: dict[str, nn.Module], lines: list[str]) -> None:
    document = load("yolov8-seg.yaml")
    text = rewrite(document, insert(document.graph, [4], "GAM", []))
    target = tasks.SegmentationModel({**yaml.safe_load(text), "scale": "n"}, verbose=False)
    before = state(target)
    target.load(weights["yolov8n"])
    assert "Transferred 355/417 base tensors, 18 new, 0 rejected, 62 without a counterpart" in lines
    assert torch.equal(target.model[23].cv2[0][0].conv.weight, weights["yolov8n"].model[22].cv2[0][0].conv.weight)
    assert torch.equal(target.model[23].cv4[0][0].conv.weight, before["model.23.cv4.0.0.conv.weight"])


def test_a_layer_of_another_type_is_rejected(lines: list[str]) -> None:
    """The rows agree in their names, but the names mean different layers."""
    source, target = build("yolov8n", [4]), build("yolov8n", [6])
    source.model[2].__class__ = type("Other", (nn.Module,), {"forward": source.model[2].__class__.forward})
    before = state(target)
    target.load(source)
    assert lines[-1].startswith(
        f"WARNING ⚠️ Transferred {355 - 24}/355 base tensors, 19 new, 24 rejected. 24 base tensors start"
    )
    assert all(torch.equal(t, before[k]) for k, t in target.state_dict().items() if k.startswith("model.2."))


def test_another_ultralytics_is_rejected() -> None:
    module = ModuleType("tasks")
    module.BaseModel = type("BaseModel", (), {"load": lambda *, strict: strict})  # type: ignore[attr-defined]
    with pytest.raises(
        UserError, match=r"has a ultralytics.nn.tasks.BaseModel.load without the parameter weights, verbose, needed to"
    ):
        patch(module)


def test_checkpoint_dictionaries_and_silence(weights: dict[str, nn.Module], lines: list[str]) -> None:
    target = build("yolov8n", [4])
    target.load({"ema": None, "model": weights["yolov8n"]}, verbose=False)
    assert lines == []
    assert target.transferred == {
        "base": 355, "base_total": 355, "blocks": 0, "blocks_total": 19, "new": 19, "rejected": 0, "unmatched": 0,
    }  # fmt: skip
    if hasattr(target, "pt_path"):  # not in older releases
        assert target.pt_path == weights["yolov8n"].pt_path


class Compiled(nn.Module):
    """What torch.compile returns, without the eight seconds that its import takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name == "_orig_mod" else getattr(self._orig_mod, name)


@pytest.mark.parametrize("wrap", [nn.DataParallel, Compiled])
def test_models_in_a_wrapper_give_their_weights(wrap: Callable[[Any], Any], lines: list[str]) -> None:
    """A checkpoint may hold the model as several GPUs or torch.compile had it, with a prefix before each key."""
    source, target = build("yolov8n"), build("yolov8n", [15])
    target.load(wrap(source))
    assert lines[-1].startswith("Transferred 355/355 base tensors, 19 new, 0 rejected")
    for row, layer in enumerate(source.model):
        for key, tensor in layer.state_dict().items():
            assert torch.equal(target.state_dict()[f"model.{moved(row, [15])}.{key}"], tensor)


def test_a_fused_checkpoint_is_named_as_the_reason(lines: list[str]) -> None:
    source = build("yolov8n").fuse(verbose=False)
    build("yolov8n", [15]).load(source)
    assert "285 base tensors start untrained: the checkpoint is fused" in lines[-1]
    assert "builds these layers otherwise" not in lines[-1]


def test_mapping_knows_the_way_back() -> None:
    document = load("rtdetr-l.yaml")
    chance = random.Random(1)  # noqa: S311
    for _ in range(50):
        a, b = (insert(document.graph, chance.sample(range(28), 4), "GAM", []) for _ in range(2))
        there = counterparts(a.graph, b.graph, {"GAM": "GAM"}.get)
        back = counterparts(b.graph, a.graph, {"GAM": "GAM"}.get)
        assert {v: k for k, v in there.base.items()} == back.base
        assert {v: k for k, v in there.blocks.items()} == back.blocks
        for new, old in there.base.items():
            assert b.origin[new] == a.origin[old] is not None
        assert len(there.base) == 29


def test_the_command_shows_the_ledger(shared: Path, tmp_path: Path) -> None:
    document = load("yolov8.yaml")
    path = tmp_path / "yolov8n-mine.yaml"
    path.write_text(rewrite(document, insert(document.graph, [15], "GAM", [])))
    app = typer.Typer()
    app.command()(commands.transfer)
    source = str(shared / "weights" / "yolov8n.pt")
    plain = CliRunner().invoke(app, [source, str(path)])
    assert plain.exit_code == 0
    assert plain.stdout.splitlines()[-1] == "Transferred 355/355 base tensors, 18 new, 0 rejected"
    assert [cell.strip() for cell in plain.stdout.splitlines()[16].split("│")[1:-1]] == [
        "17",
        "Conv",
        "16",
        "6",
        "copied",
    ]
    found = json.loads(CliRunner().invoke(app, [source, str(path), "--json"]).stdout)
    assert found["base"] == 355
    assert found["tensors"][-1] == {
        "key": "model.23.dfl.conv.weight", "source": "model.22.dfl.conv.weight", "state": "copied",
        "module": "Detect", "block": False,
    }  # fmt: skip
    # Without blocks it tells what Ultralytics does: by index, wrong layers included.
    found = json.loads(CliRunner().invoke(app, [source, "yolov8n-p2.yaml", "--json"]).stdout)
    target = build("yolov8-p2.yaml")
    stock_load(target, read_checkpoint(source)[0])
    old = read_checkpoint(source)[0].state_dict()
    new = target.state_dict()
    for tensor in found["tensors"]:
        key = tensor["key"]
        assert (tensor["state"] == "copied") == (key in old and torch.equal(old[key], new[key])), key
    for bad in ("no.pt", str(path) + ".pt"):
        result = CliRunner().invoke(app, [bad, str(path)])
        assert isinstance(result.exception, UserError)


@pytest.mark.since("8.3.160")  # an older `train` ignores `pretrained`
def test_interrupted_training_resumes(shared: Path, tmp_path: Path, lines: list[str]) -> None:
    """From a plain checkpoint to GAM, interrupted, resumed: the resumed run begins with the weights that were saved."""
    pictures = sorted((shared / "data" / "coco" / "val2017").glob("*.jpg"))[:4]
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for picture in pictures:
        (tmp_path / "images" / picture.name).write_bytes(picture.read_bytes())
        (tmp_path / "labels" / f"{picture.stem}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump({"path": str(tmp_path), "train": "images", "val": "images", "names": {0: "person"}}))
    document = load("yolov8.yaml")
    model = tmp_path / "yolov8n-mine.yaml"
    model.write_text(rewrite(document, insert(document.graph, [15], "GAM", IDENTITY)))

    class Interrupt(Exception):  # noqa: N818
        pass

    def interrupt(_: Any) -> None:
        raise Interrupt

    run = YOLO(model)
    run.add_callback("on_model_save", interrupt)
    with pytest.raises(Interrupt):
        run.train(
            data=str(data), pretrained=str(shared / "weights" / "yolov8n.pt"), epochs=2, imgsz=32, batch=2, workers=0,
            project=str(tmp_path), name="run", plots=False, val=False, device="cpu", optimizer="SGD", amp=False,
        )  # fmt: skip
    assert "Transferred 355/355 base tensors, 19 new, 0 rejected" in lines  # the class head's rows by their name
    last = tmp_path / "run" / "weights" / "last.pt"
    saved = torch.load(last, weights_only=False)["ema"].float().state_dict()
    lines.clear()
    begun: dict[str, torch.Tensor] = {}
    again = YOLO(last)
    again.add_callback("on_pretrain_routine_end", lambda trainer: begun.update(state(trainer.ema.ema)))
    again.train(resume=True)
    assert "Transferred 355/355 base tensors, 19/19 block tensors, 0 new, 0 rejected" in lines
    assert begun.keys() == saved.keys()
    assert all(torch.equal(begun[key].float(), saved[key].float()) for key in saved)
