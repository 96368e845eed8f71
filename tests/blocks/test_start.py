"""The start of a block: what it computes at step 0 and later, that it learns, and that it can be reset."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, load_checkpoint
from ultralytics.utils import ROOT

from gam_yolo import registry
from gam_yolo.blocks import BAM, GAM, SE, SimAM, checkpointing
from gam_yolo.blocks.gam import PRESETS
from gam_yolo.blocks.parts import form
from gam_yolo.graph.edit import insert, rewrite
from gam_yolo.graph.model import Document

from .definitions import DEFINITIONS, Gates, randomised

CENTRED = [block for block in DEFINITIONS if block is not SimAM]
ZERO: list[tuple[type[nn.Module], dict[str, Any]]] = [
    *((block, {}) for block in CENTRED),
    *((GAM, {"preset": preset}) for preset in PRESETS),
    (GAM, {"channel": False}),
    (GAM, {"spatial": False}),
]
every_zero = pytest.mark.parametrize(("block", "kwargs"), ZERO, ids=lambda v: v.__name__ if callable(v) else str(v))


def started(block: type[nn.Module], **kwargs: Any) -> Any:
    """A block with random weights and statistics everywhere but where its start sets them."""
    built: Any = randomised(block(64, **kwargs))
    built.start.reset_parameters()
    return built


def image() -> Tensor:
    return torch.randn(2, 64, 9, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@every_zero
def test_zero_start_is_the_identity(block: type[nn.Module], kwargs: dict[str, Any], train: bool) -> None:
    x = image()
    for residual in ({}, {"residual": True}) if block is not BAM else ({},):
        assert torch.equal(started(block, start="zero", **kwargs, **residual).train(train)(x), x)
        tenfold = started(block, start="zero", gain=10, **kwargs, **residual).train(train)
        torch.testing.assert_close(tenfold(x), x, rtol=1e-6, atol=0)
    assert sum(p.numel() for p in block(64, start="zero", gain=10, **kwargs).parameters()) == sum(
        p.numel() for p in block(64, **kwargs).parameters()
    )


@every_zero
def test_zero_start_learns_in_every_parameter(block: type[nn.Module], kwargs: dict[str, Any]) -> None:
    """The last layers from the first step on, the others from the second."""
    built, x = started(block, start="zero", **kwargs), image().requires_grad_()
    target = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam(built.parameters(), lr=0.001)
    last = [p for layer, _ in built.start.initial for p in getattr(layer, "bn", layer).parameters()]
    for moved in (last, [*built.parameters()]):
        optimizer.zero_grad()
        (built(x) - target).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in moved)
        optimizer.step()


@pytest.mark.parametrize("gain", [1, 10])
@pytest.mark.parametrize("block", CENTRED, ids=lambda b: b.__name__)
def test_zero_form_is_the_definition_with_centred_gates(
    block: type[nn.Module], gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = image().double()
    built = randomised(block(64, start="zero", gain=gain).double())
    monkeypatch.setattr(Gates, "peak", 2.0)
    monkeypatch.setattr(Gates, "gain", gain)
    fx = DEFINITIONS[block](built, x)
    torch.testing.assert_close(built(x), fx / 2 if block is BAM else fx, rtol=1e-10, atol=1e-10)
    if block is not BAM:
        residual = randomised(block(64, start="zero", gain=gain, residual=True).double())
        torch.testing.assert_close(residual(x), (x + fx) / 2, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("block", [*CENTRED, SimAM], ids=lambda b: b.__name__)
def test_residual_and_identity_forms(block: type[nn.Module]) -> None:
    x = image().double()
    residual = {} if block is BAM else {"residual": True}
    plain, added = (randomised(block(64, **kwargs).double()) for kwargs in ({}, residual))
    fx = DEFINITIONS[block](plain, x)
    torch.testing.assert_close(added(x), fx if block is BAM else x + fx)
    blended: Any = randomised(block(64, start="identity", gain=10, **residual).double())
    a = blended.start.gain
    torch.testing.assert_close(blended(x), x + 10 * a * (fx - x) if block is BAM else x + 10 * a * fx)
    nn.init.zeros_(a)
    assert torch.equal(blended(x), x)


@pytest.mark.parametrize("preset", PRESETS)
def test_gam_with_zero_start_is_the_same_formula(preset: str) -> None:
    """Twice the spatial gate, and the sigmoid channel gate twice too: nothing else differs from the default."""
    x = image().double()
    plain: Any = randomised(GAM(64, preset=preset).double()).eval()
    zero: Any = randomised(GAM(64, preset=preset, start="zero").double()).eval()
    sigmoid = PRESETS[preset]["gate"] == "sigmoid"
    f2 = plain.channel(x) * x * (2 if sigmoid else 1)
    torch.testing.assert_close(zero(x), 2 * plain.spatial(f2) * f2)
    last = started(GAM, preset=preset, start="zero", gain=4).channel[2]
    assert not last.weight.any()
    assert set(last.bias.tolist()) == {0.0 if sigmoid else 0.25}


def test_ten_times_the_gain_moves_ten_times_as_far_under_adam() -> None:
    change = {}
    for gain in (1, 10):
        torch.manual_seed(0)
        gam, x = GAM(64, start="zero", gain=gain), image()
        optimizer = torch.optim.Adam(gam.parameters(), lr=1e-5)
        (gam(x) - 2 * x).square().sum().backward()
        optimizer.step()
        gam.eval()
        change[gain] = float((gam(x) - x).detach().norm() / x.norm())
    assert change[10] / change[1] == pytest.approx(10, rel=0.02)


@every_zero
def test_copies_and_pickles_keep_their_start(block: type[nn.Module], kwargs: dict[str, Any]) -> None:
    built, x = randomised(block(64, start="zero", **kwargs)), image()
    buffer = io.BytesIO()
    torch.save(built, buffer)
    buffer.seek(0)
    before = built(x)
    for twin in (copy.deepcopy(built), torch.load(buffer, weights_only=False)):
        torch.testing.assert_close(twin(x), before)
        assert list(twin.state_dict()) == list(built.state_dict())
        twin.start.reset_parameters()  # of the copy's own layers
        assert torch.equal(twin(x), x)
    torch.testing.assert_close(built(x), before)


def test_forms_tell_functions_apart() -> None:
    """Equal tensors with equal forms are the same function; a start, a gate, a shuffle or a dilation is not."""
    distinct: list[list[nn.Module]] = [
        [SE(64), SE(64, start="zero"), SE(64, start="zero", gain=10), SE(64, residual=True)],
        [GAM(64), GAM(64, start="zero"), GAM(64, gate="sigmoid"), GAM(64, start="zero", gain=10)],
        [GAM(64, preset="forks"), GAM(64, preset="forks", shuffle="none"), GAM(64, preset="forks", shuffle_groups=2)],
        [BAM(64), BAM(64, dilation=2), BAM(64, start="zero")],
        [SimAM(64), SimAM(64, 1e-3), SimAM(64, residual=True)],
    ]
    for blocks in distinct:
        assert len({form(block) for block in blocks}) == len(blocks)
        shapes = [{k: v.shape for k, v in block.state_dict().items()} for block in blocks]
        assert all(each == shapes[0] for each in shapes)
        assert all(form(block) == form(copy.deepcopy(block)) for block in blocks)
    assert form(GAM(64, preset="paper")) == form(GAM(64, 16, "sigmoid"))


def test_blocks_of_an_older_checkpoint_have_the_form_of_new_ones() -> None:
    """Written by version 0.1.0, whose blocks know neither residual nor gain: their weights may be transferred."""
    old, _ = load_checkpoint(Path(__file__).parent.parent / "checkpoints" / "blocks-0.1.0.pt")
    new = DetectionModel(copy.deepcopy(old.yaml), verbose=False)
    pairs = [(a, b) for a, b in zip(old.model.children(), new.model.children(), strict=True) if hasattr(a, "start")]
    assert len({type(a) for a, _ in pairs}) == 10
    for a, b in pairs:
        assert form(a) == form(b)
        assert {k: v.shape for k, v in a.state_dict().items()} == {k: v.shape for k, v in b.state_dict().items()}


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "applies", lambda _: True)


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize("kwargs", [{"gain": 1}, {"gain": 10, "gate": "sigmoid", "residual": True}], ids=str)
def test_zero_start_is_the_identity_in_the_memory_saving_step(kwargs: dict[str, Any]) -> None:
    gam, x = GAM(64, start="zero", **kwargs), image().requires_grad_()
    y = gam(x)
    torch.testing.assert_close(y, x, rtol=1e-6, atol=0)
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, torch.ones_like(x), rtol=1e-5, atol=1e-5)


def placed(rows: list[tuple[str, dict[str, Any]]], folder: Path) -> str:
    """A YOLOv8 n with blocks, one after the other, on each of the head's inputs."""
    document = Document((Path(ROOT) / "cfg" / "models" / "v8" / "yolov8.yaml").read_text("utf-8"), "yolov8.yaml")
    for block, args in rows:
        edit = insert(document.graph, list(document.graph.head.sources), block, [args], "all")
        document = Document(rewrite(document, edit), document.name)
    file = folder / "yolov8n-blocks.yaml"
    file.write_text(document.text, "utf-8")
    return str(file)


