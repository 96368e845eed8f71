"""Measure GAM's time and memory against its bare convolutions and the articles' code, as a block and inside YOLOv8n.

    python scripts/benchmark_gam.py --out docs/results/gam-speed-cpu.json              about 20 minutes on two cores
    python scripts/benchmark_gam.py --device 0 --out docs/results/gam-speed-gpu.json   about 8 minutes
    python scripts/benchmark_gam.py --quick                                            every part once, two minutes
    python scripts/benchmark_gam.py --show docs/results/gam-speed-cpu.json             its tables as Markdown

All candidates of a case take turns in one process, so that whatever else the machine does falls on all of them alike;
ratios are medians over the turns of the ratio within a turn. What the time does not suffice for is left out and listed.

- *limit*: a form's bare convolutions alone, with biases: those of its spatial branch, one after the other.
- *inference* is in evaluation mode with the batch norms folded; the articles' code keeps its own, as it does in a fused
  model. *training* is forward, and backward for the input and all parameters, with a given output gradient.
- On a GPU a step's time is the device's own (events; the queue is kept filled, so that launching costs nothing);
  `host_s` is what launching it took. Whole models are timed on the wall clock.
- *peak* is what a training step allocates at most above what was there before, *kept* what the forward pass leaves
  allocated for the backward pass, output included: torch's allocator on a GPU, every allocation of torch on a CPU (what
  oneDNN takes for itself is not among them).
- *floor*: the sum over the passes that no fusion can merge (MLP with its gate, each convolution, in training the last
  gate and each gradient) of the larger of FLOPs / measured FLOP/s and bytes / measured bytes/s, each map read and
  written once a pass. FLOP/s are a large matrix product's, bytes/s a large copy's, in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # an export says what it lacks; nothing is installed behind its back

import numpy as np
import torch
import ultralytics
from gam_speed import OURS, PLAIN, REFERENCE, Json, aims, markdown, ratio, tables, terminal, time_cell
from reference_gam import ReferenceGAM, carry, swap
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import get_flops

import gam_yolo
from gam_yolo.blocks import GAM
from gam_yolo.blocks.gam import PRESETS

try:
    from ultralytics.utils.nms import non_max_suppression
except ImportError:  # Ultralytics before 8.3.200
    from ultralytics.utils.ops import non_max_suppression

os.environ["KINETO_LOG_LEVEL"] = "99"  # the profiler reports its starts and stops even at the level Ultralytics sets

Step = Callable[[], object]

WIDTHS = {"n": (64, 128, 256), "s": (128, 256, 512), "m": (192, 384, 576)}
SIZES = {"P3": 80, "P4": 40, "P5": 20}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
EXISTING = ("blog", "paper", "paper-grouped", "forks")  # the other presets are the cheap ones
console = Console(width=None if sys.stdout.isatty() else 200)  # a log need not fit a terminal


def main() -> int:
    """Measure what was asked for, or show what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU")
    parser.add_argument("--part", choices=("blocks", "models", "all"), default="all")
    parser.add_argument("--out", type=Path, help="JSON to write; default runs/gam-speed-cpu.json or -gpu.json")
    parser.add_argument("--quick", action="store_true", help="n shapes, few repeats")
    parser.add_argument(
        "--budget", type=float, help="seconds for everything; default 1200 (CPU), 500 (GPU), 110 (quick)"
    )
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a result as Markdown and end")
    options = parser.parse_args()
    if options.show:
        print("\n".join(map(markdown, tables(json.loads(options.show.read_text(encoding="utf-8"))))))
        return 0
    device = torch.device("cpu" if options.device == "cpu" else f"cuda:{options.device}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            parser.error("--device is a GPU's number and torch finds none; expected cpu")
        torch.cuda.set_device(device)
    LOGGER.setLevel("ERROR")
    warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)  # TorchScript is measured while there is one
    budget = options.budget or (110.0 if options.quick else 500.0 if device.type == "cuda" else 1200.0)
    out = options.out or Path("runs") / f"gam-speed-{'gpu' if device.type == 'cuda' else 'cpu'}.json"
    bench = Bench(device, options.quick, budget, out)
    bench.results["arguments"] = {
        "device": options.device,
        "part": options.part,
        "quick": options.quick,
        "budget_s": budget,
    }
    bench.results["peaks"] = peaks(device, options.quick)
    bench.save()
    if options.part != "models":
        measure_blocks(bench, 0.6 * budget if options.part == "all" else budget)
    if options.part != "blocks":
        measure_models(bench, budget)
    bench.results["seconds"] = bench.elapsed()
    bench.save()
    for table in tables(bench.results):
        console.print(terminal(table))
    console.print(f"written to {out}")
    return 0


