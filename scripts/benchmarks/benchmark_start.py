"""Measure what a `gam-yolo` command costs from start to end, as a multiple of `import ultralytics.nn.tasks`.

    python scripts/benchmarks/benchmark_start.py --out docs/results/start.json

Processor time, user and system, of fresh processes that alternate; a ratio is the median of the ratios within one turn.
Prints the table for docs/speed-start.md, and exits with 1 where an aim is missed. Run it in the repository's root.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from gam_speed.environment import machine, versions

MAIN = "from gam_yolo.cli import main; main()"
MODELS = sorted(map(str, Path("cfg").glob("yolo*.yaml")))[:60]
COMMANDS: dict[str, tuple[list[str], float]] = {
    "`gam-yolo --version`": (["--version"], 1.3),
    "`gam-yolo --help`": (["--help"], 1.3),
    "`gam-yolo blocks`": (["blocks"], 1.3),
    "`gam-yolo check yolov8n-gam.yaml`": (["check", "yolov8n-gam.yaml"], 1.3),
    "`gam-yolo place yolov8n.yaml --block GAM --at p3`": (
        ["place", "yolov8n.yaml", "--block", "GAM", "--at", "p3"],
        1.3,
    ),
    f"check of {len(MODELS)} shipped files": (["check", *MODELS], 3.0),
}
"""Each command with its arguments and the largest ratio that is aimed at."""


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    seconds("import ultralytics.nn.tasks")  # warms the disk cache
    base: list[float] = []
    times: dict[str, list[float]] = {command: [] for command in COMMANDS}
    for _ in range(options.turns):
        base.append(seconds("import ultralytics.nn.tasks"))
        for command, (arguments, _aim) in COMMANDS.items():
            times[command].append(seconds(MAIN, *arguments))
    rows = {
        command: {
            "cpu_s": round(statistics.median(times[command]), 3),
            "ratio": round(statistics.median(a / b for a, b in zip(times[command], base, strict=True)), 3),
            "aim": aim,
        }
        for command, (_, aim) in COMMANDS.items()
    }
    result = {
        "machine": machine(torch.device("cpu")),
        "versions": versions(),
        "turns": options.turns,
        "import ultralytics.nn.tasks": {"cpu_s": round(statistics.median(base), 3)},
        "commands": rows,
    }
    options.out.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
    print("| command | processor time, s | times the import | aim |\n| --- | --- | --- | --- |")
    for command, row in rows.items():
        print(f"| {command} | {row['cpu_s']:.2f} | {row['ratio']:.2f} | {row['aim']:g} |")
    return int(any(row["ratio"] > row["aim"] for row in rows.values()))


def seconds(code: str, *arguments: str) -> float:
    """Return the processor time of one fresh interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
