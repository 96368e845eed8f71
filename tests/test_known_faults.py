"""Faults of Ultralytics releases: reports and plans say that they change results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gam_yolo import UserError, ultralytics_api
from gam_yolo.checkpoints import written_by
from gam_yolo.known_faults import fault_notes, reject_broken_numpy
from gam_yolo.report import document
from gam_yolo.report.predictions import Predicted
from gam_yolo.report.protocol import Protocol


@pytest.mark.parametrize(
    ("release", "word"),
    [
        ("8.2.103", ""),
        ("8.3.0", "head of YOLO11"),
        ("8.3.16", "head of YOLO11"),
        ("8.3.17", ""),
        ("8.3.253", ""),
        ("8.4.0", "SPPF"),
        ("8.4.140", "SPPF"),
        ("8.4.141", ""),
        ("", ""),
    ],
)
def test_each_fault_has_a_first_release_and_one_without_it(release: str, word: str) -> None:
    notes = [*fault_notes([release, release])]
    assert len(notes) == bool(word)
    assert all(word in note and f"Ultralytics {release} " in note for note in notes)


def test_the_note_is_of_the_release_that_trained(shared: Path, tmp_path: Path) -> None:
    """Not of the one that validates."""
    content = torch.load(shared / "weights/yolov8n.pt", weights_only=False)
    torch.save({**content, "version": "8.4.100"}, tmp_path / "a.pt")
    assert written_by(tmp_path / "a.pt") == "8.4.100"
    assert written_by(shared / "weights/yolov8n.pt") == content["version"]
    (tmp_path / "b.pt").write_bytes(b"PK\x03\x04")
    assert written_by(tmp_path / "b.pt") == ""

    def notes(*names: str) -> str:
        seeds = [Predicted(tmp_path / name, None, Protocol(imgsz=64), {}) for name in names]
        return " ".join(document.seed_notes({"v": seeds}, "they agree"))

    assert notes("a.pt", "a.pt").count("Ultralytics 8.4.100 builds SPPF") == 1
    assert "SPPF" not in notes("b.pt", "c.json")


def test_a_numpy_without_trapz_is_rejected_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(np, "trapz", raising=False)
    for release, rejected in (("8.2.103", True), ("8.3.107", True), ("8.3.108", False), ("8.4.190", False)):
        monkeypatch.setattr(ultralytics_api, "version", lambda release=release: release)
        if rejected:
            with pytest.raises(UserError, match=rf'{release} cannot validate .*Install "numpy<2.4" or'):
                reject_broken_numpy()
        else:
            reject_broken_numpy()
    monkeypatch.setattr(np, "trapz", np.sum, raising=False)
    monkeypatch.setattr(ultralytics_api, "version", lambda: "8.2.103")
    reject_broken_numpy()
