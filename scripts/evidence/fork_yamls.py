"""Print what becomes of each model YAML in a folder: how it builds here, with its blocks' parameters, or its error.

    python scripts/evidence/fork_yamls.py FOLDER [--scale n]

Each file is built by Ultralytics' `DetectionModel` under the plug-in, at one of the scales that it has.
The table is Markdown. Nothing is downloaded and nothing is executed but the build.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

from gam_yolo import UserError
from gam_yolo.graph.model import Graph
from gam_yolo.plugin import parse_model
from gam_yolo.registry import BLOCKS

DETECTOR: Any = tasks.DetectionModel  # without annotations


def build(path: Path, scale: str) -> tuple[str, str]:
    """Return the outcome of a build, and its blocks with their parameters."""
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage().removeprefix("WARNING ⚠️ "))  # type: ignore[method-assign]
    parse_model._warned.clear()
    LOGGER.handlers = [handler]  # standard output is for the table
    LOGGER.setLevel(logging.WARNING)
    try:
        offered = [*(yaml.safe_load(path.read_text(encoding="utf-8")).get("scales") or ())]
        letter = scale if scale in offered or not offered else offered[0]
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            Path("yolov8-fork.yaml").write_bytes(path.read_bytes())
            model = DETECTOR(f"yolov8{letter}-fork.yaml", verbose=False)
    except UserError as error:
        return f"error: {error}", ""
    except Exception as error:
        return f"TRACEBACK: {type(error).__name__}: {error}", ""
    said = " // ".join(warnings)
    return f"warning: {said}" if said else "builds", "; ".join(_counted(model))


def _counted(model: Any) -> list[str]:
    """Return each block of a model as `row N: GAM, 1,234`."""
    lines: list[str] = []
    for layer in Graph.from_config(model.yaml, "model").layers:
        if layer.module in BLOCKS:
            count = sum(p.numel() for p in model.model[layer.index].parameters())
            lines.append(f"row {layer.index}: {layer.module}, {count:,}")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", default="n")
    options = parser.parse_args()
    print("| file | outcome | blocks and their parameters |\n| --- | --- | --- |")
    torch.manual_seed(0)
    for path in sorted(options.folder.rglob("*.y*ml")):
        outcome, blocks = build(path, options.scale)
        print(f"| {path.name} | {outcome.replace('|', '/')} | {blocks} |", flush=True)


if __name__ == "__main__":
    main()
