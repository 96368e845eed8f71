"""What a step allocates: by torch's allocator on a GPU, by every allocation of torch on a CPU."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from pathlib import Path

import torch

from gam_speed.timing import Step, sync

__all__ = ["allocations", "kept_bytes", "peak_bytes"]

os.environ["KINETO_LOG_LEVEL"] = "99"  # the profiler reports its starts and stops even at the level Ultralytics sets


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