class Bench:
    """Where a run stands: its device, its time, and the results so far, on disk after every part.

    Args:
        device: What is measured.
        quick: Whether to measure less.
        budget: Seconds for everything.
        out: JSON file to write.
    """

    def __init__(self, device: torch.device, quick: bool, budget: float, out: Path) -> None:
        self.device, self.quick, self.out = device, quick, out
        self.started = time.perf_counter()
        gpu = device.type == "cuda"
        usual = 110 if quick else 500 if gpu else 1200
        self.seconds = (0.05 if gpu and quick else 0.1 if gpu or quick else 0.6) * budget / usual  # for a measurement
        self.least = 3 if quick else 5
        self.results: Json = {
            "machine": machine(device),
            "versions": versions(),
            "blocks": [],
            "models": {},
            "left_out": [],
        }

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self.started

    def leave_out(self, what: str, why: str) -> None:
        """Note what is not in the results and why."""
        console.print(f"{what}: left out, {why}", style="yellow", markup=False)
        self.results["left_out"].append({"what": what, "why": why})

    def save(self) -> None:
        """Write the results and the aims that they let judge."""
        self.results["aims"] = aims(self.results)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        new = self.out.with_suffix(".part")
        short = json.loads(json.dumps(self.results), parse_float=lambda text: float(f"{float(text):.5g}"))
        new.write_text(json.dumps(short, indent=1) + "\n", encoding="utf-8")
        new.replace(self.out)

    def interleaved(
        self, steps: dict[str, Step], events: bool = False
    ) -> tuple[dict[str, Json], dict[str, list[float]]]:
        """Time steps in turns.

        Args:
            steps: What to time; one that fails in its warm-up is reported and dropped.
            events: Whether to take the device's own time.

        Returns:
            The figures of each step, in seconds, and its times, one a turn.
        """
        figures: dict[str, Json] = {}
        cycles: dict[str, int] = {}
        for name, step in steps.items():
            try:
                for _ in range(3 if self.device.type == "cuda" else 2):
                    sync(self.device)
                    start = time.perf_counter()
                    step()
                    cycles[name] = int(3e9 * (time.perf_counter() - start))  # longer than a launch at any GPU's clock
                sync(self.device)
            except Exception as error:  # one candidate that cannot run must not cost the others
                figures[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        ready = [name for name in steps if name not in figures]
        times: dict[str, list[float]] = {name: [] for name in ready}
        hosts: dict[str, list[float]] = {name: [] for name in ready}
        start = time.perf_counter()
        turn = 0
        while ready and (turn < self.least or time.perf_counter() - start < self.seconds * len(ready)):
            first = turn % len(ready)
            for name in ready[first:] + ready[:first]:
                timed = device_time(steps[name], cycles[name]) if events else wall_time(steps[name], self.device)
                times[name].append(timed[0])
                hosts[name].append(timed[1])
            turn += 1
        for name in ready:
            low, median, high = statistics.quantiles(times[name], n=4, method="inclusive")
            figures[name] = {"median_s": median, "q1_s": low, "q3_s": high, "runs": turn}
            if events:
                figures[name]["host_s"] = statistics.median(hosts[name])
        return figures, times


def wall_time(step: Step, device: torch.device) -> tuple[float, float]:
    """Return the seconds that a step takes, twice."""
    sync(device)
    start = time.perf_counter()
    step()
    sync(device)
    seconds = time.perf_counter() - start
    return seconds, seconds


def device_time(step: Step, cycles: int) -> tuple[float, float]:
    """Return the seconds that a step takes on the GPU and the seconds that launching it takes on the host.

    The GPU is kept waiting for `cycles` first, so that the whole step is in its queue before it begins.
    """
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(cycles)
    start.record()
    begun = time.perf_counter()
    step()
    host = time.perf_counter() - begun
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3, host


def sync(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def over(times: dict[str, list[float]], name: str, base: str) -> float | None:
    """Return the median over the turns of one step's time over another's, None where one was not measured."""
    if name not in times or base not in times:
        return None
    return statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))


