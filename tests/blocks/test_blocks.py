"""Every block but GAM against its definition (`definitions.py`) and against other implementations, and in every use."""

from __future__ import annotations

import copy
import math
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn import tasks

from gam_yolo.blocks import (
    BAM,
    CAA,
    CBAM,
    ECA,
    ELA,
    EMA,
    GAM,
    LSKA,
    MLCA,
    SCSA,
    SE,
    CoordAtt,
    SimAM,
    Triplet,
    UltralyticsCBAM,
)
from gam_yolo.blocks.gam import PRESETS
from gam_yolo.blocks.parts import ConvBN
from gam_yolo.errors import UserError

from .definitions import DEFINITIONS, ECA_KERNEL, lska, multiply_adds, parameters, randomised

SIZES = [(2, 64, 7, 13), (1, 64, 1, 9), (3, 128, 5, 5)]

every_block = pytest.mark.parametrize("block", DEFINITIONS, ids=lambda b: b.__name__)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@every_block
def test_equals_the_definition(block: type[nn.Module], size: tuple[int, ...], train: bool) -> None:
    built = randomised(block(size[1]).double()).train(train)
    x = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(built(x), DEFINITIONS[block](built, x), rtol=1e-10, atol=1e-10)


@every_block
def test_gradients_equal_the_definitions_and_numbers(block: type[nn.Module]) -> None:
    built = randomised(block(32).double())
    x = torch.randn(2, 32, 4, 5, dtype=torch.float64, requires_grad=True)
    inputs, weight = [x, *built.parameters()], torch.randn(2, 32, 4, 5, dtype=torch.float64)
    got = torch.autograd.grad((built(x) * weight).sum(), inputs)
    want = torch.autograd.grad((DEFINITIONS[block](built, x) * weight).sum(), inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()) + 1e-12)
    small = torch.randn(1, 32, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(built.eval(), (small,), fast_mode=True)


@pytest.mark.parametrize("c", [64, 256, 1024])
@every_block
def test_counts_equal_the_formulas(block: type[nn.Module], c: int) -> None:
    assert sum(p.numel() for p in block(c).parameters()) == parameters(c)[block]
    assert sum(p.numel() for p in block(c, start="identity").parameters()) == parameters(c)[block] + c
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        block(c)(torch.empty(2, c, 6, 10))
    assert counter.get_total_flops() == 2 * 2 * multiply_adds(c, 6, 10)[block]  # a multiply-add is two, times the batch


@pytest.mark.parametrize(
    ("kernel", "near", "far", "dilation"),
    [(7, 3, 3, 2), (11, 3, 5, 2), (23, 5, 7, 3), (35, 5, 11, 3), (41, 5, 13, 3), (53, 5, 17, 3)],
)
def test_lska_strips_are_the_papers(kernel: int, near: int, far: int, dilation: int) -> None:
    built = randomised(LSKA(16, kernel).double())
    sizes = [m.kernel_size for m in built.modules() if isinstance(m, nn.Conv2d)]
    assert sizes == [(1, near), (near, 1), (1, far), (far, 1), (1, 1)]
    x = torch.randn(1, 16, 30, 20, dtype=torch.float64)
    torch.testing.assert_close(built(x), lska(built, x, dilation), rtol=1e-10, atol=1e-10)


def test_groups_fit_every_channel_count() -> None:
    """Rows of 16 channels at scale n, and counts that no power of two divides."""
    assert {c: EMA(c).factor for c in (16, 48, 64, 80, 256, 7)} == {16: 8, 48: 24, 64: 32, 80: 20, 256: 32, 7: 1}
    for c in (16, 24, 40, 56, 80):
        for block in DEFINITIONS:
            x = torch.rand(2, c, 9, 8)
            kwargs = {"reduction": 4} if block in (SE, CBAM, BAM) else {}
            assert block(c, **kwargs)(x).shape == x.shape
    with pytest.raises(UserError, match=r"the block's input has 18 channels\. Expected a multiple of 4\."):
        SCSA(18)


def test_eca_kernel_grows_with_the_logarithm_of_the_channels() -> None:
    assert {c: ECA(c).conv.kernel_size[0] for c in ECA_KERNEL} == ECA_KERNEL
    for c in range(1, 600):
        k = ECA(c).conv.kernel_size[0]
        assert k % 2 == 1
        assert abs(k - (math.log2(c) + 1) / 2) <= 1


@every_block
def test_every_way_to_call_it_in_training(block: type[nn.Module]) -> None:
    """A single image and a single pixel neither fail nor give NaN; BAM's statistics stay."""
    for size in ((1, 64, 1, 1), (1, 64, 5, 1), (2, 64, 1, 1)):
        built = block(64).train()
        x = torch.randn(size, requires_grad=True)
        y = built(x)
        y.sum().backward()
        assert y.shape == x.shape
        assert torch.isfinite(y).all()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
        if size == (1, 64, 1, 1) and block is BAM:
            assert all(float(m.running_mean.abs().max()) == 0 for m in built.modules() if isinstance(m, nn.BatchNorm2d))


@every_block
def test_identity_start_is_exact_and_learns(block: type[nn.Module]) -> None:
    built: Any = randomised(block(64, start="identity"))
    nn.init.zeros_(built.start.gain)
    x = torch.randn(2, 64, 6, 6, generator=torch.Generator().manual_seed(3))
    assert torch.equal(built(x), x)
    optimizer = torch.optim.SGD(built.parameters(), lr=1e-4)
    for _ in range(2):  # the gains move first, then, through them, the rest
        optimizer.zero_grad()
        built(x).square().sum().backward()
        optimizer.step()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in built.parameters())
    assert not torch.equal(built(x), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_block
def test_half_and_autocast(block: type[nn.Module], dtype: torch.dtype) -> None:
    for start in ("default", "identity"):
        built, x = randomised(block(64, start=start).eval()), torch.rand(1, 64, 40, 41) * 4
        want = built(x)
        with torch.autocast("cpu", dtype=dtype):
            mixed = built(x)
        for got in (mixed, copy.deepcopy(built).to(dtype)(x.to(dtype))):
            torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.05)


