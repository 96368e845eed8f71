"""Every name of Ultralytics that we use, each with a check of what is assumed of it.

Ultralytics documents few of these names and promises none of them. So each is declared once, in `ASSUMPTIONS`, with
what it is used for. If a release renames one or changes its parameters, the error says so in words. `as_markdown`
renders the table for `docs/compatibility.md`. Nothing of Ultralytics is imported before a function here is called.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import inspect
import logging
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gam_yolo.errors import UserError
from gam_yolo.io import read_yaml

__all__ = [
    "ASSUMPTIONS",
    "Assumption",
    "as_markdown",
    "attention_modules",
    "broken_assumptions",
    "checkpoint",
    "dataset_folder",
    "dataset_yamls",
    "default_arguments",
    "download_checkpoint",
    "find_checkpoint",
    "find_yaml",
    "get",
    "image_formats",
    "image_size",
    "info",
    "is_quiet",
    "label_files",
    "lift_nms_time_limit",
    "load_dataset_yaml",
    "model",
    "model_class",
    "model_yamls",
    "newer_release",
    "numbers",
    "quiet",
    "runs_folder",
    "safe_checkpoint",
    "tasks",
    "unlimited_nms",
    "validated_arguments",
    "version",
    "warn",
]


@dataclass(frozen=True)
class Assumption:
    """A name of Ultralytics that we use.

    Attributes:
        module: The module it is in.
        name: The name, with dots for an attribute of a class.
        parameters: Parameters that it must accept by name; empty where nothing is passed by name.
        purpose: What it is used for, as the end of "needed to ...".
        formerly: The module it was in in earlier releases, if it has moved.
        wrapped: Whether `gam_yolo.plugin` wraps it.
    """

    module: str
    name: str
    parameters: tuple[str, ...]
    purpose: str
    formerly: str = ""
    wrapped: bool = False

    def problem(self) -> str:
        """Return what does not hold in the installed release, in words, or an empty string."""
        try:
            self.get()
        except UserError as error:
            return str(error)
        return ""

    def get(self, module: ModuleType | None = None) -> Any:
        """Return what has the name.

        Args:
            module: The module, where it is being imported at the moment; otherwise it is imported.

        Raises:
            UserError: It is missing, or lacks a parameter.
        """
        path = f"{self.module}.{self.name}"
        try:
            found: Any = module or self._import_module()
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

    def _import_module(self) -> ModuleType:
        try:
            return importlib.import_module(self.module)
        except ImportError:
            if not self.formerly:
                raise
            return importlib.import_module(self.formerly)

    def _error(self, problem: str) -> UserError:
        return UserError(
            f"Ultralytics {version()} {problem}, needed to {self.purpose}",
            fix="Install a release that docs/compatibility.md lists, or update gam-yolo",
        )


_TASKS = "ultralytics.nn.tasks"
_TRAINER = "ultralytics.engine.trainer"
_DATA = "ultralytics.data.utils"
_TORCH = "ultralytics.utils.torch_utils"

ASSUMPTIONS = {
    a.name: a
    for a in (
        Assumption("ultralytics", "YOLO", (), "load checkpoints and train models"),
        Assumption("ultralytics", "YOLO.task_map", (), "find the model class of a task"),
        Assumption(_TASKS, "parse_model", ("d", "ch"), "build rows that name a block", wrapped=True),
        Assumption(_TASKS, "BaseModel.load", ("weights", "verbose"), "load weights by structure", wrapped=True),
        Assumption(_TASKS, "BaseModel.fuse", (), "fold the blocks' batch norms", wrapped=True),
        Assumption(_TASKS, "DetectionModel.__init__", ("cfg",), "explain a model that does not run", wrapped=True),
        Assumption("ultralytics.utils.checks", "check_file", ("file",), "find our YAMLs by bare name", wrapped=True),
        Assumption("ultralytics.cfg", "entrypoint", (), "end the yolo command with a one-line error", wrapped=True),
        Assumption(_TRAINER, "BaseTrainer._setup_train", (), "apply `freeze` to base rows", wrapped=True),
        Assumption(_TRAINER, "BaseTrainer.set_model_attributes", (), "apply `freeze` to base rows"),
        Assumption(
            _TRAINER, "BaseTrainer.build_optimizer", ("model",), "apply `block_lr` and `block_epochs`", wrapped=True
        ),
        Assumption("ultralytics.nn.modules.block", "Bottleneck", (), "put blocks inside C2f, C3 and C3k2"),
        Assumption(_TASKS, "C2fAttn", (), "run the layers that read text"),
        Assumption(_TASKS, "ImagePoolingAttn", (), "run the layers that read text"),
        Assumption(_TASKS, "BaseModel", (), "tell whole models from layers"),
        Assumption(_TASKS, "Ensemble", (), "tell whole models from layers"),
        Assumption(_TASKS, "guess_model_task", ("model",), "find the task of a model YAML"),
        Assumption(_TASKS, "torch_safe_load", ("weight",), "read a checkpoint"),
        Assumption(_TASKS, "guess_model_scale", ("model_path",), "read the scale letter in a file name"),
        Assumption(_TASKS, "DetectionModel", ("cfg", "verbose"), "count a model's GFLOPs"),
        Assumption(_TASKS, "ClassificationModel", ("cfg", "verbose"), "count a classifier's GFLOPs"),
        Assumption("ultralytics.nn.autobackend", "check_class_names", ("names",), "name ImageNet's classes in words"),
        Assumption("ultralytics.utils.checks", "check_yaml", ("file", "hard"), "find a YAML by its bare name"),
        Assumption("ultralytics.utils", "LOGGER", (), "leave out the log of models that are only measured"),
        Assumption("ultralytics.utils", "DEFAULT_CFG_DICT", (), "check the train arguments of a study file"),
        Assumption("ultralytics.utils", "WEIGHTS_DIR", (), "find pretrained weights without a download"),
        Assumption("ultralytics.utils", "RUNS_DIR", (), "put results where Ultralytics puts its own"),
        Assumption("ultralytics.cfg", "get_cfg", ("overrides",), "check the values of train arguments"),
        Assumption(_DATA, "check_det_dataset", ("dataset", "autodownload"), "read a dataset YAML"),
        Assumption(_DATA, "check_cls_dataset", ("dataset", "split"), "fetch classified images"),
        Assumption("ultralytics.data", "ClassificationDataset", ("root", "args", "prefix"), "read classified images"),
        Assumption("ultralytics.data", "build_dataloader", ("shuffle",), "validate a classifier image by image"),
        Assumption(_DATA, "DATASETS_DIR", (), "find a dataset that is yet to be prepared"),
        Assumption(_DATA, "img2label_paths", ("img_paths",), "find an image's label file"),
        Assumption(_DATA, "IMG_FORMATS", (), "tell images from other files"),
        Assumption(_DATA, "exif_size", ("img",), "read an image's size as it is trained on"),
        Assumption(
            "ultralytics.data.build",
            "build_yolo_dataset",
            ("cfg", "img_path", "batch", "data", "mode"),
            "read the labels that a study trains on",
        ),
        Assumption("ultralytics.data.augment", "LetterBox", ("new_shape",), "fit images into a square"),
        Assumption("ultralytics.data.augment", "classify_transforms", ("size",), "crop images for a classifier"),
        Assumption("ultralytics.utils.downloads", "attempt_download_asset", ("file",), "fetch pretrained weights"),
        Assumption("ultralytics.utils.downloads", "GITHUB_ASSETS_NAMES", (), "tell which weights can be fetched"),
        Assumption(
            "ultralytics.utils.nms",
            "non_max_suppression",
            ("max_time_img",),
            "validate without a time limit",
            formerly="ultralytics.utils.ops",
        ),
        Assumption(_TORCH, "get_flops", ("model", "imgsz"), "count a model's GFLOPs"),
        Assumption(_TORCH, "get_num_params", ("model",), "count a model's parameters"),
        Assumption(_TORCH, "select_device", ("device", "verbose"), "choose a device"),
        Assumption(_TORCH, "strip_optimizer", ("f",), "finish a resumed training"),
    )
}
"""By name."""


FIRST_RELEASES = {
    "C3k2": "8.3.0",
    "C2PSA": "8.3.0",
    "C2fPSA": "8.3.0",
    "TorchVision": "8.3.59",
    "Index": "8.3.59",
    "A2C2f": "8.3.78",
    "LRPCHead": "8.3.99",
    "YOLOEDetect": "8.3.99",
    "YOLOESegment": "8.3.99",
    "OBB26": "8.4.0",
    "Pose26": "8.4.0",
    "Segment26": "8.4.0",
    "YOLOESegment26": "8.4.0",
    "SPPF with 4 arguments": "8.4.0",
    "SemanticSegment": "8.4.52",
    "Depth": "8.4.104",
}
"""What the oldest supported release lacks: the release that brought it, found in the releases' own files."""


