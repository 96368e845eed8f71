"""Say which width of the plain YOLOv8 has the latency of YOLOv8n with a block: one chart and its figures.

    python scripts/benchmarks/benchmark_width.py --out docs/results/width.json    # also docs/results/width.svg
    python scripts/benchmarks/benchmark_width.py --show docs/results/width.json   # the chart and the tables again

The plain models have YOLOv8n's depth and widths from n's 0.25 to s's 0.5. The others are YOLOv8n with a block before
each input of the head. Every model is exported once to ONNX, which ONNX Runtime and OpenVINO run in float32, with one
thread and with two. All models of one runtime take turns in one process, so that other programs on the machine affect
them equally. A latency is the time on the clock, the least of all turns: the machine must be idle. The processor's time
is recorded as well. The width that a latency buys lies on the straight line between the two nearest plain models.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gam_speed.environment import machine, versions
from gam_speed.models import counts
from gam_speed.runtimes import exported
from gam_speed.timing import Step
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

import gam_yolo
from gam_yolo.blocks.gam import PRESETS

PLAIN = "YOLOv8 width {:.2f}"
WIDTHS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
RUNTIMES = ("ONNX Runtime", "OpenVINO")
THREADS = (1, 2)
BURST = 3  # runs of one model before the next one's turn; the first warms the caches


def configs() -> dict[str, dict[str, Any]]:
    """Return the model YAMLs: plain ones of several widths, and YOLOv8n with blocks."""
    plain: dict[str, Any] = yaml_model_load("yolov8n.yaml")
    found: dict[str, dict[str, Any]] = {}
    for width in WIDTHS:
        found[PLAIN.format(width)] = config = copy.deepcopy(plain)
        config["scales"]["n"][1] = width
    blocks: dict[str, tuple[str, list[Any]]] = {"CBAM": ("CBAM", []), "EMA": ("EMA", [])}
    blocks |= {f"GAM {preset}": ("GAM", [{"preset": preset, "start": "zero"}]) for preset in PRESETS}
    for name, (block, args) in blocks.items():
        found[name] = {**gam_yolo.place("yolov8n.yaml", block=block, at="head-inputs", args=args).yaml, "scale": "n"}
    return found


def session(runtime: str, file: Path, image: np.ndarray[Any, Any], threads: int) -> Step:
    """Return a run of an ONNX file in float32."""
    if runtime == "ONNX Runtime":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting is not work
        loaded = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
        feed = {loaded.get_inputs()[0].name: image}
        return lambda: loaded.run(None, feed)
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(file), "CPU", options).create_infer_request()
    return lambda: request.infer([image])


def in_turns(steps: Mapping[str, Step], turns: int) -> dict[str, dict[str, float]]:
    """Time steps in turns; return, of each, the least time on the clock, and the processor's least and median time."""
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, step in steps.items():
            for number in range(BURST):
                start, busy = time.perf_counter(), time.process_time()
                step()
                if number:
                    wall[name].append(time.perf_counter() - start)
                    cpu[name].append(time.process_time() - busy)
    return {
        name: {
            "wall_ms": round(1e3 * min(wall[name]), 2),
            "cpu_ms": round(1e3 * min(cpu[name]), 2),
            "median_cpu_ms": round(1e3 * float(np.median(cpu[name])), 2),
        }
        for name in steps
    }


def same_latency(run: Mapping[str, Any], name: str) -> float:
    """Return the width of the plain model that takes as long as a model; NaN beyond the widest."""
    figures = run["models"]
    latencies = [figures[PLAIN.format(width)]["wall_ms"] for width in WIDTHS]
    return float(np.interp(figures[name]["wall_ms"], latencies, WIDTHS, right=np.nan))


