"""Measure GAM's training step in both forms, plain and memory-saving, against the articles' code.

    python scripts/benchmarks/benchmark_training_step.py --out docs/results/training-step-avx512.json
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
        python scripts/benchmarks/benchmark_training_step.py --out docs/results/training-step-avx2.json
    python scripts/benchmarks/benchmark_training_step.py --device 0 --out docs/results/training-step-gpu.json

The second command restricts torch and oneDNN to AVX2 on a CPU that has more. The figures are processor time, user and
system, of forward and backward. The three candidates alternate in one process, so other load falls on all of them
alike. On a GPU they are the device's own time, with float16 (AMP) and float32 maps, and peak memory is counted too. A
ratio is the median of the ratios within one turn; above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gam_speed.blocks import block_steps
from gam_speed.cases import Case
from gam_speed.environment import machine, versions
from gam_speed.memory import peak_bytes
from gam_speed.reference import ReferenceGAM, copy_state
from gam_speed.results import Json
from gam_speed.timing import device_time

from gam_yolo.blocks import GAM, checkpointing

FORMS = {"plain": "0", "memory-saving": "1"}
"""The two forms, and the value of the environment variable that asks for each."""


def main() -> int:
    """Measure every case and write the result after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU")
    parser.add_argument("--threads", type=int, default=1, help="more than one also count the time in which they wait")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cpu" if options.device == "cpu" else f"cuda:{options.device}")
    results: Json = {"machine": machine(device), "versions": versions(), "turns": options.turns}
    results["default"] = "memory-saving" if checkpointing.applies(torch.empty(2, 1, 1, 1, device=device)) else "plain"
    results["cases"] = []
    for case in cases(device):
        record = measure(case, options.turns, device)
        results["cases"].append(record)
        print(case, {key: record[key] for key in ("seconds", "speed-up")}, flush=True)
        options.out.write_text(json.dumps(results, separators=(",", ":")) + "\n", encoding="utf-8")
    return 0


def cases(device: torch.device) -> list[Case]:
    """Return the training steps to measure on a device."""
    gpu = device.type == "cuda"
    return [
        Case(scale, level, batch, dtype, memory, "training", "blog")
        for dtype in (("amp", "float32") if gpu else ("float32",))
        for memory in (("channels_last",) if gpu else ("contiguous", "channels_last"))
        for batch in ((16, 64) if gpu else (8,))
        for scale in "ns"
        for level in ("P3", "P4", "P5")
    ]


def measure(case: Case, turns: int, device: torch.device) -> Json:
    """Return each candidate's median time, on a GPU its peak memory, and how much faster ours is than the articles'."""
    torch.manual_seed(0)
    gam, reference = GAM(case.channels), ReferenceGAM(case.channels)
    copy_state(gam, reference)
    ours, _ = block_steps(gam, case, device)
    theirs, _ = block_steps(reference, case, device)
    steps: dict[str, Callable[[], object]] = {"articles' code": theirs, **dict.fromkeys(FORMS, ours)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    peaks: dict[str, int] = {}
    for turn in range(-1, turns):  # the first one warms up
        for name in list(steps)[turn % 3 :] + list(steps)[: turn % 3]:
            os.environ[checkpointing.SWITCH] = FORMS.get(name, "")
            if turn >= 0:
                times[name].append(seconds(steps[name], device))
            elif device.type == "cuda":
                peaks[name] = peak_bytes(steps[name], device)
            else:
                steps[name]()
    base = times["articles' code"]
    return {
        "scale": case.scale,
        "level": case.level,
        "dtype": case.dtype,
        "shape": [case.batch, case.channels, case.size, case.size],
        "memory_format": case.memory_format,
        "seconds": {name: float(f"{statistics.median(t):.4g}") for name, t in times.items()},
        "speed-up": {
            form: round(statistics.median(a / b for a, b in zip(base, times[form], strict=True)), 3) for form in FORMS
        },
        **({"peak_bytes": peaks} if peaks else {}),
    }


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """Return the processor time of a step, or the GPU's own time."""
    if device.type == "cuda":
        return device_time(step, cycles=20_000_000)[0]  # about 10 ms, in which the whole step is launched
    start = time.process_time()
    step()
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
