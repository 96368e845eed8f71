"""Registering blocks, and how other processes find them: the worked example of docs/own-block.md, run as it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from ultralytics.nn import tasks

from gam_yolo import registry
from gam_yolo.errors import UserError
from gam_yolo.registry import BLOCKS, register


class Halve(nn.Module):
    """Halve a map."""

    def __init__(self, c: int, by: float = 2.0) -> None:
        super().__init__()
        self.channels, self.by = c, by

    def forward(self, x: Tensor) -> Tensor:
        return x / self.by


class KeywordOnly(nn.Module):
    def __init__(self, c: int, *, by: float = 2.0) -> None:
        super().__init__()
        self.channels, self.by = c, by


class Anything(nn.Module):
    def __init__(self, *args: int) -> None:
        super().__init__()
        self.args = args


@pytest.fixture(autouse=True)
def _registrations_undone() -> Iterator[None]:
    before = dict(registry._registered)
    yield
    registry._registered.clear()
    registry._registered.update(before)


def test_a_registered_block_is_placed_by_name() -> None:
    assert register(Halve) is Halve
    assert BLOCKS["Halve"] is Halve
    rows = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Halve", [4.0]]]
    layers, _ = tasks.parse_model({"nc": 2, "backbone": rows, "head": []}, ch=3, verbose=False)
    assert (layers[1].channels, layers[1].by) == (16, 4.0)


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("GAM", "gam_yolo.blocks.gam.GAM"),
        ("CBAM", "gam_yolo.blocks.cbam.CBAM"),
        ("Conv", "ultralytics.nn.modules.conv.Conv"),
        ("C2f", "ultralytics.nn.modules.block.C2f"),
        ("Detect", "ultralytics.nn.modules.head.Detect"),
        ("parse_model", "ultralytics.nn.tasks.parse_model"),
        ("torch", "<module 'torch' from"),
    ],
)
def test_a_taken_name_is_rejected_without_override(name: str, by: str) -> None:
    with pytest.raises(UserError, match=f"cannot register '{name}': the name is taken by {by}.*pass override=True"):
        register(name=name)(Halve)
    assert register(name=name, override=True)(Halve) is BLOCKS[name] is Halve


def test_the_bare_decorator_rejects_a_taken_name() -> None:
    with pytest.raises(UserError, match="cannot register 'GAM': the name is taken"):
        register(type("GAM", (Halve,), {}))


def test_a_taken_name_is_rejected_before_ultralytics_is_imported() -> None:
    code = (
        "from torch import nn; from gam_yolo import register\n"
        "class Conv(nn.Module):\n    def __init__(self, c): super().__init__()\nregister(Conv)"
    )
    done = run([sys.executable, "-c", code], Path.cwd())
    assert "the name is taken by ultralytics.nn.modules.conv.Conv" in done.stderr


def test_the_same_class_defined_again_replaces_the_first() -> None:
    """As when a notebook's cell is run twice; another class of that name is still rejected."""

    def cell() -> type[nn.Module]:
        class Mine(Halve):
            pass

        return Mine

    first, second = cell(), cell()
    register(first)
    register(second)
    assert BLOCKS["Mine"] is second
    with pytest.raises(UserError, match="the name is taken"):
        register(name="Mine")(Halve)


@pytest.mark.parametrize(
    ("block", "name", "says"),
    [
        (KeywordOnly, None, "(c: 'int', *, by: 'float' = 2.0) -> 'None' must take the channel count first"),
        (Anything, None, "no *, *args or **kwargs"),
        (nn.Identity, "Same", "must take the channel count first"),
        (int, None, "is not a class derived from torch.nn.Module"),
        (Halve(3), "Halved", "is not a class derived from torch.nn.Module"),
        (Halve, "nn.Halve", "a row's name is a Python name"),
    ],
)
def test_what_no_row_could_build_is_rejected(block: Any, name: str | None, says: str) -> None:
    with pytest.raises(UserError) as error:
        register(name=name)(block)
    assert says in str(error.value)


