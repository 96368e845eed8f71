"""What tests of studies share: a dataset of a few rendered images, and a study file of trainings of seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gam_yolo.study.config import Study, read_study
from gam_yolo.study.folder import StudyFolder
from gam_yolo.study.plan import Run, plan

from .helpers import log, worker


@pytest.fixture(scope="session")
def data(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset YAML of eight images to train on and four to validate on, rendered when first used."""
    folder = tmp_path_factory.mktemp("data")
    content = yaml.safe_load((root / "data" / "gam-demo.yaml").read_text())
    content |= {"path": str(folder / "set"), "scenes": {"train": 8, "val": 4}}
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


@pytest.fixture(scope="session")
def content(data: Path) -> dict[str, object]:
    """A whole study file."""
    return {
        "name": "tiny",
        "data": str(data),
        "seeds": [3],
        "recipe": {"epochs": 3, "imgsz": 64, "batch": 4, "nbs": 4, "optimizer": "AdamW", "close_mosaic": 1}
        | {"plots": False, "device": "cpu", "warmup_epochs": 1},
        "variants": {
            "plain": {"model": "yolov8n.yaml"},
            "gam": {"base": "yolov8n.yaml", "block": "GAM", "at": "p5", "args": [{"reduction": 16}]},
        },
    }


@pytest.fixture
def study_of(tmp_path: Path) -> Callable[[dict[str, object]], Study]:
    """Write a study file, `study.yaml` in `tmp_path`, and read it."""

    def write(content: dict[str, object]) -> Study:
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return read_study(file)

    return write


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the seconds in which GFLOPs are counted, where a test is not about them."""
    monkeypatch.setattr("gam_yolo.study.plan.gflops", lambda *_: 1.0)


@pytest.fixture(scope="session")
def undisturbed(content: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """The runs of that study, each trained in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    runs = list(plan(read_study(file), StudyFolder(folder / "tiny")).runs)
    for run in runs:
        assert worker(run) == 0, log(run)
    return runs
