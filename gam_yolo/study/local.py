"""Runs as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import psutil

from gam_yolo.study.folder import RunFolder
from gam_yolo.study.plan import Plan, Run, devices

__all__ = ["GRACE", "POLL", "Local", "LocalProcess", "this_machine"]

POLL = 0.5  # seconds between two looks at a process
GRACE = 15  # seconds for a process to end by itself
# What a training takes, rounded up: its process, and each image of a batch by the GFLOPs of the model.
PROCESS_MEMORY, IMAGE_MEMORY = 1.5e9, 25e6


def this_machine(plan: Plan, workers: int = 0) -> Local:
    """Return this machine as the place of a plan's runs.

    Args:
        plan: The runs.
        workers: How many at a time. By default one per GPU. A training on a CPU uses one core, as Ultralytics sets
            `OMP_NUM_THREADS` to 1; so without GPUs as many run as have a core and enough memory each.
    """
    import torch

    gpus = [str(index) for index in range(torch.cuda.device_count())]
    asked = {name for run in plan.runs for name in devices(run.train)}
    if workers or asked - {"cpu"} or (gpus and not asked):
        return Local(workers or max(1, len(gpus)), gpus)
    memory = max((_memory(run, plan.gflops[run.label]) for run in plan.runs), default=PROCESS_MEMORY)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Local(max(1, min(cores // _threads(), int(psutil.virtual_memory().available / memory))), gpus)


def _threads() -> int:
    """Return how many threads a training on a CPU uses."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(given)) if given.isdigit() else 1


def _memory(run: Run, gflops: float) -> float:
    batch = run.train.get("batch", 16)
    return float(PROCESS_MEMORY + IMAGE_MEMORY * gflops * batch)


class Local:
    """Starts runs on this machine.

    Args:
        places: How many at a time.
        devices: The devices that they share in turn, where the recipe names none; empty to leave it to Ultralytics.
    """

    def __init__(self, places: int, devices: Sequence[str]) -> None:
        self.places, self.devices = places, devices

    def launch(self, run: Run, place: int) -> LocalProcess:
        """Start a run's process."""
        shared = self.devices[place % len(self.devices)] if self.devices else ""
        return LocalProcess(run.folder, "" if "device" in run.train else shared)


class LocalProcess:
    """The process of a run, which ends when this one does.

    Args:
        run: The run's folder.
        device: The device to train on; empty to leave it to the recipe and Ultralytics.
    """

    def __init__(self, run: RunFolder, device: str) -> None:
        with run.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-m", "gam_yolo.study.worker", str(run.path.resolve()), device],
                stdin=subprocess.PIPE,  # open for as long as this process lives
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal reaches this process alone, which then ends the others
            )

    def begun(self) -> bool:
        """It begins at once."""
        return True

    def poll(self) -> int | None:
        """Return its exit status, or None before it has ended."""
        status = self._process.poll()
        if status is not None:
            self.end()
        return status

    def end(self) -> None:
        """Close the pipe that it watches."""
        if self._process.stdin:
            self._process.stdin.close()

    def wait(self) -> None:
        """Wait until it has ended; when it takes too long, kill it."""
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