def machine(device: torch.device) -> Json:
    """Return what the figures were taken on."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):  # Linux alone has the file
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "system": platform.platform(),
        "cpu": cpu,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
    }


def versions() -> dict[str, str | None]:
    """Return the versions of what takes part, None where it is not installed."""
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ultralytics": ultralytics.__version__,
        "gam_yolo": gam_yolo.__version__,
    }
    for name in ("onnx", "onnxruntime", "openvino", "triton"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def peaks(device: torch.device, quick: bool) -> Json:
    """Measure the device: bytes/s of a large copy, read and write counted, and FLOP/s of a large matrix product."""

    def best(step: Step, flush: float = 0.3 if quick else 1.0) -> float:
        shortest, until = float("inf"), time.perf_counter() + flush
        while time.perf_counter() < until or shortest == float("inf"):
            shortest = min(shortest, wall_time(step, device)[0])
        return shortest

    gpu = device.type == "cuda"
    source = torch.ones(2**31 if gpu else 2**26, dtype=torch.uint8, device=device).view(torch.float32)
    target = torch.empty_like(source)
    target.copy_(source)
    result: Json = {"bytes_per_s": 2 * source.nbytes / best(lambda: target.copy_(source)), "flops_per_s": {}}
    n = 8192 if gpu else 1024
    dtypes = (torch.float32, torch.bfloat16, torch.float16) if gpu else (torch.float32, torch.bfloat16)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if gpu else before)  # cuDNN convolves float32 in TF32 by default
    for dtype in dtypes:
        a = torch.randn(n, n, device=device, dtype=dtype)
        torch.mm(a, a)
        result["flops_per_s"][str(dtype).removeprefix("torch.")] = 2 * n**3 / best(lambda a=a: torch.mm(a, a))  # type: ignore[misc]
    torch.set_float32_matmul_precision(before)
    return result


# Blocks --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What a block is measured on.

    Attributes:
        scale: Of YOLOv8, which gives the channels.
        level: Of the pyramid, which gives the size at 640 px.
        batch: Images.
        dtype: `float32`, `bfloat16` (weights and maps), or `amp` (autocast: float16 on a GPU, bfloat16 on a CPU).
        memory_format: Of weights and maps.
        mode: `inference` or `training`.
        compared: `all` presets, `blog` alone, or blog `compiled` too; always with the articles' code and the limits.
    """

    scale: str
    level: str
    batch: int
    dtype: str
    memory_format: str
    mode: str
    compared: str

    @property
    def channels(self) -> int:
        """Channels of the map."""
        return WIDTHS[self.scale][list(SIZES).index(self.level)]

    @property
    def size(self) -> int:
        """Height and width of the map."""
        return SIZES[self.level]

    def __str__(self) -> str:
        shape = f"{self.batch}x{self.channels}x{self.size}x{self.size}"
        return f"{self.scale} {self.level} {shape} {self.dtype} {self.memory_format} {self.mode}"


