r"""Export detectors with attention blocks, run each file by its own runtime, and compare with PyTorch.

    pip install onnx onnxruntime openvino nncf ncnn pnnx MNN litert-torch ai-edge-litert executorch \
        "paddlepaddle<3.3" x2paddle six
    GAM_YOLO_VOC=/data/VOC2007 OMP_NUM_THREADS=1 \
        python scripts/evidence/exports.py --weights yolov8n.pt --out docs/results/exports.json \
        --trained "gam-zero-10=runs/study/voc-starts/gam-zero-10-s0-*" "plain=runs/study/voc-starts/plain-s0-*" \
        --tune plain

Every shipped block is built into YOLOv8n with the pretrained COCO weights and random weights of its own, and exported.
So are trained models. `--tune` adds one for each block and preset: placed before the head of a trained detector, and
trained for a part of an epoch. For each file:

- its raw outputs are compared with PyTorch's on photographs, before any suppression: the largest difference of a box
  (centre and size, in pixels) and of a score;
- of trained models, mAP 50-95 by Ultralytics' own `val` on the exported file; of tuned ones on a part of the images;
- the processor time of one image on one core, in turns with PyTorch in the same process.

A second start goes on where the first one ended. `--table` prints the file's tables in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import ultralytics
from PIL import Image
from ultralytics import YOLO
from ultralytics.nn.autobackend import AutoBackend

import gam_yolo
from gam_yolo import ultralytics_api
from gam_yolo.annotations.images import image_files
from gam_yolo.annotations.yolo import dataset
from gam_yolo.attention.gates import attention_blocks
from gam_yolo.blocks.gam import PRESETS
from gam_yolo.io import write
from gam_yolo.report.variants import find_files

OTHERS = (
    "BAM", "CAA", "CBAM", "CoordAtt", "ECA", "ELA", "EMA", "LSKA", "MLCA", "SCSA", "SE", "SimAM", "Triplet",
    "UltralyticsCBAM",
)  # fmt: skip
BUILT: dict[str, dict[str, Any]] = {
    "no block": {},
    "GAM": {"block": "GAM"},
    "GAM, start zero": {"block": "GAM", "args": {"start": "zero", "gain": 10}},
    "GAM, start identity": {"block": "GAM", "args": {"start": "identity"}},
    "GAM inside C2f": {"block": "GAM", "at": "inside C2f", "args": {"start": "zero"}},
    **{f"GAM, {preset}": {"block": "GAM", "args": {"preset": preset}} for preset in PRESETS if preset != "blog"},
    **{block: {"block": block} for block in OTHERS},
}
"""Arguments of `gam_yolo.place`, before the head unless they say otherwise."""

START = {"start": "zero", "gain": 10}  # loses nothing of the detector, and is let in within a few steps
TUNED: dict[str, dict[str, Any]] = {
    **{f"gam-{preset}": {"block": "GAM", "args": {"preset": preset, **START}} for preset in PRESETS},
    **{block.lower(): {"block": block, "args": START} for block in OTHERS},
    # Seven steps move some blocks little, and LSKA's raw gate much.
    **{name.lower(): {"block": name, "args": {**START, "gain": 100}} for name in ("CAA", "ECA", "Triplet")},
    "lska": {"block": "LSKA", "args": {**START, "gain": 1}},
    "simam": {"block": "SimAM", "args": {"start": "identity", "gain": 100}},  # without parameters in any other start
}
"""Blocks that are placed before the head of a trained detector, and then learn alone."""
TUNING: dict[str, Any] = {
    "epochs": 1, "fraction": 0.1, "batch": 16, "nbs": 16, "optimizer": "AdamW", "lr0": 0.001, "warmup_epochs": 0,
    "mosaic": 0, "val": False, "plots": False, "device": "cpu", "workers": 0, "amp": False,
}  # fmt: skip
LOOKED = 8  # images on which a tuned block's change of its input is measured

TORCH, FLOAT32 = "PyTorch", "OpenVINO in float32"  # by itself it computes in bfloat16 where the processor can
FORMATS: dict[str, dict[str, Any]] = {
    TORCH: {},
    "TorchScript": {"format": "torchscript"},
    "TorchScript, dynamic": {"format": "torchscript", "dynamic": True},
    "TorchScript, fp16": {"format": "torchscript", "quantize": 16},
    "ONNX": {"format": "onnx"},
    "ONNX, dynamic": {"format": "onnx", "dynamic": True},
    "ONNX, fp16": {"format": "onnx", "quantize": 16},
    "ONNX, int8": {"format": "onnx", "quantize": 8},
    "OpenVINO": {"format": "openvino"},
    FLOAT32: {"format": "openvino"},
    "OpenVINO, dynamic": {"format": "openvino", "dynamic": True},
    "OpenVINO, fp16": {"format": "openvino", "quantize": 16},
    "OpenVINO, int8": {"format": "openvino", "quantize": 8},
    "NCNN": {"format": "ncnn"},
    "NCNN, fp16": {"format": "ncnn", "quantize": 16},
    "MNN": {"format": "mnn"},
    "MNN, dynamic": {"format": "mnn", "dynamic": True},
    "MNN, fp16": {"format": "mnn", "quantize": 16},
    "MNN, int8 weights": {"format": "mnn", "quantize": 8},
    "LiteRT": {"format": "litert"},
    "LiteRT, fp16": {"format": "litert", "quantize": 16},
    "LiteRT, int8": {"format": "litert", "quantize": 8},
    "LiteRT, int8 weights": {"format": "litert", "quantize": "w8a32"},
    "PaddlePaddle": {"format": "paddle"},
    "ExecuTorch": {"format": "executorch"},
}
CALIBRATED = ("onnx", "openvino", "litert")  # with images, for int8
PACKAGES = (
    "torch", "onnx", "onnxruntime", "openvino", "nncf", "ncnn", "pnnx", "MNN", "litert-torch", "ai-edge-litert",
    "paddlepaddle", "x2paddle", "executorch",
)  # fmt: skip
SIZE, DYNAMIC_SIZE, PHOTOGRAPHS = 224, 320, 2
TURNS = 21  # of the time; the first is not counted
SHOWN = (("ms", 1), ("torch_ms", 1), ("bytes", 1e6))


def main() -> None:
    """Measure what is missing in the file, or print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="yolov8n.pt", help="pretrained weights of the built models")
    parser.add_argument("--trained", nargs="*", default=[], metavar="NAME=RUN", help="checkpoints or run folders")
    parser.add_argument("--data", default="voc-local.yaml", help="dataset of the photographs and the trained models")
    parser.add_argument("--tune", default="", metavar="NAME", help="the model of --trained that gets each block")
    parser.add_argument("--tuned", nargs="*", choices=TUNED, default=list(TUNED), metavar="MODEL")
    parser.add_argument("--folder", type=Path, default=Path("runs/exports"), help="where tuned models are kept")
    parser.add_argument("--images", type=int, default=100, help="validation images of tuned models")
    parser.add_argument("--formats", nargs="*", choices=FORMATS, default=list(FORMATS), metavar="FORMAT")
    parser.add_argument("--models", nargs="*", choices=BUILT, default=list(BUILT), metavar="MODEL")
    parser.add_argument("--out", type=Path, default=Path("exports.json"))
    parser.add_argument("--table", action="store_true", help="print the tables of --out and stop")
    parser.add_argument("--measure", nargs="+", metavar="...", help=argparse.SUPPRESS)  # a format, then models
    options = parser.parse_args()
    if options.measure:
        kind, *models = options.measure
        use_one_core()
        if kind == FLOAT32:
            compute_in_float32()
        for name in models:
            print(json.dumps([name, measure(name, kind, options)]), flush=True)
        return
    content = json.loads(options.out.read_text("utf-8")) if options.out.is_file() else {}
    content = {"trained": {}, "built": {}, "tuned": {}} | content
    asked = [("trained", name.partition("=")[0]) for name in options.trained]
    asked += [("built", name) for name in options.models]
    asked += [("tuned", name) for name in options.tuned if options.tune]
    for kind in [] if options.table else options.formats:
        todo = {name: where for where, name in asked if kind not in content[where].setdefault(name, {})}
        if kind == TORCH:
            todo = {name: where for name, where in todo.items() if where != "built"}
        for name, found in measured(kind, todo, options):
            print(kind, name, found, flush=True)
            content[todo[name]][name][kind] = found
            content["settings"] = settings(options)
            write(options.out, json.dumps(content, separators=(",", ":")) + "\n")
    print(tables(content))


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the figures depend on."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"ultralytics": ultralytics.__version__, "gam-yolo": gam_yolo.__version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    processor = "?"
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    return {
        "versions": versions, "imgsz": SIZE, "data": options.data, "photographs": PHOTOGRAPHS,
        "processor": processor, "cores": 1, "turns": TURNS - 1, "tuning": TUNING, "tuned_images": options.images,
    }  # fmt: skip


