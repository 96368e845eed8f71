"""YAMLs that come with the package are found by bare name; everything else is found, or not, as before."""

from __future__ import annotations

from pathlib import Path

import pytest
from ultralytics import YOLO
from ultralytics.utils import checks

from gam_yolo.graph.lint import check
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


@pytest.mark.since("8.4.145")  # an older one looks for the name without the letter first
@pytest.mark.parametrize("folder", ["exp2small", "v8n", "a.5s/b", "plain"])
def test_a_scale_letter_is_read_in_the_name_and_not_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir(parents=True)
    yaml = Path(checks.check_yaml("yolov8-gam.yaml")).read_text("utf-8")
    Path(folder, "yolov8-gam.yaml").write_text(yaml.replace("nc: 80", "nc: 7"), "utf-8")
    other = Path(folder.replace("2s", "2").replace("8n", "8").replace("5s", "5"), "yolov8-gam.yaml")
    other.parent.mkdir(parents=True, exist_ok=True)
    if not other.exists():  # what Ultralytics alone would build
        other.write_text(yaml, "utf-8")
    model = YOLO(f"{folder}/yolov8s-gam.yaml").model
    assert (model.yaml["nc"], model.yaml["scale"]) == (7, "s")
    assert not check(f"{folder}/yolov8s-gam.yaml")
    with pytest.raises(FileNotFoundError, match="yolov9"):
        YOLO(f"{folder}/yolov9s-gam.yaml")
