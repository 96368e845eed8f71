"""The files of a result: all of them are replaced, or none."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, ClassVar, TypeVar

from gam_yolo.errors import UserError, brief, option
from gam_yolo.io import read_json
from gam_yolo.report.formatting import printable
from gam_yolo.report.records import read_record

__all__ = ["REPORT", "SavedResult", "output_folder", "reject_obstacles", "to_json", "write_files"]

R = TypeVar("R", bound="SavedResult")

REPORT = ("report.html", "report.md", "report.json", "report.csv")
"""The files of a report."""


class SavedResult(ABC):
    """A result that can be written as a page, as JSON, and in whatever other forms it has."""

    SCHEMA: ClassVar[tuple[str, int]]
    """Name and version of the layout of its JSON file."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file."""

    @abstractmethod
    def to_files(self) -> Mapping[str, str | bytes]:
        """Return the content of each file, by its path in the folder; the page is the first."""

    def to_json(self) -> str:
        """Return the text of the JSON file."""
        return to_json(self.to_dict())

    def save(self, folder: str | Path) -> Path:
        """Write a page, a JSON file and the other forms; all files are replaced, or none.

        Args:
            folder: Where to write them; made if it does not exist.

        Returns:
            The path of the page.

        Raises:
            UserError: They cannot be written.
        """
        files = self.to_files()
        write_files(Path(folder), files)
        return Path(folder) / next(iter(files))

    @classmethod
    def load(cls: type[R], path: str | Path) -> R:
        """Read the JSON file.

        Raises:
            UserError: It cannot be read, or has another layout.
        """
        return cls.from_dict(read_json(Path(path)), str(path))

    @classmethod
    def from_dict(cls: type[R], content: Any, source: str = "report") -> R:
        """Make a result of the content of a JSON file; keys that are not known are passed over.

        Args:
            content: What `to_dict` returned.
            source: Where it was read, for the error message.

        Raises:
            UserError: It is something else.
        """
        found = (content.get("schema"), content.get("schema_version")) if isinstance(content, dict) else ()
        if found != cls.SCHEMA:
            name, version = cls.SCHEMA
            raise UserError(f"has schema {brief(found)}", at=source, expected=f"'{name}', version {version}")
        return read_record(cls, cls._arranged(content, source), source)

    @classmethod
    def _arranged(cls, content: dict[str, Any], source: str) -> dict[str, Any]:  # noqa: ARG003  some need it
        """Return the content as the fields of the class have it."""
        return content


def to_json(content: Mapping[str, Any]) -> str:
    """Return the text of a JSON file, as all results have it."""
    return json.dumps(content, indent=1, allow_nan=False)


def reject_obstacles(folder: Path, names: Sequence[str], folders: Sequence[str] = ()) -> None:
    """Check before anything takes time that the files of a result can take their places.

    Args:
        folder: Where they go; it need not exist.
        names: The files; the JSON file among them says whether files that exist are those of an earlier result.
        folders: Folders in it.

    Raises:
        UserError: Something else is there, or files of the user's own.
    """
    for path in (folder, *(folder / name for name in folders)):
        if os.path.lexists(path) and not path.is_dir():
            raise UserError("is in the way of a folder", at=path)
    blocked = [name for name in names if (folder / name).is_dir()]
    if blocked:
        raise UserError("is a folder, and the report has a file of that name", at=folder / blocked[0])
    found = [folder / name for name in names if (folder / name).is_file()]
    if found and not any(_is_ours(file) for file in found if file.suffix == ".json"):
        fix = f"Give another folder: {option('output')}"
        raise UserError("already exists and was not written by gam-yolo", at=found[0], fix=fix)


@contextmanager
def output_folder(folder: Path, names: Sequence[str], folders: Sequence[str] = ()) -> Iterator[None]:
    """Make a folder, and check as `reject_obstacles` and by trying that files can be written there.

    If nothing is written, the folders that were made are removed.

    Args:
        folder: The folder.
        names: The files.
        folders: Folders in it.

    Raises:
        UserError: They cannot be written, or would replace files of the user's own.
    """
    made: list[Path] = []
    try:
        made += [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"the report cannot be written there ({error.strerror})", at=printable(str(folder))) from None
    reject_obstacles(folder, names, folders)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # from the innermost on, until one holds something
            for path in made:
                path.rmdir()
        raise


def _is_ours(file: Path) -> bool:
    try:
        content = read_json(file)
    except UserError:
        return False
    return isinstance(content, dict) and str(content.get("schema")).startswith("gam-yolo/")


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files in a folder, which is made if it does not exist; all are replaced, or none.

    Raises:
        UserError: They cannot be written.
    """
    try:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _replace_together(folder, files)
    except OSError as error:
        raise UserError(f"the report cannot be written ({error.strerror})", at=error.filename or folder) from None


def _replace_together(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files in a folder; if one cannot be replaced, those that were come back.

    Each file is there at every moment, the old one or the new one: also where the process is killed.
    """
    with TemporaryDirectory(dir=folder, prefix=".gam-yolo-", ignore_cleanup_errors=True) as staging:
        new, old = ({name: Path(staging) / f"{age}-{i}" for i, name in enumerate(files)} for age in ("new", "before"))
        for name, content in files.items():
            new[name].write_bytes(content.encode() if isinstance(content, str) else content)
            if (folder / name).exists():
                _copy(folder / name, old[name])
        done: list[str] = []
        try:
            for name in files:
                done.append(name)
                new[name].replace(folder / name)
        except BaseException:  # Ctrl-C, too
            for name in done:
                if old[name].exists():
                    old[name].replace(folder / name)
                elif not new[name].exists():
                    (folder / name).unlink()
            raise


def _copy(source: Path, target: Path) -> None:
    """Make a second name of a file, or a copy where the file system has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
