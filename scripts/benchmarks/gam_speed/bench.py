"""How far a run of the benchmark is."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from gam_speed.aims import aims
from gam_speed.environment import machine, versions
from gam_speed.results import Json
from gam_speed.timing import Step, device_time, sync, wall_time

__all__ = ["Bench", "console"]

console = Console(width=None if sys.stdout.isatty() else 200)  # a log need not fit a terminal


class Bench:
    """How far a run is: its device, its time, and the results so far, on disk after every part.

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
        self.seconds = (0.05 if gpu and quick else 0.1 if gpu or quick else 0.4) * budget / usual  # for a measurement
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
        new.write_text(json.dumps(short, separators=(",", ":")) + "\n", encoding="utf-8")
        new.replace(self.out)

    def interleaved(
        self, steps: dict[str, Step], events: bool = False
    ) -> tuple[dict[str, Json], dict[str, list[float]]]:
        """Time steps in turns.

        Args:
            steps: What to time; one that fails in its warm-up is reported and dropped.
            events: Whether to take the device's own time.

        Returns:
            The figures of each step, in seconds, and its times, one per turn.
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