def cases(gpu: bool, quick: bool) -> Iterator[Case]:
    """Yield the cases, what the aims need first."""

    def product(
        scales: str, batches: Iterable[int], dtypes: str, formats: str, which: str, levels: str
    ) -> Iterator[Case]:
        for dtype, memory, batch, scale, level, mode in itertools.product(
            dtypes.split(), formats.split(), batches, scales, levels.split(), ("inference", "training")
        ):
            yield Case(scale, level, batch, dtype, memory, mode, which)

    every, both = "P3 P4 P5", "contiguous channels_last"
    if quick:
        batch = 16 if gpu else 8
        dtype = "bfloat16" if gpu else "float32"
        yield from product("n", [batch], dtype, "contiguous", "all", "P4")
        yield from product("n", [batch], dtype, "contiguous", "blog", "P3 P5")
        yield from product("n", [1], "float32 bfloat16 amp", both, "blog", "P5")
        if gpu:
            yield from product("n", [batch], "bfloat16", "channels_last", "compiled", "P4")
    elif gpu:
        yield from product("ns", [16], "bfloat16", both, "all", every)
        yield from product("ns", [1, 64], "bfloat16", both, "blog", every)
        yield from product("ns", [1, 16, 64], "amp float32", both, "blog", every)
        yield from product("n", [16], "bfloat16", "channels_last", "compiled", "P3 P5")
        yield from product("m", [16, 1, 64], "bfloat16 amp float32", "channels_last", "blog", every)
        yield from product("n", [16], "amp", "channels_last", "compiled", every)
        yield from product("n", [16], "amp float32", "contiguous", "all", every)
        yield from product("s", [16], "bfloat16", "channels_last", "compiled", every)
    else:
        yield from product("ns", [8, 1], "float32", "contiguous", "all", every)
        yield from product("ns", [8, 1], "float32", "channels_last", "blog", every)
        yield from product("n", [8, 1], "amp bfloat16", "contiguous", "all", every)
        yield from product("m", [1], "float32", "contiguous", "blog", every)
        yield from product("n", [8], "amp bfloat16", "channels_last", "blog", every)
        yield from product("s", [8], "amp bfloat16", "contiguous", "blog", every)
        yield from product("m", [8], "float32", "contiguous", "blog", every)
        yield from product("m", [8], "amp bfloat16", "contiguous", "blog", every)


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
    if bench.device.type == "cuda" and case.mode == "inference" and case.dtype != "amp":
        name = "blog, fused gate"
        modules[name] = FusedGate(copy.deepcopy(modules["blog"]))
        limits[name], arithmetic[name] = limits["blog"], arithmetic["blog"]
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


class FusedGate(nn.Module):
    """GAM in inference with its channel gate as one kernel, see `fused_gate.py`."""

    def __init__(self, gam: nn.Module) -> None:
        super().__init__()
        self.gam = gam

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended feature map."""
        from fused_gate import fused_gate  # Triton is not everywhere

        f2 = fused_gate(x, self.gam.channel)
        return self.gam.spatial(f2).mul_(f2)


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
            carry(gam, modules["reference"])
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


def peak_bytes(step: Step, device: torch.device) -> int:
    """Return the bytes that a step takes at most above what was there before it."""
    if device.type == "cpu":
        return max(allocations(step), default=0)
    sync(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return torch.cuda.max_memory_allocated(device) - before


def kept_bytes(forward: Step, device: torch.device) -> int:
    """Return the bytes that a forward pass leaves allocated while its output is held."""
    if device.type == "cpu":
        return [0, *allocations(forward)][-1]
    before = torch.cuda.memory_allocated(device)
    out = forward()
    kept = torch.cuda.memory_allocated(device) - before
    del out
    return kept


def allocations(step: Step) -> list[int]:
    """Return the bytes that torch holds on the CPU above what it held before, after each allocation and release.

    The step's result is still held at the end.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = step()
    del result
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    memory = [event for event in events if event["name"] == "[memory]" and event["args"]["Device Type"] == 0]
    return list(itertools.accumulate(event["args"]["Bytes"] for event in sorted(memory, key=lambda event: event["ts"])))


