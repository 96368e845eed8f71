"""Count the files and hops of the four walks through the package in `docs/architecture.md`.

    python scripts/maintenance/count_walks.py [--show]

A walk is what one command executes. A hop is a call from a function in one file of the package to a function in
another; code of other packages in between is passed through. Each pair of files counts once, however often it is
called. A return is a hop into a file that the walk has entered before. Calls during an import do not count. The last
walk leaves out the folders that the other three go through.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TRACER = """
import atexit, os, sys, threading

hops = {}


def own(frame):
    name = frame.f_code.co_filename
    return name.endswith(".py") and f"{os.sep}gam_yolo{os.sep}" in name


def importing(frame):
    while frame:
        if own(frame) and frame.f_code.co_name == "<module>" and frame.f_globals["__name__"] != "__main__":
            return True
        frame = frame.f_back
    return False


def short(frame):
    return frame.f_code.co_filename.rpartition(f"{os.sep}gam_yolo{os.sep}")[2]


def profile(frame, event, _):
    if event != "call" or not own(frame) or not frame.f_code.co_flags & 1 or importing(frame):  # 1: not a class body
        return
    caller = frame.f_back
    while caller and not own(caller):
        caller = caller.f_back
    hop = (short(caller) if caller else "", short(frame))
    if hop[0] != hop[1]:
        hops.setdefault(hop)


def start():
    os.environ["WALK_NOW"] = "1"  # for the processes that this one starts
    atexit.register(save)
    threading.setprofile(profile)
    sys.setprofile(profile)


def save():
    sys.setprofile(None)
    with open(os.environ["WALK"], "a") as file:
        file.writelines(f"{a}\\t{b}\\n" for a, b in hops)


if os.environ.get("WALK_NOW"):
    start()
"""

DATA = """
path: {folder}/walk-demo
train: images/train
val: images/val
scenes: {{train: 4, val: 4}}
seed: 0
protocol: coco
names: [ball, ring, crate, star, cross, cone]
download: |
  from gam_yolo.datasets import prepare_demo
  prepare_demo(yaml)
"""

STUDY = """
data: {folder}/walk.yaml
seeds: [0]
recipe: {{epochs: 1, imgsz: 32, batch: 4, workers: 0, plots: False, device: cpu}}
variants:
  plain: {{model: yolov8n.yaml}}
  gam: {{base: yolov8n.yaml, block: GAM, at: head-inputs}}
"""

OTHER_WALKS = ("blocks/", "plugin/", "graph/", "evaluation/", "annotations/", "datasets/")

COMMAND = "from gam_yolo.cli import main; sys.argv = ['gam-yolo', *{arguments}]; start(); main()"

WALKS = {
    "row to module": "from ultralytics.nn.tasks import DetectionModel; start(); DetectionModel('yolov8n-gam.yaml')",
    "tensor to layer": "from ultralytics import YOLO; new = YOLO('yolov8n-gam.yaml'); start(); new.load('plain.pt')",
    "box to interval": COMMAND.format(arguments=["compare", "a.json", "b.json", "--gt", "truth.json"]),
    "study file to report": COMMAND.format(arguments=["study", "walk-study.yaml", "--project", "studies"]),
}


def prepare(folder: Path) -> None:
    """Write what the walks read: a checkpoint, annotations, predictions, a dataset YAML and a study file."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in range(1, 31)]
    box = {"category_id": 1, "bbox": [10, 10, 50, 50]}
    objects = [{"id": i, "image_id": i, "area": 2500, "iscrowd": 0, **box} for i in range(1, 31)]
    truth = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
    found = [{"image_id": i, "score": 0.9, **box} for i in range(1, 31)]
    for name, content in {"truth": truth, "a": found[:20], "b": found}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "walk.yaml").write_text(DATA.format(folder=folder))
    (folder / "walk-study.yaml").write_text(STUDY.format(folder=folder))
    (folder / "tracer.py").write_text(TRACER)
    (folder / "sitecustomize.py").write_text("import tracer")  # found by every process that a walk starts
    run(folder, "from ultralytics import YOLO; YOLO('yolov8n.yaml').save('plain.pt')", folder / "unused")


def run(folder: Path, code: str, hops: Path) -> None:
    """Run code in a process in which `start()` begins to record."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "WALK": str(hops), "YOLO_CONFIG_DIR": str(folder)}
    command = [sys.executable, "-c", f"import sys; from tracer import start; {code}"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{code}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def main() -> None:
    """Print the table of `docs/architecture.md`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print the hops")
    show = parser.parse_args().show
    print("| walk | files | hops | returns |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        prepare(folder)
        for number, (walk, code) in enumerate(WALKS.items()):
            log = folder / f"{number}.tsv"
            run(folder, code, log)
            lines = dict.fromkeys(tuple(line.split("\t")) for line in log.read_text().splitlines())
            left_out = OTHER_WALKS if walk == "study file to report" else ()
            hops = (
                [hop for hop in lines if not any(file.startswith(left_out) for file in hop)] if left_out else [*lines]
            )
            files = {entered for _, entered in hops}
            print(f"| {walk} | {len(files)} | {len(hops)} | {len(hops) - len(files)} |")
            for caller, entered in hops if show else []:
                print(f"    {caller or '(other packages)'} -> {entered}")


if __name__ == "__main__":
    main()