def measure(imgsz: int, turns: int) -> dict[str, Any]:
    """Build and export all models, and time them in processes of their own."""
    torch.manual_seed(0)
    results: dict[str, Any] = {
        "machine": machine(torch.device("cpu")),
        "versions": versions(),
        "imgsz": imgsz,
        "models": {},
        "latency": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        files = {}
        for number, (name, config) in enumerate(configs().items()):
            model = DetectionModel(config, verbose=False)
            results["models"][name] = counts(model)
            image = torch.zeros(1, 3, imgsz, imgsz)
            files[name] = exported(model, image, Path(scratch, f"model{number}"), "onnx")
        given = Path(scratch, "files.json")
        given.write_text(json.dumps(files))
        for runtime in RUNTIMES:
            for threads in THREADS:
                child = [sys.executable, __file__, "--child", str(given), runtime, str(threads)]
                child += ["--turns", str(turns), "--imgsz", str(imgsz)]
                printed = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout
                figures = json.loads(printed.splitlines()[-1])
                results["latency"].append({"runtime": runtime, "threads": threads, "turns": turns, "models": figures})
                print(f"{runtime}, {threads} thread(s)", file=sys.stderr)
    return results


def tables(results: Mapping[str, Any]) -> str:
    """Return the figures in Markdown: latency of the plain models, and of each block with the width that it buys."""
    runs = results["latency"]
    heads = [f"{run['runtime']}, {run['threads']} thread{'s'[: run['threads'] - 1]}" for run in runs]
    lines = [f"| model | parameters | GFLOPs | {' | '.join(heads)} |", "| --- |" + " --- |" * (len(runs) + 2)]
    for name, count in results["models"].items():
        cells = []
        for run in runs:
            cell = f"{run['models'][name]['wall_ms']:.1f}"
            if not _is_plain(name):
                width = same_latency(run, name)
                cell += f" ({f'{width:.3f}' if width == width else f'over {WIDTHS[-1]:.2f}'})"
            cells.append(cell)
        lines.append(f"| {name} | {count['parameters']:,} | {count['gflops_torch']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _is_plain(name: str) -> bool:
    return name in map(PLAIN.format, WIDTHS)


def chart(results: Mapping[str, Any]) -> str:
    """Draw, for each block, the width of the plain model with the same latency, by runtime and number of threads."""
    runs = results["latency"]
    names = [name for name in results["models"] if not _is_plain(name)]
    found = {name: [same_latency(run, name) for run in runs] for name in names}
    names.sort(key=lambda name: float(np.mean(np.nan_to_num(found[name], nan=WIDTHS[-1]))))
    most = max(width for widths in found.values() for width in widths if width == width)
    end = next(width for width in WIDTHS if width >= most)  # the rest of the way to s would be empty
    left, right, top, row = 150, 640, 62, 26
    bottom = top + row * len(names)

    def x(width: float) -> float:
        return round(left + (right - left) * (width - WIDTHS[0]) / (end - WIDTHS[0]), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 {bottom + 46}" font-family="sans-serif" '
        'font-size="12" role="img" fill="#222">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        "<title>Width of the plain YOLOv8 that takes as long as YOLOv8n with a block</title>",
        '<text x="10" y="20" font-size="14" font-weight="bold">'
        "Width of the plain YOLOv8 that takes as long as YOLOv8n with the block</text>",
    ]
    for place, run in enumerate(runs):
        at = 14 + 168 * place
        parts.append(_mark(at, 40, run))
        label = f"{run['runtime']}, {run['threads']} thread{'s'[: run['threads'] - 1]}"
        parts.append(f'<text x="{at + 10}" y="44" font-size="11">{label}</text>')
    for width in np.linspace(WIDTHS[0], end, 6).tolist():
        letter = {WIDTHS[0]: " (n)", WIDTHS[-1]: " (s)"}.get(width, "")
        parts.append(f'<path d="M{x(width)} {top}V{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(width)}" y="{bottom + 18}" text-anchor="middle">{width:.2f}{letter}</text>')
    for place, name in enumerate(names):
        y = top + row * place + row / 2
        parts.append(f'<text x="{left - 14}" y="{y + 4}" text-anchor="end">{name}</text>')
        known = [width for width in found[name] if width == width] or [WIDTHS[-1]]
        parts.append(f'<path d="M{x(min(known))} {y}H{x(max(known))}" stroke="#aaa"/>')
        for run, width in zip(runs, found[name], strict=True):
            if width == width:
                parts.append(_mark(x(width), y, run))
            else:
                parts.append(f'<text x="{right + 8}" y="{y + 4}">&gt;</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 38}" text-anchor="middle">width multiplier</text></svg>')
    return "\n".join(parts) + "\n"


def _mark(x: float, y: float, run: Mapping[str, Any]) -> str:
    """Draw a figure's place: its colour is the runtime's, and it is filled with one thread, empty with two."""
    colour = ("#0072b2", "#d55e00")[RUNTIMES.index(run["runtime"])]
    return f'<circle cx="{x}" cy="{y}" r="5" stroke="{colour}" fill="{colour if run["threads"] == 1 else "#fff"}"/>'


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON for the figures; the chart goes next to it")
    parser.add_argument("--show", type=Path, help="figures of an earlier run, instead of a measurement")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--child", nargs=3, metavar=("FILES", "RUNTIME", "THREADS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        given, runtime, threads = options.child
        image = np.random.default_rng(0).random((1, 3, options.imgsz, options.imgsz), dtype=np.float32)
        files = json.loads(Path(given).read_text())
        steps = {name: session(runtime, Path(file), image, int(threads)) for name, file in files.items()}
        print(json.dumps(in_turns(steps, options.turns)))
        return
    file = options.show or options.out
    results = json.loads(file.read_text()) if options.show else measure(options.imgsz, options.turns)
    if file is not None:
        file.write_text(json.dumps(results, separators=(",", ":")) + "\n")
        file.with_suffix(".svg").write_text(chart(results))
    print(tables(results))


if __name__ == "__main__":
    main()
