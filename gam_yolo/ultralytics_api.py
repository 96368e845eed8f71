"""Every name of Ultralytics that is used outside `gam_yolo.plugin`, each with a check of what is assumed of it.

Ultralytics documents few of these names and promises none of them. So each is declared once, in `ASSUMPTIONS`, with
what it is used for; a release that renames it or changes its parameters leads to an error that says so in words, and
`docs/compatibility.md` lists the same table. Nothing of Ultralytics is imported before one of the functions is called.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gam_yolo.errors import UserError

__all__ = [
    "ASSUMPTIONS",
    "Assumption",
    "broken_assumptions",
    "default_arguments",
    "download_checkpoint",
    "find_checkpoint",
    "find_yaml",
    "get",
    "image_formats",
    "image_size",
    "info",
    "label_files",
    "lift_nms_time_limit",
    "load_dataset_yaml",
    "model",
    "quiet",
    "runs_folder",
    "safe_checkpoint",
    "tasks",
    "validated_arguments",
    "version",
]


@dataclass(frozen=True)
class Assumption:
    """A name of Ultralytics that we use.

    Attributes:
        module: The module it is in.
        name: The name, with dots for an attribute of a class.
        parameters: Parameters that it must accept by name; empty for what is not called so.
        purpose: What it is used for, as the end of "needed to ...".
    """

    module: str
    name: str
    parameters: tuple[str, ...]
    purpose: str

    def problem(self) -> str:
        """Return what does not hold in the installed release, in words, or an empty string."""
        try:
            self.get()
        except UserError as error:
            return str(error)
        return ""

    def get(self) -> Any:
        """Import the name.

        Raises:
            UserError: It is missing, or lacks a parameter.
        """
        path = f"{self.module}.{self.name}"
        try:
            found: Any = importlib.import_module(self.module)
            for part in self.name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            raise self._error(f"has no {path}") from None
        if self.parameters:
            accepted = inspect.signature(found).parameters
            open_ended = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
            missing = [p for p in self.parameters if p not in accepted and not open_ended]
            if missing:
                raise self._error(f"has a {path} without the parameter {', '.join(missing)}")
        return found

    def _error(self, problem: str) -> UserError:
        return UserError(
            f"Ultralytics {version()} {problem}, needed to {self.purpose}",
            fix="Install a release that docs/compatibility.md lists, or update gam-yolo",
        )


ASSUMPTIONS = {
    a.name: a
    for a in (
        Assumption("ultralytics", "YOLO", (), "load checkpoints and train models"),
        Assumption("ultralytics.nn.tasks", "parse_model", ("d", "ch"), "build the rows of a model YAML"),
        Assumption(
            "ultralytics.nn.tasks", "guess_model_scale", ("model_path",), "read the scale letter in a file name"
        ),
        Assumption("ultralytics.nn.tasks", "BaseModel.load", ("weights", "verbose"), "load pretrained weights"),
        Assumption("ultralytics.nn.tasks", "DetectionModel", ("cfg", "verbose"), "count a model's GFLOPs"),
        Assumption("ultralytics.utils.checks", "check_yaml", ("file", "hard"), "find a YAML by its bare name"),
        Assumption("ultralytics.utils", "LOGGER", (), "leave out the log of models that are only measured"),
        Assumption("ultralytics.utils", "DEFAULT_CFG_DICT", (), "check the train arguments of a study file"),
        Assumption("ultralytics.utils", "WEIGHTS_DIR", (), "find pretrained weights without a download"),
        Assumption("ultralytics.nn.tasks", "torch_safe_load", ("weight",), "read a checkpoint without running code"),
        Assumption("ultralytics.utils", "RUNS_DIR", (), "put results where Ultralytics puts its own"),
        Assumption("ultralytics.cfg", "get_cfg", ("overrides",), "check the values of train arguments"),
        Assumption("ultralytics.data.utils", "check_det_dataset", ("dataset", "autodownload"), "read a dataset YAML"),
        Assumption("ultralytics.data.utils", "img2label_paths", ("img_paths",), "find an image's label file"),
        Assumption("ultralytics.data.utils", "IMG_FORMATS", (), "tell images from other files"),
        Assumption("ultralytics.data.utils", "exif_size", ("img",), "read an image's size as it is trained on"),
        Assumption(
            "ultralytics.data.build",
            "build_yolo_dataset",
            ("cfg", "img_path", "batch", "data", "mode"),
            "read the labels that a study trains on",
        ),
        Assumption("ultralytics.utils.downloads", "attempt_download_asset", ("file",), "fetch pretrained weights"),
        Assumption("ultralytics.utils.torch_utils", "get_flops", ("model", "imgsz"), "count a model's GFLOPs"),
        Assumption("ultralytics.utils.torch_utils", "get_num_params", ("model",), "count a model's parameters"),
        Assumption("ultralytics.utils.torch_utils", "select_device", ("device", "verbose"), "choose a device"),
        Assumption("ultralytics.utils.torch_utils", "strip_optimizer", ("f",), "finish a resumed training"),
        Assumption("ultralytics.utils.torch_utils", "unwrap_model", (), "save snapshots of a multi-GPU training"),
    )
}
"""By the last part of the name's path. `parse_model` and `BaseModel.load` are also wrapped by `gam_yolo.plugin`."""


