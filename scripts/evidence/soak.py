"""Repeat everything many times in one process, and watch what could grow.

    python scripts/evidence/soak.py
    python scripts/evidence/soak.py cycles threads --steps 20

- cycles: build a model with a block, take one training step, save and load it, predict, and transfer its weights to a
  model with another block; the next cycle has the next block;
- trainings: `YOLO.train` for one epoch on four images, and `val` of the checkpoint that it wrote;
- comparisons: of two prediction files, with all files of the report;
- study: runs of one epoch, each in a process of its own, and the report;
- threads: eight threads parse, build, transfer and predict at once, each with a block of its own.

Each step is measured: resident memory, open files, threads and child processes. The first tenth is the warm-up, in
which caches fill and libraries start their threads. Exits 1 in these cases. The results of threads or comparisons
differ from those of one after the other. Something global was changed. After the warm-up the number of files, threads
or processes grew, or the memory by more than 100 MB. Linux only.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

import gam_yolo
from gam_yolo import ultralytics_api

BASE: dict[str, Any] = {
    "nc": 3,
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 4]],
        [-1, 1, "C2f", [32, True]],
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "SPPF", [64, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 1, "C2f", [32]],
        [[7, 4], 1, "Detect", ["nc"]],
    ],
}
BLOCKS = ("GAM", "CBAM", "SE", "ECA", "CoordAtt", "SimAM", "EMA", "LSKA")
STEPS = {"cycles": 200, "trainings": 20, "comparisons": 100, "study": 60, "threads": 20}
GROWTH = 100  # megabytes


@dataclass
class Measured:
    """What was measured after each step: megabytes, open files, threads, child processes; and what went wrong."""

    samples: list[tuple[int, int, int, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def sample(self) -> None:
        """Measure."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        tasks = [*Path("/proc/self/task").iterdir()]
        children = sum(len((task / "children").read_text().split()) for task in tasks)
        files = len([*Path("/proc/self/fd").iterdir()])
        self.samples.append((pages * os.sysconf("SC_PAGE_SIZE") >> 20, files, len(tasks), children))

    def moments(self) -> tuple[tuple[int, int, int, int], ...]:
        """Return the measurements after the warm-up, in the middle, and at the end."""
        last = len(self.samples) - 1
        return self.samples[last // 10], self.samples[last // 2], self.samples[last]

    def problems(self) -> list[str]:
        """Return what grew, and what went wrong."""
        first, _, last = self.moments()
        grown = [
            name for name, a, b in zip(("files", "threads", "processes"), first[1:], last[1:], strict=True) if b > a
        ]
        return self.wrong + grown + (["memory"] if last[0] - first[0] > GROWTH else [])


# What is repeated: each function yields after a step


def cycles(steps: int, measured: Measured) -> Iterator[None]:
    """Build, take a training step, save, load, predict and transfer."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    for step in range(steps):
        mine, other = (_config(BLOCKS[(step + k) % len(BLOCKS)]) for k in (0, 1))
        model = _build(mine)
        model.args = ultralytics_api.validated_arguments()
        batch = {"img": torch.rand(2, 3, 64, 64), "cls": torch.zeros(2, 1), "batch_idx": torch.arange(2.0)}
        loss, _ = model.train()({**batch, "bboxes": torch.full((2, 4), 0.5)})
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        loss.sum().backward()
        optimizer.step()
        torch.save({"model": model, "ema": None, "train_args": {"imgsz": 64}, "version": "8.4.0"}, "cycle.pt")
        loaded = ultralytics_api.model("cycle.pt")
        loaded.predict(pixels, imgsz=64, device="cpu", verbose=False)
        with ultralytics_api.quiet():
            _build(other).load(loaded.model)
        Path("other.yaml").write_text(yaml.safe_dump(other))
        if not gam_yolo.transfer("cycle.pt", "other.yaml").counts()["base"]:
            measured.wrong.append(f"step {step}: nothing was transferred")
        yield


def trainings(steps: int, measured: Measured) -> Iterator[None]:
    """Train for an epoch, and validate the checkpoint."""
    del measured
    _data()
    common: dict[str, Any] = {"data": "data.yaml", "imgsz": 32, "device": "cpu", "workers": 0, "plots": False}
    common |= {"project": "runs", "exist_ok": True, "verbose": False, "batch": 4}
    for step in range(steps):
        Path("mine.yaml").write_text(yaml.safe_dump(_config(BLOCKS[step % len(BLOCKS)])))
        model = ultralytics_api.model("mine.yaml")
        model.train(**common, epochs=1, optimizer="SGD", name="train")
        ultralytics_api.model(Path(model.trainer.last)).val(**common, name="val")
        yield


def comparisons(steps: int, measured: Measured) -> Iterator[None]:
    """Compare two prediction files; the report must be the same each time."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(40)]
    box = {"category_id": 1, "bbox": [8, 8, 16, 12]}
    objects = [{"id": i, "image_id": i, **box, "area": 192, "iscrowd": 0} for i in range(40)]
    truth = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    Path("truth.json").write_text(json.dumps(truth))
    for name, period in (("a", 4), ("b", 7)):
        found = [{"image_id": i, **box, "score": 0.9} for i in range(40) if i % period]
        Path(f"{name}.json").write_text(json.dumps(found))
    reports = set()
    for _ in range(steps):
        gam_yolo.compare(["a.json", "b.json"], gt="truth.json", replicates=100, output="report")
        reports.add(re.sub(r"\d{4}-\d\d-\d\dT[\d:.+]+", "TIME", Path("report/report.json").read_text()))
        if len(reports) > 1:
            measured.wrong.append("reports of the same files differ")
        yield


def study(steps: int, measured: Measured) -> Iterator[None]:
    """Train half as many seeds of two variants, measured at each line of its progress."""
    _data()
    Path("base.yaml").write_text(yaml.safe_dump(BASE))
    recipe = {"epochs": 1, "imgsz": 32, "batch": 4, "optimizer": "SGD", "device": "cpu", "plots": False}
    variants = {"plain": {"model": "base.yaml"}, "gam": {"base": "base.yaml", "block": "GAM", "at": 4}}
    content = {"name": "soak", "data": "data.yaml", "pretrained": False, "seeds": [*range(max(1, steps // 2))]}
    Path("study.yaml").write_text(yaml.safe_dump({**content, "variants": variants, "recipe": recipe}, sort_keys=False))
    gam_yolo.run_study("study.yaml", project="studies", progress=lambda _: measured.sample())
    yield


def threads(steps: int, measured: Measured) -> Iterator[None]:
    """Work in eight threads at once, and compare with the same work one after the other."""
    want = {block: work(block) for block in BLOCKS}
    before = global_state()
    for _ in range(steps):
        with ThreadPoolExecutor(len(BLOCKS)) as pool:
            for block, found in zip(BLOCKS, pool.map(work, BLOCKS), strict=True):
                if found != want[block]:
                    measured.wrong.append(f"{block}: another result in a thread")
        measured.wrong += [f"{name} was changed" for name, value in global_state().items() if value != before[name]]
        yield


def work(block: str) -> tuple[Any, ...]:
    """Place a block, build and run the model, transfer its weights to the base, and run it; return what came out."""
    config = _config(block)
    model = _build(config)
    with torch.no_grad():
        draw = torch.Generator().manual_seed(0)  # the global generator is shared by all threads
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=draw) / 4)
                tensor.abs_().add_(0.5) if name.endswith("running_var") else None
        image = torch.rand(1, 3, 64, 64, generator=draw)
        found = model.eval()(image)[0]
        base = _build(copy.deepcopy(BASE))
        with ultralytics_api.quiet():
            base.load(model)
        plain = base.eval()(image)[0]
    return yaml.safe_dump(config), [*model.state_dict()], found.numpy().tobytes(), plain.numpy().tobytes()


def global_state() -> dict[str, Any]:
    """Return what is global and must not be changed by a thread."""
    logger, tasks = ultralytics_api.get("LOGGER"), ultralytics_api.tasks()
    return {
        "the logger": (logger.disabled, logger.level, [*logger.filters], [*logger.handlers], logger.propagate),
        "ultralytics.nn.tasks": {name: id(value) for name, value in vars(tasks).items()},
        "torch": (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
        ),
        "the blocks": [*gam_yolo.BLOCKS.items()],
        "the environment": (dict(os.environ), str(Path.cwd()), [*sys.path]),
        "warnings": ([*warnings.filters], np.geterr()),
        "the output": (id(sys.stdout), id(sys.stderr)),
    }


def _config(block: str) -> dict[str, Any]:
    file = Path(f"{block}-base-{os.getpid()}.yaml")
    if not file.exists():
        file.write_text(yaml.safe_dump(BASE))
    return dict(gam_yolo.place(file, block=block, at=4).yaml)


def _build(config: dict[str, Any]) -> Any:
    with ultralytics_api.quiet():
        return ultralytics_api.model_class(config)(copy.deepcopy(config), verbose=False)


def _data() -> None:
    """Write four images and their labels."""
    for folder in ("images", "labels"):
        Path(folder).mkdir(exist_ok=True)
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"images/{i}.png")
        Path(f"labels/{i}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    data = {"path": str(Path.cwd()), "train": "images", "val": "images", "names": ["a", "b", "c"]}
    Path("data.yaml").write_text(yaml.safe_dump(data))


PARTS: dict[str, Callable[[int, Measured], Iterator[None]]] = {
    "cycles": cycles,
    "trainings": trainings,
    "comparisons": comparisons,
    "study": study,
    "threads": threads,
}


def main() -> int:
    """Run the parts, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[*PARTS], help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--steps", type=int, help=f"steps of each part; by default {STEPS}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("part", "steps", "memory, MB", "open files", "threads", "processes", "problems")
    failed = False
    for name in options.parts:
        steps = options.steps or STEPS[name]
        measured = Measured()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            for _ in PARTS[name](steps, measured):
                measured.sample()
            os.chdir("/")
        columns = (", ".join(map(str, values)) for values in zip(*measured.moments(), strict=True))
        problems = sorted({*measured.problems()})
        failed = failed or bool(problems)
        table.add_row(name, str(steps), *columns, "; ".join(problems) or "none")
        Console(stderr=True).print(f"{name}: {measured.moments()}, {problems or 'all is well'}", markup=False)
    Console(width=140).print(table)
    return failed


if __name__ == "__main__":
    sys.exit(main())
