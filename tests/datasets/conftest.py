"""What Ultralytics hands to `download:`, and Ultralytics itself with a datasets folder of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ultralytics.data import utils as data_utils

from gam_yolo.datasets.prepared import Picture
from gam_yolo.errors import UserError


def dataset(path: Path, names: list[str], **keys: Any) -> dict[str, Any]:
    """Return the mapping that `check_det_dataset` would hand over, its splits absolute."""
    path = path.resolve()
    data: dict[str, Any] = {"path": path, "names": dict(enumerate(names)), "yaml_file": "some/folder/mine.yaml", **keys}
    for key in ("train", "val", "test"):
        if isinstance(data.get(key), list):
            data[key] = [str(path / entry) for entry in data[key]]
        elif key in data:
            data[key] = str(path / data[key])
    return data


def labels(path: Path, split: str) -> dict[str, list[list[float]]]:
    """Return the rows of every label file of a split."""
    return {
        p.stem: [[float(x) for x in row.split()] for row in p.read_text().splitlines()]
        for p in sorted((path / "labels" / split).glob("*.txt"))
    }


def check_pictures(pictures: Iterator[Picture], file: str) -> None:
    """Check that what is read of damaged annotations has boxes in its images, or ends in a line that names the file."""
    said = ""
    try:
        for picture in pictures:
            for _, (x, y, w, h) in picture.boxes:
                assert w > 0
                assert h > 0
                assert -0.01 <= x < x + w <= picture.width + 0.01
                assert -0.01 <= y < y + h <= picture.height + 0.01
    except UserError as error:
        said = str(error)
    assert not said or (file in said and "\n" not in said)


@pytest.fixture
def check_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, Any]]:
    """Ultralytics' own way in, with `datasets_dir` in the test's folder and the user's settings left alone."""
    monkeypatch.setattr(data_utils, "DATASETS_DIR", tmp_path / "datasets")
    monkeypatch.setattr(data_utils, "check_font", lambda _: None)  # it would look for a font on the network
    return data_utils.check_det_dataset
