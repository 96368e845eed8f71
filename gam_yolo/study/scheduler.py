"""Start processes, so many at a time, until each run has finished or failed twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gam_yolo.errors import UserError
from gam_yolo.study.local import POLL
from gam_yolo.study.plan import Run
from gam_yolo.study.worker import EXIT_DISK_FULL

__all__ = ["FAILED", "FINISHED", "WAITING", "Job", "Launcher", "Process", "execute"]

ATTEMPTS = 2
TAIL = 12  # lines of a failed run's log that are kept as its reason

WAITING, QUEUED, RUNNING, FINISHED, FAILED = "waiting", "queued", "running", "finished", "failed"


class Process(Protocol):
    """A run's process, here or on another machine."""

    def begun(self) -> bool:
        """Whether it has been given a machine."""

    def poll(self) -> int | None:
        """Return its exit status, or None before it has ended."""

    def end(self) -> None:
        """Have it end."""

    def wait(self) -> None:
        """Wait until it has ended; when it takes too long, kill it."""


class Launcher(Protocol):
    """Where processes run.

    Attributes:
        places: How many processes it takes at a time.
    """

    places: int

    def launch(self, run: Run, place: int) -> Process:
        """Start a run's process on one of the places."""


@dataclass
class Job:
    """A run and how far it has come.

    Attributes:
        run: The run.
        state: `waiting`, `queued` (for a machine), `running`, `finished` or `failed`.
        attempts: How often its process was started.
        place: Which of the places for processes it has.
        process: Its process while it is queued or running.
        reason: The end of its log where it failed.
    """

    run: Run
    state: str = WAITING
    attempts: int = 0
    place: int = 0
    process: Process | None = None
    reason: str = ""


def execute(
    jobs: Sequence[Job],
    launcher: Launcher,
    progress: Callable[[str], None],
    watch: Callable[[Sequence[Job]], None],
) -> None:
    """Run all waiting jobs; when this returns, each is finished or failed.

    Whatever ends this process, the processes that it has started notice (see `worker`) and end too.

    Args:
        jobs: The jobs, in the order in which they start.
        launcher: Starts their processes.
        progress: Called with a line of text at every start and end.
        watch: Called with the jobs twice a second.

    Raises:
        UserError: The disk is full.
    """
    free = list(range(launcher.places))
    full = False
    try:
        while True:
            for job in jobs:
                if job.process and (status := job.process.poll()) is not None:
                    free.append(job.place)
                    full |= _ended(job, status, progress)
                if job.state == WAITING and free and not full:
                    free.sort()
                    job.place = free.pop(0)
                    _start(job, launcher)
                if job.state == QUEUED and job.process and job.process.begun():
                    job.state = RUNNING
                    progress(f"{job.run.name} started{f' again (attempt {job.attempts})' if job.attempts > 1 else ''}")
            watch(jobs)
            active = any(job.process for job in jobs)
            if full and not active:
                where = jobs[0].run.folder.study.path
                raise UserError("the disk is full", at=where, fix="Free some space and run the same command again")
            if not active and not any(job.state == WAITING for job in jobs):
                return
            time.sleep(POLL)
    finally:
        _stop(jobs)


def _start(job: Job, launcher: Launcher) -> None:
    job.run.lay_out()
    job.process = launcher.launch(job.run, job.place)
    job.state, job.attempts = QUEUED, job.attempts + 1


def _ended(job: Job, status: int, progress: Callable[[str], None]) -> bool:
    """Note how a process ended; return whether the disk is full."""
    job.process = None
    if status == 0 and job.run.finished:
        job.state = FINISHED
        progress(f"{job.run.name} finished")
        return False
    job.reason = "\n".join(job.run.folder.log_lines()[-TAIL:])
    if status != EXIT_DISK_FULL and job.attempts < ATTEMPTS:
        job.state = WAITING
        progress(f"{job.run.name} failed with exit status {status} and is started again")
        return False
    job.state = FAILED
    progress(f"{job.run.name} failed with exit status {status}; the end of {job.run.folder.log}:\n{job.reason}")
    if status != EXIT_DISK_FULL:
        record = {"exit_status": status, "attempts": job.attempts, "log": job.reason.splitlines()}
        job.run.folder.mark_failed(record)
    return status == EXIT_DISK_FULL


def _stop(jobs: Sequence[Job]) -> None:
    """End the active processes, and wait until they have ended."""
    active = [(job, job.process) for job in jobs if job.process]
    for _, process in active:
        process.end()
    for job, process in active:
        process.wait()
        job.process, job.state = None, WAITING
