"""Kill a small study with `kill -9` at random moments, and compare its report with an undisturbed one's.

The victim is the study's process or, at random, that of one training. The moment is drawn over the rest of the study,
or lies in one of its rarer phases (`AIMS`). The same command then resumes. Finished studies are compared, and another
is started, until there were enough kills. Linux only. Usage: scripts/evidence/kill_study.py --kills 25
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from gam_yolo.cli import main; main()", "study"]
EPOCHS = 4
RUNS = 2
ANY, SAVING, EVALUATING, REPORTING = "any", "saving a snapshot", "evaluating", "reporting"
AIMS = (ANY, ANY, SAVING, EVALUATING, REPORTING)


def write_study(folder: Path) -> Path:
    """Write a study of two variants on twelve images."""
    data = yaml.safe_load((ROOT / "data" / "gam-demo.yaml").read_text(encoding="utf-8"))
    data |= {"path": str(folder / "data"), "scenes": {"train": 12, "val": 6}}
    (folder / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    study = {
        "name": "killed",
        "data": str(folder / "data.yaml"),
        "seeds": [0],
        "recipe": {"epochs": EPOCHS, "imgsz": 64, "batch": 4, "nbs": 4, "optimizer": "AdamW", "close_mosaic": 1}
        | {"plots": False, "device": "cpu"},
        "variants": {
            "plain": {"model": "yolov8n.yaml"},
            "gam": {"base": "yolov8n.yaml", "block": "GAM", "at": "p5", "args": [{"reduction": 16}]},
        },
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return file


def start(file: Path, project: Path) -> subprocess.Popen[bytes]:
    """Start the study."""
    out = subprocess.DEVNULL
    return subprocess.Popen([*COMMAND, str(file), "--project", str(project)], stdout=out, stderr=out)


def trainings(pid: int) -> list[int]:
    """Return the processes of runs that a study has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if b"study.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


def phase(project: Path, pid: int) -> str:
    """Return what a study is doing."""
    if not trainings(pid):
        return REPORTING if len(list(project.glob("*/*/finished.json"))) == RUNS else "planning"
    for run in project.glob("*/*/"):
        if (run / "snapshots").is_dir() and not (run / "finished.json").exists():
            if list((run / "snapshots").glob(".epoch-*")):
                return SAVING
            if (run / "snapshots" / f"epoch-{EPOCHS - 1}").exists():
                return EVALUATING
    return "training"


def numbers(project: Path) -> list[dict[str, Any]]:
    """Return the report's accuracies; times and paths are not results."""
    report = json.loads((project / "killed" / "report" / "report.json").read_text(encoding="utf-8"))
    kept = ("name", "metrics", "classes", "differences")
    return [{key: variant[key] for key in kept} for variant in report["variants"]]


def wait_for_moment(process: subprocess.Popen[bytes], project: Path, left: float, rng: random.Random) -> None:
    """Wait for the moment to kill a study, or until it has ended."""
    aim = rng.choice(AIMS)
    end = time.monotonic() + (rng.uniform(0, left) if aim == ANY else 3 * left)
    while process.poll() is None and time.monotonic() < end:
        if phase(project, process.pid) == aim:
            time.sleep(rng.uniform(0, 0.02 if aim == SAVING else 2))
            return
        time.sleep(0.002)


def main() -> None:
    """Run the study undisturbed, then killed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311  # moments, not secrets
    kills: collections.Counter[tuple[str, str]] = collections.Counter()
    studies = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = write_study(folder)
        begin = time.monotonic()
        if start(file, folder / "undisturbed").wait():
            sys.exit("the undisturbed study failed")
        whole = time.monotonic() - begin
        print(f"undisturbed: {whole:.0f} s", flush=True)
        while kills.total() < options.kills:
            studies += 1
            project = folder / f"killed-{studies}"
            finished: dict[Path, int] = {}
            process = start(file, project)
            while True:
                wait_for_moment(process, project, whole * (1 - len(finished) / (RUNS + 1)), rng)
                at, workers = phase(project, process.pid), trainings(process.pid)
                victim = rng.choice([process.pid, *workers]) if kills.total() < options.kills else 0
                if process.poll() is None and victim:
                    with contextlib.suppress(ProcessLookupError):  # a training may have ended just now
                        os.kill(victim, signal.SIGKILL)
                    kills["study" if victim == process.pid else "training", at] += 1
                    print(f"kill {kills.total()}: {'study' if victim == process.pid else 'training'}, {at}", flush=True)
                if process.poll() is not None or victim in (0, process.pid):
                    process.wait()
                for mark in project.rglob("finished.json"):
                    stamp = mark.stat().st_mtime_ns
                    if finished.setdefault(mark, stamp) != stamp:
                        sys.exit(f"{mark.parent.name} was trained twice")
                if process.poll() is not None:
                    if process.returncode == 0:
                        break
                    process = start(file, project)
            if numbers(folder / "undisturbed") != numbers(project):
                sys.exit(f"study {studies}: the numbers of the report are DIFFERENT")
            print(f"study {studies}: the numbers of the report are equal, no run was trained twice", flush=True)
        for (role, moment), count in sorted(kills.items()):
            print(f"{count:3} kills of the {role}, {moment}")


if __name__ == "__main__":
    main()
