"""GAM against its formula, written here a second time with einsum, unfold and torch.nn.functional."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own convention
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gam_yolo.blocks import GAM, GAM_Attention, chunking
from gam_yolo.blocks.gam import PRESETS
from gam_yolo.blocks.parts import ConvBN
from gam_yolo.errors import UserError

from .definitions import randomised

SIZES = [(2, 64, 7, 13), (1, 64, 1, 9), (3, 128, 5, 5)]


def conv_einsum(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """A zero-padded "same" convolution from patches and one einsum, without torch's convolution."""
    assert bias is not None
    b, _, h, w = x.shape
    out, per, k, _ = weight.shape
    patches = F.unfold(x, k, padding=k // 2).view(b, groups, per, k * k, h * w)
    y = torch.einsum("bgikp,goik->bgop", patches, weight.reshape(groups, out // groups, per, k * k))
    return y.reshape(b, out, h, w) + bias.view(1, -1, 1, 1)


def batch_norm(x: Tensor, bn: Any, train: bool) -> Tensor:
    mean = x.mean((0, 2, 3)) if train else bn.running_mean
    var = x.var((0, 2, 3), unbiased=False) if train else bn.running_var
    x = (x - mean.view(1, -1, 1, 1)) / torch.sqrt(var.view(1, -1, 1, 1) + bn.eps)
    out: Tensor = x * bn.weight.view(1, -1, 1, 1) + bn.bias.view(1, -1, 1, 1)
    return out


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle by an explicit index: output channel i comes from place i // g of group i % g."""
    c = x.shape[1]
    return x[:, [(i % groups) * (c // groups) + i // groups for i in range(c)]]


def dense_kernels(spatial: Any) -> list[Tensor]:
    """The 7x7 kernels that the branch's convolutions amount to: a bias-free one and the next make one dense kernel."""
    kernels: list[Tensor] = []
    before: Any = None
    for layer in spatial:
        if isinstance(layer, nn.Conv2d):
            before = layer
        if not isinstance(layer, ConvBN):
            continue
        weight = layer.conv.weight
        if before is not None and before.groups > 1:  # 7x7 on each channel, then 1x1
            weight = weight * before.weight.transpose(0, 1)
        elif before is not None and layer.conv.groups > 1:  # 1x1, then 7x7 on each channel
            weight = weight * before.weight
        elif before is not None:  # 1x7, then 7x1
            weight = torch.einsum("okay,kizb->oiab", weight, before.weight)
        kernels.append(weight)
        before = None
    return kernels


def reference(gam: Any, x: Tensor, gate: str, groups: int, shuffle: str, by: int, pool: str = "none") -> Tensor:
    """F2 = Mc(F1) F1; F3 = Ms(F2) F2, the MLP as linear layers over the last axis, as the paper draws it."""
    mlp = [m for m in gam.channel if isinstance(m, nn.Conv2d)]
    last = x.permute(0, 2, 3, 1)
    hidden = F.linear(last, mlp[0].weight.flatten(1), mlp[0].bias).clamp(min=0)
    mc = F.linear(hidden, mlp[1].weight.flatten(1), mlp[1].bias).permute(0, 3, 1, 2)
    f2 = x * (torch.sigmoid(mc) if gate == "sigmoid" else mc)
    convs = [m for m in gam.spatial if isinstance(m, ConvBN)]
    weights = dense_kernels(gam.spatial)
    y = batch_norm(conv_einsum(f2, weights[0], convs[0].conv.bias, groups), convs[0].bn, gam.training)
    y = y.clamp(min=0)
    if pool == "max":
        y = F.unfold(F.pad(y, (1, 1, 1, 1), value=-torch.inf), 3).view(*y.shape[:2], 9, *y.shape[2:]).amax(2)
    if shuffle == "between":
        y = shuffled(y, by)
    y = batch_norm(conv_einsum(y, weights[1], convs[1].conv.bias, groups), convs[1].bn, gam.training)
    ms = torch.sigmoid(y)
    return f2 * (shuffled(ms, by) if shuffle == "after" else ms)


VARIANTS: dict[str, dict[str, Any]] = {name: {"preset": name} for name in PRESETS} | {
    "two groups": {"groups": 2, "shuffle": "none"},
    "shuffled by another number": {"preset": "forks", "groups": 1, "shuffle_groups": 4},
    "max-pool": {"pool": "max", "gate": "sigmoid"},
}


def expected(kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a variant's keywords mean, written a second time, from the papers and the forks."""
    table = {
        "blog": ("none", 1, "none"),
        "paper": ("sigmoid", 1, "none"),
        "paper-grouped": ("sigmoid", 4, "between"),
        "forks": ("none", 4, "after"),
        "separable": ("sigmoid", 1, "none"),
        "strips": ("sigmoid", 1, "none"),
        "grouped": ("sigmoid", 16, "between"),
    }
    gate, groups, shuffle = table[kwargs.get("preset", "blog")]
    groups = kwargs.get("groups", groups)
    return {
        "gate": kwargs.get("gate", gate),
        "groups": groups,
        "shuffle": kwargs.get("shuffle", shuffle),
        "by": kwargs.get("shuffle_groups", groups),
        "pool": kwargs.get("pool", "none"),
    }


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_equals_the_formula(variant: str, dtype: torch.dtype, tol: float, train: bool) -> None:
    for size in SIZES:
        gam = randomised(GAM(size[1], **VARIANTS[variant]).to(dtype)).train(train)
        x = torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(1))
        want = reference(gam, x, **expected(VARIANTS[variant]))
        got = gam(x)
        torch.testing.assert_close(got, want, rtol=tol, atol=tol * float(want.detach().abs().max()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_equal_the_formulas(variant: str) -> None:
    gam = randomised(GAM(64, **VARIANTS[variant]).double())
    x = torch.randn(2, 64, 4, 5, dtype=torch.float64, requires_grad=True)
    inputs = [x, *gam.parameters()]
    weight = torch.randn(2, 64, 4, 5, dtype=torch.float64)
    got = torch.autograd.grad((gam(x) * weight).sum(), inputs)
    want = torch.autograd.grad((reference(gam, x, **expected(VARIANTS[variant])) * weight).sum(), inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()) + 1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradcheck(variant: str) -> None:
    kwargs = {**VARIANTS[variant]}
    if kwargs.get("preset", "").startswith("paper"):
        kwargs["reduction"] = 2
    if kwargs.get("preset") == "grouped":
        kwargs["groups"] = 4
    gam = randomised(GAM(8, **{"reduction": 2, **kwargs}).double().eval())
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gam, (x,), fast_mode=True)


@pytest.mark.parametrize("c", [64, 128, 256])
@pytest.mark.parametrize("r", [4, 16])
@pytest.mark.parametrize("g", [1, 4])
def test_counts_equal_the_formulas(c: int, r: int, g: int) -> None:
    m, h, w = c // r, 6, 10
    gam = GAM(c, r, groups=g)
    assert sum(p.numel() for p in gam.parameters()) == 2 * c * m + 98 * c * m // g + 4 * (c + m)
    with FlopCounterMode(display=False) as counter:
        gam(torch.rand(1, c, h, w))
    assert counter.get_total_flops() == 2 * h * w * (2 * c * m + 98 * c * m // g)


@pytest.mark.parametrize(
    ("preset", "r", "per_pixel"),
    [
        ("separable", 4, lambda c, m: 2 * c * m + 2 * c * m + 98 * m),
        ("strips", 8, lambda c, m: 2 * c * m + 14 * c * m + 14 * m * m),
        ("grouped", 4, lambda c, m: 2 * c * m + 98 * c * m // 16),
    ],
)
@pytest.mark.parametrize("c", [64, 128, 256])
def test_cheap_presets_cost_less_than_a_tenth(preset: str, r: int, per_pixel: Any, c: int) -> None:
    costs = []
    for name in (preset, "blog"):
        with FlopCounterMode(display=False) as counter:
            GAM(c, preset=name)(torch.rand(1, c, 6, 10))
        costs.append(counter.get_total_flops())
    assert costs[0] == 2 * 6 * 10 * per_pixel(c, c // r)
    assert costs[0] < costs[1] / 10
    assert sum(p.numel() for p in GAM(c, preset=preset).parameters()) == per_pixel(c, c // r) + 4 * (c + c // r)


def test_count_that_the_design_quotes() -> None:
    assert sum(p.numel() for p in GAM(256).parameters()) == 1_639_680


def test_ablation_switches_leave_one_branch() -> None:
    x = torch.rand(2, 64, 5, 5)
    channel, spatial = GAM(64, spatial=False), GAM(64, channel=False).eval()
    torch.testing.assert_close(channel(x), channel.channel(x) * x)  # type: ignore[misc]  # it is there
    torch.testing.assert_close(spatial(x), spatial.spatial(x) * x)  # type: ignore[misc]
    assert channel.spatial is None
    assert spatial.channel is None


@pytest.mark.parametrize("preset", PRESETS)
def test_identity_start_is_exact_and_learns(preset: str) -> None:
    torch.manual_seed(0)
    gam = GAM(64, preset=preset, start="identity")
    x = torch.randn(2, 64, 6, 6)
    assert torch.equal(gam(x), x)
    optimizer = torch.optim.SGD(gam.parameters(), lr=0.1)
    for _ in range(2):  # the gains move first, then, through them, the rest
        optimizer.zero_grad()
        gam(x).square().mean().backward()
        optimizer.step()
    conv = next(m for m in gam.modules() if isinstance(m, nn.Conv2d))
    assert conv.weight.grad is not None
    assert float(conv.weight.grad.abs().max()) > 0
    assert not torch.equal(gam(x), x)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_and_autocast(preset: str, dtype: torch.dtype) -> None:
    for start in ("default", "identity"):
        gam, x = GAM(64, preset=preset, start=start).eval(), torch.rand(1, 64, 5, 5)
        want = gam(x)
        with torch.autocast("cpu", dtype=dtype):
            mixed = gam(x)
        for got in (mixed, copy.deepcopy(gam).to(dtype)(x.to(dtype))):
            torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("preset", PRESETS)
def test_memory_format_is_kept_without_layout_changes(preset: str) -> None:
    gam = GAM(64, preset=preset).to(memory_format=torch.channels_last)
    x = torch.rand(2, 64, 6, 7).to(memory_format=torch.channels_last)
    assert gam(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(gam(x.contiguous()), gam(x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_fused_equals_unfused(variant: str) -> None:
    gam = randomised(GAM(64, **VARIANTS[variant]).double().eval())
    x = torch.rand(2, 64, 5, 6, dtype=torch.float64)
    want = gam(x)
    for m in gam.modules():
        if isinstance(m, ConvBN):
            m.fuse()
            m.fuse()  # a second call changes nothing
    assert not any(isinstance(m, nn.BatchNorm2d) for m in gam.modules())
    torch.testing.assert_close(gam(x), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_exports(variant: str, tmp_path: Any) -> None:
    gam = randomised(GAM(64, **VARIANTS[variant], start="identity").eval())
    x = torch.rand(2, 64, 8, 6)
    want = gam(x).detach()
    torch.testing.assert_close(torch.jit.trace(gam, x)(x), want)
    file = tmp_path / "gam.onnx"
    torch.onnx.export(gam, (x,), str(file), input_names=["x"], dynamo=False)
    (got,) = onnxruntime.InferenceSession(str(file)).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_exported_graph_has_only_what_the_formula_needs(variant: str, tmp_path: Any) -> None:
    gam = randomised(GAM(64, **VARIANTS[variant]).eval())
    for m in gam.modules():
        if isinstance(m, ConvBN):
            m.fuse()
    file = tmp_path / "gam.onnx"
    with torch.no_grad():
        torch.onnx.export(gam, (torch.rand(1, 64, 8, 6),), str(file), input_names=["x"], dynamo=False)
    nodes = Counter(node.op_type for node in onnx.load(str(file)).graph.node)
    for op in ("Constant", "Identity"):
        nodes.pop(op, None)
    spec = expected(VARIANTS[variant])
    kwargs = VARIANTS[variant]
    halves = 2 if kwargs.get("preset") in {"separable", "strips"} else 1
    want = Counter({"Conv": 2 + 2 * halves, "Relu": 2, "Mul": 2, "Sigmoid": 2 if spec["gate"] == "sigmoid" else 1})
    if spec["pool"] == "max":
        want["MaxPool"] = 1
    if spec["shuffle"] != "none":
        want["Gather"] = 1
    assert nodes == want


def test_fork_alias_builds_what_the_forks_build() -> None:
    """The forks' block spelt out: grouped by `rate`, and the spatial gate shuffled by 4 whether grouped or not."""
    for group, groups in ((512, 4), (False, 1)):
        gam = randomised(GAM_Attention(64, 64, group).double().eval())
        x = torch.randn(2, 64, 5, 6, dtype=torch.float64)
        torch.testing.assert_close(gam(x), reference(gam, x, "none", groups, "after", 4))
    assert "c2=128 (not used" in GAM_Attention.advice(64, 128, 512)
    assert "4 groups" in GAM_Attention.advice(64, 128, 512)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        (
            {"reduction": 65},
            "reduction is 65. Expected a whole number from 1 to 64, the channels of the block's input.",
        ),
        ({"reduction": 0}, "reduction is 0"),
        ({"reduction": 2.5}, "reduction is 2.5"),
        ({"reduction": True}, "reduction is True"),
        ({"groups": 3}, "groups 3 does not divide the 64 channels of the block's input. Write one of 1, 2, 4"),
        ({"groups": 32}, "groups 32 does not divide the 16 channels of the bottleneck"),
        ({"gate": "sigmoyd"}, "gate is 'sigmoyd'. Expected one of none, sigmoid. Did you mean 'sigmoid'?"),
        ({"preset": "papr"}, "Did you mean 'paper'?"),
        ({"start": "ident"}, "Did you mean 'identity'?"),
        ({"shuffle": "before"}, "shuffle is 'before'"),
        ({"pool": "avg"}, "pool is 'avg'"),
        ({"conv": "seperable"}, "Did you mean 'separable'?"),
        ({"conv": "strips", "groups": 2}, "conv is 'strips' and groups 2. Expected groups 1"),
        ({"channel": False, "spatial": False}, "channel and spatial are both off. Expected at least one branch."),
        ({"gain": 10}, "gain is 10 with start 'default'. Write start: zero or start: identity."),
        ({"start": "zero", "gain": 0}, "gain is 0. Expected a number above 0, such as 10."),
        ({"start": "zero", "gain": "10"}, "gain is '10'"),
        ({"residual": 64}, "residual is 64. Expected true or false."),
        ({"shuffle": "after", "shuffle_groups": 5}, "shuffle_groups 5 does not divide the 64 channels"),
    ],
)
def test_bad_arguments_are_reported_in_one_line(kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        GAM(64, **kwargs)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("preset", [name for name, chosen in PRESETS.items() if chosen["groups"] > 1])
def test_grouped_presets_infer_by_images_and_keep_the_memory_format(
    preset: str, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chunking.DEVICES, "cpu", 2 * 64 * 7 * 13 * 8)
    gam = randomised(GAM(64, preset=preset).double()).eval()
    seen: list[int] = []
    gam.spatial.register_forward_hook(lambda _, __, out: seen.append(len(out)))
    x = torch.randn(5, 64, 7, 13, dtype=torch.double).to(memory_format=memory_format)
    with torch.no_grad():
        out = gam(x)
        assert seen == [2, 2, 1]
        torch.testing.assert_close(out, GAM.forward.__wrapped__(gam, x))  # type: ignore[attr-defined]
        assert out.is_contiguous(memory_format=memory_format)
        assert gam(x[:0]).shape == (0, 64, 7, 13)