def test_a_block_inside_a_block_is_a_part_of_it() -> None:
    class Outer(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.inner = BLOCKS["SE"](c)

    register(Outer)
    model = nn.Sequential(Outer(16), nn.Sequential(BLOCKS["SE"](16)))
    assert list(registry.blocks_in(model)) == ["row 0 (Outer)", "row 1.0 (SE)"]


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no block is named 'CBMA'. Did you mean 'CBAM'"):
        registry.get("CBMA")


def slips(name: str) -> set[str]:
    """Every name with one letter missing, too many, wrong, or swapped with the next."""
    cuts = [(name[:i], name[i:]) for i in range(len(name) + 1)]
    return {
        *(a + b[1:] for a, b in cuts[:-1]),
        *(f"{a}y{b}" for a, b in cuts),
        *(f"{a}y{b[1:]}" for a, b in cuts[:-1]),
        *(f"{a}{b[1]}{b[0]}{b[2:]}" for a, b in cuts[:-2]),
    } - {name}


def wrong_twice(name: str) -> set[str]:
    return {f"{name[:i]}y{name[i + 1 : j]}y{name[j + 1 :]}" for j in range(len(name)) for i in range(j)}


def test_one_slip_is_recognized_in_a_name_and_two_in_a_long_one() -> None:
    for name in ("Focus", "Concat", "Upsampler"):
        known = [name, "Detect"]
        once = slips(name)
        assert [slip for slip in once if registry.suggest(slip, known) != {"similar": name}] == []
        twice = wrong_twice(name)
        assert [slip for slip in twice if registry.suggest(slip, known)] == []
    for name in ("Bottleneck", "RepNCSPELAN4"):
        twice = wrong_twice(name) | {f"y{name}y", f"{name[1]}{name[0]}{name[2:-2]}{name[-1]}{name[-2]}", f"{name}yy"}
        twice |= {name[1:-1], name[:-2]} if len(name) > 11 else {name[:-1]}
        assert [slip for slip in twice if registry.suggest(slip, [name, "Detect"]) != {"similar": name}] == []
        thrice = {f"yyy{name[3:]}", f"{name[:-3]}yyy", f"y{name[:4]}y{name[4:]}y"}
        assert [slip for slip in thrice if registry.suggest(slip, [name, "Detect"])] == []


ABSENT = {"fix": "gam_yolo does not have this block. See docs/own-block.md to add it"}


@pytest.mark.parametrize(
    ("name", "known", "parts"),
    [
        ("SF", ["SE"], {}),  # a letter of two is no slip
        ("Se", ["SE"], {"similar": "SE"}),
        ("GAN", ["GAM"], {"similar": "GAM"}),
        ("XAM", ["GAM"], {}),  # another first letter is another paper
        ("GAN", ["GAM", "GAP"], {}),  # of two it could be
        ("GAN", ["GAM", "BAM"], {"similar": "GAM"}),
        ("G_A_N", ["GAM"], {"similar": "GAM"}),
        ("nn.conv", ["Conv"], {"similar": "Conv"}),
        ("Rep-Conv", ["RepConv"], {"similar": "RepConv"}),
        ("SEAttention", ["SE", "Conv"], {"similar": "SE"}),
        ("SEAttention", ["Conv"], ABSENT),  # SE is not what could be meant there
        ("ChannelAtt", ["Conv"], ABSENT),
        ("Zonk", ["Conv"], {}),
        ("SOCA", ["SCSA", "SOCB"], ABSENT),
        ("CA", ["CoordAtt"], {"similar": "CoordAtt"}),
        ("CA", ["Conv"], {}),
    ],
)
def test_a_suggestion_is_made_only_for_what_can_be_meant(name: str, known: list[str], parts: dict[str, str]) -> None:
    assert registry.suggest(name, known) == parts


def test_registered_blocks_are_safe_to_load(tmp_path: Path) -> None:
    safe = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        register(Halve)
        torch.save(nn.Sequential(Halve(3), KeywordOnly(3)), tmp_path / "block.pt")  # what its file defines counts too
        with torch.serialization.safe_globals([nn.Sequential]):
            torch.load(tmp_path / "block.pt", weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(safe)


def run(command: list[Any], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does: Ultralytics puts its runs elsewhere where it sees that a test is running."""
    ours = {"GAM_YOLO_BLOCKS", "PYTEST_CURRENT_TEST"}
    env = {k: v for k, v in os.environ.items() if k not in ours} | {"OMP_NUM_THREADS": "1"} | env
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


LISTED = "import json, torch, ultralytics.nn.tasks, gam_yolo; print(json.dumps([*gam_yolo.BLOCKS]))"
BLOCK = """
from gam_yolo import register
from torch import nn

@register
class Own(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c

    def forward(self, x):
        return x
"""


def listed(cwd: Path, **env: str) -> tuple[list[str], str]:
    done = run([sys.executable, "-c", LISTED], cwd, **env)
    assert done.returncode == 0, done.stderr
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names, done.stderr


def test_several_files_and_what_lies_beside_them(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "beside_own.py").write_text("NAME = 'FromBeside'\n")
    (tmp_path / "own_a.py").write_text(BLOCK.replace("@register", "from beside_own import NAME\n@register(name=NAME)"))
    (tmp_path / "away" / "own_b.py").write_text(BLOCK)
    names, warned = listed(tmp_path / "away", GAM_YOLO_BLOCKS=os.pathsep.join(["../own_a.py", "own_b.py"]))
    assert {"FromBeside", "Own", "GAM"} <= set(names)
    assert "gam_yolo" not in warned


BAD = [
    ("broken_own.py", "def (:\n", "(SyntaxError in line 1: invalid syntax"),
    ("raising_own.py", "raise RuntimeError('no GPU')\n", "(RuntimeError: no GPU)"),
    ("leaving_own.py", "import sys\nsys.exit(3)\n", "(SystemExit: 3)"),
    ("taking_own.py", BLOCK.replace("Own", "Conv"), "the name is taken by ultralytics.nn.modules.conv.Conv"),
    ("yaml.py", BLOCK, "the name yaml belongs to"),
    ("own.txt", BLOCK, "expected the path of a file whose name is a Python name and ends in .py"),
    ("missing_own.py", None, "there is no file"),
]


def test_bad_files_are_reported_and_hide_nothing(tmp_path: Path) -> None:
    """Ordinary models and a good file work on; a row that names a missing block repeats the reasons."""
    for file, text, _ in BAD:
        if text is not None:
            (tmp_path / file).write_text(text)
    (tmp_path / "good_own.py").write_text(BLOCK.replace("class Own", "class Good"))
    (tmp_path / "elsewhere").mkdir()
    code = """
from ultralytics.nn.tasks import parse_model
def build(name, *args):
    return len(parse_model({"nc": 2, "backbone": [[-1, 1, name, [*args]]], "head": []}, 3, False)[0])
print("ordinary", build("Conv", 8, 3, 2))
print("good", build("Good"))
try: build("Lost")
except ValueError as error: print("reported", error)
"""
    paths = os.pathsep.join(str(tmp_path / file) for file in [*(file for file, _, _ in BAD), "good_own.py"])
    done = run([sys.executable, "-c", code], tmp_path / "elsewhere", GAM_YOLO_BLOCKS=paths)
    assert done.returncode == 0, done.stderr
    ordinary, good, reported = done.stdout.splitlines()[-3:]
    assert (ordinary, good) == ("ordinary 1", "good 1")
    assert reported.startswith("reported model YAML, row 0 [-1, 1, Lost, []]: there is no module named 'Lost'")
    for file, _, says in BAD:
        assert f"{file}' (of GAM_YOLO_BLOCKS) could not be imported " in reported
        assert says in reported
        assert says in done.stderr  # as a warning


def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    (tmp_path / "own_package" / "blocks.py").write_text(BLOCK)
    info = tmp_path / "own_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gam_yolo.blocks]\nown = own_package.blocks\nlost = own_package.nowhere\n")
    names, warned = listed(tmp_path, PYTHONPATH=str(tmp_path))
    assert "Own" in names
    assert "'own_package.nowhere' (entry point 'lost' of gam_yolo.blocks) could not be imported" in warned


def test_a_yaml_cannot_name_a_module_to_import(tmp_path: Path) -> None:
    (tmp_path / "evil_own.py").write_text("open('executed', 'w')\n")
    text = "nc: 2\nblocks: evil_own\nGAM_YOLO_BLOCKS: evil_own.py\nbackbone:\n  - [-1, 1, GAM, [4]]\nhead: []\n"
    (tmp_path / "evil.yaml").write_text(text.replace("GAM, [4]", "Conv, [16]") + "\n")
    code = "from ultralytics.nn.tasks import parse_model, yaml_model_load; parse_model(yaml_model_load('evil.yaml'), 3)"
    done = run([sys.executable, "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "executed").exists()


# The worked example.


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, root: Path) -> tuple[Path, list[str], dict[str, str]]:
    """The documentation's files in a folder, with images in place of coco8, and its commands and environment."""
    folder = tmp_path_factory.mktemp("example")
    text = (root / "docs" / "own-block.md").read_text("utf-8")
    (folder / "my_blocks.py").write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    (folder / "yolov8-mine.yaml").write_text(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    export, *commands = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)[0].splitlines()
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    for i in range(4):
        Image.new("RGB", (64, 64), (60 * i, 90, 120)).save(folder / "images" / f"{i}.jpg")
        (folder / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    Image.new("RGB", (64, 64)).save(folder / "image.jpg")
    (folder / "coco8.yaml").write_text(f"path: {folder}\ntrain: images\nval: images\nnames: {{0: thing}}\n")
    name, value = export.removeprefix("export ").split("=")
    return folder, commands, {name: value}


def test_the_documented_example_runs(example: tuple[Path, list[str], dict[str, str]]) -> None:
    """Every command in a process of its own, the prediction from a checkpoint that is loaded safely."""
    folder, (show, train, predict), env = example
    bin_ = Path(sys.executable).parent
    done = run([bin_ / show.split()[0], *show.split()[1:], "--json"], folder, **env)
    (entry,) = json.loads(done.stdout)["blocks"]
    assert entry["parameters"] == 256 + 1 + 2
    assert entry["macs"] == 256 * 20 * 20
    assert entry["source"] == "arXiv 1803.02579"
    # Where Ultralytics puts runs depends on its settings, and on whether the environment lies in a checkout.
    where = f"project={folder / 'runs/detect'}"
    extra = ["device=cpu", "batch=2", "workers=0", "plots=False", where]
    done = run([bin_ / "yolo", *train.split()[1:], *extra], folder, **env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "my_blocks.SpatialSqueeze" in done.stdout + done.stderr
    assert (folder / "runs/detect/train/weights/best.pt").is_file()  # which the next command names
    arguments = [*predict.split()[1:], where]
    done = run([bin_ / "yolo", *arguments, "device=cpu", "imgsz=64"], folder, **env, ULTRALYTICS_SAFE_LOAD="1")
    assert done.returncode == 0, done.stderr[-2000:]
    done = run([bin_ / "yolo", *arguments, "device=cpu"], folder, YOLO_AUTOINSTALL="false")
    assert done.returncode != 0
    assert "my_blocks" in done.stderr


def test_a_worker_of_a_training_on_several_gpus_finds_the_block(
    example: tuple[Path, list[str], dict[str, str]],
) -> None:
    """The script that Ultralytics writes for its workers, run in a fresh process as a worker would, without a GPU."""
    pytest.importorskip("cloudpickle")
    folder, _, env = example
    make = """
import os
import sys
sys.path.remove("")  # as the `yolo` script has it: what lies in the working folder cannot be imported
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.dist import generate_ddp_file
quick = dict(epochs=1, imgsz=64, batch=2, device="cpu", workers=0, plots=False, val=False)
where = dict(project=os.path.abspath("ddp"), name="worker", exist_ok=True)
what = dict(model="yolov8n-mine.yaml", data="coco8.yaml")
print(generate_ddp_file(DetectionTrainer(overrides=what | where | quick)))
"""
    config = {"YOLO_CONFIG_DIR": str(folder / "config")}
    done = run([sys.executable, "-c", make], folder, **env, **config)
    assert done.returncode == 0, done.stderr[-2000:]
    script = done.stdout.splitlines()[-1]
    done = run([sys.executable, script], folder, **env, **config)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "my_blocks.SpatialSqueeze" in done.stdout + done.stderr
    assert (folder / "ddp/worker/weights/last.pt").is_file()
