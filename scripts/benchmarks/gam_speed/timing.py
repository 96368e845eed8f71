"""Steps timed in turns, on a CPU or by a GPU's own clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

__all__ = ["Step", "device_time", "over", "sync", "wall_time"]

Step = Callable[[], object]


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
