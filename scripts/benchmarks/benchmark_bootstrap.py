"""Time 1,000 paired bootstrap replicates of COCO's metrics beside hotcoco's, on a set the size of COCO val2017.

    pip install hotcoco==1.3.0
    python scripts/benchmarks/benchmark_bootstrap.py

Both read the same three files from disk. Both are timed by the wall clock, each in its own process, one after the
other. The second half compares the intervals of both with a closed-form answer. Every object of a class is found or
missed independently, without false positives. Average recall is then a share, and its standard error is known.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

IMAGES, CLASSES, OBJECTS, DETECTIONS = 5_000, 80, 36_000, 150_000


def ground_truth(rng: np.random.Generator) -> dict[str, Any]:
    """Make a COCO ground truth whose classes are as unequal in number as COCO's and whose objects differ in size."""
    share = 1 / np.arange(1, CLASSES + 1)
    image = rng.integers(1, IMAGES + 1, OBJECTS)
    label = rng.choice(CLASSES, OBJECTS, p=share / share.sum()) + 1
    size = np.exp(rng.normal(4, 1, (OBJECTS, 2))).clip(4, 400)
    corner = rng.random((OBJECTS, 2)) * (640 - size)
    box = np.round(np.concatenate([corner, size], axis=1), 2)
    crowd = rng.random(OBJECTS) < 0.01
    rows = zip(image.tolist(), label.tolist(), box.tolist(), crowd.tolist(), strict=True)
    return {
        "images": [{"id": i, "file_name": f"{i:012}.jpg", "width": 640, "height": 640} for i in range(1, IMAGES + 1)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, CLASSES + 1)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k, "bbox": b, "area": b[2] * b[3] * 0.7, "iscrowd": int(c)}
            for n, (i, k, b, c) in enumerate(rows, 1)
        ],
    }


def detections(rng: np.random.Generator, truth: dict[str, Any], skill: float) -> list[dict[str, Any]]:
    """Make one model's detections: most objects found more or less exactly, the rest of the boxes anywhere."""
    objects: list[dict[str, Any]] = truth["annotations"]
    found = [o for o in objects if rng.random() < skill]
    rows = []
    for o in found:
        x, y, w, h = o["bbox"]
        dx, dy, dw, dh = rng.normal(0, 0.06, 4) * (w, h, w, h)
        rows.append((o["image_id"], o["category_id"], [x + dx, y + dy, w + dw, h + dh], rng.beta(4, 2)))
    share = 1 / np.arange(1, CLASSES + 1)
    n = DETECTIONS - len(rows)
    image, label = rng.integers(1, IMAGES + 1, n), rng.choice(CLASSES, n, p=share / share.sum()) + 1
    size = np.exp(rng.normal(4, 1, (n, 2))).clip(4, 400)
    box = np.concatenate([rng.random((n, 2)) * (640 - size), size], axis=1)
    rows += list(zip(image.tolist(), label.tolist(), box.tolist(), rng.beta(1, 8, n).tolist(), strict=True))
    return [
        {"image_id": i, "category_id": k, "bbox": np.round(b, 3).tolist(), "score": round(float(s), 5)}
        for i, k, b, s in rows
    ]


def coin_flips(rng: np.random.Generator, n: int) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    """Make a one-class set of `n` images with an object each, and two models that find it with chance 0.6 and 0.5."""
    box = [10.0, 10.0, 100.0, 100.0]
    truth: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 640} for i in range(1, n + 1)],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 1e4, "iscrowd": 0} for i in range(1, n + 1)
        ],
    }
    models = []
    for chance in (0.6, 0.5):
        hits = np.flatnonzero(rng.random(n) < chance) + 1
        models.append([{"image_id": i, "category_id": 1, "bbox": box, "score": 0.9} for i in hits.tolist()])
    return truth, models


OURS = """
import json, sys
from gam_yolo.evaluation import METRICS, difference, draw_weights, read_coco, read_detections, resample
truth = read_coco(sys.argv[1])
draws = draw_weights(len(truth.ids), int(sys.argv[4]), seed=0)
a, b = (resample(truth, [read_detections(path, truth)], draws) for path in sys.argv[2:4])
d = difference(b, a)
print(json.dumps({m: [d.value[0, j], d.image_variance[0, j] ** 0.5] for j, m in enumerate(METRICS)}))
"""


def timed(command: list[str]) -> tuple[float, float, str]:
    """Run a command; return its seconds, its peak memory in GB, and what it printed."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        if status:
            raise SystemExit(f"{command[0]} failed")
        out.seek(0)
        return seconds, usage.ru_maxrss / 2**20, out.read()


def run(folder: Path, truth: object, models: list[object], replicates: int) -> None:
    """Write the three files, run both programs and print what they took and found."""
    paths = [folder / name for name in ("truth.json", "a.json", "b.json")]
    for path, content in zip(paths, [truth, *models], strict=True):
        path.write_text(json.dumps(content))
    gt, a, b = map(str, paths)
    seconds, memory, out = timed([sys.executable, "-c", OURS, gt, a, b, str(replicates)])
    ours = json.loads(out)
    coco = str(Path(sys.executable).with_name("coco"))
    command = [coco, "compare", "--gt", gt, "--dt-a", a, "--dt-b", b, "--bootstrap", str(replicates), "--json"]
    theirs_seconds, theirs_memory, out = timed(command)
    theirs = json.loads(out)
    print("| | seconds | peak GB | AP, difference | standard error | AR100, difference | standard error |")
    print("|" + " --- |" * 7)
    cells = " | ".join(f"{ours[m][0]:.4f} | {ours[m][1]:.5f}" for m in ("AP", "AR100"))
    print(f"| gam_yolo | {seconds:.1f} | {memory:.2f} | {cells} |")
    cells = " | ".join(f"{theirs['deltas'][m]:.4f} | {theirs['ci'][m]['std_err']:.5f}" for m in ("AP", "AR100"))
    print(f"| hotcoco | {theirs_seconds:.1f} | {theirs_memory:.2f} | {cells} |")
    print(f"ratio of seconds {seconds / theirs_seconds:.3f}\n", flush=True)


def main() -> None:
    """Run the benchmark and the closed-form case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=1000)
    replicates = parser.parse_args().replicates
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        truth = ground_truth(rng)
        run(Path(folder), truth, [detections(rng, truth, 0.75), detections(rng, truth, 0.77)], replicates)
        truth, flips = coin_flips(rng, 1000)
        print(f"Closed form: standard error of the difference in AR100 {np.sqrt((0.6 * 0.4 + 0.5 * 0.5) / 1000):.5f}")
        run(Path(folder), truth, list(flips), replicates)


if __name__ == "__main__":
    main()
