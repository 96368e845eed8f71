"""Runs as processes of this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from gam_yolo.study.folder import RunFolder
from gam_yolo.study.plan import Run

__all__ = ["GRACE", "POLL", "Local", "LocalProcess"]

POLL = 0.5  # seconds between two looks at a process
GRACE = 15  # seconds for a process to end by itself


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
