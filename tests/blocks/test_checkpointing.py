"""The memory-saving training step against the plain one, and against what it promises to keep."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from gam_yolo.blocks import GAM, checkpointing, chunking
from gam_yolo.blocks.gam import PRESETS

VARIANTS: dict[str, dict[str, Any]] = {name: {"preset": name} for name in PRESETS} | {
    "channel": {"spatial": False},
    "spatial": {"channel": False},
    "identity": {"start": "identity", "gate": "sigmoid"},
    "max-pool": {"pool": "max"},
    "zero": {"start": "zero"},
    "zero, times ten": {"start": "zero", "gain": 10, "residual": True},
    "zero, two sigmoids": {"start": "zero", "gain": 3, "gate": "sigmoid"},
}


def both(
    gam: GAM, x: Tensor, monkeypatch: pytest.MonkeyPatch, autocast: bool = False
) -> list[tuple[Tensor, list[Tensor], list[Tensor]]]:
    """Return output, gradients and buffers after a step of the memory-saving and of the plain form."""
    results = []
    grad = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    for forced in (True, False):
        monkeypatch.setattr(checkpointing, "applies", lambda _, forced=forced: forced)
        block = copy.deepcopy(gam)
        trained = [x, *(p for p in block.parameters() if p.requires_grad)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = block(x)
        found = torch.autograd.grad((out * grad).sum(), trained)
        results.append((out.detach(), list(found), list(block.buffers())))
    return results


def assert_same(results: list[tuple[Tensor, list[Tensor], list[Tensor]]], tol: float) -> None:
    (out, grads, buffers), (plain_out, plain_grads, plain_buffers) = results
    torch.testing.assert_close(out, plain_out, rtol=tol, atol=tol)
    size = max(float(g.abs().max()) for g in plain_grads)  # a bias before a batch norm has no gradient but rounding
    for got, want in zip(grads, plain_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=tol, atol=tol * size)
    torch.testing.assert_close(buffers, plain_buffers)


@pytest.mark.parametrize("onednn", [True, False], ids=["onednn", "plain"])  # elsewhere maps keep their memory format
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_plain_form(
    variant: str, memory_format: torch.memory_format, train: bool, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With whole batches and with one or two images at a time, at odd sizes."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    for size, cache in (((5, 64, 7, 13), 1 << 20), ((5, 64, 7, 13), 2 * 64 * 7 * 13 * 8), ((1, 64, 1, 9), 1)):
        monkeypatch.setitem(chunking.DEVICES, "cpu", cache)
        gam = GAM(64, **VARIANTS[variant]).double().train(train)
        for p in gam.parameters():
            if not p.any():  # what starts at 0: the gains of `identity`, the last layers of `zero`
                torch.nn.init.normal_(p, std=0.1)
        x = torch.randn(size, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
        results = both(gam, x, monkeypatch)
        assert_same(results, 1e-10)
        assert results[0][0].is_contiguous(memory_format=memory_format)
        blends = gam.start.gain is not None or gam.start.residual  # x then has two gradients, added in torch's format
        if size[0] > 1 and not blends:
            assert results[0][1][0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", ["blog", "paper", "separable", "identity", "spatial"])
def test_equals_the_plain_form_under_autocast(
    variant: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setitem(chunking.DEVICES, "cpu", 1)
    gam = GAM(64, **VARIANTS[variant])
    results = both(gam, torch.randn(3, 64, 9, 8, dtype=dtype, requires_grad=True), monkeypatch, autocast=True)
    assert results[0][0].dtype == results[1][0].dtype
    assert_same(results, 0.03)


def test_equals_the_plain_form_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 64, 9, 8, dtype=torch.bfloat16, requires_grad=True)
    assert_same(both(GAM(64, preset="paper").bfloat16(), x, monkeypatch), 0.03)


def test_frozen_parts_get_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    gam = GAM(64).double()
    assert gam.channel is not None
    for name, p in gam.named_parameters():
        p.requires_grad_("channel.0" not in name and "spatial.2" not in name)
    assert_same(both(gam, torch.randn(2, 64, 5, 6, dtype=torch.float64, requires_grad=True), monkeypatch), 1e-10)
    monkeypatch.setattr(checkpointing, "applies", lambda _: True)
    gam(torch.randn(2, 64, 5, 6, dtype=torch.float64)).sum().backward()  # an input that needs no gradient
    assert gam.channel[0].weight.grad is None
    assert gam.channel[2].weight.grad is not None


def test_a_second_backward_pass_and_a_second_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "applies", lambda _: True)
    x = torch.randn(2, 64, 5, 6, requires_grad=True)
    loss = GAM(64)(x).square().sum()
    first = torch.autograd.grad(loss, x, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(loss, x, retain_graph=True)[0])
    (again,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        again.sum().backward()


@pytest.fixture(autouse=True)
def _saving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checkpointing.SWITCH, "1")


@pytest.mark.parametrize(("value", "saves"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_saves_memory_on_request_only(monkeypatch: pytest.MonkeyPatch, value: str | None, saves: bool) -> None:
    monkeypatch.delenv(checkpointing.SWITCH)
    if value is not None:
        monkeypatch.setenv(checkpointing.SWITCH, value)
    assert checkpointing.applies(torch.rand(2, 64, 5, 6)) is saves


def test_where_it_applies() -> None:
    x = torch.rand(2, 64, 5, 6)
    assert checkpointing.applies(x)
    assert checkpointing.applies(x.to(memory_format=torch.channels_last))
    assert not checkpointing.applies(x[:1])
    with torch.no_grad():
        assert not checkpointing.applies(x)


def test_keeps_two_maps_and_the_bottlenecks() -> None:
    """Between the passes there are the output, the last convolution's map and three of bottlenecks: no F2, no gate."""
    x = torch.randn(4, 64, 40, 40).to(memory_format=torch.channels_last).requires_grad_()
    gam = GAM(64).to(memory_format=torch.channels_last)
    gam(x)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        out = gam(x)
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    kept = sum(e.nbytes() for e in events)
    one = x.numel() * 4
    assert 2.75 * one <= kept < 2.8 * one
    assert out.grad_fn is not None


