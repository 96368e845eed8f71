"""A detector's forward pass in torch and in what it can be exported to."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from gam_speed.timing import Step

__all__ = ["RUNTIMES", "lacking"]


def lacking(form: str, device: torch.device) -> str | None:
    """Return why latency cannot be measured in a runtime, None where it can."""
    needs = {"onnxruntime": ("onnx", "onnxruntime"), "openvino": ("openvino",)}.get(form, ())
    if missing := [name for name in needs if importlib.util.find_spec(name) is None]:
        return f"no {' and '.join(missing)} installed"
    if device.type == "cuda" and form == "openvino":
        return "OpenVINO does not run on this GPU"
    if device.type == "cuda" and form == "onnxruntime":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return "the installed ONNX Runtime has no CUDA provider"
    return None


def exported(model: DetectionModel, image: Tensor, path: Path, form: str) -> str:
    """Export a model into the folder of `path` and return the file's name."""
    yolo: Any = YOLO("yolov8n.yaml", verbose=False)
    model = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
    model.args, model.task = yolo.model.args, yolo.task
    model.pt_path = str(path.with_suffix(".pt"))  # what an export is named after
    yolo.model = model
    device = "cpu" if image.device.type == "cpu" else image.device.index
    return str(yolo.export(format=form, imgsz=image.shape[-1], device=device, verbose=False))


def in_torch(model: DetectionModel, image: Tensor, _: Path) -> Step:
    """Return the forward pass of the fused model."""
    fused = copy.deepcopy(model).to(image.device).to(memory_format=torch.contiguous_format).eval().fuse(verbose=False)
    return torch.inference_mode()(lambda: fused(image))


def in_torchscript(model: DetectionModel, image: Tensor, path: Path) -> Step:
    """Return the forward pass of the exported script."""
    script = torch.jit.load(exported(model, image, path, "torchscript"), map_location=image.device)
    return torch.inference_mode()(lambda: script(image))


def in_onnxruntime(model: DetectionModel, image: Tensor, path: Path) -> Step:
    """Return a run of the exported graph in ONNX Runtime, with as many threads as torch has."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    provider = "CPUExecutionProvider" if image.device.type == "cpu" else "CUDAExecutionProvider"
    session = onnxruntime.InferenceSession(exported(model, image, path, "onnx"), settings, providers=[provider])
    feed = {session.get_inputs()[0].name: image.cpu().numpy()}
    return lambda: session.run(None, feed)


def in_openvino(model: DetectionModel, image: Tensor, path: Path) -> Step:
    """Return a run of the exported graph in OpenVINO, with as many threads as torch has and in float32.

    Left to itself, OpenVINO takes bfloat16 on a CPU that has it, which none of the others does.
    """
    import openvino

    xml = next(Path(exported(model, image, path, "openvino")).glob("*.xml"))
    threads = torch.get_num_threads()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(xml), "CPU", settings).create_infer_request()
    array = np.ascontiguousarray(image.numpy())
    return lambda: request.infer([array])


RUNTIMES: dict[str, Callable[[DetectionModel, Tensor, Path], Step]] = {
    "torch": in_torch,
    "torchscript": in_torchscript,
    "onnxruntime": in_onnxruntime,
    "openvino": in_openvino,
}
