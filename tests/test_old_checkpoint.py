"""A checkpoint is a promise: one trained with gam_yolo 0.1.0 loads, predicts the same and resumes.

`checkpoints/blocks-0.1.0.pt` is a tiny YOLO with every block of 0.1.0, stopped after the second of three epochs;
`blocks-0.1.0.npz` has its output for one input, computed by 0.1.0.
"""

from __future__ import annotations

import csv
import importlib
import os
import pickletools
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from gam_yolo.resources import shipped

CHECKPOINT = Path(__file__).parent / "checkpoints" / "blocks-0.1.0.pt"
BLOCKS = {"GAM", "GAM_Attention", "CBAM", "UltralyticsCBAM", "BAM", "SE", "ECA", "CoordAtt", "SimAM", "Triplet"}
PREDICT = """
import sys
import numpy as np
import torch
from ultralytics.nn.tasks import load_checkpoint
model = load_checkpoint(sys.argv[1])[0].float().eval()
x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
with torch.inference_mode():
    np.save("output.npy", model(x)[0].numpy())
print(sorted({type(layer).__name__ for layer in model.model}))
"""


def pickled_classes() -> list[tuple[str, str]]:
    """Module and name of every class of ours that the checkpoint names."""
    with zipfile.ZipFile(CHECKPOINT) as archive:
        pickle = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    names = {str(argument) for code, argument, _ in pickletools.genops(pickle) if code.name == "GLOBAL"}
    found = [(module, name) for module, name in (full.split(" ") for full in names) if module.startswith("gam_yolo")]
    return sorted(found)


@pytest.mark.parametrize(("module", "name"), pickled_classes(), ids=lambda value: value)
def test_every_class_of_0_1_0_is_where_it_was(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    assert issubclass(found, nn.Module)
    assert found.__name__ == name


def test_the_checkpoint_has_every_block_of_0_1_0() -> None:
    assert {name for _, name in pickled_classes()} >= BLOCKS


@pytest.mark.parametrize("safe", ["0", "1"])
def test_it_predicts_what_0_1_0_predicted(safe: str, tmp_path: Path) -> None:
    """In a process that imports nothing of ours; with `safe`, no code of the checkpoint may run."""
    recorded = np.load(CHECKPOINT.with_suffix(".npz"))
    env = os.environ | {"ULTRALYTICS_SAFE_LOAD": safe}
    command = [sys.executable, "-c", PREDICT, str(CHECKPOINT)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for block in BLOCKS:
        assert f"'{block}'" in done.stdout
    # Rounding differs between releases of torch, processors and numbers of threads, by some 1e-9 here.
    np.testing.assert_allclose(np.load(tmp_path / "output.npy"), recorded["y"], rtol=1e-4, atol=1e-6)


def test_it_resumes_and_finishes(tmp_path: Path) -> None:
    last = tmp_path / "runs" / "t" / "weights" / "last.pt"  # the folder that its training used
    last.parent.mkdir(parents=True)
    shutil.copy(CHECKPOINT, last)
    demo = shipped("gam-demo.yaml")
    assert demo
    content = yaml.safe_load(demo.read_text("utf-8"))
    content |= {"path": str(tmp_path / "demo"), "scenes": {"train": 80, "val": 8}}
    (tmp_path / "gam-demo.yaml").write_text(yaml.safe_dump(content))
    before = torch.load(last, map_location="cpu", weights_only=False)
    command = [str(Path(sys.executable).with_name("yolo")), "train", "resume", f"model={last}"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with (last.parent.parent / "results.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)][-1] == 3
    after = torch.load(last, map_location="cpu", weights_only=False)
    old, new = before["ema"].half().state_dict(), after["model"].state_dict()  # Ultralytics keeps half precision
    assert old.keys() == new.keys()
    changed = {int(name.split(".")[1]) for name in old if not torch.equal(old[name], new[name])}
    # Every layer with parameters went on to learn; of ECA's three weights, half precision may not show it.
    eca = {number for number, layer in enumerate(before["ema"].model) if type(layer).__name__ == "ECA"}
    assert {int(name.split(".")[1]) for name in old} - changed <= eca