@pytest.mark.parametrize(
    ("memory_format", "share"), [(torch.contiguous_format, 0.51), (torch.channels_last, 0.48)], ids=["nchw", "nhwc"]
)
def test_a_step_takes_half_of_the_plain_ones_memory(
    memory_format: torch.memory_format, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the peak, output included: no more than the output, two maps and what they become, and the bottlenecks'."""
    x = torch.randn(8, 64, 80, 80).to(memory_format=memory_format).requires_grad_()
    gam = GAM(64).to(memory_format=memory_format)
    grad = torch.ones_like(x)

    def peak() -> int:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            out = gam(x)
            torch.autograd.grad(out, [x, *gam.parameters()], grad)
        events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
        events.sort(key=lambda e: e.start_ns())
        return max(itertools.accumulate(int(e.nbytes()) for e in events))

    saving_peak = peak()
    monkeypatch.setattr(checkpointing, "applies", lambda _: False)
    assert saving_peak < share * peak()


def test_a_map_that_a_hook_keeps_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "applies", lambda _: True)
    gam = GAM(64).double()
    assert gam.spatial is not None
    seen: list[Tensor] = []
    last: Any = gam.spatial[-2]
    handle = last.conv.register_forward_hook(lambda _, __, out: seen.extend((out, out.detach().clone())))
    x = torch.randn(2, 64, 5, 6, dtype=torch.float64, requires_grad=True)
    with_hook = torch.autograd.grad(gam(x).square().sum(), x)
    assert torch.equal(seen[0], seen[1])
    handle.remove()
    assert torch.equal(with_hook[0], torch.autograd.grad(gam(x).square().sum(), x)[0])
