"""What does the way of loading pretrained weights do to a detector with GAM? Two epochs on PASCAL VOC, one seed.

    GAM_YOLO_VOC=/data/VOC2007 python scripts/evidence/transfer_voc.py --weights yolov8n.pt --out FILE.json

Four runs of one recipe, all from the same COCO-pretrained YOLOv8n. One is plain. The others have GAM at the three
inputs of the head: loaded by index, as Ultralytics does on its own; loaded by structure; and loaded by structure with
`start: identity`. A run takes about three minutes on two CPU cores. One seed says nothing about GAM against plain. But
the accuracy that loading by index costs is far larger than the spread between seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import ultralytics
from ultralytics import YOLO
from ultralytics.nn import tasks

import gam_yolo
from gam_yolo.graph.edit import insert, rewrite
from gam_yolo.graph.find import load
from gam_yolo.resources import shipped

RUNS: dict[str, tuple[list[Any] | None, bool]] = {  # arguments of GAM, or None for no GAM; loaded by structure
    "plain": (None, True),
    "GAM, by index": ([], False),
    "GAM, by structure": ([], True),
    "GAM, by structure, start: identity": ([{"start": "identity"}], True),
}


def loading(by_structure: bool) -> AbstractContextManager[object]:
    """Use our `BaseModel.load`, or Ultralytics' own."""
    if by_structure:
        return nullcontext()
    return mock.patch.object(tasks.BaseModel, "load", vars(tasks.BaseModel)["load"].__wrapped__)


def run(folder: Path, weights: Path, variant: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """Train one variant and return its figures."""
    args, by_structure = RUNS[variant]
    document = load("yolov8.yaml")
    text = document.text
    if args is not None:
        text = rewrite(document, insert(document.graph, document.graph.head.sources, "GAM", args))
    model = folder / "yolov8n-variant.yaml"
    model.write_text(text)
    begin = time.perf_counter()
    with loading(by_structure):
        detector: Any = YOLO(model)
        detector.train(pretrained=str(weights), project=str(folder), name="run", exist_ok=True, **recipe)
    box = detector.metrics.box
    return {
        "mAP50-95": round(float(box.map), 4),
        "mAP50": round(float(box.map50), 4),
        "transferred": getattr(detector.model, "transferred", None),
        "seconds": round(time.perf_counter() - begin),
    }


def main() -> None:
    """Run all four and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("yolov8n.pt"))
    parser.add_argument("--data", default=str(shipped("voc-local.yaml")))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--imgsz", type=int, default=256)
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training images")
    options = parser.parse_args()
    recipe = {
        "data": options.data, "epochs": options.epochs, "imgsz": options.imgsz, "fraction": options.fraction,
        "batch": 32, "seed": 0, "workers": 2, "device": "cpu", "plots": False,
    }  # fmt: skip
    results = {}
    for name in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = run(Path(folder), options.weights, name, recipe)
        print(name, results[name], flush=True)
    versions = {"gam_yolo": gam_yolo.__version__, "ultralytics": ultralytics.__version__, "torch": torch.__version__}
    shown = {**recipe, "data": Path(options.data).name}
    report = {"versions": versions, "weights": options.weights.name, "recipe": shown, "results": results}
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