def newer_release(module: str, arguments: int = 0) -> str:
    """Return what to do where a row needs a newer Ultralytics, or an empty string where that is not the reason.

    Args:
        module: The module that the row names.
        arguments: The number of its arguments in the YAML.
    """
    name = "SPPF with 4 arguments" if module == "SPPF" and arguments > 2 else module
    first = FIRST_RELEASES.get(name)
    if first is None or numbers(version()) >= numbers(first):
        return ""
    return f"Install ultralytics>={first}, the first release with {name}; {version()} is installed"


def numbers(release: str) -> tuple[int, ...]:
    """Return a release as numbers, which compare as releases do."""
    return tuple(int(part) for part in release.split(".")[:3] if part.isdecimal())


def as_markdown() -> str:
    """Return the table of assumptions for `docs/compatibility.md`."""
    rows = [
        f"| `{a.module}.{a.name}` | {', '.join(f'`{p}`' for p in a.parameters)} | "
        f"{'wrapped' if a.wrapped else 'used'} to {a.purpose} |"
        for a in ASSUMPTIONS.values()
    ]
    return "\n".join(["| name | parameters | |", "| --- | --- | --- |", *rows]) + "\n"


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
    """Return Ultralytics' `YOLO` object for a model YAML or a checkpoint.

    Raises:
        UserError: The checkpoint could run code, and is not trusted (`gam_yolo.checkpoints`).
    """
    return get("YOLO")(_checked(source) if str(source).endswith(".pt") else source, task=task)


