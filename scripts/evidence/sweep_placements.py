"""Place a block at every place and every pair of places of every detector that Ultralytics ships, and build each.

For each placement the text is rewritten, parsed by Ultralytics on the meta device, and the layers that were built are
compared with those of the original: with the blocks left out, every layer is of the same type, has tensors of the same
shapes and reads the same layers. Single placements are also removed again, which must restore the original file
byte for byte.

    python scripts/evidence/sweep_placements.py [--out docs/results/placements.json] [--only yolov8] [--doubles-every 1]
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ["YOLO_OFFLINE"] = "true"

import torch
import ultralytics
import yaml
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

import gam_yolo
from gam_yolo.graph.edit import insert, remove, rewrite
from gam_yolo.graph.model import Document
from gam_yolo.graph.shapes import measure, scales

HEADS = {"Detect", "v10Detect", "WorldDetect", "YOLOEDetect", "RTDETRDecoder"}
BLOCK, ARGS = "GAM", [1]  # a reduction of 1 fits any number of channels


def built(config: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Build a model and describe each layer: type, tensors' shapes, and what it reads, blocks passed through."""
    with torch.device("meta"):
        layers, _ = tasks.parse_model({**copy.deepcopy(config), "scale": scales(config)[0]}, 3, verbose=False)
    out: list[tuple[Any, ...]] = []
    passed: list[int] = []  # row -> row among those that are not blocks
    for layer in layers:
        read = [passed[i % layer.i] if layer.i else -1 for i in ([layer.f] if isinstance(layer.f, int) else layer.f)]
        if isinstance(layer, gam_yolo.GAM):
            passed.append(read[0])
            continue
        passed.append(len(out))
        shapes = {key: tuple(tensor.shape) for key, tensor in layer.state_dict().items()}
        out.append((layer.type, shapes, read))
    return out


def sweep(path: Path, every: int) -> dict[str, int]:
    """Place at every row of one file, and at every `every`-th pair of rows."""
    document = Document.read(path)
    shapes = measure(document.config, path.name, scales(document.config)[0])
    places = [row for row, shape in enumerate(shapes) if shape]
    want = built(document.config)
    pairs = [*itertools.combinations(places, 2)][::every]
    for rows in [*((row,) for row in places), *pairs]:
        text = rewrite(document, insert(document.graph, rows, BLOCK, ARGS))
        if built(yaml.load(text, yaml.CSafeLoader)) != want:
            raise SystemExit(f"{path.name}: {BLOCK} after {rows} changes the graph")
        if len(rows) == 1:
            placed = Document(text, path.name)
            if rewrite(placed, remove(placed.graph, BLOCK.__eq__)) != document.text:
                raise SystemExit(f"{path.name}: {BLOCK} after {rows} cannot be removed again")
    return {"single": len(places), "double": len(pairs), "no feature map": len(shapes) - 1 - len(places)}


def main() -> None:
    """Sweep, and write how many placements were built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="only files whose name starts with this")
    parser.add_argument("--doubles-every", type=int, default=1)
    options = parser.parse_args()
    LOGGER.setLevel("ERROR")
    for layer in (nn.Conv2d, nn.BatchNorm2d, nn.Linear):
        layer.reset_parameters = lambda _: None  # values are not compared, and setting them would take half of the time
    torch.set_num_threads(1)
    results = {}
    for path in sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml")):
        if path.name.startswith(options.only) and Document.read(path).graph.head.module in HEADS:
            begin = time.perf_counter()
            results[path.name] = sweep(path, options.doubles_every)
            print(path.name, results[path.name], f"{time.perf_counter() - begin:.0f} s", flush=True)
    total = {key: sum(result[key] for result in results.values()) for key in ("single", "double", "no feature map")}
    report = {"ultralytics": ultralytics.__version__, "files": len(results), "total": total, "by file": results}
    print(json.dumps({key: report[key] for key in ("ultralytics", "files", "total")}))
    if options.out:
        options.out.write_text(json.dumps(report, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
