"""What a command imports: nothing that it does not use. Each process here imports torch and takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NEVER = {"matplotlib", "pandas", "polars", "scipy", "torchvision", "gam_yolo.resnet", "gam_yolo.study.run"}
COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
LIGHT = {"torch", "numpy", "ultralytics", "PIL", "cv2", "psutil", "gam_yolo.report.run"}
COMMANDS = {
    "--version": LIGHT,
    **dict.fromkeys(("--help", "compare --help", "study --help", "look --help", "prepare --help"), LIGHT),
    "blocks": COMPILER | {"ultralytics", "cv2", "torch.utils.flop_counter"},
    "blocks GAM": COMPILER | {"ultralytics", "cv2", "torch.utils.flop_counter"},
    "check yolov8n-gam.yaml yolo11-ema.yaml": COMPILER,
    "place yolo26n.yaml --block GAM --at p3": COMPILER,
}
REPORT = "import sys, json, atexit; atexit.register(lambda: print('\\n' + json.dumps(sorted(sys.modules))))\n"


def imported(code: str, folder: Path) -> set[str]:
    """Return the modules that a fresh process has imported after running `code`."""
    env = {**os.environ, "YOLO_CONFIG_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", REPORT + code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_only_what_it_uses(command: str, tmp_path: Path) -> None:
    code = f"from gam_yolo.cli import main; sys.argv = ['gam-yolo', *{command.split()}]; main()"
    assert imported(code, tmp_path) & (NEVER | COMMANDS[command]) == set()


def test_building_a_model_with_blocks_imports_only_the_plugin(tmp_path: Path) -> None:
    """The meta device, on which the parser finds the channels, would import torch's compiler."""
    plain, ours = (
        imported(f"from ultralytics import YOLO; YOLO('yolov8n{name}.yaml')", tmp_path) for name in ("", "-gam")
    )
    assert {name for name in ours - plain if not name.startswith("gam_yolo")} & (NEVER | COMPILER) == set()


def test_comparing_prediction_files_imports_neither_torch_nor_ultralytics(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 64} for i in range(20)]
    objects = [{"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 40, 40], "area": 1600} for i in range(20)]
    truth = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    for name, step in (("good", 1), ("poor", 2)):
        found = [{**thing, "score": 0.9} for thing in objects[::step]]
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    files = ["poor.json", "good.json", "--gt", "truth.json", "--replicates", "100", "--output", "report"]
    code = f"from gam_yolo.cli import main; sys.argv = ['gam-yolo', 'compare', *{files}]; main()"
    assert imported(code, tmp_path) & {"torch", "ultralytics"} == set()
    assert (tmp_path / "report" / "report.html").is_file()
