"""Measure one run of a study by stages, in processor time: what is Ultralytics' and what is this package's.

    GAM_YOLO_VOC=/data/VOCdevkit python scripts/benchmarks/benchmark_study.py --data voc-local.yaml --imgsz 224
    python scripts/benchmarks/benchmark_study.py --data gam-demo.yaml --imgsz 96 --recipe cache=ram

The run is a process of its own with one thread, as a study with a worker for each core has it. It trains YOLOv8n with
GAM, takes snapshots, and makes the report's predictions. Times are user and system time of all its threads: other
programs on the machine change them little.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

STAGES = {
    "ours: identity of data and code": ["gam_yolo.study.worker:_check_identity"],
    "ours: snapshots": [f"gam_yolo.study.snapshots:{name}" for name in ("_take", "_restore", "_start_epoch", "newest")],
    "ours: predictions for the report": ["gam_yolo.study.validation:predict"],
    "read images": ["ultralytics.data.base:BaseDataset.load_image"],
    "augment": ["ultralytics.data.base:BaseDataset.__getitem__"],
    "forward and loss": ["ultralytics.nn.tasks:BaseModel.loss"],
    "backward": ["torch:Tensor.backward"],
    "optimizer and averages": [
        "ultralytics.engine.trainer:BaseTrainer.optimizer_step",
        "ultralytics.utils.torch_utils:ModelEMA.update",
    ],
    "validation of each epoch": ["ultralytics.engine.trainer:BaseTrainer.validate"],
    "checkpoints": ["ultralytics.engine.trainer:BaseTrainer.save_model"],
    "validation at the end": ["ultralytics.engine.trainer:BaseTrainer.final_eval"],
    "setting up": ["ultralytics.engine.trainer:BaseTrainer._setup_train"],
}
"""Functions by stage. A function's time is without that of the functions of other stages that it calls."""


def run_in_stages(folder: Path) -> dict[str, float]:
    """Carry out a planned run in this process; return the processor time of each stage."""
    import torch

    from gam_yolo.study import worker
    from gam_yolo.study.folder import RunFolder

    torch.set_num_threads(1)
    spent = dict.fromkeys([*STAGES, "rest"], 0.0)
    running = ["rest"]
    for stage, names in STAGES.items():
        for name in names:
            module, _, path = name.partition(":")
            owner: Any = importlib.import_module(module)
            *outer, function = path.split(".")
            for part in outer:
                owner = getattr(owner, part)
            setattr(owner, function, _counted(getattr(owner, function), stage, spent, running))
    spent["imports"] = _last[0] = time.process_time()
    if status := worker.main(RunFolder(folder), "cpu"):
        raise SystemExit(f"the run ended with status {status}")
    _switch(spent, running)
    return spent


_last = [0.0]


def _switch(spent: dict[str, float], running: list[str]) -> None:
    now = time.process_time()
    spent[running[-1]] += now - _last[0]
    _last[0] = now


def _counted(
    function: Callable[..., Any], stage: str, spent: dict[str, float], running: list[str]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        _switch(spent, running)
        # What a validation calls, such as reading images, is the validation's.
        inner = running[-1] in _WHOLE or stage == "read images"
        running.append(running[-1] if inner and running[-1] in _WHOLE else stage)
        try:
            return function(*args, **kwargs)
        finally:
            _switch(spent, running)
            running.pop()

    return counted


_WHOLE = {"ours: predictions for the report", "validation of each epoch", "validation at the end", "setting up"}


def main() -> None:
    """Plan a study of one run, carry it out, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="gam-demo.yaml", help="dataset YAML")
    parser.add_argument("--imgsz", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pretrained", type=Path, help="checkpoint to fine-tune; from scratch without one")
    parser.add_argument("--recipe", nargs="*", default=[], metavar="KEY=VALUE", help="more train arguments")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        spent = run_in_stages(options.child)
        (options.child / "stages.json").write_text(json.dumps(spent))
        return

    from gam_yolo.study.config import read_studies
    from gam_yolo.study.folder import StudyFolder
    from gam_yolo.study.plan import plan

    recipe = {"epochs": options.epochs, "imgsz": options.imgsz, "batch": 16, "nbs": 16, "plots": False, "device": "cpu"}
    recipe |= {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in options.recipe)}
    with tempfile.TemporaryDirectory() as scratch:
        content = {
            "data": options.data,
            "pretrained": str(options.pretrained.resolve()) if options.pretrained else False,
            "seeds": [0],
            "recipe": recipe,
            "baseline": "gam",
            "variants": {
                "gam": {"base": "yolov8n.yaml", "block": "GAM", "at": "head-inputs"},
                "plain": {"model": "yolov8n.yaml"},
            },
        }
        file = Path(scratch, "speed.yaml")
        file.write_text(json.dumps(content))
        (study,) = read_studies(file)
        folder = StudyFolder(Path(scratch, "study"))
        folder.path.mkdir()
        run = next(run for run in plan(study, folder).runs if run.name.startswith("gam"))
        run.lay_out()
        place = run.folder.path.resolve()
        with (place / "log.txt").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, "--child", str(place)],
                stdin=subprocess.PIPE,  # the run ends when this closes
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit((place / "log.txt").read_text()[-3000:])
        spent = json.loads((place / "stages.json").read_text())
    whole = usage.ru_utime + usage.ru_stime
    print("| stage | processor time, s | share |\n| --- | --- | --- |")
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"| {name} | {seconds:.1f} | {100 * seconds / whole:.0f} % |")
    print(f"| whole process | {whole:.1f} | peak {usage.ru_maxrss / 2**20:.2f} GB |")


if __name__ == "__main__":
    main()
