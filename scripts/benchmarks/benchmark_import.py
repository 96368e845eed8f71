"""Measure what the installed package adds to `import ultralytics`, to interpreter start and to building a model.

    python scripts/benchmarks/benchmark_import.py [--runs 20]

Fresh processes with the plug-in on and off alternate in one run on one machine. Off means `GAM_YOLO=0`, and
`TORCH_DEVICE_BACKEND_AUTOLOAD=0` so that not even its entry point is loaded. Quote the median of the paired ratios.
Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys

CASES = {
    "interpreter start": "pass",
    "import torch": "import torch",
    "import ultralytics": "import ultralytics",
    "from ultralytics import YOLO": "from ultralytics import YOLO",
    "build yolov8n.yaml": "from ultralytics import YOLO; YOLO('yolov8n.yaml')",
}
BUILD = """
import statistics, time
from pathlib import Path
from ultralytics.nn import tasks
import gam_yolo
def seconds(build, model):
    times = []
    for _ in range(15):
        start = time.perf_counter(); build(tasks.yaml_model_load(model), 3, verbose=False)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
whole = seconds(tasks.parse_model, 'yolov8n-gam.yaml')
plain, bare = seconds(tasks.parse_model, 'yolov8n.yaml'), seconds(tasks.parse_model.__wrapped__, 'yolov8n.yaml')
block = [time.perf_counter(), [gam_yolo.GAM(c) for c in (64, 128, 256)], time.perf_counter()]
print(whole, plain, bare, block[2] - block[0])
"""


def main() -> None:
    """Print the ratios and the build's added seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    off = {"GAM_YOLO": "0", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    result: dict[str, object] = {"python": platform.python_version(), "machine": platform.platform(), "runs": runs}
    for case, code in CASES.items():
        seconds(code, {}), seconds(code, off)  # warm the disk cache
        pairs = [(seconds(code, {}), seconds(code, off)) for _ in range(runs)]
        result[case] = {
            "with_cpu_s": statistics.median(a for a, _ in pairs),
            "without_cpu_s": statistics.median(b for _, b in pairs),
            "ratio": statistics.median(a / b for a, b in pairs),
        }
    done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, check=True)
    whole, plain, bare, blocks = map(float, done.stdout.split())
    result["parse_model, seconds"] = {
        "yolov8n-gam.yaml": whole,
        "of which its three blocks": blocks,
        "yolov8n.yaml": plain,
        "yolov8n.yaml, Ultralytics' function bare": bare,
        "added by the plug-in to yolov8n-gam.yaml": whole - bare - blocks,
    }
    print(json.dumps(result, separators=(",", ":")))


def seconds(code: str, extra: dict[str, str]) -> float:
    """Return the processor time, user and system, of one fresh interpreter; wall time would measure its neighbours."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], env=os.environ | extra, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
