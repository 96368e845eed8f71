"""A checkpoint with blocks is loaded in a process that has Ultralytics, but not this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from ultralytics import YOLO

from gam_yolo import BLOCKS, GAM, UserError, export_plain, place
from gam_yolo.blocks.gam import PRESETS

HIDE = """
import sys
class Hidden:  # every way to import gam_yolo is closed
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == "gam_yolo" else self.finder.find_spec(name, path, target)
    def __getattr__(self, name): return getattr(self.finder, name)
sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]
try: import gam_yolo
except ModuleNotFoundError: pass
else: sys.exit("gam_yolo is there")
"""
PREDICT = """
import json
import torch
from ultralytics import YOLO
model = YOLO("my best.pt")
with torch.no_grad():
    raw = model.model(torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64))[0]
found = model.predict("image.png", conf=0.0, imgsz=64, max_det=5, verbose=False)[0].boxes.data
print("RESULT", json.dumps([raw.tolist(), found.tolist()]))
"""


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "YOLO_AUTOINSTALL": "false"}
    environment.pop("PYTHONPATH", None)
    code = f"{HIDE}\nsys.path.insert(0, {str(folder)!r})\n{code}"
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of several blocks, one with groups, an image, and this package's predictions."""
    path = tmp_path_factory.mktemp("plain")
    text = place("yolov8n.yaml", block="GAM", at="p3", args={"preset": "paper-grouped", "start": "zero"}).text
    (path / "one.yaml").write_text(text)
    place(path / "one.yaml", block="MLCA", at="p4").save(path / "yolov8-two.yaml")
    torch.manual_seed(0)
    model = YOLO(path / "yolov8n-two.yaml")
    for module in model.model.modules():
        if isinstance(module, (nn.BatchNorm2d, GAM)):
            for parameter in module.parameters():
                nn.init.normal_(parameter, 1, 0.3)
    model.save(path / "my best.pt")
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path / "image.png")
    return path


def test_predictions_without_the_package_are_those_with_it(folder: Path) -> None:
    written = export_plain(folder / "my best.pt")
    assert written.path == folder / "my_best_plain.py"
    assert {"GAM", "MLCA", "ConvBN", "Start"} <= {*written.blocks}
    assert written.missing == ()
    done = run(folder, f"import my_best_plain\n{PREDICT}")
    assert done.returncode == 0, done.stderr
    raw, found = json.loads(done.stdout.partition("RESULT")[2])
    model = YOLO(folder / "my best.pt")
    with torch.no_grad():
        expected = model.model.forward(torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64))[0]
    torch.testing.assert_close(torch.tensor(raw), expected)
    boxes = model.predict(folder / "image.png", conf=0.0, imgsz=64, max_det=5, verbose=False)[0].boxes.data
    # Without the plug-in, the batch norms of blocks are not folded into their convolutions.
    torch.testing.assert_close(torch.tensor(found), boxes, rtol=1e-3, atol=1e-6)


def test_every_block_gives_the_same_bits_without_the_package(tmp_path: Path) -> None:
    """All registered blocks and GAM's presets in one model, one after another, none of them the identity."""
    rows = [f"  - [-1, 1, {block}, []]" for block in BLOCKS]
    rows += [f"  - [-1, 1, GAM, [{{preset: {preset}, start: identity}}]]" for preset in PRESETS]
    text = [
        "nc: 2",
        "backbone:",
        "  - [-1, 1, Conv, [64, 3, 8]]",
        *rows,
        "head:",
        f"  - [[{len(rows)}], 1, Detect, [nc]]",
    ]
    (tmp_path / "all.yaml").write_text("\n".join(text))
    torch.manual_seed(0)
    model = YOLO(tmp_path / "all.yaml")
    for parameter in model.model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save(tmp_path / "all.pt")
    written = export_plain(tmp_path / "all.pt")
    assert {block.__name__ for block in BLOCKS.values()} <= {*written.blocks}
    compute = (
        "import torch\nfrom ultralytics import YOLO\ntorch.set_num_threads(1)\n"
        "x = torch.randn(1, 64, 16, 16, generator=torch.Generator().manual_seed(0))\n"
        "with torch.no_grad(): found = [block(x.clone()) for block in YOLO('all.pt').model.eval().model[1:-1]]\n"
        "torch.save(found, 'found.pt')"
    )
    subprocess.run([sys.executable, "-c", compute], check=True, cwd=tmp_path)
    (tmp_path / "found.pt").rename(tmp_path / "ours.pt")
    done = run(tmp_path, f"import all_plain\n{compute}")
    assert done.returncode == 0, done.stderr
    outputs = [torch.load(tmp_path / name) for name in ("ours.pt", "found.pt")]
    assert len(outputs[0]) == len(rows)
    for row, ours, plain in zip(rows, *outputs, strict=True):
        assert ours.std() > 0.01, row
        assert torch.equal(ours, plain), row


