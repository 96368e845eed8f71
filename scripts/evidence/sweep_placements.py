"""Place a block at every place and every pair of places of every detector that Ultralytics ships, and build each.

For each placement the text is rewritten and parsed by Ultralytics on the meta device. The layers that were built are
compared with those of the original. With the blocks left out, every layer must be of the same type, have tensors of the
same shapes and read the same layers. Single placements are also removed again, which must restore the original file
byte for byte.

With `--positions` it makes the other kinds of placement instead, in every model YAML: before, inside, in place of and
instead of rows, at named places, and as published. The function that the command calls makes each placement. It is
removed again, which must restore the file byte for byte. Every row of the base that is still there must have its
counterpart. All rows of a kind at once, and each named place, are built at the first scale, checked, and compared layer
by layer. One placement of each file, of several kinds at once, is built with real tensors and given the weights of the
base; every tensor is compared.

    python scripts/evidence/sweep_placements.py [--out docs/results/placements.json] [--only yolov8] [--doubles-every 1]
    python scripts/evidence/sweep_placements.py --positions [--out docs/results/placements.json] [--only yolov8]

Each writes its own part of the file.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["YOLO_OFFLINE"] = "true"

import torch
import ultralytics
import yaml
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

import gam_yolo
from gam_yolo import ultralytics_api
from gam_yolo.bottleneck import bottlenecks, is_attention
from gam_yolo.graph import lint, place
from gam_yolo.graph.edit import insert, remove, rewrite
from gam_yolo.graph.match import counterparts
from gam_yolo.graph.model import IMAGE, Document, Graph
from gam_yolo.graph.positions import RECIPES, resolve
from gam_yolo.graph.shapes import Shape, harmless, measure, scales
from gam_yolo.registry import BLOCKS
from gam_yolo.study.control import only_scale

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


_known: dict[str, list[Shape | None]] = {}


def measured(config: dict[str, Any], name: str, scale: str = "") -> list[Shape | None]:
    """Measure a model once; placing, checking and comparing ask for the same."""
    key = json.dumps([config["backbone"], config["head"], config.get("nc"), scale or scales(config)[0]], default=str)
    if key not in _known:
        _known[key] = measure(config, name, scale)
    return _known[key]


def positions(graph: Graph, layers: nn.Sequential, shapes: list[Shape | None]) -> dict[str, list[str]]:
    """Return the placements of a model by kind."""
    rows = graph.layers[:-1]
    kept = [r.index for r in rows if not r.many and r.sources[0] != IMAGE and shapes[r.index] is not None]
    kept = [i for i in kept if shapes[i] == shapes[graph.layers[i].sources[0]]]
    single = [r.index for r in graph.layers if IMAGE not in r.sources and all(shapes[s] for s in r.sources)]
    named = ["backbone", "neck", "head-inputs", *(f"backbone-p{i}" for i in range(1, 7)), *RECIPES]
    return {
        "before": [f"before {i}" for i in single],
        "inside": [f"inside {r.index}" for r in rows if bottlenecks(layers[r.index])],
        "replace": [f"replace {i}" for i in kept],
        "remove": [f"remove {i}" for i in kept],
        "named": [at for at in named if _is_there(graph, at, shapes)],
    }


def _is_there(graph: Graph, at: str, shapes: list[Shape | None]) -> bool:
    try:
        return bool(resolve(graph, at, shapes))
    except gam_yolo.UserError:
        return False


def sweep_positions(path: Path, folder: Path) -> dict[str, int]:
    """Make every placement of one file, and return how many there are of each kind."""
    _known.clear()
    document = Document.read(path)
    scale = scales(document.config)[0]
    document.config = only_scale(document.config, scale)
    shapes = measured(document.config, path.name, scale)
    with torch.device("meta"):
        layers, _ = tasks.parse_model(harmless(document.config, scale), 3, verbose=False)
    want = {i: _shapes(layer) for i, layer in enumerate(layers)}
    kinds = positions(document.graph, layers, shapes)
    for at in (at for kind in kinds.values() for at in kind):
        with mock.patch.object(place, "measure", return_value=shapes):  # only the text and the graph
            placed = restored(document, at, scale)
        taken = int(at.split()[1]) if at.startswith(("remove", "replace")) else None
        pairs = counterparts(document.graph, placed.graph, BLOCKS.get)
        if pairs.mismatch or {*pairs.base.values()} != {*range(len(layers))} - {taken}:
            raise SystemExit(f"{path.name}: {at} loses base rows: {pairs.mismatch}")
    plain = findings(document, folder, scale)
    for at in [*(", ".join(kinds[kind]) for kind in kinds if kind != "named"), *kinds["named"]]:
        placed = restored(document, at, scale) if at else document
        if new := findings(placed, folder, scale) - plain:
            raise SystemExit(f"{path.name}: {at}: {new}")
        with torch.device("meta"):
            found, _ = tasks.parse_model(harmless(placed.config, scale), 3, verbose=False)
        for row, old in counterparts(document.graph, placed.graph, BLOCKS.get).base.items():
            if _shapes(found[row]) != want[old]:
                raise SystemExit(f"{path.name}: {at} changes row {old}")
    ends = [kinds["before"][-1:], kinds["inside"][:1], kinds["remove"][-1:]]
    chosen = {at.split()[1]: at for kind in ends for at in kind}
    return {**{k: len(ats) for k, ats in kinds.items()}, "tensors": values(document, ", ".join(chosen.values()), scale)}


def restored(document: Document, at: str, scale: str) -> Document:
    """Place a block, and prove that its removal gives the file back."""
    _, placed = place.place_block(document, "" if at.startswith("remove") else BLOCK, at, ARGS, scale=scale)
    if rewrite(placed, remove(placed.graph, BLOCKS.__contains__)) != document.text:
        raise SystemExit(f"{document.name}: {at} cannot be removed again")
    return placed


def findings(document: Document, folder: Path, scale: str) -> set[str]:
    """Return what `check` finds in a model at one scale, by kind."""
    file = folder / Path(document.name).name
    file.write_text(yaml.safe_dump(only_scale(document.config, scale)), encoding="utf-8")
    return {finding.code for finding in lint.check(file)}


def _shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in layer.state_dict().items() if not is_attention(layer, key)}


def values(document: Document, at: str, scale: str) -> int:
    """Give a placed model the weights of its base, and return how many tensors of the base arrived: all."""
    _, placed = place.place_block(document, BLOCK, at, [{"start": "zero"}], scale=scale)
    config = harmless(document.config, scale)
    kind = ultralytics_api.model_class(config)
    base, model = kind(config, verbose=False), kind(harmless(placed.config, scale), verbose=False)
    for tensor in base.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else torch.randint(99, tensor.shape))
    model.load(base, verbose=False)
    pairs = counterparts(document.graph, placed.graph, BLOCKS.get)
    count = 0
    for row, old in pairs.base.items():
        state = model.model[row].state_dict()
        for key, tensor in base.model[old].state_dict().items():
            if not torch.equal(state[key], tensor):
                raise SystemExit(f"{document.name}: {at}: tensor {key} of row {old} did not arrive")
            count += 1
    if count != model.transferred["base_total"]:
        raise SystemExit(f"{document.name}: {at}: {count} tensors arrived, {model.transferred}")
    return count


def write(out: Path | None, part: dict[str, Any]) -> None:
    """Write some keys of the results, and keep the others."""
    if out:
        known = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        out.write_text(json.dumps({**known, **part}, separators=(",", ":")) + "\n", encoding="utf-8")


def main() -> None:
    """Sweep, and write how many placements were built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="only files whose name starts with this")
    parser.add_argument("--doubles-every", type=int, default=1)
    parser.add_argument("--positions", action="store_true", help="the other kinds of placement, in every model YAML")
    options = parser.parse_args()
    LOGGER.setLevel("ERROR")
    for layer in (nn.Conv2d, nn.BatchNorm2d, nn.Linear):
        layer.reset_parameters = lambda _: None  # values are not compared, and setting them would take half of the time
    torch.set_num_threads(1)
    place.measure = lint.measure = measured  # type: ignore[attr-defined]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml")):
            if not path.name.startswith(options.only):
                continue
            begin = time.perf_counter()
            if options.positions:
                results[path.name] = sweep_positions(path, Path(folder))
            elif Document.read(path).graph.head.module in HEADS:
                results[path.name] = sweep(path, options.doubles_every)
            else:
                continue
            print(path.name, results[path.name], f"{time.perf_counter() - begin:.0f} s", flush=True)
    total = {key: sum(result[key] for result in results.values()) for key in next(iter(results.values()))}
    report: dict[str, Any] = {"files": len(results), "total": total, "by file": results}
    if options.positions:
        report = {"positions": report}
    report = {"ultralytics": ultralytics.__version__, **report}
    print(json.dumps(report, indent=1)[:600])
    write(options.out, report)


if __name__ == "__main__":
    main()
