"""What a study says before its first training, and how it pairs seeds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gam_yolo import UserError, compare, power
from gam_yolo.study.config import read_study
from gam_yolo.study.folder import StudyFolder
from gam_yolo.study.run import _outlook, _statistics

from .conftest import DataSet

STUDY = (
    "data: gam-demo.yaml\nseeds: [0, 1, 2, 3]\nvariants:\n  a: {model: yolov8n.yaml}\n  b: {model: yolov8n-gam.yaml}\n"
)


def study(tmp_path: Path, more: str) -> Any:
    file = tmp_path / "s.yaml"
    file.write_text(STUDY + more)
    return read_study(file)


def test_a_pilot_says_what_the_study_detects(data_set: DataSet, tmp_path: Path) -> None:
    named = {
        name: [data_set.predictions(f"o{name}", skill, s) for s in (1, 2)] for name, skill in (("a", 0.5), ("b", 0.7))
    }
    pilot = compare(named, gt=data_set.truth, replicates=100)
    folder = StudyFolder(tmp_path / "study")
    assert not list(_outlook(study(tmp_path, ""), folder))
    pilot.save(tmp_path / "pilot")
    expected = power(pilot, seeds=4, comparisons=1).detectable
    for content in (study(tmp_path, f"pilot: {tmp_path / 'pilot'}\n"), study(tmp_path, "")):
        (line,) = _outlook(content, folder)
        assert f"4 seeds on its 60 images detect a difference of {expected[0]:.1f} points" in line
        assert f"and of {expected[1]:.1f} points in 90 %" in line
        pilot.save(folder.report)  # the second time, it is the study's own report
    content = study(tmp_path, "pilot: nowhere.json\n")
    with pytest.raises(UserError, match=r"s\.yaml, key 'pilot': nowhere\.json"):
        list(_outlook(content, folder))


def test_seeds_are_paired_only_where_all_variants_have_them(tmp_path: Path) -> None:
    said: list[str] = []
    content = study(tmp_path, "pair_seeds: true\n")
    assert not study(tmp_path, "").pair_seeds
    runs = [SimpleNamespace(variant=v, seed=s, finished=True) for s in (0, 1) for v in "ab"]
    assert _statistics(content, SimpleNamespace(runs=runs), said.append).pair_seeds  # type: ignore[arg-type]
    runs[-1].finished = False
    assert not said
    assert not _statistics(content, SimpleNamespace(runs=runs), said.append).pair_seeds  # type: ignore[arg-type]
    assert "does not pair them" in said[0]
    with pytest.raises(UserError, match=r"'pair_seeds' is 'maybe'\. Expected true or false"):
        study(tmp_path, "pair_seeds: maybe\n")