def test_blocks_inside_other_layers_give_the_same_bits_without_the_package(tmp_path: Path) -> None:
    """Blocks in the bottlenecks of C2f, and in the residual blocks of a ResNet classifier."""
    place("yolov8n.yaml", block="GAM", at="inside C2f", args={"preset": "strips"}).save(tmp_path / "yolov8-in.yaml")
    torch.manual_seed(0)
    YOLO(tmp_path / "yolov8n-in.yaml").save(tmp_path / "inside.pt")
    YOLO("resnet18-gam-cls.yaml", task="classify").save(tmp_path / "resnet.pt")
    compute = (
        "import torch\nfrom ultralytics import YOLO\ntorch.set_num_threads(1)\n"
        "x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))\n"
        "with torch.no_grad(): found = [YOLO(f).model.eval()(x)[0] for f in ('inside.pt', 'resnet.pt')]\n"
        "torch.save(found, 'found.pt')"
    )
    subprocess.run([sys.executable, "-c", compute], check=True, cwd=tmp_path)
    (tmp_path / "found.pt").rename(tmp_path / "ours.pt")
    assert "AttendedBottleneck" in export_plain(tmp_path / "inside.pt").blocks
    assert {"AttendedBasicBlock", "AttentionResNet"} < {*export_plain(tmp_path / "resnet.pt").blocks}
    done = run(tmp_path, f"import inside_plain, resnet_plain\n{compute}")
    assert done.returncode == 0, done.stderr
    for ours, plain in zip(torch.load(tmp_path / "ours.pt"), torch.load(tmp_path / "found.pt"), strict=True):
        assert torch.equal(ours, plain)


OWN = """
from torch import nn
from gam_yolo import SE, register
from gam_yolo.blocks import ECA
from gam_yolo.blocks.parts import ConvBN, Start

@register
class Squeeze(nn.Module):
    def __init__(self, c, start="default"):
        super().__init__()
        self.squeeze, self.se, self.eca = ConvBN(c, 1), SE(c), ECA(c)
        self.start = Start(c, start, self.squeeze)
    def forward(self, x):
        return self.start(x, self.eca(self.se(x * self.start.gate(self.squeeze(x)))))

@register(name="Pointwise")
class Bare(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 1)
    def forward(self, x):
        return x * self.conv(x).sigmoid()
"""


@pytest.mark.parametrize("block", ["Squeeze", "Pointwise"])
def test_a_users_own_block_is_loaded_with_the_file_of_the_user(block: str, tmp_path: Path) -> None:
    """The file imports `register` and blocks of this package, which `export_plain` serves."""
    (tmp_path / "own_blocks.py").write_text(OWN)
    compute = (
        "import torch\nfrom ultralytics import YOLO\ntorch.manual_seed(0)\ntorch.set_num_threads(1)\n"
        "with torch.no_grad(): found = YOLO({!r}).model.eval()(torch.linspace(0, 1, 12288).view(1, 3, 64, 64))[0]\n"
        "torch.save(found, 'found.pt')\n"
    )
    make = (
        f"import gam_yolo, ultralytics\n"
        f"gam_yolo.place('yolov8n.yaml', block='{block}', at='p3').save('yolov8-own.yaml')\n"
        "ultralytics.YOLO('yolov8n-own.yaml').save('own.pt')\n"
        "found = gam_yolo.export_plain('own.pt')\n"
        "print('RESULT', found.missing)\n"
    )
    environment = {**os.environ, "GAM_YOLO_BLOCKS": str(tmp_path / "own_blocks.py")}
    command = [sys.executable, "-c", make + compute.format("own.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert "RESULT ('own_blocks',)" in done.stdout
    (tmp_path / "found.pt").rename(tmp_path / "ours.pt")
    plain = run(tmp_path, f"import own_plain\n{compute.format('own.pt')}")
    assert plain.returncode == 0, plain.stderr
    assert torch.equal(torch.load(tmp_path / "ours.pt"), torch.load(tmp_path / "found.pt"))


def test_without_the_module_ultralytics_looks_for_a_package_of_our_name(folder: Path) -> None:
    """What docs/export.md says of a checkpoint alone; here installing is switched off."""
    done = run(folder, PREDICT)
    assert done.returncode != 0
    assert "appears to require 'gam_yolo" in done.stderr + done.stdout
    assert "No module named 'gam_yolo" in done.stderr


def test_the_module_imports_nothing_of_the_package_and_can_be_read(folder: Path) -> None:
    path = export_plain(folder / "my best.pt", folder / "other.py").path
    text = path.read_text()
    assert "class GAM(nn.Module):" in text.splitlines()
    assert "gam_yolo.registry" not in text
    done = run(
        folder,
        "import other; from gam_yolo.blocks.gam import GAM; print(sum(p.numel() for p in GAM(256).parameters()))",
    )
    assert done.stdout.strip() == "1639680", done.stderr


def test_a_plain_checkpoint_needs_no_module(tmp_path: Path) -> None:
    YOLO("yolov8n.yaml").save(tmp_path / "plain.pt")
    with pytest.raises(UserError, match="has no blocks of gam_yolo"):
        export_plain(tmp_path / "plain.pt")
    (tmp_path / "model.py").write_text("pass\n")
    with pytest.raises(UserError, match=r"is not the file of a checkpoint\. Expected a file that ends in \.pt"):
        export_plain(tmp_path / "model.py")
    for name in ("missing.pt", "."):
        with pytest.raises(UserError, match=r"there is no file '.*'\. Expected a checkpoint"):
            export_plain(tmp_path / name)


def test_a_module_must_have_a_name_that_can_be_imported(folder: Path) -> None:
    with pytest.raises(UserError, match=r"the module is '1-2\.py'. Expected a Python name"):
        export_plain(folder / "my best.pt", folder / "1-2.py")
