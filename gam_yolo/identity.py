"""What code and which environment a result comes from, as digests and versions that can be compared.

A version number does not identify code: it stands still while someone edits a block, Ultralytics in a checkout, or this
package. So the source files themselves are hashed: of each block that a model uses, and of the modules it imports.
A study names its runs by this, and predictions are reused only where it is the same.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import marshal
import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import FunctionType
from typing import Any

from torch import nn

from gam_yolo import registry
from gam_yolo.arguments import RESNET, leaves
from gam_yolo.errors import UserError
from gam_yolo.io import file_sha256, text_sha256

__all__ = [
    "VARIABLES",
    "block_sources",
    "changes",
    "checkpoint_code_digest",
    "code_digest",
    "environment",
    "framework_code",
    "reject_edited_blocks",
]

PACKAGES = ("gam-yolo", "ultralytics", "torch", "torchvision", "numpy", "pillow", "albumentations")
"""Packages whose version changes results. Ultralytics augments with albumentations where it is installed."""

VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "GAM_YOLO",
    "GAM_YOLO_SAVE_MEMORY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUDNN_V8_API_DISABLED",
)
"""Environment variables that change the arithmetic or, `GAM_YOLO`, our changes to Ultralytics.

The number of threads is left out: it changes results only as two equal trainings on a GPU differ. So is
CUBLAS_WORKSPACE_CONFIG, which Ultralytics sets by itself.
"""

PLUGIN = (
    *(f"gam_yolo.plugin.{name}" for name in ("autoload", "parse_model", "load", "fuse", "freeze", "block_training")),
    "gam_yolo.bottleneck",  # what parse_model builds for `inside`, imported by name
)
# These only collect blocks; following them would put every block into the identity of each.
COLLECTORS = {"gam_yolo", "gam_yolo.registry", "gam_yolo.blocks"}
VERSIONED = {"torch", "torchvision", "ultralytics", "numpy", "cv2"}


def block_sources(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a digest of the code of each block that a model YAML names.

    Args:
        config: The parsed model YAML.

    Returns:
        From block name to the digest of its module and of the modules that it imports, see `code_digest`.

    Examples:
        >>> list(block_sources({"backbone": [[-1, 1, "Conv", [8]], [-1, 1, "GAM", []]], "head": []}))
        ['GAM']
    """
    rows = [row[2:] for section in ("backbone", "head") for row in config.get(section, [])]
    # An argument may name a block too: `AttentionResNet, [nc, resnet50, {block: GAM}]`.
    texts = {leaf for leaf in leaves(rows) if isinstance(leaf, str)}
    names = {text for text in texts if text in registry.BLOCKS}
    network = {RESNET: code_digest("gam_yolo.resnet")} if RESNET in texts else {}
    return {name: _class_digest(registry.BLOCKS[name]) for name in sorted(names)} | network


def checkpoint_code_digest(model: nn.Module) -> str:
    """Return a digest of all code that a loaded model runs: its blocks', the plug-in's and Ultralytics'.

    Args:
        model: A module; of an Ultralytics `YOLO` object, its `.model`.
    """
    classes = {type(module) for module in model.modules()}
    own = {f"{c.__module__}.{c.__qualname__}": _class_digest(c) for c in classes if _top(c.__module__) not in VERSIONED}
    return text_sha256({**own, **framework_code()})


def framework_code() -> dict[str, str]:
    """Return digests of the code that every training runs: this plug-in's and Ultralytics'."""
    return {"gam_yolo": code_digest(*PLUGIN), "ultralytics": _package_digest("ultralytics")}


def code_digest(*modules: str) -> str:
    """Return a digest of the source of modules and of what they import, directly or through others.

    Imports are followed within the module's own package, and to files that are not installed: those beside a script,
    or of an editable installation. Of other installed packages the version counts, where it is not in `environment`.

    Args:
        modules: Their names. One that has no file, such as a notebook's, adds nothing.
    """
    files, releases = _followed(*modules)
    return text_sha256({**{name: file_sha256(file) for name, file in files.items()}, **releases})


def reject_edited_blocks() -> None:
    """Reject the code of users' blocks that was edited after this process, such as a notebook's, has imported it.

    What the process computes is of the code before, and must not be kept as that of the code there is now.

    Raises:
        UserError: A file of a block, or one that it imports, is newer.
    """
    for block in registry.BLOCKS.values():
        if _top(block.__module__) == "gam_yolo":
            continue
        for file in _followed(block.__module__)[0].values():
            if file.stat().st_mtime > registry.registered_at(block):
                raise UserError(
                    "has changed since this process imported it, and the code before would run",
                    at=file,
                    fix="Restart Python, or the kernel of the notebook",
                )