def test_simam_in_half_precision_does_not_overflow_on_large_maps() -> None:
    x = torch.randn(1, 2, 160, 160) * 4  # the sum of the squares, 400,000, is beyond half precision
    torch.testing.assert_close(SimAM(2)(x.half()).float(), SimAM(2)(x), rtol=0.02, atol=0.02)


@every_block
def test_memory_format_is_kept(block: type[nn.Module]) -> None:
    built = block(64).to(memory_format=torch.channels_last)
    x = torch.rand(2, 64, 6, 7).to(memory_format=torch.channels_last)
    assert built(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(built(x.contiguous()), built(x))


@every_block
def test_fused_equals_unfused(block: type[nn.Module]) -> None:
    built = randomised(block(64).double().eval())
    x = torch.rand(2, 64, 5, 6, dtype=torch.float64)
    want = built(x)
    for m in built.modules():
        if isinstance(m, ConvBN):
            m.fuse()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in built.modules())
    torch.testing.assert_close(built(x), want, rtol=1e-12, atol=1e-12)
    assert built.train()(x[:1, :, :1, :1]).shape == (1, 64, 1, 1)  # a fused block has no statistics left to ask for


@every_block
def test_exports(block: type[nn.Module], tmp_path: Any) -> None:
    """Traced and exported at one size, run at others: batch, height and width are free, as `dynamic=True` has it."""
    start = {"start": "identity"} if block is SimAM else {"start": "zero", "gain": 2.0}
    built = randomised(block(64, **start).eval())
    more = 7 if block is SCSA else 0  # whose windows are cut to the traced map where that is smaller than they are
    x = torch.rand(2, 64, 8 + more, 6 + more)
    traced = torch.jit.trace(built, x)
    file = tmp_path / "block.onnx"
    free = {"x": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(built, (x,), str(file), input_names=["x"], dynamic_axes=free, dynamo=False)
    session = onnxruntime.InferenceSession(str(file))
    for batch, height, width in ((2, 8, 6), (1, 5, 11), (3, 1, 4)):
        x = torch.rand(batch, 64, height + more, width + more)
        want = built(x).detach()
        torch.testing.assert_close(traced(x), want)
        torch.testing.assert_close(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("block", "options"),
    [*((block, {}) for block in DEFINITIONS), *((GAM, {"preset": preset}) for preset in PRESETS)],
)
def test_traces_without_what_the_converter_of_ncnn_lacks(block: type[nn.Module], options: dict[str, str]) -> None:
    built = randomised(block(64, start="identity", **options).eval())
    x = torch.rand(1, 64, 8, 8)
    traced = torch.jit.trace(built, x, check_trace=False)
    torch.testing.assert_close(traced(x), built(x))
    operations = {node.kind() for node in traced.inlined_graph.nodes()}
    assert not operations & {"aten::lerp", "aten::index_select", "aten::channel_shuffle"}


@every_block
def test_compiles_in_one_graph(block: type[nn.Module]) -> None:
    built = block(64).eval()
    x = torch.rand(1, 64, 5, 6)
    whole = torch.compile(built, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(x), built(x))


def load(into: nn.Module, values: list[Tensor]) -> None:
    """Give a module's parameters and running statistics, in their order, the values of another."""
    targets = [t for t in into.state_dict().values() if t.is_floating_point()]
    with torch.no_grad():
        for target, value in zip(targets, values, strict=True):
            target.copy_(value.view(target.shape))


def values(of: nn.Module) -> list[Tensor]:
    return [t for t in of.state_dict().values() if t.is_floating_point()]


def test_equals_timms_and_torchvisions() -> None:
    """Other people's implementations with our weights: SE, ECA, CBAM and CoordAtt exist elsewhere."""
    layers = pytest.importorskip("timm.layers")
    ops = pytest.importorskip("torchvision.ops")
    from timm.layers.cbam import CbamModule
    from timm.layers.coord_attn import CoordAttn

    others = {
        SE: [layers.SEModule(64, rd_channels=4), ops.SqueezeExcitation(64, 4)],
        ECA: [layers.EcaModule(64)],
        CBAM: [CbamModule(64, mlp_bias=True)],
        CoordAtt: [CoordAttn(64, rd_channels=8, bias=True)],
    }
    x = torch.randn(2, 64, 7, 13, dtype=torch.float64)
    for block, theirs in others.items():
        for other in theirs:
            ours = randomised(block(64).double().eval())
            other.double().eval()
            mine = values(ours)
            if block is CBAM:
                # timm pools in the other order, [mean; max]: the spatial kernel's two inputs change places.
                mine = [t.flip(1) if t.ndim == 4 and t.shape[1] == 2 else t for t in mine]
            load(other, mine)
            torch.testing.assert_close(ours(x), other(x), rtol=1e-10, atol=1e-10)


# Six values and the mean square of what the authors' published code computes with the weights and the image below; for
# ELA, which has no official code, that of the authors of SCSA.
OFFICIAL = {
    EMA: ([0.3252624085, 0.2584278508, 0.4653091915, 0.0444937417, 0.8889043531, 0.2539354623], 0.2255563709),
    MLCA: ([0.595065597, 0.3204976695, 1.4355607882, 0.047128017, 1.4130799776, 0.2976300062], 0.4520300545),
    ELA: ([0.2907597299, 0.0763198581, 0.5996857829, 0.0230970868, 0.228258356, 0.2371498275], 0.1270751568),
    LSKA: ([0.7998914623, -1.40835266, 2.9937023409, 0.0662784937, -4.1125116257, 0.4865116406], 1.303800512),
    CAA: ([0.5310834334, 0.2815045472, 1.2478358026, 0.0565523655, 1.0059381972, 0.2971762012], 0.4183299102),
    SCSA: ([0.1069026947, 0.0274549225, 0.2823998356, 0.0183685882, 0.2471288032, 0.0560016867], 0.0267645323),
}


@pytest.mark.parametrize("block", OFFICIAL, ids=lambda b: b.__name__)
def test_equals_the_numbers_of_the_published_code(block: type[nn.Module]) -> None:
    built = block(64).double().eval()
    with torch.no_grad():
        for i, p in enumerate(built.parameters()):
            p.copy_((torch.arange(p.numel()).double() * (0.7 + 0.1 * i) + i).sin().view(p.shape) / 2)
    channels, columns = torch.arange(64).double().view(64, 1, 1), torch.arange(15).double()
    waves = (torch.arange(2 * 64 * 16 * 15).double() * 0.37).cos().view(2, 64, 16, 15)
    y = built(waves * (1 + channels / 64) + (columns / 2).sin())
    values, mean_square = OFFICIAL[block]
    torch.testing.assert_close(y.flatten()[::6113], torch.tensor(values, dtype=torch.float64), rtol=0, atol=1e-9)
    assert float(y.detach().square().mean()) == pytest.approx(mean_square, abs=1e-9)


def test_equals_ultralytics_own_cbam() -> None:
    from ultralytics.nn.modules.conv import CBAM as Theirs  # noqa: N811  # a class, not a constant

    for kernel in (3, 7):
        ours, theirs = randomised(UltralyticsCBAM(64, kernel).double()), Theirs(64, kernel).double()
        load(theirs, values(ours))
        x = torch.randn(2, 64, 7, 13, dtype=torch.float64)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)