def checkpoint(path: str | Path) -> Any:
    """Return the content of a checkpoint.

    Raises:
        UserError: It could run code, and is not trusted.
    """
    return get("torch_safe_load")(_checked(path))[0]


def _checked(path: str | Path) -> str:
    """Return the file that Ultralytics reads for a name, after a check; it may be another than the name says."""
    from gam_yolo.checkpoints import reject_code

    file = download_checkpoint(str(path))
    if not file.is_file():  # for which older releases ask the network
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    reject_code(file)
    return str(file)


def train_into(folder: Path, project: str) -> dict[str, Any]:
    """Return the arguments with which a training writes into a folder; `save_dir` is ignored by older releases."""
    if numbers(version()) < (8, 4, 4):
        return {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
    return {"project": project, "save_dir": str(folder)}


def load_pretrained(yolo: Any, weights: str) -> None:
    """Load weights into the `YOLO` object of a YAML, if its `train` ignores `pretrained`, as in older releases.

    Raises:
        UserError: The checkpoint could run code, and is not trusted.
    """
    if numbers(version()) < (8, 3, 160):
        yolo.load(_checked(weights))


def model_class(config: dict[str, Any]) -> Any:
    """Return Ultralytics' class for a parsed model YAML, as `YOLO` chooses it.

    Raises:
        UserError: The head is of no task that the installed release has.
    """
    head = str(config["head"][-1][2])
    special = {"RTDETRDecoder": "RTDETRDetectionModel", "WorldDetect": "WorldModel"}
    special |= {"YOLOEDetect": "YOLOEModel", "YOLOESegment": "YOLOESegModel", "YOLOESegment26": "YOLOESegModel"}
    if found := getattr(tasks(), special.get(head, ""), None):
        return found
    with quiet():  # it warns where it cannot tell, and guesses
        task = get("guess_model_task")(config)
    return get("YOLO.task_map").fget(None)[task]["model"]


def attention_modules() -> tuple[type, ...]:
    """Return Ultralytics' own attention modules, as far as the installed release has them."""
    modules = importlib.import_module("ultralytics.nn.modules")
    return tuple(getattr(modules, name) for name in ("CBAM", "ChannelAttention", "SpatialAttention"))


def safe_checkpoint(path: str) -> Any:
    """Return the model in a checkpoint.

    Raises:
        UserError: The file holds no model, or could run code, and is not trusted.
    """
    try:
        content = checkpoint(path)
    except AttributeError:  # it takes what is neither a mapping nor a model for a model
        content = None
    found: Any = (content.get("ema") or content.get("model")) if isinstance(content, dict) else None
    if not hasattr(found, "state_dict") or not hasattr(found, "yaml"):
        raise UserError("holds no Ultralytics model", at=path)
    return found.float()


def find_yaml(name: str) -> Path | None:
    """Return the YAML that Ultralytics finds by a path or bare name, ours included; nothing is downloaded."""
    if "://" in name or Path(name).suffix.lower() not in {".yaml", ".yml"}:  # which Ultralytics asserts
        return None
    try:
        found = get("check_yaml")(name, hard=False)
        return Path(found) if found and Path(found).is_file() else None
    except (OSError, AssertionError):  # a name that no file can have, or of another kind of file
        return None


def load_dataset_yaml(data: str, download: bool = False) -> dict[str, Any]:
    """Read a dataset YAML as Ultralytics does.

    Args:
        data: Its path or bare name.
        download: Whether its `download:` entry may run where images are missing.

    Raises:
        UserError: It names no class.
    """
    file = find_yaml(data)
    content = read_yaml(file, "a dataset YAML") if file else None
    if isinstance(content, dict):
        key = "names" if "names" in content else "nc"
        if (value := content.get(key)) in ([], {}) or (type(value) is int and value < 1):
            raise UserError(f"is {value}", at=f"{file}, key '{key}'", expected="one class at least")
    with contextlib.nullcontext() if download else quiet():  # it logs an empty line before its error
        found: dict[str, Any] = get("check_det_dataset")(data, autodownload=download)
    return found


def dataset_folder(path: str | Path) -> Path:
    """Return the folder that a dataset YAML's `path` means, whether it exists or not."""
    folder = Path(path)
    folder = folder if folder.is_absolute() or folder.exists() else Path(get("DATASETS_DIR")) / folder
    # `Path.resolve` raises RuntimeError at a loop of links; `realpath` leaves it to whoever opens the file.
    with contextlib.suppress(ValueError):  # a null byte, which no path has
        folder = Path(os.path.realpath(folder))
    return folder


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
    try:
        return Path(get("attempt_download_asset")(name))
    except OSError:
        if Path(name).name in get("GITHUB_ASSETS_NAMES"):
            raise
        return Path(name)  # older releases ask the network for any name


def model_yamls() -> list[Path]:
    """Return the model YAMLs that Ultralytics ships."""
    return _shipped("models")


def dataset_yamls() -> list[Path]:
    """Return the dataset YAMLs that Ultralytics ships."""
    return _shipped("datasets")


def _shipped(kind: str) -> list[Path]:
    folder = Path(str(importlib.import_module("ultralytics").__file__)).parent
    return sorted((folder / "cfg" / kind).rglob("*.yaml"))


def find_checkpoint(name: str) -> Path | None:
    """Return the path of a checkpoint that is here or in `weights_dir` of `yolo settings`; nothing is downloaded."""
    return next((path for path in (Path(name), Path(get("WEIGHTS_DIR")) / name) if path.is_file()), None)


def info(text: str) -> None:
    """Log a line as Ultralytics does."""
    get("LOGGER").info(text)


def warn(text: str) -> None:
    """Log a warning as Ultralytics does."""
    logger: logging.Logger = get("LOGGER")
    marks = any(type(handler.formatter).__name__ == "PrefixFormatter" for handler in logger.handlers)
    logger.warning(text if marks else f"WARNING ⚠️ {text}")  # older releases write the mark into each text


_lock = threading.Lock()
_nms_defaults: list[tuple[Any, ...]] = []  # what each running `unlimited_nms` found


@contextlib.contextmanager
def unlimited_nms() -> Iterator[None]:
    """Let non-maximum suppression take as long as it needs.

    Ultralytics stops it after 2 seconds plus 0.05 per image, and returns no detections for the rest of the batch. With
    that, a metric depends on how busy the machine is. The limit is a parameter that no caller sets, so its default is
    replaced, for all threads while any of them is in here.
    """
    function = get("non_max_suppression")
    with _lock:
        _nms_defaults.append(function.__defaults__)
        lift_nms_time_limit()
    try:
        yield
    finally:
        with _lock:
            if len(_nms_defaults) == 1:
                function.__defaults__ = _nms_defaults[0]
            _nms_defaults.pop()


def lift_nms_time_limit() -> None:
    """Do what `unlimited_nms` does for as long as this process lives: for a training and its own validations."""
    function = get("non_max_suppression")
    with_default = [p for p in inspect.signature(function).parameters.values() if p.default is not p.empty]
    function.__defaults__ = tuple(math.inf if p.name == "max_time_img" else p.default for p in with_default)


_silent: set[int] = set()


class _DropFromSilentThreads(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread not in _silent


_filter = _DropFromSilentThreads()


def is_quiet() -> bool:
    """Return whether what Ultralytics logs from this thread is dropped."""
    return threading.get_ident() in _silent


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what Ultralytics logs from this thread; other threads are not affected, and no setting stays changed."""
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
