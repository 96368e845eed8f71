"""One run in a process of its own: trains, evaluates, and marks the run finished."""

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
from gam_yolo.checkpoints import trusting
from gam_yolo.errors import EXIT_STATUS, UserError, causes
from gam_yolo.identity import changes
from gam_yolo.io import read_yaml
from gam_yolo.study import snapshots, trackers, validation
from gam_yolo.study.data import needs_preparation, read_data
from gam_yolo.study.folder import RunFolder
from gam_yolo.study.plan import first_device, identify

__all__ = ["EXIT_DISK_FULL", "main"]

EXIT_DISK_FULL = 74  # EX_IOERR of sysexits.h
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TERM_GRACE = 5  # seconds
ORPHAN_GRACE = 60  # seconds in which the processes of a killed worker end


def main(run: RunFolder, device: str) -> int:
    """Complete a run from wherever it is; return the exit status.

    Args:
        run: Its folder.
        device: The device to train on; empty for the recipe's, or else Ultralytics' choice.
    """
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # its output must survive `kill -9`
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with FileLock(run.lock, timeout=ORPHAN_GRACE):
            if run.finished:  # the machine was lost after this mark, before the study heard of it
                return 0
            spec = run.spec()
            _check_identity(run, spec)
            trackers.describe(spec)
            train = spec["train"] | ({"device": device} if device else {})
            with trusting(spec["trust"]):
                _train(run, train, spec.get("task", "detect"))
                validation.predict(run, spec["variant"], train["data"], spec["imgsz"], first_device(train))
            environment = spec["identity"]["environment"]
            run.mark_finished({"environment": environment, "nms_time_limit": validation.times_limited(run)})
            snapshots.wipe(run)
    except Timeout:
        print(f"{run}: another process is working on this run")
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


def _full_disk(error: Exception) -> str:
    """Return the system's words where a full disk has caused an error, or else an empty string."""
    return next((str(e.strerror) for e in causes(error) if isinstance(e, OSError) and e.errno in FULL), "")


def _end_with_parent() -> None:
    """End this process and its children when the study's process has ended: its end of a pipe closes."""
    with contextlib.suppress(OSError):
        os.read(sys.stdin.fileno(), 1)
    if os.getpgrp() == os.getpid():  # as the scheduler starts it
        os.killpg(os.getpgrp(), signal.SIGTERM)  # a multi-GPU launcher ends its processes on SIGTERM only
        time.sleep(TERM_GRACE)
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _train(run: RunFolder, arguments: dict[str, Any], task: str) -> None:
    snapshot, damaged = snapshots.newest(run)
    for line in damaged:
        print(f"study: {line}")
    if snapshot is None:
        if run.train.exists():
            print("study: there is no complete snapshot; the training starts from the beginning")
        shutil.rmtree(run.train, ignore_errors=True)
        snapshots.wipe(run)
        model = ultralytics_api.model(str(run.model), task=task)
        if isinstance(weights := arguments["pretrained"], str):
            ultralytics_api.load_pretrained(model, weights)
        arguments |= ultralytics_api.train_into(run.train, run.spec()["study"])  # trackers read the project
    elif snapshots.restore_files(run, snapshot):
        print(f"study: the training had ended with {snapshot.name}")
        ultralytics_api.get("strip_optimizer")(run.best)
        return
    else:
        print(f"study: the training resumes after {snapshot.name}")
        model = ultralytics_api.model(str(snapshot / snapshots.LAST))
        arguments = {"resume": True, "data": arguments["data"]} | {
            key: arguments[key] for key in ("device", "workers") if key in arguments
        }
        arguments |= ultralytics_api.train_into(run.train, run.spec()["study"])
    for part in (snapshots, trackers, validation):
        part.attach(model)
    model.train(**arguments)


def _check_identity(run: RunFolder, spec: dict[str, Any]) -> None:
    """Check that a training here and now gives the result that the study has planned.

    Raises:
        UserError: The code, the environment, the data or the weights differ, or a file is missing.
    """
    here = socket.gethostname()
    for key in ("data", "pretrained"):
        file = spec["train"][key]
        if isinstance(file, str) and not Path(file).exists():
            raise UserError(
                f"{key}: {file} is missing on the machine {here}", fix="Put it on every machine that trains"
            )
    yaml = spec["train"]["data"]
    data = read_data(yaml, run.study, prepare=needs_preparation(Path(yaml)))  # each machine may have its own copy
    found = identify(spec["train"], read_yaml(run.model, "a model YAML"), data.parts)
    if changed := changes(spec["identity"], json.loads(json.dumps(found))):
        raise UserError(
            f"this is another run on the machine {here} than the study has planned; changed: {'; '.join(changed)}",
            fix="Run the study again to plan with this, or install what it was planned with",
        )


if __name__ == "__main__":
    sys.exit(main(RunFolder(Path(sys.argv[1])), sys.argv[2]))
