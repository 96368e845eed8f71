"""The folder of a study and of each of its runs: the name and meaning of every file in them.

<study>/
  .lock               held by the process that carries the study out
  digests.json        digests of the dataset's files, so that unchanged ones are not read again
  report/             the report
    predictions/      the predictions of finished runs, where the report looks for them
  <variant>-s<seed>-<digest>/    one run; the digest stands for all that determines its result
    .lock             held by the run's process
    run.json          what is to be done, and the parts of the identity
    model.yaml        the model
    log.txt           what all attempts have printed
    train/            Ultralytics' own folder of the training, with results.csv, its table of epochs
      weights/best.pt the checkpoint that is evaluated
    snapshots/        to resume from; removed when the run has finished
    finished.json     the mark, written last
    failed.json       why the last attempt failed

A study of several datasets has such a folder, without the lock, for each of them, and beside these:

<study>/
  .lock               as above
  report/             the summary over the datasets
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gam_yolo.errors import UserError
from gam_yolo.io import file_sha256, is_number, read_json, write

__all__ = ["RunFolder", "StudyFolder"]


class _Below:
    """A path below the folder of a study or of a run; what it is for is said at the top of this file."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __get__(self, folder: StudyFolder | RunFolder, _: type) -> Path:
        return folder.path / self._place


@dataclass(frozen=True)
class StudyFolder:
    """The folder of a study."""

    path: Path

    lock = _Below(".lock")
    digests = _Below("digests.json")
    report = _Below("report")
    predictions = _Below("report/predictions")

    def dataset(self, name: str) -> StudyFolder:
        """Return the folder of a dataset; this one where the study has only one, without a name."""
        return StudyFolder(self.path / name)

    def run(self, variant: str, seed: int, digest: str) -> RunFolder:
        """Return the folder of a run; `digest` stands for all that determines its result."""
        return RunFolder(self.path / f"{variant}-s{seed}-{digest[:12]}")

    def runs_of(self, variant: str, seed: int) -> list[RunFolder]:
        """Return the folders of all runs of a variant and seed, the newest first."""
        found = [RunFolder(file.parent) for file in self.path.glob(f"{variant}-s{seed}-*/run.json")]
        return sorted(found, key=lambda run: run.spec_file.stat().st_mtime, reverse=True)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    lock = _Below(".lock")
    spec_file = _Below("run.json")
    model = _Below("model.yaml")
    log = _Below("log.txt")
    train = _Below("train")
    best = _Below("train/weights/best.pt")
    results = _Below("train/results.csv")
    snapshots = _Below("snapshots")
    finished_file = _Below("finished.json")
    failed_file = _Below("failed.json")

    def __str__(self) -> str:
        return str(self.path)

    @property
    def study(self) -> StudyFolder:
        """The folder of the study that the run belongs to."""
        return StudyFolder(self.path.parent)

    @property
    def finished(self) -> bool:
        """Whether the run has been trained and evaluated."""
        return self.finished_file.is_file()

    def lay_out(self, spec: dict[str, Any], model: str) -> None:
        """Write what the run's process reads, and remove the mark of an earlier failure."""
        self.path.mkdir(parents=True, exist_ok=True)
        write(self.model, model)
        write(self.spec_file, json.dumps(spec, indent=1))
        self.failed_file.unlink(missing_ok=True)

    def spec(self) -> dict[str, Any]:
        """Read what is to be done.

        Raises:
            UserError: The file is missing or damaged.
        """
        found: dict[str, Any] = read_json(self.spec_file)
        return found

    def mark_finished(self, record: dict[str, Any]) -> None:
        """Mark the run as finished, with the checkpoint that it has now."""
        write(self.finished_file, json.dumps({**record, "checkpoint": file_sha256(self.best)}))

    def nms_time_limit(self) -> int:
        """Return how often a validation of the finished run lost detections to the time limit, see `validation`.

        Raises:
            UserError: The mark is damaged.
        """
        return int(self._mark()["nms_time_limit"])

    def check_checkpoint(self) -> None:
        """Check that the checkpoint is the one that the run finished with, which is the one that the report evaluates.

        Raises:
            UserError: It is missing or another one, or the mark is damaged.
        """
        expected = self._mark()["checkpoint"]
        if expected and file_sha256(self.best) != expected:  # a release before 0.2 has no such key
            raise UserError(
                "is not the checkpoint that this run finished with",
                at=self.best,
                fix=f"Put that one back, or remove {self.path} to train the run again",
            )

    def _mark(self) -> dict[str, Any]:
        found = read_json(self.finished_file)
        mark = {"nms_time_limit": 0, "checkpoint": ""} | (found if isinstance(found, dict) else {})
        if not (isinstance(found, dict) and is_number(mark["nms_time_limit"]) and isinstance(mark["checkpoint"], str)):
            raise UserError("is damaged", at=self.finished_file, fix=f"Remove {self.path} to train the run again")
        return mark

    def mark_failed(self, record: dict[str, Any]) -> None:
        """Record why the run failed."""
        write(self.failed_file, json.dumps(record, indent=1))

    def log_lines(self) -> list[str]:
        """Return the lines of the log; none where there is no log."""
        with contextlib.suppress(OSError):
            return self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return []
