"""Blocks against their bare convolutions and the articles' code."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor, nn

from gam_speed.bench import Bench, console
from gam_speed.cases import Case, cases
from gam_speed.floor import floor, passes, rate_of
from gam_speed.memory import kept_bytes, peak_bytes
from gam_speed.reference import ReferenceGAM, copy_state
from gam_speed.results import Json
from gam_speed.tables import ratio, time_cell
from gam_speed.timing import Step, over
from gam_yolo.blocks import GAM
from gam_yolo.blocks.gam import PRESETS

__all__ = ["candidates", "measure_blocks"]

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def measure_blocks(bench: Bench, until: float) -> None:
    """Measure case after case into `results["blocks"]` until the seconds are over."""
    for case in cases(bench.device.type == "cuda", bench.quick):
        if bench.elapsed() > until:
            bench.leave_out(str(case), "no time left")
            continue
        record = measure_block(bench, case)
        bench.results["blocks"].append(record)
        bench.save()
        figures = record["candidates"]["blog"]
        times = ", ".join(
            f"{ratio(figures.get(key))} {key.replace('_', ' ')}" for key in ("over_limit", "over_reference")
        )
        console.print(f"{bench.elapsed():5.0f} s  {case}: blog {time_cell(figures)} ms, {times}")


def measure_block(bench: Bench, case: Case) -> Json:
    """Return a case with the figures of all its candidates."""
    torch.manual_seed(0)
    modules, limits, arithmetic = candidates(case)
    work = {name: passes(*arithmetic[name], case) for name in modules}
    steps: dict[str, Step] = {}
    forwards: dict[str, Step] = {}
    for name, module in modules.items():
        steps[name], forwards[name] = block_steps(module, case, bench.device)
    if case.compared == "compiled":
        torch.compiler.reset()  # else the shapes of an earlier case count as changing ones
        for name in list(modules):
            compiled = f"{name}, compiled"
            limits[compiled], work[compiled] = limits[name], work[name]
            steps[compiled], forwards[compiled] = block_steps(modules[name], case, bench.device, compiled=True)
    figures, times = bench.interleaved(steps, events=bench.device.type == "cuda")
    for name, figure in figures.items():
        if "error" in figure:
            bench.leave_out(f"{case}: {name}", figure["error"])
            continue
        flops, moved = sum(f for f, _ in work[name]), sum(b for _, b in work[name])
        figure |= {
            "limit": limits[name],
            "over_limit": over(times, name, limits[name]),
            "over_reference": over(times, name, "reference"),
            "flops": flops,
            "bytes": moved,
            "floor_s": floor(work[name], bench.results["peaks"], rate_of(case, bench.device)),
        }
        if case.mode == "training":
            figure["peak_bytes"] = peak_bytes(steps[name], bench.device)
            figure["kept_bytes"] = kept_bytes(forwards[name], bench.device)
    return asdict(case) | {"channels": case.channels, "size": case.size, "candidates": figures}


def candidates(case: Case) -> tuple[dict[str, nn.Module], dict[str, str], dict[str, tuple[list[nn.Conv2d], int]]]:
    """Build what a case compares.

    Returns:
        The modules by name, the name of each one's limit, and each one's convolutions and hidden channels of its MLP
        (0 where it has none).
    """
    modules: dict[str, nn.Module] = {}
    limits: dict[str, str] = {}
    arithmetic: dict[str, tuple[list[nn.Conv2d], int]] = {}
    names: dict[str, str] = {}
    for preset in PRESETS if case.compared == "all" else ["blog"]:
        gam = GAM(case.channels, preset=preset)
        convolutions = conv_layers(gam.spatial)
        name = names.setdefault(str(convolutions), f"limit of {preset}")
        if name not in modules:
            bare = copy.deepcopy(convolutions)
            for m in bare:
                m.bias = nn.Parameter(torch.zeros(m.out_channels))
            modules[name], arithmetic[name], limits[name] = nn.Sequential(*bare), (bare, 0), name
        modules[preset], arithmetic[preset] = gam, (convolutions, conv_layers(gam.channel)[0].out_channels)
        limits[preset] = name
        if preset == "blog":
            modules["reference"] = ReferenceGAM(case.channels)
            copy_state(gam, modules["reference"])
            arithmetic["reference"], limits["reference"] = arithmetic[preset], name
    return modules, limits, arithmetic


def conv_layers(module: nn.Module | None) -> list[nn.Conv2d]:
    """Return a branch's convolutions in their order."""
    return [] if module is None else [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def block_steps(module: nn.Module, case: Case, device: torch.device, compiled: bool = False) -> tuple[Step, Step]:
    """Return the step of a case on a module, and its forward pass alone."""
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    amp = case.dtype == "amp"
    memory = FORMATS[case.memory_format]
    module = module.to(device, getattr(torch, "float32" if amp else case.dtype)).to(memory_format=memory)
    x = torch.randn(case.batch, case.channels, case.size, case.size, device=device)
    # Inside a network under autocast, the map comes from a convolution and so in half precision.
    x = x.to(half if amp else getattr(torch, case.dtype)).to(memory_format=memory)
    training = case.mode == "training"
    module.train(training)
    if not training:
        fold(module)
    ready: Callable[[Tensor], Tensor] = torch.compile(module, dynamic=False) if compiled else module

    def forward() -> Tensor:
        with torch.autocast(device.type, half, enabled=amp):
            return ready(x)

    def inference() -> Tensor:
        with torch.inference_mode():
            return forward()

    if not training:
        return inference, inference
    inputs = [x.requires_grad_(), *module.parameters()]
    gradient: list[Tensor] = []

    def step() -> tuple[Tensor, ...]:
        out = forward()
        if not gradient:
            gradient.append(torch.randn_like(out))
        return torch.autograd.grad(out, inputs, gradient[0])

    return step, forward


def fold(module: nn.Module) -> None:
    """Fold the batch norms that can be, as `model.fuse()` does."""
    for child in list(module.modules()):
        if callable(getattr(child, "fuse", None)):
            child.fuse()