TENFOLD = {"start": "zero", "residual": True, "gain": 10}


@pytest.mark.parametrize(
    "rows",
    [
        [("GAM", {"start": "zero"}), *((block.__name__, {"start": "zero"}) for block in CENTRED)],
        [("GAM", TENFOLD), ("CBAM", TENFOLD)],
        [("GAM", {"start": "identity", "residual": True}), ("SimAM", {"start": "identity"})],
    ],
    ids=["zero", "zero, residual, gain", "identity"],
)
def test_a_pretrained_detector_predicts_as_before_on_real_images(
    rows: list[tuple[str, dict[str, Any]]], shared: Path, tmp_path: Path
) -> None:
    weights = shared / "weights" / "yolov8n.pt"
    files = sorted((shared / "data" / "coco").rglob("*.jpg"))[:2]
    x = torch.stack([pil_to_tensor(Image.open(file).convert("RGB").resize((128, 96))) / 255 for file in files])
    plain, model = YOLO(weights).model.float().eval(), YOLO(placed(rows, tmp_path)).load(weights).model.eval()
    assert sum(type(m).__name__ in dict(rows) for m in model.model) == 3 * len(rows)
    with torch.no_grad():
        got, want = model(x)[0], plain(x)[0]
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-3)
        assert torch.equal(got, want) or rows[0][1] is TENFOLD  # 10 * 0.1 is not 1 in every last bit
        torch.testing.assert_close(model.fuse(verbose=False)(x)[0], want, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("place", ["", "-backbone"])
def test_the_shipped_gam_models_predict_as_the_pretrained_one_and_learn_in_every_parameter(
    place: str, shared: Path
) -> None:
    """At step 0, with a gain of 10, which rounds; then by the detection loss on the same photographs."""
    weights = shared / "weights" / "yolov8n.pt"
    files = sorted((shared / "data" / "coco").rglob("*.jpg"))[:2]
    x = torch.stack([pil_to_tensor(Image.open(file).convert("RGB").resize((128, 96))) / 255 for file in files])
    plain: Any = YOLO(weights).model.float().eval()
    model: Any = YOLO(f"yolov8n-gam{place}.yaml").load(weights).model
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x)[0], plain(x)[0], rtol=1e-4, atol=1e-3)
    boxes = {"cls": torch.zeros(2, 1), "bboxes": torch.full((2, 4), 0.5), "batch_idx": torch.arange(2.0)}
    model.args = get_cfg()
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.0001)
    last = {"channel.2.weight", "channel.2.bias", "spatial.2.bn.weight", "spatial.2.bn.bias"}
    every = {name for name, _ in GAM(64).named_parameters()} - {"spatial.0.conv.bias", "spatial.2.conv.bias"}
    for learning in (last, every):  # a bias before a batch norm never has an effect
        optimizer.zero_grad()
        model({"img": x, **boxes})[0].sum().backward()
        for block in (m for m in model.model if isinstance(m, GAM)):
            found = {name for name, p in block.named_parameters() if p.grad is not None and p.grad.any()}
            assert found - {"spatial.0.conv.bias", "spatial.2.conv.bias"} == learning
        optimizer.step()


@pytest.mark.parametrize("start", ["zero", "identity"])
def test_reset_weights_resets_every_parameter_of_a_block(start: str, tmp_path: Path) -> None:
    """`YOLO.reset_weights()`, after a training that changed every number."""
    yolo = YOLO(placed([(block, {"start": start}) for block in ("GAM", "BAM", "MLCA", "EMA", "SCSA")], tmp_path))
    blocks = [m for m in yolo.model.model if type(m).__name__ in registry.BLOCKS]
    assert len(blocks) == 15
    with torch.no_grad():
        for p in yolo.model.parameters():
            p.fill_(7)
    yolo.reset_weights()
    for m in blocks:
        assert not any((p == 7).any() for p in m.parameters())
        x = torch.randn(1, {0: 64, 5: 128, 10: 256}[blocks.index(m) // 5 * 5], 8, 8)
        assert torch.equal(m(x), x)
