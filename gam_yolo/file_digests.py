"""Digests of many files, kept so that unchanged files are not read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gam_yolo.io import file_sha256, write

__all__ = ["FileDigests"]


class FileDigests:
    """SHA-256 digests of files. One that was digested before and has its size and times still is not read again.

    The time of the last change of the inode is among them: a copy that keeps the modification time changes it.

    Args:
        store: The file that keeps the digests.
    """

    def __init__(self, store: Path) -> None:
        self._store = store
        try:
            self._known: dict[str, Any] = json.loads(store.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # missing or damaged: every file is read
            self._known = {}

    def of(self, files: Sequence[Path]) -> list[str]:
        """Return the digest of each file; an empty string for one that is missing."""
        with ThreadPoolExecutor() as pool:  # hashing and reading release the interpreter's lock
            return list(pool.map(self._digest, files))

    def save(self) -> None:
        """Keep the digests for the next time."""
        self._store.parent.mkdir(parents=True, exist_ok=True)
        write(self._store, json.dumps(self._known))

    def _digest(self, file: Path) -> str:
        try:
            stat = file.stat()
        except FileNotFoundError:
            return ""
        facts = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        known = self._known.get(str(file))
        if not known or known[:-1] != facts:
            known = self._known[str(file)] = [*facts, file_sha256(file)]
        return str(known[-1])
