"""How tests of studies start them, wait for them, and read what they leave."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from gam_yolo.study.plan import Run

COMMAND = [sys.executable, "-c", "from gam_yolo.cli import main; main()", "study"]
PATIENCE = 240  # seconds; a loaded machine


def until(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """Wait for something, as long as the process is there, and return it."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "timed out"
        assert process is None or process.poll() is None, process and process.communicate()
        time.sleep(0.05)
    return found


def worker(run: Run) -> int:
    """Start a run's process as a study does, and return its exit status."""
    run.lay_out()
    command = [sys.executable, "-m", "gam_yolo.study.worker", str(run.folder.path), ""]
    with run.folder.log.open("ab") as out:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out).wait(PATIENCE)


def weights(run: Run) -> dict[str, torch.Tensor]:
    model = torch.load(run.folder.best, weights_only=False)
    state: dict[str, torch.Tensor] = (model["ema"] or model["model"]).state_dict()
    return state


def losses(run: Run) -> list[list[str]]:
    """The rows of `results.csv` but for the times."""
    lines = run.folder.results.read_text().splitlines()
    return [[cell for i, cell in enumerate(line.split(",")) if i != 1] for line in lines]


def log(run: Run) -> str:
    return run.folder.log.read_text(errors="replace")


def assert_same_result(run: Run, reference: Run) -> None:
    """The same losses and the same weights, bit for bit."""
    assert losses(run) == losses(reference)
    ours, theirs = weights(run), weights(reference)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
