"""Measure `gam-yolo compare` from start to end: processor time by stage, and peak memory, on sets like COCO val2017.

    python scripts/benchmarks/benchmark_compare.py                                   # 5,000 images, 2 variants, 1 seed
    python scripts/benchmarks/benchmark_compare.py --variants 5 --seeds 5
    python scripts/benchmarks/benchmark_compare.py --hotcoco                         # beside `coco compare`
    python scripts/benchmarks/benchmark_compare.py --growth --out docs/results/compare.json

The data are made up: 7.2 objects and 100 to 300 detections an image, classes as unequal in number as COCO's, files as
Ultralytics writes them. Every comparison is a process of its own. Times are processor time, user and system, of all its
threads: other programs on the machine change them little. `pip install hotcoco==1.3.0` for `--hotcoco`.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STAGES = {
    "read the annotations": ("gam_yolo.report.detection:read_truth",),
    "read the predictions": ("gam_yolo.report.run:collect",),
    "match": (
        "gam_yolo.evaluation.bootstrap:match_coco",
        "gam_yolo.evaluation.bootstrap:match_voc",
        "gam_yolo.report.gallery:match_coco",
    ),
    "replicates": ("gam_yolo.report.comparison:draw_weights", "gam_yolo.report.comparison:resample"),
    "intervals": ("gam_yolo.report.comparison:compare_samples",),
    "page": ("gam_yolo.report.run:assemble", "gam_yolo.report.run:report_files", "gam_yolo.report.run:write_files"),
}
"""Functions by stage. A function's time is without that of the functions of other stages that it calls."""


@dataclass(frozen=True)
class Size:
    """What is compared."""

    images: int = 5_000
    classes: int = 80
    variants: int = 2
    seeds: int = 1
    replicates: int = 1_000
    detections: tuple[int, int] = (100, 300)
    """Least and most detections of an image."""


