"""Measure GAM's time and memory against its bare convolutions and the articles' code, as a block and inside YOLOv8n.

    python scripts/benchmarks/benchmark_gam.py --out docs/results/gam-speed-cpu.json   16 minutes, two cores
    python scripts/benchmarks/benchmark_gam.py --device 0 --out docs/results/gam-speed-gpu.json   500 s
    python scripts/benchmarks/benchmark_gam.py --quick   every part once, two minutes
    python scripts/benchmarks/benchmark_gam.py --show docs/results/gam-speed-cpu.json   print its tables again

Writes the figures as JSON and, beside it, the tables as Markdown.

All candidates of a case take turns in one process, so that other load on the machine affects all of them alike. Ratios
are medians over the turns of the ratio within a turn. What does not fit into the time is left out and listed.

- *limit*: a form's bare convolutions alone, with biases: those of its spatial branch, one after the other.
- *inference* is in evaluation mode with the batch norms folded; the articles' code keeps its own, as it does in a fused
  model. *training* is forward, and backward for the input and all parameters, with a given output gradient.
- On a GPU a step's time is the device's own (events; the queue is kept filled, so that launching costs nothing);
  `host_s` is the time to launch it. Whole models are timed on the wall clock.
- *peak* is what a training step allocates at most above what was there before. *kept* is what the forward pass leaves
  allocated for the backward pass, output included. On a GPU these are numbers of torch's allocator, on a CPU of every
  allocation of torch. What oneDNN allocates for itself is not included.
- *floor* is a sum over the passes that no fusion can merge: the MLP with its gate, each convolution, and in training
  the last gate and each gradient. A pass takes FLOPs / measured FLOP/s or bytes / measured bytes/s, whichever is more.
  Each map is read and written once per pass. FLOP/s are those of a large matrix product, or on a CPU of a large
  convolution if that has more. Bytes/s are those of a large copy. Both are measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # an export says what it lacks; nothing is installed

import torch
from gam_speed.bench import Bench, console
from gam_speed.blocks import measure_blocks
from gam_speed.floor import peaks
from gam_speed.models import measure_models
from gam_speed.tables import document, tables, terminal
from ultralytics.utils import LOGGER


def main() -> int:
    """Measure what was asked for, or show what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU")
    parser.add_argument("--part", choices=("blocks", "models", "all"), default="all")
    parser.add_argument("--out", type=Path, help="JSON to write; default runs/gam-speed-cpu.json or -gpu.json")
    parser.add_argument("--quick", action="store_true", help="n shapes, few repeats")
    parser.add_argument(
        "--budget", type=float, help="seconds for everything; default 1200 (CPU), 500 (GPU), 110 (quick)"
    )
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the tables of a result as Markdown and exit")
    options = parser.parse_args()
    if options.show:
        print(document(json.loads(options.show.read_text(encoding="utf-8"))), end="")
        return 0
    device = torch.device("cpu" if options.device == "cpu" else f"cuda:{options.device}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            parser.error("--device is a GPU's number and torch finds none; expected cpu")
        torch.cuda.set_device(device)
    LOGGER.setLevel("ERROR")
    warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)  # TorchScript is measured while there is one
    budget = options.budget or (110.0 if options.quick else 500.0 if device.type == "cuda" else 1200.0)
    out = options.out or Path("runs") / f"gam-speed-{'gpu' if device.type == 'cuda' else 'cpu'}.json"
    bench = Bench(device, options.quick, budget, out)
    bench.results["arguments"] = {
        "device": options.device,
        "part": options.part,
        "quick": options.quick,
        "budget_s": budget,
    }
    bench.results["peaks"] = peaks(device, options.quick)
    bench.save()
    if options.part != "models":
        measure_blocks(bench, 0.6 * budget if options.part == "all" else budget)
    if options.part != "blocks":
        measure_models(bench, budget)
    bench.results["seconds"] = bench.elapsed()
    bench.save()
    for table in tables(bench.results):
        console.print(terminal(table))
    out.with_suffix(".md").write_text(document(bench.results), encoding="utf-8")
    console.print(f"written to {out} and {out.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
