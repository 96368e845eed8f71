"""Test the plug-in with other Ultralytics releases: build, train, validate, export, in fresh processes.

    python scripts/evidence/ultralytics_versions.py 8.3.0 8.3.253 8.4.0 8.4.190

Each release is installed, without its dependencies, into a temporary folder that comes first on the path. The
versions that pass are what `pyproject.toml` may allow; `docs/compatibility.md` has the last figures. Prints one row per
release and exits 1 if one failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

# Family -> first release line that has it
FAMILIES = {"yolov8n-gam": (8, 0), "yolo11n-gam-backbone": (8, 3), "yolo26n-gam": (8, 4)}
TRAIN = ["epochs=1", "imgsz=64", "batch=8", "workers=0", "device=cpu", "plots=False", "fraction=0.1", "optimizer=SGD"]


def main() -> int:
    """Test each release named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+")
    console = Console()
    table = Table("ultralytics", *FAMILIES, "safe load", title="Plug-in with other Ultralytics releases")
    failed = False
    for version in parser.parse_args().versions:
        with tempfile.TemporaryDirectory() as folder:
            outcome = try_release(version, Path(folder))
        table.add_row(version, *outcome)
        console.print(version, *outcome)
        failed |= any(not o.startswith(("passed", "not in")) for o in outcome)
    console.print(table)
    return failed


def try_release(version: str, folder: Path) -> list[str]:
    """Return what happened for each family, and for restricted loading, under one release."""
    site, work = folder / "site", folder / "work"
    work.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, f"ultralytics=={version}"], check=True)
    env = os.environ | {"PYTHONPATH": str(site), "YOLO_CONFIG_DIR": str(folder / "config")}
    env |= {"YOLO_AUTOINSTALL": "false", "PYTHONWARNINGS": "ignore"}

    def yolo(*arguments: str, **extra: str) -> str:
        code = "from ultralytics.cfg import entrypoint; entrypoint()"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=work, env=env | extra, capture_output=True, text=True
        )
        lines = (done.stdout + done.stderr).strip().splitlines()
        return "" if done.returncode == 0 else f"{arguments[0]} failed: {lines[-1][-90:] if lines else 'silently'}"

    outcome = []
    release = tuple(map(int, version.split(".")[:2]))
    for model, since in FAMILIES.items():
        if release < since:
            outcome.append("not in it")
            continue
        run = work / "runs" / model
        last, data = run / "weights" / "last.pt", "data=gam-demo.yaml"
        steps = [
            ("train", f"model={model}.yaml", data, f"project={run.parent}", f"name={model}", *TRAIN),
            ("val", f"model={last}", data, "imgsz=64", "device=cpu", "workers=0", "plots=False"),
            ("export", f"model={last}", "format=torchscript", "imgsz=64"),
        ]
        outcome.append(next((bad for step in steps if (bad := yolo(*step))), "passed"))
    trained = f"model={work / 'runs/yolov8n-gam/weights/last.pt'}"
    val = ("val", trained, "data=gam-demo.yaml", "imgsz=64", "device=cpu", "workers=0", "plots=False")
    return [*outcome, yolo(*val, ULTRALYTICS_SAFE_LOAD="1") or "passed"]


if __name__ == "__main__":
    sys.exit(main())
