"""Faults of the machine: what `scripts/evidence/faults.py` has found, in short."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gam_yolo.cli.console import exit_on_error
from gam_yolo.report.files import write_files

TOO_MUCH = 1 << 50


@pytest.mark.parametrize("allocate", [lambda: np.ones(TOO_MUCH), lambda: torch.ones(TOO_MUCH), lambda: b"0" * TOO_MUCH])
def test_a_failed_allocation_is_one_line(allocate: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, exit_on_error():
        allocate()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: there is not enough memory (")


def test_another_runtime_error_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), exit_on_error():
        torch.ones(2, 3) @ torch.ones(2, 3)


@pytest.mark.parametrize("stop_at", [1, 2, 3, None])
def test_the_files_of_a_result_are_there_at_every_moment(
    stop_at: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed between two renames loses no file; one that is interrupted puts the old ones back."""
    names = ("a.html", "b.json", "c.csv")
    old, new = ({name: f"{age} {name}" for name in names} for age in ("old", "new"))
    write_files(tmp_path, old)
    replace, calls = Path.replace, 0

    def content() -> dict[str, str]:
        return {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}

    def watched(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        assert content().keys() == old.keys()
        if calls == stop_at:
            raise KeyboardInterrupt
        done = replace(self, target)
        assert all(text in (old[name], new[name]) for name, text in content().items())
        assert content().keys() == old.keys()
        return done

    monkeypatch.setattr(Path, "replace", watched)
    if stop_at:
        with pytest.raises(KeyboardInterrupt):
            write_files(tmp_path, new)
    else:
        write_files(tmp_path, new)
    assert content() == (old if stop_at else new)


def test_without_hard_links_a_result_is_replaced_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    write_files(tmp_path, {"a.html": "old", "b.json": "old"})
    monkeypatch.setattr("os.link", link)
    write_files(tmp_path, {"a.html": "new", "b.json": b"new"})
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["new", "new"]
