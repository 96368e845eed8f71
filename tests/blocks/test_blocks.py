"""Every block but GAM against its definition, written here a second time without torch's layers, and in every use.

The definitions read the block's own weights by their order, so a block with a layer more, less or elsewhere fails.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn import tasks

from gam_yolo.blocks import BAM, CBAM, ECA, SE, CoordAtt, SimAM, Triplet, UltralyticsCBAM
from gam_yolo.blocks.parts import ConvBN
from gam_yolo.errors import UserError

SIZES = [(2, 64, 7, 13), (1, 64, 1, 9), (3, 128, 5, 5)]


def randomised(block: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and running statistic a value that leaves no term of the formula out."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for t in [*block.parameters(), *block.buffers()]:
            if t.is_floating_point():
                t.copy_(torch.rand(t.shape, generator=g, dtype=t.dtype) * 0.4 + (0.8 if t.ndim == 1 else -0.2))
    return block


def sigma(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def conv(x: Tensor, layer: nn.Module, dilation: int = 1) -> Tensor:
    """A zero-padded "same" convolution from patches and one einsum, without torch's convolution."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    b, _, h, w = x.shape
    out, _, k, _ = weight.shape
    patches = F.unfold(x, k, padding=dilation * (k // 2), dilation=dilation)
    y = torch.einsum("bip,oi->bop", patches, weight.flatten(1)).view(b, out, h, w)
    return y if bias is None else y + bias.view(1, -1, 1, 1)  # type: ignore[operator]  # a tensor


def conv_bn(x: Tensor, layer: ConvBN, dilation: int = 1) -> Tensor:
    x, bn = conv(x, layer.conv, dilation), layer.bn
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    many = x[:, 0].numel() > 1  # one value has no statistics: the running ones serve
    mean = x.mean((0, 2, 3)) if bn.training and many else bn.running_mean
    var = x.var((0, 2, 3), unbiased=False) if bn.training and many else bn.running_var
    x = (x - mean.view(1, -1, 1, 1)) / torch.sqrt(var.view(1, -1, 1, 1) + bn.eps)
    return x * bn.weight.view(1, -1, 1, 1) + bn.bias.view(1, -1, 1, 1)


def convs(block: nn.Module) -> list[Any]:
    """The block's convolutions, with their batch norms where they have one, in the order of definition."""
    inside = {m.conv for m in block.modules() if isinstance(m, ConvBN)}
    kinds = (ConvBN, nn.Conv2d, nn.Conv1d)
    return [m for m in block.modules() if isinstance(m, kinds) and m not in inside]


def max_mean(x: Tensor, axis: int) -> Tensor:
    return torch.cat((x.max(axis, keepdim=True)[0], x.sum(axis, keepdim=True) / x.shape[axis]), axis)


def se(block: nn.Module, x: Tensor) -> Tensor:
    w1, w2 = convs(block)
    squeezed = x.flatten(2).sum(2) / x[0, 0].numel()
    hidden = (squeezed @ w1.weight.flatten(1).T + w1.bias).clamp(min=0)
    return x * sigma(hidden @ w2.weight.flatten(1).T + w2.bias)[:, :, None, None]


def cbam(block: nn.Module, x: Tensor) -> Tensor:
    w1, w2, spatial = convs(block)
    logits = torch.zeros(x.shape[:2], dtype=x.dtype)
    for pooled in (x.flatten(2).mean(2), x.flatten(2).max(2)[0]):
        logits = logits + (pooled @ w1.weight.flatten(1).T + w1.bias).clamp(min=0) @ w2.weight.flatten(1).T + w2.bias
    f1 = x * sigma(logits)[:, :, None, None]
    return f1 * sigma(conv_bn(max_mean(f1, 1), spatial))


def ultralytics_cbam(block: nn.Module, x: Tensor) -> Tensor:
    channel, spatial = convs(block)
    f1 = x * sigma(x.flatten(2).mean(2) @ channel.weight.flatten(1).T + channel.bias)[:, :, None, None]
    return f1 * sigma(conv(max_mean(f1, 1).flip(1), spatial))  # [mean; max], the other way round


def bam(block: nn.Module, x: Tensor) -> Tensor:
    fc1, fc2, *layers, last = convs(block)
    mc = conv(conv_bn(x.mean((2, 3), keepdim=True), fc1).clamp(min=0), fc2)
    ms = x
    for layer, dilation in zip(layers, (1, 4, 4), strict=True):
        ms = conv_bn(ms, layer, dilation).clamp(min=0)
    return x + x * sigma(mc + conv(ms, last))


def triplet(block: nn.Module, x: Tensor) -> Tensor:
    """As the official code has it: rotate the map, pool its first axis, gate, rotate back; mean of the three."""
    cw, hc, hw = convs(block)
    out = torch.zeros_like(x)
    for layer, turn in ((cw, (0, 2, 1, 3)), (hc, (0, 3, 2, 1)), (hw, (0, 1, 2, 3))):
        turned = x.permute(turn)
        out = out + (turned * sigma(conv_bn(max_mean(turned, 1), layer))).permute(turn)  # each turn undoes itself
    return out / 3


def eca(block: nn.Module, x: Tensor) -> Tensor:
    (layer,) = convs(block)
    k = layer.weight.numel()
    padded = F.pad(x.flatten(2).mean(2), (k // 2, k // 2))
    gate = sigma(padded.unfold(1, k, 1) @ layer.weight.flatten())
    return x * gate[:, :, None, None]


def coordatt(block: nn.Module, x: Tensor) -> Tensor:
    shared, conv_h, conv_w = convs(block)
    h = x.shape[2]
    strip = torch.cat((x.mean(3), x.mean(2)), 2).unsqueeze(3)  # (B, C, H + W, 1)
    f = conv_bn(strip, shared)
    f = f * (f + 3).clamp(0, 6) / 6
    g_h = sigma(conv(f[:, :, :h], conv_h))
    g_w = sigma(conv(f[:, :, h:], conv_w)).permute(0, 1, 3, 2)
    return x * g_h * g_w


def simam(_: nn.Module, x: Tensor) -> Tensor:
    n = x.shape[2] * x.shape[3] - 1
    d = (x - x.mean((2, 3), keepdim=True)) ** 2
    return x * sigma(d / (4 * (d.sum((2, 3), keepdim=True) / n + 1e-4)) + 0.5)


Definition = Callable[[nn.Module, Tensor], Tensor]
DEFINITIONS: dict[type[nn.Module], Definition] = {
    SE: se,
    CBAM: cbam,
    UltralyticsCBAM: ultralytics_cbam,
    BAM: bam,
    Triplet: triplet,
    ECA: eca,
    CoordAtt: coordatt,
    SimAM: simam,
}
ECA_KERNEL = {8: 3, 64: 3, 128: 5, 256: 5, 512: 5, 1024: 5, 2048: 7}  # (log2 C + 1) / 2, cut, made odd


def parameters(c: int) -> dict[type[nn.Module], int]:
    m, strip = c // 16, max(8, c // 32)
    return {
        SE: 2 * c * m + c + m,
        CBAM: 2 * c * m + c + m + 2 * 49 + 2,
        UltralyticsCBAM: c * c + c + 2 * 49,
        BAM: 3 * c * m + 18 * m * m + c + 13 * m + 1,
        Triplet: 300,
        ECA: ECA_KERNEL[c],
        CoordAtt: 3 * c * strip + 2 * c + 3 * strip,
        SimAM: 0,
    }


def multiply_adds(c: int, h: int, w: int) -> dict[type[nn.Module], int]:
    m, strip = c // 16, max(8, c // 32)
    return {
        SE: 2 * c * m,
        CBAM: 4 * c * m + 98 * h * w,
        UltralyticsCBAM: c * c + 98 * h * w,
        BAM: 2 * c * m + h * w * (c * m + 18 * m * m + m),
        Triplet: 98 * (c * w + h * c + h * w),
        ECA: c * ECA_KERNEL[c],
        CoordAtt: 2 * c * strip * (h + w),
        SimAM: 0,
    }


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


def test_eca_kernel_grows_with_the_logarithm_of_the_channels() -> None:
    assert {c: ECA(c).conv.kernel_size[0] for c in ECA_KERNEL} == ECA_KERNEL
    for c in range(1, 600):
        k = ECA(c).conv.kernel_size[0]
        assert k % 2 == 1
        assert abs(k - (math.log2(c) + 1) / 2) <= 1


@every_block
def test_every_way_to_call_it_in_training(block: type[nn.Module]) -> None:
    """A single image and a single pixel neither fail nor give what is not a number; BAM's statistics stay."""
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
    built = randomised(block(64, start="identity"))
    nn.init.zeros_(built.start.gain)  # type: ignore[union-attr, arg-type]  # the switch's parameter
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
    built = randomised(block(64, start="identity").eval())
    x = torch.rand(2, 64, 8, 6)
    traced = torch.jit.trace(built, x)
    file = tmp_path / "block.onnx"
    free = {"x": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(built, (x,), str(file), input_names=["x"], dynamic_axes=free, dynamo=False)
    session = onnxruntime.InferenceSession(str(file))
    for size in ((2, 64, 8, 6), (1, 64, 5, 11), (3, 64, 1, 4)):
        x = torch.rand(size)
        want = built(x).detach()
        torch.testing.assert_close(traced(x), want)
        torch.testing.assert_close(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), want, rtol=1e-4, atol=1e-5)


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
            "kernel is 512. Expected one of 3, 7. Write the kernel alone, or []: the channels",
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
            f"stock.yaml, row 1 [-1, 1, {name}, [1024, 7]]: kernel is 1024. Expected one of 3, 7. Write the "
            "kernel alone, or []: the channels come from the row's input."
        )
