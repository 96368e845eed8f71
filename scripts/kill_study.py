"""Kill a small study with `kill -9` at random moments and hold its report against an undisturbed one's.

Every other time the training's process is killed instead of the study's. Usage: scripts/kill_study.py --kills 20
"""

from __future__ import annotations

import argparse
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

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-c", "from gam_yolo.cli import main; main()", "study"]


def write_study(folder: Path) -> Path:
    """Write a study of two variants and two seeds on twelve images."""
    data = yaml.safe_load((ROOT / "data" / "gam-demo.yaml").read_text(encoding="utf-8"))
    data |= {"path": str(folder / "data"), "scenes": {"train": 12, "val": 6}}
    (folder / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    study = {
        "name": "killed",
        "data": str(folder / "data.yaml"),
        "seeds": [0, 1],
        "recipe": {"epochs": 3, "imgsz": 64, "batch": 4, "nbs": 4, "optimizer": "AdamW", "close_mosaic": 1}
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
    return subprocess.Popen([*COMMAND, str(file), "--project", str(project)], stdout=subprocess.DEVNULL)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started (Linux)."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def numbers(project: Path) -> list[dict[str, Any]]:
    """Return what the report says of accuracy; time and place of a run are not its result."""
    report = json.loads((project / "killed" / "report" / "report.json").read_text(encoding="utf-8"))
    kept = ("name", "metrics", "classes", "differences")
    return [{key: variant[key] for key in kept} for variant in report["variants"]]


def main() -> None:
    """Run the study undisturbed, then killed, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311  # moments, not secrets
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = write_study(folder)
        begin = time.monotonic()
        if start(file, folder / "undisturbed").wait():
            sys.exit("the undisturbed study failed")
        whole = time.monotonic() - begin
        finished: dict[Path, int] = {}
        ends = killed = 0
        while killed < options.kills:
            process = start(file, folder / "killed")
            time.sleep(rng.uniform(0, whole / 2))
            workers = children(process.pid)
            victim = rng.choice(workers) if workers and killed % 2 else process.pid
            killed += 1
            if process.poll() is None:
                os.kill(victim, signal.SIGKILL)
            else:
                ends += 1  # there was nothing left to do but the report
            if victim != process.pid:
                time.sleep(rng.uniform(0, 5))
                process.kill()
            process.wait()
            for mark in (folder / "killed").rglob("finished.json"):
                stamp = mark.stat().st_mtime_ns
                if finished.setdefault(mark, stamp) != stamp:
                    sys.exit(f"{mark.parent.name} was done twice")
            print(f"kill {killed}: {'worker' if victim != process.pid else 'study'}, {len(finished)} finished")
        if start(file, folder / "killed").wait():
            sys.exit("the killed study failed")
        equal = numbers(folder / "undisturbed") == numbers(folder / "killed")
        print(f"{killed} kills ({ends} after the end); the reports' numbers are {'equal' if equal else 'DIFFERENT'}")
        sys.exit(not equal)


if __name__ == "__main__":
    main()
