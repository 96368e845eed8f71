"""The cost of a model: parameters, arithmetic, and the time of a forward pass on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from gam_yolo import ultralytics_api
from gam_yolo.io import text_sha256
from gam_yolo.report.predictions import load
from gam_yolo.report.schema import Cost
from gam_yolo.report.tasks import TaskName

__all__ = ["measure_costs"]

_WARM_UP, _ROUNDS = 3, 40


def measure_costs(paths: dict[str, Path], imgsz: int, device: str, task: TaskName = "detect") -> dict[str, Cost]:
    """Measure checkpoints in turn, pass by pass, so that other load on the machine affects all of them alike.

    Args:
        paths: One checkpoint for each variant.
        imgsz: Side of the square input image in pixels.
        device: Device in Ultralytics' notation, "" for its choice.
        task: What the models do.
    """
    import torch

    where = ultralytics_api.get("select_device")(device, verbose=False)
    models: dict[str, Any] = {}
    costs: dict[str, dict[str, Any]] = {}
    for name, path in paths.items():
        network = load(path, task).model.float().eval()
        content = {key: value for key, value in network.yaml.items() if key != "yaml_file"}
        costs[name] = {
            "parameters": int(ultralytics_api.get("get_num_params")(network)),
            "gflops": float(ultralytics_api.get("get_flops")(network, imgsz)) or None,
            "yaml": str(network.yaml.get("yaml_file", "")),
            "yaml_sha256": text_sha256(content),
        }
        models[name] = network.fuse(verbose=False).to(where)
    image = torch.rand(1, 3, imgsz, imgsz, device=where)
    times: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for turn in range(_WARM_UP + _ROUNDS):
            for name, network in models.items():
                if where.type == "cuda":
                    torch.cuda.synchronize(where)
                begin = time.perf_counter()
                network(image)
                if where.type == "cuda":
                    torch.cuda.synchronize(where)
                if turn >= _WARM_UP:
                    times[name].append(1000 * (time.perf_counter() - begin))
    label = (
        torch.cuda.get_device_name(where)
        if where.type == "cuda"
        else f"{where.type}, threads: {torch.get_num_threads()}"
    )
    return {
        name: Cost(
            **cost,
            latency_median=float(np.median(times[name])),
            latency_p95=float(np.percentile(times[name], 95)),
            device=label,
        )
        for name, cost in costs.items()
    }
