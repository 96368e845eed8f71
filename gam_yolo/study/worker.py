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
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gam_yolo.graph.commands import write
from gam_yolo.study import snapshots
from gam_yolo.study.plan import FINISHED, SPEC
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
        device: The device where the recipe does not name one; empty for Ultralytics' choice.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with FileLock(run / ".lock", timeout=ORPHAN_GRACE):
            spec = json.loads((run / SPEC).read_text(encoding="utf-8"))
            _tag(spec)
            train = ({"device": device} if device else {}) | spec["train"]
            _train(run, train)
            best = run / "train" / "weights" / "best.pt"
            predict(run.parent, spec["variant"], best, train["data"], spec["imgsz"], train.get("device"))
            write(run / FINISHED, json.dumps({"versions": spec["versions"]}))
            snapshots.wipe(run)
    except Timeout:
        print(f"{run}: another process is at work on this run")
        return 1
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(f"{run}: cannot be written: {error.strerror}")
        return EXIT_DISK_FULL
    return 0


def _end_with_parent() -> None:
    """End this process and its children when the study's process is gone, however it went: its end of a pipe closes."""
    with contextlib.suppress(OSError):
        os.read(sys.stdin.fileno(), 1)
    if os.getpgrp() == os.getpid():  # so the scheduler starts it
        os.killpg(os.getpgrp(), signal.SIGTERM)  # a launcher of several GPUs' processes ends these on SIGTERM only
        time.sleep(TERM_GRACE)
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _train(run: Path, arguments: dict[str, Any]) -> None:
    ultralytics = importlib.import_module("ultralytics")
    from ultralytics.utils.torch_utils import strip_optimizer

    train = run / "train"
    snapshot, told = snapshots.newest(run)
    for line in told:
        print(f"study: {line}")
    if snapshot is None:
        if train.exists():
            print("study: there is no whole snapshot; the training starts from the beginning")
        shutil.rmtree(train, ignore_errors=True)
        snapshots.wipe(run)
        model = ultralytics.YOLO(str(run / "model.yaml"), task="detect")
        arguments |= {"project": str(run), "name": train.name, "exist_ok": True}
    elif snapshots.put_back(run, train, snapshot):
        print(f"study: the training had ended with {snapshot.name}")
        strip_optimizer(train / "weights" / "best.pt")
        return
    else:
        print(f"study: the training goes on after {snapshot.name}")
        model = ultralytics.YOLO(str(snapshot / snapshots.LAST))
        arguments = {"resume": True, "data": arguments["data"], "save_dir": str(train)} | {
            key: arguments[key] for key in ("device", "workers") if key in arguments
        }
    snapshots.attach(model)
    model.train(**arguments)


def _tag(spec: dict[str, Any]) -> None:
    """Tell W&B the tags and MLflow the names, by the environment variables that they and Ultralytics read."""
    tags = {key: str(spec[key]) for key in ("study", "variant", "seed")}
    name = f"{tags['variant']}-s{tags['seed']}"
    os.environ.setdefault("WANDB_RUN_GROUP", tags["study"])
    os.environ.setdefault("WANDB_TAGS", ",".join(f"{key}={value}" for key, value in tags.items()))
    os.environ.setdefault("MLFLOW_EXPERIMENT_NAME", tags["study"])
    os.environ.setdefault("MLFLOW_RUN", name)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
