"""Run processes, so many at a time, until each run has finished or failed twice."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gam_yolo.errors import UserError
from gam_yolo.graph.commands import write
from gam_yolo.study.plan import Run
from gam_yolo.study.worker import EXIT_DISK_FULL

__all__ = ["FAILED", "LOG", "Job", "execute"]

LOG, FAILED = "log.txt", "failed.json"
ATTEMPTS = 2
TAIL = 12  # lines of a failed run's log that are kept as its reason
POLL = 0.5  # seconds
GRACE = 15  # seconds for a process to end by itself

WAITING, RUNNING, DONE, LOST = "waiting", "running", "finished", "failed"


@dataclass
class Job:
    """A run on its way.

    Attributes:
        run: The run.
        state: `waiting`, `running`, `finished` or `failed`.
        attempts: How often its process was started.
        slot: Which of the places for processes it has.
        process: Its process while it is running.
        reason: The end of its log where it failed.
    """

    run: Run
    state: str = WAITING
    attempts: int = 0
    slot: int = 0
    process: subprocess.Popen[bytes] | None = None
    reason: str = ""


def execute(
    jobs: Sequence[Job],
    workers: int,
    devices: Sequence[str],
    say: Callable[[str], None],
    watch: Callable[[], None],
) -> None:
    """Run all waiting jobs; when this returns, each is finished or failed.

    Whatever ends this process, its children notice (see `worker`) and end too.

    Args:
        jobs: The jobs, in the order in which they start.
        workers: How many processes at a time.
        devices: The devices that the processes share, in turn; empty where the recipe or Ultralytics chooses.
        say: Is told of every start and end.
        watch: Is called twice a second.

    Raises:
        UserError: The disk is full.
    """
    free = list(range(workers))
    full = False
    try:
        while True:
            for job in jobs:
                if job.state == RUNNING and job.process and (status := job.process.poll()) is not None:
                    free.append(job.slot)
                    full |= _ended(job, status, say)
                if job.state == WAITING and free and not full:
                    free.sort()
                    job.slot = free.pop(0)
                    _start(job, devices[job.slot % len(devices)] if devices else "")
                    say(f"{job.run.name} started{f' again (attempt {job.attempts})' if job.attempts > 1 else ''}")
            watch()
            running = any(job.state == RUNNING for job in jobs)
            if full and not running:
                where = jobs[0].run.folder.parent
                raise UserError(f"{where}: the disk is full; make room there and give the same command again")
            if not running and not any(job.state == WAITING for job in jobs):
                return
            time.sleep(POLL)
    finally:
        _stop([job for job in jobs if job.state == RUNNING])


def _start(job: Job, device: str) -> None:
    job.run.lay_out()
    (job.run.folder / FAILED).unlink(missing_ok=True)
    with (job.run.folder / LOG).open("ab") as log:
        job.process = subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, "-m", "gam_yolo.study.worker", str(job.run.folder.resolve()), device],
            stdin=subprocess.PIPE,  # open for as long as this process lives
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal reaches this process alone, which then ends the others
        )
    job.state, job.attempts = RUNNING, job.attempts + 1


def _ended(job: Job, status: int, say: Callable[[str], None]) -> bool:
    """Note how a process ended; return whether the disk is full."""
    if job.process and job.process.stdin:
        job.process.stdin.close()
    job.process = None
    if status == 0 and job.run.finished:
        job.state = DONE
        say(f"{job.run.name} finished")
        return False
    job.reason = "\n".join(_tail(job.run.folder / LOG))
    if status != EXIT_DISK_FULL and job.attempts < ATTEMPTS:
        job.state = WAITING
        say(f"{job.run.name} failed with exit status {status} and is tried again")
        return False
    job.state = LOST
    say(f"{job.run.name} failed with exit status {status}; the end of {job.run.folder / LOG}:\n{job.reason}")
    if status != EXIT_DISK_FULL:
        record = {"exit_status": status, "attempts": job.attempts, "log": job.reason.splitlines()}
        write(job.run.folder / FAILED, json.dumps(record, indent=1))
    return status == EXIT_DISK_FULL


def _tail(log: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]


def _stop(jobs: Sequence[Job]) -> None:
    """Close the pipes that the processes watch, and wait until they have gone."""
    for job in jobs:
        if job.process and job.process.stdin:
            job.process.stdin.close()
    for job in jobs:
        if job.process:
            try:
                job.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
        job.state = WAITING
