"""`YOLO.reset_weights()` gives every parameter and statistic of ours what a new block has, whatever was trained."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics import YOLO

from gam_yolo import registry
from gam_yolo.blocks.gam import PRESETS
from gam_yolo.graph.edit import insert, rewrite
from gam_yolo.graph.find import load
from gam_yolo.graph.model import Document

OPTIONS: list[dict[str, Any]] = [
    {},
    {"start": "zero"},
    {"start": "zero", "gain": 10, "residual": True},
    {"start": "identity"},
    {"start": "identity", "gain": 10, "residual": True},
    {"residual": True},
]
FORMS: list[tuple[str, dict[str, Any]]] = [
    *(
        (name, options)
        for name, block in registry.BLOCKS.items()
        for options in OPTIONS
        if options.keys() <= inspect.signature(block).parameters.keys()
        and (name, options.get("start")) != ("SimAM", "zero")  # which has no layer that could start at 0
    ),
    *(("GAM", {"preset": preset, **options}) for preset in PRESETS for options in OPTIONS),
    *(("GAM", {off: False, **options}) for off in ("channel", "spatial") for options in OPTIONS),
    ("GAM", {"preset": "forks", "gate": "sigmoid", "pool": "max", "start": "zero"}),
]


def spoil(module: nn.Module) -> None:
    """Change every number as no training would, and freeze everything."""
    for tensor in module.state_dict().values():
        tensor.fill_(7)
    module.requires_grad_(False)


def reset(module: nn.Module) -> None:
    """Do what `YOLO.reset_weights` does."""
    for m in module.modules():
        if hasattr(m, "reset_parameters"):
            m.reset_parameters()


@pytest.mark.parametrize(("name", "options"), FORMS, ids=str)
def test_a_reset_block_is_a_new_one(name: str, options: dict[str, Any]) -> None:
    """From the same seed, to the last bit: weights, statistics of batch norms, gains."""
    torch.manual_seed(3)
    block: Any = registry.BLOCKS[name]
    new = block(64, **options)
    old = block(64, **options)
    spoil(old)
    torch.manual_seed(3)
    reset(old)
    for key, value in new.state_dict().items():
        assert torch.equal(old.state_dict()[key], value), key
    if options.get("start", "default") != "default" and "residual" not in options:
        x = torch.randn(2, 64, 6, 5)
        assert torch.equal(old.eval()(x), x)


def model(folder: Path, inside: str) -> str:
    """A YOLOv8 n with every block at every start: in rows, in place of SPPF, and in the bottlenecks of C2f."""
    document = load("yolov8.yaml")
    for name, options in FORMS:
        if options.keys() <= {"start"}:
            edit = insert(document.graph, [document.graph.head.sources[1]], name, [options] if options else [], "all")
            document = Document(rewrite(document, edit), document.name)
    text = document.text.replace("SPPF, [1024, 5]", "SE, [{start: identity, replaces: [1, SPPF, [1024, 5]]}]")
    path = folder / "yolov8n-all.yaml"
    path.write_text(re.sub(r"(C2f, \[\d+(, True)?)\]", rf"\1, {{inside: [{inside}, {{start: zero}}]}}]", text), "utf-8")
    return str(path)


@pytest.mark.parametrize("inside", ["GAM", "EMA"])
def test_reset_weights_resets_a_whole_model(inside: str, tmp_path: Path) -> None:
    """Constants exactly, random weights by their bounds: the least and the largest of a uniform start."""
    path = model(tmp_path, inside)
    yolo: Any = YOLO(path)
    new: Any = YOLO(path)
    blocks, fresh = registry.blocks_in(yolo.model), registry.blocks_in(new.model)
    assert len(blocks) > 45
    assert sum(".attention" in name for name in blocks) == 10
    spoil(yolo.model)
    yolo.reset_weights()
    for name, block in blocks.items():
        assert type(block) is type(fresh[name])
        assert all(p.requires_grad for p in block.parameters())
        for key, want in fresh[name].state_dict().items():
            assert same_start(block.state_dict()[key], want), f"{name}, {key}"


def same_start(got: Tensor, want: Tensor) -> bool:
    """Whether two tensors may have the same start, given that random ones are uniform around 0."""
    if want.numel() < 8:  # too few to tell
        return not (got == 7).any()
    if want.min() == want.max():
        return torch.equal(got, want)
    largest, other = float(want.abs().max()), float(got.abs().max())
    return 0.5 < largest / other < 2 and bool(got.std() > 0)


@pytest.mark.parametrize("name", ["CBAM", "CAA", "GAM", "Triplet"])
def test_a_fused_block_is_reset_too(name: str) -> None:
    """Its batch norm was removed; what starts at 0 is then the convolution that it was folded into."""
    block: Any = registry.BLOCKS[name](64, start="zero").eval()
    for module in block.modules():
        if hasattr(module, "fuse"):
            module.fuse()
    spoil(block)
    reset(block)
    x = torch.randn(2, 64, 6, 5)
    assert torch.equal(block(x), x)
