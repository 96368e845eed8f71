"""Runs as tasks of a Ray cluster, whose nodes share the study's folder.

Ray decides where and when a task runs, and repeats it on another node when its node is lost. A task starts the same
process as a run on this machine, which resumes from the snapshots in the run's folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gam_yolo.errors import UserError, one_line
from gam_yolo.study.folder import RunFolder
from gam_yolo.study.local import GRACE, POLL, LocalProcess
from gam_yolo.study.plan import Run, devices

__all__ = ["Cluster", "connected"]

CONNECT = 10  # seconds for a cluster's address to answer; Ray itself waits for minutes
LOST_NODES = 3  # how often Ray repeats a task whose node is lost; it is Ray's own default
VISIBLE = 90  # seconds after which a network file system shows what another node has written


class Cluster:
    """Starts runs on a Ray cluster.

    Args:
        ray: The module, connected.
        places: How many at a time; 0 for as many as Ray finds room for.
        progress: Called with a line of text when Ray waits for a node.
    """

    def __init__(self, ray: Any, places: int, progress: Callable[[str], None]) -> None:
        self._ray, self._progress = ray, progress
        self._most = max((int(node["Resources"].get("GPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
        self.places = places or 1 << 16

    def launch(self, run: Run, place: int) -> _Task:  # noqa: ARG002  # Ray chooses the devices
        """Hand a run to Ray."""
        gpus = gpus_of(run.train, self._most > 0)
        if gpus > self._most:
            self._progress(f"{run.name} needs {gpus} GPUs of one node; Ray waits for such a node to join")
        task = self._ray.remote(_work).options(num_gpus=gpus, max_retries=LOST_NODES, name=run.name)
        return _Task(self._ray, task.remote(str(run.folder.path), gpus), run)


@contextlib.contextmanager
def connected(address: str, places: int, progress: Callable[[str], None]) -> Iterator[Cluster]:
    """Connect to a running Ray cluster.

    Args:
        address: As `ray.init` takes it: `auto`, `host:port` or `ray://host:port`.
        places: How many runs at a time; 0 for as many as Ray finds room for.
        progress: Called with a line of text when Ray waits for a node.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs the package ray", fix='Install it: pip install "gam-yolo[ray]"') from None
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), CONNECT).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray has no exception of its own for these
        expected = "'auto' or the address of a Ray cluster that answers"
        raise UserError(f"--ray is '{address}' ({one_line(error, 300)})", expected=expected) from None
    try:
        yield Cluster(ray, places, progress)
    finally:
        ray.shutdown()


def gpus_of(train: Mapping[str, Any], there_are: bool) -> int:
    """Return how many GPUs a run takes: as many as its recipe names; else one where there are any."""
    named = devices(train)
    return sum(name not in {"cpu", "mps"} for name in named) if named else int(there_are)


class _Task:
    """A run's task, for as long as one `launch` lasts; Ray may give it several nodes, one after another."""

    def __init__(self, ray: Any, reference: Any, run: Run) -> None:
        self._ray, self._reference, self._run = ray, reference, run
        self._log = run.folder.log
        self._size = self._log.stat().st_size if self._log.exists() else 0
        self._returned: float | None = None

    def begun(self) -> bool:
        """Whether a node has written to the log."""
        return self._log.exists() and self._log.stat().st_size > self._size

    def poll(self) -> int | None:
        """Return the exit status of the run's process, or None before it has ended."""
        if not self._ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            status = int(self._ray.get(self._reference))
        except Exception as error:  # of the task, or Ray's own when it has lost too many nodes
            cause = getattr(error, "cause", None) or error
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"study: {type(cause).__name__}: {one_line(cause)}\n")
            return 1
        self._returned = self._returned or time.monotonic()
        late = status == 0 and not self._run.finished and time.monotonic() < self._returned + VISIBLE
        return None if late else status

    def end(self) -> None:
        """Cancel the task."""
        self._ray.cancel(self._reference)

    def wait(self) -> None:
        """Wait until it has ended; when it takes too long, kill it."""
        if not self._ray.wait([self._reference], timeout=2 * GRACE)[0]:
            self._ray.cancel(self._reference, force=True)


def _work(folder: str, gpus: int) -> int:
    """Complete a run on the node that Ray has chosen; return its process's exit status.

    The run's process ends as well when the task is cancelled, or when the task or its node's raylet is killed.
    """
    run, here = RunFolder(Path(folder)), socket.gethostname()
    if not run.spec_file.is_file():
        raise UserError(f"is missing on the node {here}", at=folder, fix="Let --project name a folder of all nodes")
    with run.log.open("a", encoding="utf-8") as log:
        log.write(f"study: on the node {here}\n")
    raylet = os.getppid()
    process = LocalProcess(run, visible(gpus))
    try:
        while (status := process.poll()) is None:
            if os.getppid() != raylet:  # Ray gives this run to another node and may not end this process
                raise RuntimeError(f"Ray has ended on the node {here}")
            time.sleep(POLL)
        return status
    finally:
        process.end()
        process.wait()


def visible(gpus: int) -> str:
    """Return, as Ultralytics' `device`, the GPUs that Ray has given this task.

    They are named by their numbers on the node. Old releases of Ultralytics overwrite what Ray has set with them, new
    ones translate them.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if not gpus:
        return "cpu"
    return ",".join(given if all(name.isdecimal() for name in given) else map(str, range(gpus)))
