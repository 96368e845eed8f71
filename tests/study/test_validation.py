"""A study's validations keep all detections, however slow the machine is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gam_yolo.study import validation
from gam_yolo.study.folder import RunFolder

SLOW = """
import itertools
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionValidator, val
from gam_yolo.study import validation

home = getattr(val, "nms", val.ops)
clock = itertools.count(0, 10)  # every look at the clock is ten seconds later
home.time = type("time", (), {"time": staticmethod(lambda: next(clock))})
validator = DetectionValidator()
validator.nc, validator.end2end = 2, False
boxes = torch.tensor([[50.0, 50, 20, 20, 0.9, 0.0]]).T.repeat(8, 1, 1)  # one object on each of eight images

def found():
    return sum(len(image["cls"]) for image in validator.postprocess(boxes.clone()))

before = found()
model = YOLO("yolov8n.yaml")
validation.attach(model)
(lift,) = [f for f in model.callbacks["on_pretrain_routine_start"] if f.__module__ == validation.__name__]
lift(None)
print("found", before, found())
"""


def test_the_time_limit_of_nms_is_lifted_in_a_training() -> None:
    done = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.splitlines()[-1] == "found 1 8"
    assert validation.LIMITED in done.stdout + done.stderr  # how Ultralytics words it


def test_a_validation_that_met_the_limit_is_counted(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert validation.times_limited(run) == 0
    lines = [
        "Epoch 1",
        "\x1b[33mWARNING\x1b[0m NMS time limit 2.800s exceeded",
        "NMS time limit 2.800s exceeded",
        "end",
    ]
    run.log.write_text("\n".join(lines))
    assert validation.times_limited(run) == 2
