"""Check on a GPU what a CPU cannot show: mixed precision, half-precision inference, resume, DDP, `torch.compile`.

    GAM_YOLO_NEU=/data/NEU-DET python scripts/evidence/gpu_checks.py --out docs/results/gpu-checks.json

Run it in a folder with `yolov8n.pt`. The trainings are short: they show that a path works, not what it reaches. A check
that fails is written down with its error, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.dist import generate_ddp_file

from gam_yolo.blocks import GAM
from gam_yolo.blocks.gam import PRESETS

MODEL = "yolov8n-gam.yaml"


def main() -> int:
    """Run all checks and write their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="neu-local.yaml")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    options = parser.parse_args()
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "checks": {}}
    with tempfile.TemporaryDirectory() as folder:
        quick = {"data": options.data, "imgsz": 224, "batch": 16, "workers": 2, "plots": False, "device": 0}
        checks = Checks(quick | {"exist_ok": True, "project": folder}, Path(folder))
        for check in (checks.presets, checks.amp, checks.half, checks.resume, checks.ddp, checks.compiled):
            results["checks"][check.__name__] = measured(check)
            options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return any("error" in result for result in results["checks"].values())


def measured(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a check found, or its error, and its seconds."""
    start = time.perf_counter()
    try:
        found = check()
    except Exception as error:  # one that fails must not cost the others
        found = {"error": f"{type(error).__name__}: {error}"[:300]}
    return found | {"seconds": round(time.perf_counter() - start, 1)}


class Checks:
    """The checks, with the train arguments that they share.

    Args:
        quick: Train arguments.
        folder: Where trainings are saved.
    """

    def __init__(self, quick: dict[str, Any], folder: Path) -> None:
        self.quick, self.folder = quick, folder

    def presets(self) -> dict[str, Any]:
        """Every preset in float16 against float32."""
        errors = {}
        for preset in PRESETS:
            torch.manual_seed(0)
            gam, x = GAM(128, preset=preset).cuda().eval(), torch.randn(8, 128, 40, 40, device="cuda")
            with torch.inference_mode():
                exact, half = gam(x), gam.half()(x.half()).float()
            errors[preset] = float((exact - half).norm() / exact.norm())
        return {"relative_error_float16": errors}

    def amp(self) -> dict[str, Any]:
        """A training in mixed precision from pretrained weights."""
        model: Any = YOLO(MODEL).load("yolov8n.pt")
        model.train(**self.quick, epochs=2, fraction=0.3, amp=True, name="amp")
        return {"amp": bool(model.trainer.amp), "weights_finite": finite(model)}

    def half(self) -> dict[str, Any]:
        """Validation of that model in both precisions."""
        model = YOLO(self.folder / "amp" / "weights" / "best.pt")
        what = {key: self.quick[key] for key in ("data", "imgsz", "device", "plots")}
        return {str(half): float(model.val(**what, half=half).box.map) for half in (False, True)}

    def resume(self) -> dict[str, Any]:
        """A training in mixed precision that is stopped after its second epoch and resumed."""

        def stop(trainer: Any) -> None:
            if trainer.epoch == 1:
                raise KeyboardInterrupt

        model: Any = YOLO(MODEL)
        model.add_callback("on_model_save", stop)
        try:
            model.train(**self.quick, epochs=4, fraction=0.1, amp=True, name="resume")
        except KeyboardInterrupt:
            model = YOLO(self.folder / "resume" / "weights" / "last.pt")
            model.train(resume=True, device=0)
        return {"epochs": model.trainer.epoch + 1, "weights_finite": finite(model)}

    def ddp(self) -> dict[str, Any]:
        """The script that Ultralytics makes for several GPUs, as one process."""
        training = self.quick | {"model": MODEL, "epochs": 1, "fraction": 0.1, "name": "ddp"}
        script = generate_ddp_file(DetectionTrainer(overrides=training))
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "1", script], check=True, timeout=300
        )
        model = YOLO(self.folder / "ddp" / "weights" / "last.pt")
        return {"gam_blocks": sum(isinstance(module, GAM) for module in model.model.modules())}

    def compiled(self) -> dict[str, Any]:
        """A training of a model that torch.compile has compiled."""
        model: Any = YOLO(MODEL)
        model.train(**self.quick, epochs=1, fraction=0.2, amp=True, compile=True, name="compile")
        return {"trained_as": type(model.trainer.model).__name__, "weights_finite": finite(model)}


def finite(model: Any) -> bool:
    """Return whether all weights are finite."""
    return all(bool(torch.isfinite(value).all()) for value in model.model.state_dict().values())


if __name__ == "__main__":
    sys.exit(main())