def test_the_two_cbams_differ() -> None:
    assert sum(p.numel() for p in CBAM(64).parameters()) != sum(p.numel() for p in UltralyticsCBAM(64).parameters())
    assert CBAM(64, 3).spatial.conv.kernel_size == UltralyticsCBAM(64, 3).spatial.kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("block", "kwargs", "says"),
    [
        (
            CBAM,
            {"kernel": 512, "reduction": 7},
            "kernel is 512. Expected one of 3, 7",
        ),
        (CBAM, {"kernel": 5}, "kernel is 5. Expected one of 3, 7"),
        (UltralyticsCBAM, {"kernel": 1024}, "kernel is 1024"),
        (CBAM, {"reduction": 65}, "reduction is 65. Expected a whole number from 1 to 64"),
        (SE, {"reduction": 128}, "reduction is 128. Expected a whole number from 1 to 64"),
        (BAM, {"dilation": 0}, "dilation is 0. Expected a whole number of at least 1"),
        (BAM, {"reduction": 0}, "reduction is 0"),
        (Triplet, {"kernel": True}, "kernel is True"),
        (ECA, {"kernel": 4}, "kernel is 4. Expected one of 1, 3, 5, 7, 9"),
        (CoordAtt, {"reduction": 0.5}, "reduction is 0.5. Expected a whole number"),
        (SimAM, {"e_lambda": 0}, "e_lambda is 0. Expected a number above 0"),
        (SimAM, {"e_lambda": "1e-4"}, "e_lambda is '1e-4'"),
        (SE, {"start": "identiy"}, "Did you mean 'identity'?"),
        (SimAM, {"start": "zero"}, "no layer of this block can start at 0. Write start: identity."),
        (SE, {"gain": 10}, "gain is 10 with start 'default'. Write start: zero or start: identity."),
        (EMA, {"factor": 48}, "factor 48 does not divide the 64 channels of the block's input. Write one of 1, 2, 4"),
        (LSKA, {"kernel": 512}, "kernel is 512. Expected one of 7, 11, 23, 35, 41, 53."),
        (SCSA, {"heads": 6}, "heads 6 does not divide the 64 channels"),
    ],
)
def test_bad_arguments_are_reported_in_one_line(block: type[nn.Module], kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        block(64, **kwargs)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_as_stock_yamls_write_cbam_work_or_say_what_to_write() -> None:
    def build(name: str, args: list[Any]) -> Any:
        rows = [[-1, 1, "Conv", [64, 3, 2]], [-1, 1, name, args]]
        model = {"nc": 2, "backbone": rows, "head": [], "yaml_file": "stock.yaml"}
        return tasks.parse_model(model, ch=3, verbose=False)[0][1]

    assert type(build("CBAM", [])) is CBAM
    assert build("CBAM", [3]).spatial.conv.kernel_size == (3, 3)
    assert build("CBAM", [7, {"reduction": 4}]).mlp[0].out_channels == 16
    assert type(build("UltralyticsCBAM", [3])) is UltralyticsCBAM
    for name in ("CBAM", "UltralyticsCBAM"):
        with pytest.raises(UserError) as error:
            build(name, [1024, 7])
        assert str(error.value) == (
            f"stock.yaml, row 1 [-1, 1, {name}, [1024, 7]]: kernel is 1024. Expected one of 3, 7. Write [7]: "
            "the channels come from the row's input."
        )