def _followed(*modules: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the files of modules and of what they import, by module; and the releases of the packages beyond them."""
    files: dict[str, Path] = {}
    releases: dict[str, str] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        if name in files or (file := _file(name)) is None:
            continue
        files[name] = file
        for found in _imports(file, name):
            if _follows(name, found):
                pending.append(found)
            elif _top(name) != "gam_yolo" and (release := _release(_top(found))):
                releases[f"{_top(found)} in site-packages"] = release
    return files, releases


def environment() -> dict[str, str]:
    """Return what a result depends on besides files: versions of packages, and environment variables that are set.

    Examples:
        >>> {"torch", "albumentations"} <= environment().keys()  # the value is empty where it is not installed
        True
    """
    import cv2
    import torch

    found = {name.replace("-", "_"): _version(name) for name in PACKAGES}
    found |= {"torch": torch.__version__, "opencv": cv2.__version__}  # several packages provide OpenCV
    return found | {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return in words how two nested mappings differ; of digests and other long values only that they do.

    Examples:
        >>> changes({"train": {"lr0": 0.1, "epochs": 3}}, {"train": {"lr0": 0.2, "epochs": 3}})
        ['train: lr0 was 0.1 and is 0.2']
    """
    found = []
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping) and key != "model":
            found += [f"{key}: {change}" for change in changes(old, new)]
        elif isinstance(old, (dict, list)) or isinstance(new, (dict, list)) or len(f"{old}{new}") > 60:
            found.append(str(key))
        else:
            found.append(f"{key} was {_shown(old)} and is {_shown(new)}")
    return found


def _shown(value: object) -> str:
    return "not set" if value in (None, "") else str(value)


def _class_digest(block: type[nn.Module]) -> str:
    """Return the digest of a class's module, or of its methods where it has no file, as in a notebook.

    Methods count with their default arguments, as do those of base classes without a file, and the files of the others.
    """
    if _top(block.__module__) in VERSIONED:
        return ""
    if _file(block.__module__):
        return code_digest(block.__module__)
    kinds = [kind for kind in block.__mro__ if _top(kind.__module__) not in VERSIONED]
    without_file = [kind for kind in kinds if not _file(kind.__module__)]
    functions = [value for kind in without_file for value in vars(kind).values() if isinstance(value, FunctionType)]
    code = [code_digest(*(kind.__module__ for kind in kinds)).encode()]
    code += [marshal.dumps((function.__code__, _defaults(function))) for function in functions]
    return hashlib.sha256(b"".join(code)).hexdigest()


def _defaults(function: FunctionType) -> list[str]:
    """Return a function's default arguments as text, without the addresses of objects."""
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [repr(d) if isinstance(d, (str, int, float, tuple, type(None))) else type(d).__name__ for d in defaults]


@functools.cache
def _package_digest(name: str) -> str:
    """Return a digest of all source and configuration files of an installed package."""
    module = importlib.import_module(name)
    (folder,) = map(Path, module.__path__)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in {".py", ".yaml"}]
    return text_sha256([(path.relative_to(folder).as_posix(), file_sha256(path)) for path in files])


def _top(module: str) -> str:
    return module.partition(".")[0]


def _file(module: str) -> Path | None:
    """Return a module's file, or None for what has none or cannot be found."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file and module not in sys.modules:
        try:
            spec = importlib.util.find_spec(module)
        except Exception:  # a parent package that cannot be imported: an optional dependency
            return None
        file = spec.origin if spec and spec.has_location else None
    return Path(file) if file and Path(file).is_file() else None


def _follows(importer: str, imported: str) -> bool:
    """Return whether an import leads to code that a version number does not identify."""
    if imported in COLLECTORS or _top(imported) in VERSIONED or _top(imported) in sys.stdlib_module_names:
        return False
    if _top(imported) in (_top(importer), "gam_yolo"):
        return True
    file = _file(imported)
    return file is not None and not any(file.is_relative_to(folder) for folder in _installed())


def _release(package: str) -> str:
    """Return the distributions and versions of a package that someone's code imports; empty where none matters."""
    if package in VERSIONED or package in sys.stdlib_module_names or package == "gam_yolo":
        return ""
    return " ".join(f"{name} {version(name)}" for name in sorted({*_distributions().get(package, ())}))


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


@functools.cache
def _installed() -> frozenset[Path]:
    return frozenset(Path(sysconfig.get_path(key)).resolve() for key in ("purelib", "platlib"))


def _imports(file: Path, module: str) -> Iterable[str]:
    """Return the names of the modules that a source file imports, inside functions as well."""
    if file.suffix != ".py":
        return []
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: list[str] = []
    for level, base, names in _import_statements(file.read_bytes()):
        if level:
            base = importlib.util.resolve_name("." * level + base, package)
        within = base and _top(base) not in VERSIONED and _top(base) not in sys.stdlib_module_names
        for name in names:
            inner = f"{base}.{name}" if base else name
            found.append(inner if not base or (within and _file(inner)) else base)
    return found


@functools.lru_cache(maxsize=512)
def _import_statements(source: bytes) -> list[tuple[int, str, list[str]]]:
    """Return the level, the base and the names of each import of a source. Parsing takes most of a digest's time."""
    try:
        nodes = [*ast.walk(ast.parse(source))]
    except (SyntaxError, ValueError):  # it cannot be imported either
        return []
    found = [(0, "", [alias.name for alias in node.names]) for node in nodes if isinstance(node, ast.Import)]
    return found + [
        (node.level, node.module or "", [alias.name for alias in node.names])
        for node in nodes
        if isinstance(node, ast.ImportFrom)
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