def measured(kind: str, names: Iterable[str], options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what each model gives in a format. Converters can end their process: it is started again then."""
    command = [sys.executable, __file__]
    for key in ("weights", "data", "tune", "folder", "images"):
        command += [f"--{key}", str(getattr(options, key))]
    left = list(names)
    while left:
        arguments = [*command, "--trained", *options.trained, "--measure", kind, *left]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in process.stdout or ():
            if line.startswith(f'["{left[0]}", {{'):
                yield left.pop(0), json.loads(line)[1]
                if not left:
                    break
        status = process.wait()
        if left:
            yield left.pop(0), {"problem": f"the process ended with status {status}"}


def checkpoint(name: str, options: argparse.Namespace, folder: Path) -> tuple[Path, bool]:
    """Copy or build a model in a folder, and say whether it was trained."""
    file = folder / "model.pt"
    trained = dict(pair.split("=", 1) for pair in options.trained)
    if name in trained or name in TUNED:
        found = find_files(name, trained[name])[0] if name in trained else tuned(name, trained, options)
        shutil.copy(found, file)
        return file, True
    if BUILT[name]:
        gam_yolo.place("yolov8n.yaml", **{"at": "neck", **BUILT[name]}).save(folder / "yolov8n-built.yaml")
    torch.manual_seed(0)
    source = folder / "yolov8n-built.yaml" if BUILT[name] else "yolov8n.yaml"
    yolo: Any = YOLO(str(source)).load(options.weights)
    with torch.no_grad():  # no block stays the identity, however it starts
        for block in attention_blocks(yolo.model).values():
            for parameter in block.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    yolo.save(file)
    return file, False


def tuned(name: str, trained: dict[str, str], options: argparse.Namespace) -> Path:
    """Return a trained detector with a block before its head, trained for a part of an epoch more, made once."""
    kept: Path = options.folder / f"{name}.pt"
    if not kept.is_file():
        detector = YOLO(find_files(options.tune, trained[options.tune])[0])
        options.folder.mkdir(parents=True, exist_ok=True)
        source = options.folder / f"yolov8n-{name}.yaml"
        placed = gam_yolo.place("yolov8n.yaml", at="head-inputs", **TUNED[name]).text
        text = re.sub(r"(?m)^nc: \d+", f"nc: {len(detector.names)}\nblock_epochs: {TUNING['epochs']}", placed)
        source.write_text(text, "utf-8")
        torch.manual_seed(0)
        yolo: Any = YOLO(source).load(find_files(options.tune, trained[options.tune])[0])
        with tempfile.TemporaryDirectory() as runs:
            few = part(argparse.Namespace(data=options.data, images=LOOKED), Path(runs))  # it is validated at its end
            yolo.train(data=few, imgsz=SIZE, project=runs, name=name, **TUNING)
            shutil.copy(Path(runs, name, "weights/last.pt"), kept)
    return kept


def part(options: argparse.Namespace, folder: Path) -> str:
    """Write a dataset YAML whose validation images are some of the dataset's, at equal distances."""
    whole, files = dataset(options.data, "val"), photographs(options.data)
    chosen = files[:: max(1, len(files) // options.images)][: options.images]
    (folder / "part.txt").write_text("\n".join(map(str, chosen)), "utf-8")
    content = {"path": str(folder), "train": whole["train"], "val": "part.txt", "names": whole["names"]}
    (folder / "part.yaml").write_text(json.dumps(content), "utf-8")
    return str(folder / "part.yaml")


def photographs(data: str) -> list[Path]:
    """Return the validation images by name, so that a part of them is the same in every file system."""
    return sorted(image_files(dataset(data, "val")["val"], data))


def measure(name: str, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Export a model in one format, run it, and return how it differs from PyTorch."""
    with tempfile.TemporaryDirectory() as folder, ultralytics_api.quiet():
        how = dict(FORMATS[kind])
        try:
            source, trained = checkpoint(name, options, Path(folder))
            data = part(options, Path(folder)) if name in TUNED else options.data
            if how.get("quantize") == 8 and how["format"] in CALIBRATED:
                how["data"] = data
            exported = Path(YOLO(source).export(imgsz=SIZE, device="cpu", verbose=False, **how)) if how else source
            found: dict[str, Any] = {"bytes": size(exported)}
            found |= outputs(source, exported, DYNAMIC_SIZE if how.get("dynamic") else SIZE, options.data)
            if trained:
                found["AP"] = accuracy(exported, data, folder)
            if name in TUNED and kind == TORCH:
                (looked,) = gam_yolo.look(source, photographs(options.data)[:LOOKED], pictures=0).models
                found["change"] = [block.change for block in looked.blocks]
        except Exception as error:
            return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]}
    return found


def compute_in_float32() -> None:
    """Have OpenVINO compute in float32, which Ultralytics leaves to it."""
    import openvino

    compiled = openvino.Core.compile_model

    def compile_model(self: Any, model: Any, device_name: Any = None, config: Any = None) -> Any:
        return compiled(self, model, device_name, {**(config or {}), "INFERENCE_PRECISION_HINT": "f32"})

    openvino.Core.compile_model = compile_model


def use_one_core() -> None:
    """Have every runtime compute on one core. Some count the cores of the machine, not those of the process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    torch.set_num_threads(1)
    import onnxruntime

    session = onnxruntime.InferenceSession

    def start(path: Any, sess_options: Any = None, **more: Any) -> Any:
        options = sess_options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return session(path, options, **more)

    onnxruntime.InferenceSession = start
    with contextlib.suppress(ImportError):
        import ncnn

        class Net(ncnn.Net):  # type: ignore[misc]  # without types
            def __init__(self) -> None:
                super().__init__()
                self.opt.num_threads = 1

        ncnn.Net = Net


def size(exported: Path) -> int:
    """Return the bytes of a file or of a folder's files."""
    files = exported.rglob("*") if exported.is_dir() else [exported]
    return sum(file.stat().st_size for file in files if file.is_file())


def outputs(source: Path, exported: Path, pixels: int, data: str) -> dict[str, float]:
    """Compare the raw outputs on the first photographs of the validation split, and the time."""
    files = photographs(data)[:PHOTOGRAPHS]
    expected = AutoBackend(str(source), device=torch.device("cpu"), fp16=False, verbose=False)
    actual = AutoBackend(str(exported), device=torch.device("cpu"), fp16=False, verbose=False)
    boxes, scores, x = [], [], torch.empty(0)
    for file in files:
        with Image.open(file) as opened:
            image = np.asarray(opened.convert("RGB").resize((pixels, pixels)), dtype=np.float32) / 255
        x = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
        with torch.inference_mode():
            whole, other = (run(network, x) for network in (expected, actual))
        if whole.shape != other.shape:
            raise ValueError(f"the output has shape {tuple(other.shape)} instead of {tuple(whole.shape)}")
        difference = (whole - other).abs()
        boxes.append(float(difference[:, :4].max()))
        scores.append(float(difference[:, 4:].max()))
    torch_ms, own_ms = times((expected, actual), x)
    return {"box": max(boxes), "score": max(scores), "ms": own_ms, "torch_ms": torch_ms}


def times(networks: Sequence[Any], x: torch.Tensor) -> list[float]:
    """Return the median processor time of each network on an image, in ms, with the networks in turns.

    Processor time does not grow where other programs run at the same time, and includes all threads.
    """
    spent: list[list[float]] = [[] for _ in networks]
    with torch.inference_mode():
        for _ in range(TURNS):
            for network, own in zip(networks, spent, strict=True):
                start = time.process_time()
                run(network, x)
                own.append(1000 * (time.process_time() - start))
    return [statistics.median(own[1:]) for own in spent]


def run(network: Any, x: torch.Tensor) -> torch.Tensor:
    """Return the output of a network, (1, 4 + classes, predictions)."""
    out = network(x)
    return torch.as_tensor(out[0] if isinstance(out, (list, tuple)) else out).float()


def accuracy(exported: Path, data: str, folder: str) -> float:
    """Return mAP 50-95 by Ultralytics' validation, image by image in the exported size."""
    how = {"data": data, "imgsz": SIZE, "batch": 1, "rect": False, "plots": False, "device": "cpu", "workers": 0}
    return float(YOLO(str(exported), task="detect").val(**how, verbose=False, project=folder, name="val").box.map)


def tables(content: dict[str, Any]) -> str:
    """Return the Markdown tables of the formats and of the models, and what did not work and why.

    Time, size and mAP of the first table are those of the first trained model.
    """
    trained, tuned_models = content["trained"], content.get("tuned", {})
    everything = content["built"] | trained | tuned_models
    title = next(iter(trained), "")
    first: dict[str, dict[str, Any]] = trained.get(title, {})
    lines = [
        f"| format | runs | boxes, px | scores | ms | PyTorch, ms | MB | {title} |",
        "| --- " * 8 + "|",
    ]
    problems: dict[tuple[str, str], list[str]] = {}
    for kind in FORMATS:
        found = {name: one[kind] for name, one in everything.items() if kind in one}
        for name, one in found.items():
            if "problem" in one:
                problems.setdefault((kind, one["problem"]), []).append(name)
        ran = [one for one in found.values() if "problem" not in one]
        cells = [kind, f"{len(ran)} of {len(found)}"]
        cells += [f"{max(one[key] for one in ran):.1g}" if ran and kind != TORCH else "" for key in ("box", "score")]
        cells += [f"{first[kind][key] / unit:.1f}" if key in first.get(kind, {}) else "" for key, unit in SHOWN]
        lines += [f"| {' | '.join([*cells, points(first, kind)])} |"] if found else []
    lines += ["" for _ in problems][:1]
    lines += [f"- {kind}, {', '.join(names)}: `{brief(text)}`" for (kind, text), names in problems.items()]
    models = {name: one for name, one in (trained | tuned_models).items() if "AP" in one.get(TORCH, {})}
    kinds = [kind for kind in FORMATS if sum(bool(points(one, kind)) for one in models.values()) > 1]
    reduced = [
        kind for kind in kinds if kind == "OpenVINO" or "quantize" in FORMATS[kind]
    ]  # it is in bfloat16 by itself
    for columns in ([kind for kind in kinds if kind not in reduced], reduced):
        lines += ["", f"| model | changes | {' | '.join(columns)} |", "| --- " * (2 + len(columns)) + "|"]
        for name, one in models.items():
            changes = [100 * change for change in one[TORCH].get("change", ())]
            span = f"{min(changes):.1f} to {max(changes):.1f} %" if changes else ""
            cells = [points(one, kind) for kind in columns]
            lines += [f"| {name} | {span} | {' | '.join(cells)} |"] if any(cells) else []
    return "\n".join(lines)


def brief(text: str) -> str:
    """Return the first statement of an error message of Ultralytics."""
    return text.replace("ERROR ❌️ ", "").partition("; ")[0]


def points(found: dict[str, dict[str, Any]], kind: str) -> str:
    """Return a model's mAP in points, or the exported file's difference to it."""
    one = found.get(kind, {})
    if "AP" not in one:
        return "fails" if "problem" in one else ""
    if kind == TORCH:
        return f"{100 * one['AP']:.1f}"
    return f"{round(100 * (one['AP'] - found[TORCH]['AP']), 2) + 0.0:+.2f}"  # no negative zero


if __name__ == "__main__":
    main()
