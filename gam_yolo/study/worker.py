"""One run in a process of its own: trains, evaluates, and marks the run finished.

A run's folder:

    run.json        what is to be done
    model.yaml      the model
    log.txt         what all attempts have printed
    train/          Ultralytics' own folder of the training
    snapshots/      from where it goes on; gone when the run has finished
    finished.json   the mark, written last
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gam_yolo import ultralytics_api
from gam_yolo.errors import EXIT_STATUS, UserError
from gam_yolo.io import write
from gam_yolo.study import snapshots, trackers
from gam_yolo.study.plan import FINISHED, SPEC, first_device, versions
from gam_yolo.study.results import predict

__all__ = ["EXIT_DISK_FULL", "main"]

EXIT_DISK_FULL = 74  # EX_IOERR of sysexits.h
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TERM_GRACE = 5  # seconds
ORPHAN_GRACE = 60  # seconds in which the processes of a killed worker have gone


def main(run: Path, device: str) -> int:
    """Bring a run to its end from wherever it is; return the exit status.

    Args:
        run: Its folder.
        device: The device to train on; empty for the recipe's, else Ultralytics' choice.
    """
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what it says is to outlive `kill -9`
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with FileLock(run / ".lock", timeout=ORPHAN_GRACE):
            if (run / FINISHED).is_file():  # the machine was lost between this mark and its word to the study
                return 0
            spec = json.loads((run / SPEC).read_text(encoding="utf-8"))
            _refuse_other_machine(spec)
            trackers.describe(spec)
            train = spec["train"] | ({"device": device} if device else {})
            _train(run, spec["study"], train)
            best = run / "train" / "weights" / "best.pt"
            predict(run.parent, spec["variant"], best, train["data"], spec["imgsz"], first_device(train))
            write(run / FINISHED, json.dumps({"versions": spec["versions"]}))
            snapshots.wipe(run)
    except Timeout:
        print(f"{run}: another process is at work on this run")
        return 1
    except Exception as error:
        if full := _full_disk(error):
            print(f"{run}: cannot be written: {full}")
            return EXIT_DISK_FULL
        if not isinstance(error, UserError):
            raise
        print(error)
        return EXIT_STATUS
    return 0


def _full_disk(error: BaseException | None) -> str:
    """Return what the system says of a full disk where that has led to an error; else an empty string."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return str(error.strerror)
        error = error.__cause__ or error.__context__
    return ""


def _end_with_parent() -> None:
    """End this process and its children when the study's process is gone, however it went: its end of a pipe closes."""
    with contextlib.suppress(OSError):
        os.read(sys.stdin.fileno(), 1)
    if os.getpgrp() == os.getpid():  # so the scheduler starts it
        os.killpg(os.getpgrp(), signal.SIGTERM)  # a launcher of several GPUs' processes ends these on SIGTERM only
        time.sleep(TERM_GRACE)
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _train(run: Path, study: str, arguments: dict[str, Any]) -> None:
    train = run / "train"
    snapshot, told = snapshots.newest(run)
    for line in told:
        print(f"study: {line}")
    if snapshot is None:
        if train.exists():
            print("study: there is no whole snapshot; the training starts from the beginning")
        shutil.rmtree(train, ignore_errors=True)
        snapshots.wipe(run)
        model = ultralytics_api.model(str(run / "model.yaml"), task="detect")
        arguments |= {"project": study, "save_dir": str(train)}  # trackers read the project
    elif snapshots.put_back(run, train, snapshot):
        print(f"study: the training had ended with {snapshot.name}")
        ultralytics_api.get("strip_optimizer")(train / "weights" / "best.pt")
        return
    else:
        print(f"study: the training goes on after {snapshot.name}")
        model = ultralytics_api.model(str(snapshot / snapshots.LAST))
        arguments = {"resume": True, "data": arguments["data"], "save_dir": str(train)} | {
            key: arguments[key] for key in ("device", "workers") if key in arguments
        }
    snapshots.attach(model)
    trackers.attach(model)
    model.train(**arguments)


def _refuse_other_machine(spec: dict[str, Any]) -> None:
    """Refuse to train where the run would be another one, or has not what it needs.

    Raises:
        UserError: Other versions are installed here than where the study was planned, or a file is not here.
    """
    here = socket.gethostname()
    if (found := versions()) != spec["versions"]:
        told = ", ".join(f"{name} {found[name]}" for name in found if found[name] != spec["versions"].get(name))
        expected = ", ".join(f"{name} {version}" for name, version in spec["versions"].items())
        raise UserError(f"the machine {here} has {told}, expected what the study was planned with: {expected}")
    for key in ("data", "pretrained"):
        file = spec["train"][key]
        if isinstance(file, str) and not Path(file).is_file():
            raise UserError(f"{key}: {file} is not there on the machine {here}, expected it on every one that trains")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