def broken_assumptions() -> list[str]:
    """Return, in words, every assumption that does not hold in the installed Ultralytics."""
    return [problem for assumption in ASSUMPTIONS.values() if (problem := assumption.problem())]


def get(name: str) -> Any:
    """Return a declared name of Ultralytics.

    Raises:
        UserError: The installed release does not have it as we need it.
    """
    return ASSUMPTIONS[name].get()


def version() -> str:
    """Return the installed Ultralytics' version."""
    return str(importlib.import_module("ultralytics").__version__)


def tasks() -> ModuleType:
    """Return Ultralytics' module of models. The first import takes seconds."""
    return importlib.import_module("ultralytics.nn.tasks")


def model(source: str | Path, task: str | None = None) -> Any:
    """Return Ultralytics' `YOLO` object for a model YAML or a checkpoint."""
    return get("YOLO")(source, task=task)


def find_yaml(name: str) -> Path | None:
    """Return the YAML that Ultralytics finds by a path or bare name, ours included; nothing is downloaded."""
    found = "" if "://" in name else get("check_yaml")(name, hard=False)
    return Path(found) if found and Path(found).is_file() else None


def load_dataset_yaml(data: str, download: bool = False) -> dict[str, Any]:
    """Read a dataset YAML as Ultralytics does.

    Args:
        data: Its path or bare name.
        download: Whether its `download:` entry may run where images are missing.
    """
    found: dict[str, Any] = get("check_det_dataset")(data, autodownload=download)
    return found


def label_files(images: list[str]) -> list[str]:
    """Return the path of each image's label file."""
    found: list[str] = get("img2label_paths")(images)
    return found


def image_formats() -> frozenset[str]:
    """Return the endings of image files, in lower case and without a dot."""
    return frozenset(get("IMG_FORMATS"))


def image_size(image: Any) -> tuple[int, int]:
    """Return width and height of an opened PIL image as Ultralytics trains on it: after EXIF rotation."""
    width, height = get("exif_size")(image)
    return int(width), int(height)


def default_arguments() -> dict[str, Any]:
    """Return Ultralytics' train arguments with their defaults."""
    return dict(get("DEFAULT_CFG_DICT"))


def validated_arguments(overrides: dict[str, Any] | None = None) -> Any:
    """Return a complete set of train arguments; Ultralytics raises what it will where a value is wrong."""
    return get("get_cfg")(overrides=dict(overrides)) if overrides else get("get_cfg")()


def runs_folder() -> Path:
    """Return the folder in which Ultralytics puts results, `runs_dir` of `yolo settings`."""
    return Path(get("RUNS_DIR"))


def download_checkpoint(name: str) -> Path:
    """Return the path of a checkpoint, downloaded where it is one of Ultralytics' own and missing."""
    return Path(get("attempt_download_asset")(name))


def find_checkpoint(name: str) -> Path | None:
    """Return the path of a checkpoint that is here or in `weights_dir` of `yolo settings`; nothing is downloaded."""
    return next((path for path in (Path(name), Path(get("WEIGHTS_DIR")) / name) if path.is_file()), None)


def safe_checkpoint(path: str) -> Any:
    """Return the model in a checkpoint, which is read with known classes only and cannot run code.

    A release or a torch without restricted loading reads it as usual.

    Raises:
        UserError: The file holds no model.
    """
    load = get("torch_safe_load")
    restricted = {"safe_only": True} if hasattr(tasks(), "SAFE_LOAD") else {}
    checkpoint = load(path, **restricted)[0]
    found: Any = (checkpoint.get("ema") or checkpoint.get("model")) if isinstance(checkpoint, dict) else None
    if not hasattr(found, "state_dict") or not hasattr(found, "yaml"):
        raise UserError("holds no Ultralytics model", at=path)
    return found.float()


def lift_nms_time_limit() -> None:
    """Have this process's validations keep all detections, however busy the machine is.

    Ultralytics stops non-maximum suppression after two seconds and 0.05 more per image, and drops the detections of the
    rest of the batch.
    """
    detect = importlib.import_module("ultralytics.models.yolo.detect.val")
    home = getattr(detect, "nms", detect.ops)  # it moved from `ops` to `nms` in 8.3.190
    home.non_max_suppression = functools.partial(home.non_max_suppression, max_time_img=math.inf)


def info(text: str) -> None:
    """Log a line as Ultralytics does."""
    get("LOGGER").info(text)


_silent: set[int] = set()
_lock = threading.Lock()


class _DropFromSilentThreads(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread not in _silent


_filter = _DropFromSilentThreads()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what Ultralytics logs from this thread; other threads are not affected, and no setting is left behind."""
    logger: logging.Logger = get("LOGGER")
    thread = threading.get_ident()
    with _lock:
        outermost = thread not in _silent
        _silent.add(thread)
        # A new list, as another thread may be iterating over the old one.
        if _filter not in logger.filters:
            logger.filters = [*logger.filters, _filter]
    try:
        yield
    finally:
        with _lock:
            if outermost:
                _silent.discard(thread)
            if not _silent:
                logger.filters = [f for f in logger.filters if f is not _filter]