def passes(convolutions: list[nn.Conv2d], hidden: int, case: Case) -> list[tuple[int, int]]:
    """Return FLOPs and bytes of each pass over the maps that no fusion can merge with the next.

    Args:
        convolutions: One after the other.
        hidden: Hidden channels of the MLP before them, whose gates come with it; 0 for bare convolutions.
        case: Shape, precision and mode.
    """
    pixels = case.batch * case.size**2
    width = 4 if case.dtype == "float32" else 2
    c = case.channels
    done: list[tuple[int, int]] = []

    def add(macs: int, values: int, weights: int = 0) -> None:
        done.append((2 * macs * pixels, width * (values * pixels + weights)))

    training = case.mode == "training"
    if hidden:
        add(2 * c * hidden, 2 * c, 2 * c * hidden)
    for conv in convolutions:
        weights = conv.weight.numel()
        fused = hidden and not training and conv is convolutions[-1]  # with the gate, which reads the map again
        add(weights, conv.in_channels + conv.out_channels + (c if fused else 0), weights)
    if not training:
        return done
    if hidden:
        add(0, 3 * c)  # the batch norm needs the whole map before the gate can be: read both, write the product
        add(0, 5 * c)  # its gradient: read both and the gradient, write both gradients
    for conv in convolutions:
        weights = conv.weight.numel()
        add(weights, conv.in_channels + conv.out_channels, weights)  # for the input
        add(weights, conv.in_channels + conv.out_channels, weights)  # for the weights
    if hidden:
        add(4 * c * hidden, 3 * c, 4 * c * hidden)
    return done


def rate_of(case: Case, device: torch.device) -> str:
    """Return the precision whose FLOP/s bound a case."""
    return case.dtype if case.dtype != "amp" else "float16" if device.type == "cuda" else "bfloat16"


def floor(work: list[tuple[int, int]], measured: Json, dtype: str) -> float:
    """Return the seconds that passes need at least, given the measured peaks of the device."""
    return sum(max(f / measured["flops_per_s"][dtype], b / measured["bytes_per_s"]) for f, b in work)


# Whole models --------------------------------------------------------------------------------------------------------


def detectors() -> dict[str, DetectionModel]:
    """Build the detectors that are compared; the two forms of GAM have the same weights."""
    torch.manual_seed(0)
    rows = {
        PLAIN: yaml_model_load("yolov8n.yaml"),
        "YOLOv8n-CBAM": yaml_model_load("yolov8n-cbam.yaml"),
        OURS: yaml_model_load("yolov8n-gam.yaml"),
    }
    for preset in [preset for preset in PRESETS if preset not in EXISTING]:
        rows[f"YOLOv8n-GAM {preset}"] = yaml = yaml_model_load("yolov8n-gam.yaml")
        for row in yaml["head"]:
            if row[2] == "GAM":
                row[3] = [{"preset": preset}]
    models = {name: DetectionModel(yaml, verbose=False) for name, yaml in rows.items()}
    models[REFERENCE] = copy.deepcopy(models[OURS])
    swap(models[REFERENCE])
    for model in models.values():
        model.args = get_cfg()  # the loss reads its gains there
    return models


def measure_models(bench: Bench, until: float) -> None:
    """Measure the detectors into `results["models"]`: counts, training, validation, latency."""
    imgsz = 320 if bench.quick else 640
    gpu = bench.device.type == "cuda"
    models = detectors()
    out = bench.results["models"] = {
        "counts": {name: counts(model) for name, model in models.items()},
        "train": [],
        "val": [],
        "latency": [],
    }
    bench.save()
    batches = ([16] if bench.quick else [16, 64]) if gpu else [8]
    for batch in batches:
        steps = {
            name: training_step(model.to(bench.device), batch, imgsz, bench.device) for name, model in models.items()
        }
        figures = model_figures(bench, steps, batch)
        for name in [name for name in figures if "error" not in figures[name]]:
            figures[name]["peak_bytes"] = peak_bytes(steps[name], bench.device)
        out["train"].append({"batch": batch, "imgsz": imgsz, "dtype": "amp" if gpu else "float32", "models": figures})
        bench.save()
        console.print(f"{bench.elapsed():5.0f} s  training at batch {batch} measured")
        for model in models.values():
            model.zero_grad(set_to_none=True)
        del steps
    fused = {name: copy.deepcopy(model).eval().fuse(verbose=False) for name, model in models.items()}
    for batch in batches:
        steps = {name: validation_step(model, batch, imgsz, bench.device) for name, model in fused.items()}
        figures = model_figures(bench, steps, batch)
        out["val"].append({"batch": batch, "imgsz": imgsz, "dtype": "float16" if gpu else "float32", "models": figures})
        bench.save()
        console.print(f"{bench.elapsed():5.0f} s  validation at batch {batch} measured")
    measure_latency(bench, models, imgsz, until)


