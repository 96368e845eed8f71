"""Train every GAM preset for some steps in mixed precision on real images, and count what is not finite.

    GAM_YOLO_VOC=../shared/data/VOC2007 python scripts/evidence/train_amp.py [--steps 50] [--out docs/results/amp.json]

It uses bfloat16 on the CPU, and float16 with a gradient scaler on a GPU. (Ultralytics itself switches AMP off on a
CPU.) Every preset is at the three head inputs of YOLOv8n, with the start `default`. The articles' preset also has the
starts `identity`, `zero`, and `zero` with `gain: 10` as in the shipped rows. Training is from scratch, by SGD at
Ultralytics' learning rate 0.01, with its own data loader, augmentation and loss.
The exit status is 1 if any loss, weight or gradient was not finite (with float16, gradients that the scaler skipped
are counted, not failed).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import ultralytics
from rich.progress import track
from ultralytics.cfg import get_cfg
from ultralytics.data import build_dataloader, build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

from gam_yolo.blocks.gam import PRESETS

CASES: list[dict[str, Any]] = [
    *({"preset": name} for name in PRESETS),
    *({"start": start} for start in ("identity", "zero")),
    {"start": "zero", "gain": 10},  # the row of yolov8n-gam.yaml and its kin
]


def main() -> int:
    """Train all cases and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="voc-local.yaml")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = check_det_dataset(options.data)
    cases = {str(case): train(case, data, device, options) for case in CASES}
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU ({platform.machine()})",
        "dtype": str(dtype_of(device)),
        "torch": torch.__version__,
        "ultralytics": ultralytics.__version__,
        "data": options.data,
        "imgsz": options.imgsz,
        "batch": options.batch,
        "cases": cases,
    }
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
    return any(case["losses_not_finite"] or case["weights_not_finite"] for case in cases.values())


def dtype_of(device: torch.device) -> torch.dtype:
    """Return the precision that training on the device mixes in."""
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def train(
    case: dict[str, Any], data: dict[str, Any], device: torch.device, options: argparse.Namespace
) -> dict[str, Any]:
    """Train one case; return the first and last loss and the counts of what was not finite."""
    torch.manual_seed(0)
    cfg: Any = get_cfg(overrides={"imgsz": options.imgsz, "batch": options.batch, "task": "detect", "mode": "train"})
    dataset = build_yolo_dataset(cfg, data["train"], options.batch, data, mode="train", stride=32)
    loader = build_dataloader(dataset, options.batch, workers=0, shuffle=True)
    yaml = yaml_model_load("yolov8n-gam.yaml")
    for row in yaml["head"]:
        if row[2] == "GAM":
            row[3] = [case]
    model = DetectionModel(yaml, nc=data["nc"], verbose=False).to(device).train()
    model.args = cfg
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.937, weight_decay=5e-4, nesterov=True)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    losses: list[float] = []
    skipped = 0
    batches = iter(loader)
    for _ in track(range(options.steps), description=str(case)):
        batch = next(batches, None) or next(batches := iter(loader))
        batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        batch["img"] = batch["img"].float() / 255
        with torch.autocast(device.type, dtype=dtype_of(device)):
            loss = torch.as_tensor(model(batch)[0]).sum()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)  # as Ultralytics' trainer does
        skipped += not torch.isfinite(norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    return {
        "steps": len(losses),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "losses_not_finite": sum(not torch.isfinite(torch.tensor(x)).item() for x in losses),
        "gradients_not_finite": int(skipped),
        "weights_not_finite": sum(int((~torch.isfinite(t)).sum()) for t in model.state_dict().values()),
    }


if __name__ == "__main__":
    sys.exit(main())