def boxes(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Draw boxes anywhere on an image of 640 x 640 pixels."""
    size = np.exp(rng.normal(4, 1, (n, 2))).clip(4, 400)
    return np.concatenate([rng.random((n, 2)) * (640 - size), size], axis=1)


def write_data(size: Size, folder: Path) -> dict[str, list[Path]]:
    """Write `truth.json` and the predictions; return the files of each variant."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, size.classes + 1)
    share /= share.sum()
    image = np.repeat(np.arange(size.images), rng.geometric(1 / 8.2, size.images) - 1)
    label, box = rng.choice(size.classes, len(image), p=share), np.round(boxes(rng, len(image)), 2)
    rows = zip(image.tolist(), label.tolist(), box.tolist(), (rng.random(len(image)) < 0.01).tolist(), strict=True)
    truth = {
        "images": [{"id": i, "file_name": f"{i:012}.jpg", "width": 640, "height": 640} for i in range(size.images)],
        "categories": [{"id": k + 1, "name": f"class {k + 1}"} for k in range(size.classes)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k + 1, "bbox": b, "area": b[2] * b[3] * 0.7, "iscrowd": int(c)}
            for n, (i, k, b, c) in enumerate(rows)
        ],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    files: dict[str, list[Path]] = {}
    for variant in range(size.variants):
        for seed in range(size.seeds):
            path = folder / f"variant{variant}-s{seed}.json"
            _write_predictions(rng, size, image, label, box, share, 0.75 + 0.02 * variant, path)
            files.setdefault(f"variant{variant}", []).append(path)
    return files


def _write_predictions(
    rng: np.random.Generator,
    size: Size,
    image: NDArray[np.intp],
    label: NDArray[np.intp],
    box: NDArray[np.float64],
    share: NDArray[np.float64],
    skill: float,
    path: Path,
) -> None:
    """Write one seed's predictions: most objects found more or less exactly, the other boxes anywhere."""
    found = rng.random(len(image)) < skill
    moved = box[found] + rng.normal(0, 0.06, (found.sum(), 4)) * np.tile(box[found][:, 2:], 2)
    number = rng.integers(*size.detections, size.images, endpoint=True)
    rest = np.maximum(number - np.bincount(image[found], minlength=size.images), 0)
    images = np.concatenate([image[found], np.repeat(np.arange(size.images), rest)])
    labels = np.concatenate([label[found], rng.choice(size.classes, rest.sum(), p=share)])
    placed = np.concatenate([moved.clip(0.5), boxes(rng, int(rest.sum()))])
    scores = np.concatenate([rng.beta(4, 2, found.sum()), rng.beta(0.5, 20, rest.sum())]).clip(0.001, 1)
    order = np.lexsort((-scores, images))
    columns = (images[order].tolist(), labels[order].tolist(), np.round(placed[order], 3).tolist())
    with path.open("w") as file:
        separator = "["
        for i, k, b, s in zip(*columns, np.round(scores[order], 5).tolist(), strict=True):
            name = f'"image_id": {i}, "file_name": "{i:012}.jpg", "category_id": {k + 1}'
            file.write(f'{separator}{{{name}, "bbox": {b}, "score": {s}}}')
            separator = ", "
        file.write("]")


def timed(command: list[str], **environment: str) -> tuple[float, float, str]:
    """Run a command; return its processor time in seconds, its peak memory in GB, and what it printed."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        out.seek(0)
        printed = out.read()
    if status:
        raise SystemExit(f"{' '.join(command)} failed\n{printed}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, printed


def compare_in_stages(files: dict[str, list[str]], truth: str, output: str, replicates: int) -> dict[str, float]:
    """Run the comparison in this process; return the processor time of each stage."""
    spent = dict.fromkeys([*STAGES, "rest"], 0.0)
    running, last = ["rest"], time.process_time()

    def switch() -> None:
        nonlocal last
        now = time.process_time()
        spent[running[-1]] += now - last
        last = now

    def count(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            switch()
            running.append(stage)
            try:
                return function(*args, **kwargs)
            finally:
                switch()
                running.pop()

        return counted

    from gam_yolo import compare

    spent["import"] = last = time.process_time()
    for stage, names in STAGES.items():
        for name in names:
            module, _, function = name.partition(":")
            owner = importlib.import_module(module)
            setattr(owner, function, count(stage, getattr(owner, function)))
    compare(files, gt=truth, replicates=replicates, output=output, progress=lambda line: print(line, file=sys.stderr))
    switch()
    return spent


def measure(size: Size, folder: Path, *, hotcoco: bool = False) -> dict[str, Any]:
    """Make data of a size and compare them."""
    files = write_data(size, folder)
    arguments = {
        "files": {name: list(map(str, paths)) for name, paths in files.items()},
        "truth": str(folder / "truth.json"),
        "output": str(folder / "report"),
        "replicates": size.replicates,
    }
    (folder / "arguments.json").write_text(json.dumps(arguments))
    seconds, memory, printed = timed([sys.executable, __file__, "--child", str(folder / "arguments.json")])
    found: dict[str, Any] = {
        **vars(size),
        "seconds": round(seconds, 2),
        "peak_gb": round(memory, 2),
        "stages": {name: round(value, 2) for name, value in json.loads(printed.splitlines()[-1]).items()},
        "megabytes": round(sum(path.stat().st_size for paths in files.values() for path in paths) / 1e6),
    }
    if hotcoco:
        a, b = [str(paths[0]) for paths in files.values()][:2]
        command = [str(Path(sys.executable).with_name("coco")), "compare", "--gt", str(arguments["truth"]), "--json"]
        command += ["--dt-a", a, "--dt-b", b, "--bootstrap", str(size.replicates)]
        seconds, memory, _ = timed(command)
        found["hotcoco"] = {"seconds": round(seconds, 2), "peak_gb": round(memory, 2)}
        found["ratio"] = round(found["seconds"] / seconds, 3)
    return found


def growth(base: Size) -> list[tuple[str, float, Size]]:
    """Return sizes that differ from the base in one respect: its name, the factor, and the size."""
    return [
        ("images", 4, replace(base, images=4 * base.images)),
        ("classes", 15, replace(base, classes=15 * base.classes)),
        ("variants", 3, replace(base, variants=3 * base.variants)),
        ("seeds", 3, replace(base, seeds=3 * base.seeds)),
        ("replicates", 4, replace(base, replicates=4 * base.replicates)),
    ]


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in vars(Size()).items():
        parser.add_argument(f"--{name}", type=int, nargs=2 if name == "detections" else None, default=value)
    parser.add_argument("--hotcoco", action="store_true", help="also time hotcoco's compare of the first two files")
    parser.add_argument("--growth", action="store_true", help="also larger sizes, one at a time, with the exponent")
    parser.add_argument("--folder", type=Path, help="where to keep the data and the report; by default nowhere")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(compare_in_stages(**json.loads(options.child.read_text()))))
        return
    values = {name: getattr(options, name) for name in vars(Size())}
    base = Size(**{**values, "detections": tuple(values["detections"])})
    runs = [("base", 1.0, base), *(growth(base) if options.growth else [])]
    results: list[dict[str, Any]] = []
    for name, factor, size in runs:
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.folder or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            found = measure(size, folder, hotcoco=options.hotcoco)
        if results:
            for figure in ("seconds", "peak_gb"):
                found[f"exponent_of_{figure}"] = round(math.log(found[figure] / results[0][figure], factor), 2)
        results.append({"name": name, **found})
        print(json.dumps(results[-1]), flush=True)
    if options.out:
        machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "numpy": np.__version__}
        options.out.write_text(json.dumps({"machine": machine, "runs": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
