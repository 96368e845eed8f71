"""Which snapshot a training resumes from."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from gam_yolo.study import snapshots
from gam_yolo.study.folder import RunFolder


def snapshot(run: RunFolder, name: str, without: str = "") -> Path:
    folder = run.snapshots / name
    folder.mkdir(parents=True)
    for file in ("last.pt", "best.pt", "state.pt"):
        torch.save({"ended": False}, folder / file)
    (folder / "results.csv").write_text("epoch,time\n1,2.0\n")
    if without:
        (folder / without).unlink()
    return folder


def test_an_incomplete_snapshot_and_what_is_no_snapshot_are_skipped(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    snapshot(run, "epoch-0")
    complete = snapshot(run, "epoch-9")
    snapshot(run, "epoch-10", without="results.csv")
    (snapshot(run, "epoch-11") / "results.csv").write_text("")
    snapshot(run, "epoch-12", without="best.pt")
    others = [snapshot(run, name) for name in ("epoch-9.bak", "epoch-", "epoch-best", ".epoch-13")]
    (run.snapshots / "epoch-14").write_text("a file")

    found, lines = snapshots.newest(run)
    assert found == complete
    assert lines == [
        "epoch-12 is damaged (best.pt) and skipped",
        "epoch-11 is damaged (results.csv) and skipped",
        "epoch-10 is damaged (results.csv) and skipped",
    ]
    assert snapshots.restore_files(run, complete) is False
    assert run.results.read_text() == "epoch,time\n1,2.0\n"
    assert not list(run.snapshots.glob("epoch-1?"))[1:]  # the file that is no snapshot is left
    assert all(other.is_dir() for other in others)


@pytest.mark.parametrize("content", [{"model": torch.zeros(2)}, [1], {"ended": Path("a path is code")}])
def test_a_whole_file_that_is_no_state_is_skipped(content: object, tmp_path: Path) -> None:
    """As a copy of best.pt under that name: no attempt must fail for it."""
    run = RunFolder(tmp_path)
    complete = snapshot(run, "epoch-0")
    torch.save(content, snapshot(run, "epoch-1") / "state.pt")
    assert snapshots.newest(run) == (complete, ["epoch-1 is damaged (state.pt) and skipped"])


def test_a_link_to_a_snapshot_is_no_snapshot(tmp_path: Path) -> None:
    """It cannot be removed as a folder when newer ones have been taken."""
    run = RunFolder(tmp_path)
    complete = snapshot(run, "epoch-3")
    (run.snapshots / "epoch-9").symlink_to(complete)
    (run.snapshots / "epoch-8").symlink_to("nowhere")
    assert snapshots.newest(run) == (complete, [])
    assert snapshots.restore_files(run, complete) is False
    assert (run.snapshots / "epoch-9").is_symlink()


def test_without_a_complete_snapshot_there_is_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert snapshots.newest(run) == (None, [])
    snapshot(run, "epoch-0", without="results.csv")
    assert snapshots.newest(run) == (None, ["epoch-0 is damaged (results.csv) and skipped"])


def test_an_archive_that_zipfile_reads_and_torch_does_not_is_damaged(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    state = snapshot(run, "epoch-0") / "state.pt"
    content = bytearray(state.read_bytes())
    end = content.rindex(b"PK\x06\x06")
    content[end + 24 : end + 40] = (2**40).to_bytes(8, "little") * 2  # of files, which zipfile ignores
    state.write_bytes(content)
    with zipfile.ZipFile(state) as archive:
        assert archive.testzip() is None
    with pytest.raises(RuntimeError):
        torch.load(state, weights_only=True)
    assert snapshots.newest(run) == (None, ["epoch-0 is damaged (state.pt) and skipped"])
