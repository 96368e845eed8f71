"""Train every block inside YOLOv8n through the plain `yolo` command on real images, and record the results.

    GAM_YOLO_VOC=../shared/data/VOC2007 python scripts/evidence/train_every_block.py --output blocks.json
    GAM_YOLO_VOC=../shared/data/VOC2007 python scripts/evidence/train_every_block.py SE ECA --fraction 0.05

One epoch at 256 px and batch 32 over the 1,050 training images takes some minutes per block on two CPU cores. It shows
that each block trains, not how good it is: one epoch and one seed say nothing about that.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

MODELS = (
    *("GAM", "BAM", "CAA", "CBAM", "CoordAtt", "ECA", "ELA", "EMA", "LSKA", "MLCA", "SCSA", "SE", "SimAM"),
    *("Triplet", "UltralyticsCBAM"),
)


def main() -> int:
    """Train the blocks asked for; the exit status says whether all of them were trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("blocks", nargs="*", metavar="block", help=f"of {', '.join(MODELS)}; all by default")
    parser.add_argument("--data", default="voc-local.yaml")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pretrained", default="False", help="weights to start from, such as yolov8n.pt")
    parser.add_argument("--output", type=Path, default=Path("train_every_block.json"))
    options = parser.parse_args()
    if unknown := set(options.blocks) - set(MODELS):
        parser.error(f"no model for {', '.join(sorted(unknown))}; expected some of {', '.join(MODELS)}")

    results = []
    for block in options.blocks or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            results.append({"block": block, **train(block, Path(folder), options)})
        print(json.dumps(results[-1]), flush=True)
        written = {"settings": vars(options) | {"output": str(options.output)}, "results": results}
        partial = options.output.with_suffix(".partial")
        partial.write_text(json.dumps(written, separators=(",", ":")) + "\n", encoding="utf-8")
        partial.replace(options.output)
    return int(not all(result["trained"] for result in results))


def train(block: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one training and return its outcome."""
    command = [str(Path(sys.executable).with_name("yolo")), "detect", "train", f"model=yolov8n-{block.lower()}.yaml"]
    command += [f"data={options.data}", f"fraction={options.fraction}", f"device={options.device}"]
    command += [f"pretrained={options.pretrained}", "epochs=1", "imgsz=256", "batch=32", "workers=2", "seed=0"]
    command += ["plots=False", f"project={folder}", "name=run"]
    start = time.perf_counter()
    done = subprocess.run(command, env=os.environ | {"YOLO_AUTOINSTALL": "false"}, capture_output=True, text=True)
    seconds = round(time.perf_counter() - start, 1)
    if done.returncode:
        return {"trained": False, "seconds": seconds, "problem": (done.stdout + done.stderr)[-2000:]}
    with (folder / "run" / "results.csv").open(encoding="utf-8") as file:
        *_, row = csv.DictReader(file)
    values = {key.strip(): float(value) for key, value in row.items()}
    weights = torch.load(folder / "run" / "weights" / "last.pt", map_location="cpu", weights_only=False)["model"]
    finite = all(map(math.isfinite, values.values())) and all(t.isfinite().all() for t in weights.state_dict().values())
    return {
        "trained": bool(finite),
        "seconds": seconds,
        "parameters": sum(p.numel() for p in weights.parameters()),
        "layers": sum(type(m).__name__ == block for m in weights.modules()),
        **{key: values[key] for key in values if key.startswith(("train/", "val/", "metrics/"))},
    }


if __name__ == "__main__":
    sys.exit(main())
