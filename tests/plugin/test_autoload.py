"""Registration in fresh processes, which import nothing of ours: the `yolo` script, an interpreter, a DDP worker."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest

from gam_yolo import UserError
from gam_yolo.plugin import autoload

YOLO = Path(sys.executable).with_name("yolo")
BUILD = "from ultralytics import YOLO; m = YOLO('yolov8n-gam.yaml'); print(type(m.model.model[16]))"


def run(*command: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def python(code: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-c", code, cwd=cwd, **env)


def test_fresh_interpreter_builds_from_a_bare_name_in_an_empty_folder(tmp_path: Path) -> None:
    done = python(BUILD, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "<class 'gam_yolo.blocks.gam.GAM'>" in done.stdout


def test_switched_off_by_the_environment(tmp_path: Path) -> None:
    code = (
        "import gam_yolo, sys, ultralytics.cfg as c, ultralytics.nn.tasks as t, ultralytics.utils.checks as k;"
        "patched = (c.entrypoint, t.parse_model, t.BaseModel.fuse, k.check_file);"
        "assert not any(hasattr(f, '__wrapped__') for f in patched);"
        "assert 'gam_yolo.blocks' not in sys.modules; t.DetectionModel('yolov8n.yaml', verbose=False)"
    )
    done = python(code, tmp_path, GAM_YOLO="0")
    assert done.returncode == 0, done.stderr


def test_without_torchs_autoload_an_import_by_hand_does_it(tmp_path: Path) -> None:
    code = (
        "import ultralytics.nn.tasks as t, sys; assert 'gam_yolo' not in sys.modules;"
        "import gam_yolo; assert hasattr(t.parse_model, '__wrapped__');"  # by hand, after Ultralytics: still registers
        "from ultralytics.data.utils import check_file; assert hasattr(check_file, '__wrapped__');" + BUILD
    )
    done = python(code, tmp_path, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert done.returncode == 0, done.stderr
    assert "gam_yolo.blocks.gam.GAM" in done.stdout


def test_import_by_hand_before_ultralytics(tmp_path: Path) -> None:
    code = "import gam_yolo, sys; assert 'torch' not in sys.modules and 'ultralytics' not in sys.modules;" + BUILD
    done = python(code, tmp_path, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert done.returncode == 0, done.stderr


def test_nothing_is_imported_before_torch_nor_more_than_needed_with_it(tmp_path: Path) -> None:
    code = (
        "import sys; assert not {'gam_yolo', 'wrapt', 'torch'} & {*sys.modules};"
        "import torch; assert 'gam_yolo' in sys.modules and 'ultralytics' not in sys.modules;"
        "assert 'gam_yolo.blocks' not in sys.modules"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_seeded_plain_model_is_the_same_with_and_without(tmp_path: Path) -> None:
    code = (
        "import torch, hashlib; torch.manual_seed(7); from ultralytics.nn.tasks import DetectionModel;"
        "m = DetectionModel('yolov8n.yaml', verbose=False);"
        "weights = b''.join(t.numpy().tobytes() for t in m.state_dict().values());"
        "print(hashlib.sha256(weights).hexdigest(), torch.rand(1))"
    )
    on, off = (python(code, tmp_path, GAM_YOLO=switch) for switch in "10")
    assert on.returncode == off.returncode == 0, on.stderr + off.stderr
    assert len(on.stdout) > 64
    assert on.stdout == off.stdout


def test_yolo_script_ends_a_bad_row_with_one_line_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "yolov8-bad.yaml").write_text(
        "nc: 1\nbackbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 1, GAM, [{redction: 4}]]\n"
        "head:\n  - [[1], 1, Detect, [nc]]\n"
    )
    done = run(YOLO, "train", "model=yolov8-bad.yaml", "data=coco8.yaml", cwd=tmp_path)
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert (
        "yolov8-bad.yaml, row 1 [-1, 1, GAM, [{redction: 4}]]: GAM has no argument 'redction'. Expected (reduction=None"
        in output
    )
    assert "Did you mean 'reduction'?" in output
    assert "Traceback" not in output
    assert not (tmp_path / "runs").exists()


def test_yolo_script_tells_what_a_dataset_needs_though_ultralytics_wraps_the_error(tmp_path: Path) -> None:
    env = {"GAM_YOLO_VOC": str(tmp_path / "nowhere"), "YOLO_CONFIG_DIR": str(tmp_path)}
    done = run(YOLO, "train", "model=yolov8n-gam.yaml", "data=voc-local.yaml", cwd=tmp_path, **env)
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert "nowhere" in output
    assert "Traceback" not in output


@pytest.mark.since("8.4.0")  # YOLO26
def test_checkpoint_loads_under_restricted_loading(tmp_path: Path) -> None:
    for name in ("yolov8n-gam.yaml", "yolo26n-gam-backbone.yaml"):
        saved = python(f"from ultralytics import YOLO; YOLO('{name}').save('m.pt')", tmp_path)
        assert saved.returncode == 0, saved.stderr
        code = (
            "from ultralytics import YOLO; import torch; m = YOLO('m.pt');"
            "assert any(type(x).__name__ == 'GAM' for x in m.model.modules());"
            "m.model.eval()(torch.rand(1, 3, 64, 64)); print('loaded')"
        )
        done = python(code, tmp_path, ULTRALYTICS_SAFE_LOAD="1")
        assert done.stdout.endswith("loaded\n"), done.stderr


@pytest.mark.since("8.3.0")  # an older script imports a trainer otherwise
def test_script_that_ultralytics_makes_for_ddp_workers_registers(tmp_path: Path) -> None:
    """Make the worker's script as a multi-GPU run does and run it as a process of its own, on the CPU."""
    make = (
        "from types import SimpleNamespace; from ultralytics.utils.dist import generate_ddp_file;"
        "from ultralytics.models.yolo.detect import DetectionTrainer as T; from ultralytics import YOLO;"
        "class Worker(T):\n"
        "    def __init__(self, cfg, overrides, _callbacks): self.overrides = overrides\n"
        "    def train(self):\n"
        "        from ultralytics import YOLO\n"
        "        print(type(self.model.model[16]), type(YOLO('yolov8n-gam.yaml').model.model[16]))\n"
        "model = YOLO('yolov8n-gam.yaml').model\n"
        "trainer = Worker({}, {}, None); trainer.args = SimpleNamespace(model='x'); trainer.model = model\n"
        "trainer.callbacks = {}\n"
        "print(generate_ddp_file(trainer))"
    )
    made = python(make.replace(";class", "\nclass"), tmp_path, YOLO_CONFIG_DIR=str(tmp_path))
    assert made.returncode == 0, made.stderr
    done = run(sys.executable, made.stdout.split("\n")[-2], cwd=tmp_path, YOLO_CONFIG_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("<class 'gam_yolo.blocks.gam.GAM'>") == 2


def test_ultralytics_that_cannot_be_served_works_on_without_our_blocks() -> None:
    tasks = types.ModuleType("ultralytics.nn.tasks")
    tasks.parse_model = lambda other, signature: "as before"  # type: ignore[attr-defined]  # noqa: ARG005
    tasks.BaseModel = type("BaseModel", (), {"load": lambda self, weights, verbose: None, "fuse": lambda self: self})  # type: ignore[attr-defined]  # noqa: ARG005
    tasks.DetectionModel = type("DetectionModel", (), {"__init__": lambda self, cfg: None})  # type: ignore[attr-defined]  # noqa: ARG005
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        autoload._apply(tasks)
    assert (
        "has a ultralytics.nn.tasks.parse_model without the parameter d, ch, needed to build rows that name a block"
        in str(caught[0].message)
    )
    assert tasks.parse_model(1, 2) == "as before"
    with pytest.raises(UserError, match="GAM cannot be placed: gam_yolo cannot serve ultralytics"):
        tasks.GAM(64)


def test_failing_registration_never_breaks_import_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoload, "_done", False)
    monkeypatch.setitem(sys.modules, "wrapt", None)
    with pytest.warns(UserWarning, match="gam_yolo did not register with Ultralytics: import of wrapt halted"):
        autoload.autoload()
