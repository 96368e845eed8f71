"""Measure YOLOv8 n, s and m with GAM against the plain detector on a GPU: training and validation, images per second.

    python scripts/benchmarks/benchmark_models.py --device 0 --out docs/results/models-gpu.json

A training step is Ultralytics' (AMP, channels-last, loss, backward, clipped gradient, SGD); GAM is measured in both
forms of its training step. Validation is the fused model in float16. Both without a data loader. The candidates of one
case alternate, so other load falls on all of them alike. 640 px, 16 images.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from gam_speed.environment import machine, versions
from gam_speed.memory import peak_bytes
from gam_speed.models import training_step, validation_step
from gam_speed.results import Json
from gam_speed.timing import wall_time
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from gam_yolo.blocks import checkpointing

BATCH, IMGSZ = 16, 640
FORMS = {"GAM": "0", "GAM, memory-saving": "1"}


def main() -> None:
    """Measure every scale and write the result after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="0", help="cpu, or the number of a GPU")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    options = parser.parse_args()
    device = torch.device("cpu" if options.device == "cpu" else f"cuda:{options.device}")
    results: Json = {"machine": machine(device), "versions": versions(), "batch": BATCH, "imgsz": IMGSZ, "scales": {}}
    for scale in "nsm":
        results["scales"][scale] = measure(scale, device, options.turns)
        print(scale, json.dumps(results["scales"][scale]), flush=True)
        options.out.write_text(json.dumps(results, separators=(",", ":")) + "\n", encoding="utf-8")


def measure(scale: str, device: torch.device, turns: int) -> Json:
    """Return images per second of the plain detector and of GAM in both forms, and the peak memory of training."""
    torch.manual_seed(0)
    plain, gam = (
        DetectionModel(yaml_model_load(f"yolov8{scale}{suffix}.yaml"), verbose=False) for suffix in ("", "-gam")
    )
    for model in (plain, gam):
        model.args = get_cfg()
    fused = {name: copy.deepcopy(model).eval().fuse(verbose=False) for name, model in (("plain", plain), ("GAM", gam))}
    ours = training_step(gam.to(device), BATCH, IMGSZ, device)
    train = {"plain": training_step(plain.to(device), BATCH, IMGSZ, device), **dict.fromkeys(FORMS, ours)}
    val = {name: validation_step(model, BATCH, IMGSZ, device) for name, model in fused.items()}
    figures: Json = {"train": rates(train, device, turns), "val": rates(val, device, turns), "peak_bytes": {}}
    for name, step in train.items():
        os.environ[checkpointing.SWITCH] = FORMS.get(name, "")
        figures["peak_bytes"][name] = peak_bytes(step, device)
    return figures


def rates(steps: dict[str, Callable[[], object]], device: torch.device, turns: int) -> Json:
    """Return images per second of each candidate, by the median of its turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-3, turns):  # the first ones warm up
        for name, step in steps.items():
            os.environ[checkpointing.SWITCH] = FORMS.get(name, "")
            seconds = wall_time(step, device)[0]
            if turn >= 0:
                times[name].append(seconds)
    return {name: round(BATCH / statistics.median(found), 1) for name, found in times.items()}


if __name__ == "__main__":
    main()
