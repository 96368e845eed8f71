"""YOLOv8n plain, with CBAM and with each form of GAM: training, validation and latency."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils.torch_utils import get_flops

from gam_speed.bench import Bench, console
from gam_speed.memory import peak_bytes
from gam_speed.reference import swap
from gam_speed.results import OURS, PLAIN, REFERENCE, Json
from gam_speed.runtimes import RUNTIMES, lacking
from gam_speed.timing import Step, over
from gam_yolo.blocks.gam import PRESETS

try:
    from ultralytics.utils.nms import non_max_suppression
except ImportError:  # Ultralytics before 8.3.200
    from ultralytics.utils.ops import non_max_suppression  # type: ignore[attr-defined, no-redef]

__all__ = ["detectors", "measure_models"]

EXISTING = ("blog", "paper", "paper-grouped", "forks")  # the other presets are the cheap ones


def detectors() -> dict[str, DetectionModel]:
    """Build the detectors that are compared; the two forms of GAM have the same weights."""
    torch.manual_seed(0)
    rows = {
        PLAIN: yaml_model_load("yolov8n.yaml"),
        "YOLOv8n-CBAM": yaml_model_load("yolov8n-cbam.yaml"),
        OURS: _with_rows([]),
    }
    for preset in [preset for preset in PRESETS if preset not in EXISTING]:
        rows[f"YOLOv8n-GAM {preset}"] = _with_rows([{"preset": preset}])
    models = {name: DetectionModel(yaml, verbose=False) for name, yaml in rows.items()}
    models[REFERENCE] = copy.deepcopy(models[OURS])
    swap(models[REFERENCE])
    for model in models.values():
        model.args = get_cfg()  # the loss reads its gains there
    return models


def _with_rows(args: list[Any]) -> dict[str, Any]:
    """Return the YAML of YOLOv8n with GAM and these arguments in its rows; the shipped rows start as the identity."""
    yaml: dict[str, Any] = yaml_model_load("yolov8n-gam.yaml")
    for row in yaml["head"]:
        if row[2] == "GAM":
            row[3] = args
    return yaml


def measure_models(bench: Bench, until: float) -> None:
    """Measure the detectors into `results["models"]`: counts, training, validation, latency."""
    imgsz = 320 if bench.quick else 640
    gpu = bench.device.type == "cuda"
    models = detectors()
    out = bench.results["models"] = {
        "counts": {name: counts(model) for name, model in models.items()},
        "train": [],
        "val": [],
        "latency": [],
    }
    bench.save()
    batches = ([16] if bench.quick else [16, 64]) if gpu else [8]
    for batch in batches:
        steps = {
            name: training_step(model.to(bench.device), batch, imgsz, bench.device) for name, model in models.items()
        }
        figures = model_figures(bench, steps, batch)
        for name in [name for name in figures if "error" not in figures[name]]:
            figures[name]["peak_bytes"] = peak_bytes(steps[name], bench.device)
        out["train"].append({"batch": batch, "imgsz": imgsz, "dtype": "amp" if gpu else "float32", "models": figures})
        bench.save()
        console.print(f"{bench.elapsed():5.0f} s  training at batch {batch} measured")
        for model in models.values():
            model.zero_grad(set_to_none=True)
        del steps
    fused = {name: copy.deepcopy(model).eval().fuse(verbose=False) for name, model in models.items()}
    for batch in batches:
        steps = {name: validation_step(model, batch, imgsz, bench.device) for name, model in fused.items()}
        figures = model_figures(bench, steps, batch)
        out["val"].append({"batch": batch, "imgsz": imgsz, "dtype": "float16" if gpu else "float32", "models": figures})
        bench.save()
        console.print(f"{bench.elapsed():5.0f} s  validation at batch {batch} measured")
    measure_latency(bench, models, imgsz, until)


def counts(model: DetectionModel) -> Json:
    """Return parameters and, at 640 px, GFLOPs by Ultralytics' count (None without thop) and by torch's own."""
    model = copy.deepcopy(model).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 640, 640))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflops": get_flops(model, 640) or None,
        "gflops_torch": counter.get_total_flops() / 1e9,
    }


def model_figures(bench: Bench, steps: dict[str, Step], batch: int) -> dict[str, Json]:
    """Return the times of whole models on the wall clock, images/s, and the ratio to the plain detector."""
    figures, times = bench.interleaved(steps)
    for name, figure in figures.items():
        if "error" in figure:
            bench.leave_out(name, figure["error"])
        else:
            figure |= {"images_per_s": batch / figure["median_s"], "over_plain": over(times, name, PLAIN)}
            figure["over_reference"] = over(times, name, REFERENCE)
    return figures


def training_step(model: DetectionModel, batch: int, imgsz: int, device: torch.device) -> Step:
    """Return a step of training as Ultralytics' trainer takes it: loss, backward, clipped gradient, SGD.

    On a GPU with AMP and channels-last, the trainer's defaults there; 7 objects an image, COCO's mean.
    """
    gpu = device.type == "cuda"
    model = model.train().to(memory_format=torch.channels_last if gpu else torch.contiguous_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.937, nesterov=True)
    scaler = torch.amp.GradScaler(device.type, enabled=gpu)
    generator = torch.Generator().manual_seed(0)
    objects = 7 * batch
    data = {
        "img": torch.rand(batch, 3, imgsz, imgsz, generator=generator),
        "batch_idx": torch.arange(batch).repeat_interleave(7).float(),
        "cls": torch.randint(80, (objects, 1), generator=generator).float(),
        "bboxes": 0.1 + 0.4 * torch.rand(objects, 4, generator=generator),
    }
    data = {key: value.to(device) for key, value in data.items()}

    def step() -> None:
        with torch.autocast(device.type, enabled=gpu):
            loss = torch.as_tensor(model(data)[0]).sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def validation_step(model: DetectionModel, batch: int, imgsz: int, device: torch.device) -> Step:
    """Return the forward pass of a fused model and the suppression of 300 boxes per image.

    The boxes are made up and the same for all models: an untrained detector finds none to suppress. On a GPU in half
    precision, as the trainer validates.
    """
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    model = model.to(device, dtype).to(memory_format=torch.contiguous_format)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, imgsz, imgsz, generator=generator).to(device, dtype)
    anchors = sum((imgsz // stride) ** 2 for stride in (8, 16, 32))
    boxes = torch.zeros(batch, 84, anchors)
    boxes[:, :4] = 10 + (imgsz / 2) * torch.rand(batch, 4, anchors, generator=generator)
    places = torch.randperm(anchors, generator=generator)[:300]
    boxes[:, 4 + torch.randint(80, (300,), generator=generator), places] = torch.rand(batch, 300, generator=generator)
    boxes = boxes.to(device)

    def step() -> object:
        with torch.inference_mode():
            model(image)
            return non_max_suppression(boxes.clone(), 0.001, 0.7, multi_label=True)

    return step


def measure_latency(bench: Bench, models: dict[str, DetectionModel], imgsz: int, until: float) -> None:
    """Measure one image through each model, fused, in torch and in every runtime that is here."""
    image = torch.rand(1, 3, imgsz, imgsz, device=bench.device)
    if bench.quick:  # an export takes some ten seconds
        models = {name: model for name, model in models.items() if name in (PLAIN, REFERENCE, OURS)}
    steps: dict[str, dict[str, Step]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for form, load in RUNTIMES.items():
            if why := lacking(form, bench.device):
                bench.leave_out(f"latency in {form}", why)
                continue
            for name, model in models.items():
                if form != "torch" and bench.elapsed() > until:
                    bench.leave_out(f"latency of {name} in {form}", "no time left")
                    continue
                try:
                    steps.setdefault(form, {})[name] = load(
                        model, image, Path(folder) / "".join(filter(str.isalnum, name))
                    )
                except Exception as error:  # a runtime that rejects a model is a result; the others continue
                    bench.leave_out(f"latency of {name} in {form}", f"{type(error).__name__}: {error}".splitlines()[0])
            console.print(f"{bench.elapsed():5.0f} s  {form} ready")
        for form, mine in steps.items():
            figures = model_figures(bench, mine, 1)
            bench.results["models"]["latency"].append(
                {"runtime": form, "batch": 1, "imgsz": imgsz, "dtype": "float32", "models": figures}
            )
            bench.save()