def counts(model: DetectionModel) -> Json:
    """Return parameters and, at 640 px, GFLOPs by Ultralytics' count (None without thop) and by torch's own."""
    model = copy.deepcopy(model).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 640, 640))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflops": get_flops(model, 640) or None,
        "gflops_torch": counter.get_total_flops() / 1e9,
    }


def model_figures(bench: Bench, steps: dict[str, Step], batch: int) -> dict[str, Json]:
    """Return the times of whole models on the wall clock, images/s, and the ratio to the plain detector."""
    figures, times = bench.interleaved(steps)
    for name, figure in figures.items():
        if "error" in figure:
            bench.leave_out(name, figure["error"])
        else:
            figure |= {"images_per_s": batch / figure["median_s"], "over_plain": over(times, name, PLAIN)}
            figure["over_reference"] = over(times, name, REFERENCE)
    return figures


def training_step(model: DetectionModel, batch: int, imgsz: int, device: torch.device) -> Step:
    """Return a step of training as Ultralytics' trainer takes it: loss, backward, clipped gradient, SGD.

    On a GPU with AMP and channels-last, the trainer's defaults there; 7 objects an image, COCO's mean.
    """
    gpu = device.type == "cuda"
    model = model.train().to(memory_format=torch.channels_last if gpu else torch.contiguous_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.937, nesterov=True)
    scaler = torch.amp.GradScaler(device.type, enabled=gpu)
    generator = torch.Generator().manual_seed(0)
    objects = 7 * batch
    data = {
        "img": torch.rand(batch, 3, imgsz, imgsz, generator=generator),
        "batch_idx": torch.arange(batch).repeat_interleave(7).float(),
        "cls": torch.randint(80, (objects, 1), generator=generator).float(),
        "bboxes": 0.1 + 0.4 * torch.rand(objects, 4, generator=generator),
    }
    data = {key: value.to(device) for key, value in data.items()}

    def step() -> None:
        with torch.autocast(device.type, enabled=gpu):
            loss = torch.as_tensor(model(data)[0]).sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def validation_step(model: DetectionModel, batch: int, imgsz: int, device: torch.device) -> Step:
    """Return the forward pass of a fused model and the suppression of 300 boxes an image.

    The boxes are made up and the same for all models: an untrained detector finds none to suppress. On a GPU in half
    precision, as the trainer validates.
    """
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    model = model.to(device, dtype).to(memory_format=torch.contiguous_format)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, imgsz, imgsz, generator=generator).to(device, dtype)
    anchors = sum((imgsz // stride) ** 2 for stride in (8, 16, 32))
    boxes = torch.zeros(batch, 84, anchors)
    boxes[:, :4] = 10 + (imgsz / 2) * torch.rand(batch, 4, anchors, generator=generator)
    places = torch.randperm(anchors, generator=generator)[:300]
    boxes[:, 4 + torch.randint(80, (300,), generator=generator), places] = torch.rand(batch, 300, generator=generator)
    boxes = boxes.to(device)

    def step() -> object:
        with torch.inference_mode():
            model(image)
            return non_max_suppression(boxes.clone(), 0.001, 0.7, multi_label=True)

    return step


def measure_latency(bench: Bench, models: dict[str, DetectionModel], imgsz: int, until: float) -> None:
    """Measure one image through each model, fused, in torch and in every runtime that is here."""
    image = torch.rand(1, 3, imgsz, imgsz, device=bench.device)
    if bench.quick:  # an export takes some ten seconds
        models = {name: model for name, model in models.items() if name in (PLAIN, REFERENCE, OURS)}
    steps: dict[str, dict[str, Step]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for form, load in RUNTIMES.items():
            if why := lacking(form, bench.device):
                bench.leave_out(f"latency in {form}", why)
                continue
            for name, model in models.items():
                if form != "torch" and bench.elapsed() > until:
                    bench.leave_out(f"latency of {name} in {form}", "no time left")
                    continue
                try:
                    steps.setdefault(form, {})[name] = load(
                        model, image, Path(folder) / "".join(filter(str.isalnum, name))
                    )
                except Exception as error:  # a runtime that refuses a model is a result; the others go on
                    bench.leave_out(f"latency of {name} in {form}", f"{type(error).__name__}: {error}".splitlines()[0])
            console.print(f"{bench.elapsed():5.0f} s  {form} ready")
        for form, mine in steps.items():
            figures = model_figures(bench, mine, 1)
            bench.results["models"]["latency"].append(
                {"runtime": form, "batch": 1, "imgsz": imgsz, "dtype": "float32", "models": figures}
            )
            bench.save()


def lacking(form: str, device: torch.device) -> str | None:
    """Return why latency cannot be measured in a runtime, None where it can."""
    needs = {"onnxruntime": ("onnx", "onnxruntime"), "openvino": ("openvino",)}.get(form, ())
    if missing := [name for name in needs if importlib.util.find_spec(name) is None]:
        return f"no {' and '.join(missing)} installed"
    if device.type == "cuda" and form == "openvino":
        return "OpenVINO does not run on this GPU"
    if device.type == "cuda" and form == "onnxruntime":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return "the installed ONNX Runtime has no CUDA provider"
    return None


def exported(model: DetectionModel, image: Tensor, path: Path, form: str) -> str:
    """Export a model into the folder of `path` and return the file's name."""
    yolo = YOLO("yolov8n.yaml", verbose=False)
    model = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format)
    model.args, model.task = yolo.model.args, yolo.task
    model.pt_path = str(path.with_suffix(".pt"))  # what an export is named after
    yolo.model = model
    device = "cpu" if image.device.type == "cpu" else image.device.index
    return str(yolo.export(format=form, imgsz=image.shape[-1], device=device, verbose=False))


def in_torch(model: DetectionModel, image: Tensor, _: Path) -> Step:
    """Return the forward pass of the fused model."""
    fused = copy.deepcopy(model).to(image.device, memory_format=torch.contiguous_format).eval().fuse(verbose=False)
    return torch.inference_mode()(lambda: fused(image))


def in_torchscript(model: DetectionModel, image: Tensor, path: Path) -> Step:
    """Return the forward pass of the exported script."""
    script = torch.jit.load(exported(model, image, path, "torchscript"), map_location=image.device)
    return torch.inference_mode()(lambda: script(image))


def in_onnxruntime(model: DetectionModel, image: Tensor, path: Path) -> Step:
    """Return a run of the exported graph in ONNX Runtime, with as many threads as torch has."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    provider = "CPUExecutionProvider" if image.device.type == "cpu" else "CUDAExecutionProvider"
    session = onnxruntime.InferenceSession(exported(model, image, path, "onnx"), settings, providers=[provider])
    feed = {session.get_inputs()[0].name: image.cpu().numpy()}
    return lambda: session.run(None, feed)


def in_openvino(model: DetectionModel, image: Tensor, path: Path) -> Step:
    """Return a run of the exported graph in OpenVINO, with as many threads as torch has and in float32.

    Left to itself, OpenVINO takes bfloat16 on a CPU that has it, which none of the others does.
    """
    import openvino

    xml = next(Path(exported(model, image, path, "openvino")).glob("*.xml"))
    threads = torch.get_num_threads()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(xml), "CPU", settings).create_infer_request()
    array = np.ascontiguousarray(image.numpy())
    return lambda: request.infer([array])


RUNTIMES: dict[str, Callable[[DetectionModel, Tensor, Path], Step]] = {
    "torch": in_torch,
    "torchscript": in_torchscript,
    "onnxruntime": in_onnxruntime,
    "openvino": in_openvino,
}


if __name__ == "__main__":
    sys.exit(main())
