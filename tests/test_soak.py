"""A short form of scripts/evidence/soak.py: what several threads do at once is what they do one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import soak


@pytest.mark.usefixtures("root")  # soak is a script of the checkout
def test_eight_threads_at_once_give_the_serial_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    measured = soak.Measured()
    for _ in soak.threads(2, measured):
        measured.sample()
    assert measured.wrong == []
    assert len({soak.work(block)[2] for block in soak.BLOCKS}) == len(soak.BLOCKS)  # each predicts something else
