"""YAMLs that come with the package are found by bare name; everything else is found, or not, as before."""

from __future__ import annotations

from pathlib import Path

import pytest
from ultralytics.utils import checks

from gam_yolo.resources import shipped


def test_finds_ours_by_bare_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = Path(checks.check_yaml("yolov8-gam.yaml"))
    assert found.parts[-2:] == ("cfg", "yolov8-gam.yaml")
    assert "1, GAM, " in found.read_text("utf-8")
    assert checks.check_yaml("yolov8-gam.yaml", hard=False) == str(found)
    assert checks.check_yaml("nothing/yolov8-gam.yaml", hard=False) == []
    with pytest.raises(FileNotFoundError, match=r"yolov8-gamm\.yaml"):
        checks.check_yaml("yolov8-gamm.yaml")
    assert shipped("pyproject.toml") is None


def test_users_and_ultralytics_own_files_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolov8-gam.yaml").write_text("nc: 1\n")
    assert checks.check_yaml("yolov8-gam.yaml") == "yolov8-gam.yaml"
    assert Path(checks.check_yaml("yolov8.yaml")).parts[-2:] == ("v8", "yolov8.yaml")
