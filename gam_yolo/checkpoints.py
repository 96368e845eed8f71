"""Find out whether a checkpoint would run code, without loading it.

A checkpoint is a pickle, and a pickle can call any function that its reader finds. Ultralytics loads it as it is, and
installs the packages that it asks for. So what comes from elsewhere is checked first: `reject_code` reads the pickle
with a stand-in for every object. It accepts the names of layers, of tensors and of plain data, and nothing that calls
a layer's constructor. Nothing in the file is built or called, and only modules of known layers are imported.

Accepted layers are those of PyTorch, torchvision, Ultralytics and this package, registered blocks
(`gam_yolo.register`), and whatever the process has allowed by `torch.serialization.add_safe_globals`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import pickle
import sys
import zipfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from gam_yolo.errors import UserError, brief

__all__ = ["reject_code", "training_seed", "trusted", "trusting", "written_by"]

_PLAIN = {
    "_codecs": {"encode"},
    "builtins": {"bytearray", "complex", "frozenset", "range", "set", "slice"},
    "collections": {"Counter", "OrderedDict", "defaultdict"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "pathlib": {"PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "torch._utils": {"_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_tensor", "_rebuild_tensor_v2"},
    "torch.storage": {"TypedStorage", "UntypedStorage"},
    "torch.torch_version": {"TorchVersion"},
    "torchvision.transforms.functional": {"InterpolationMode"},
    "torchvision.transforms.transforms": {"CenterCrop", "Compose", "Normalize", "Resize", "ToTensor"},
    "ultralytics.utils": {"IterableSimpleNamespace"},
    "ultralytics.yolo.utils": {"IterableSimpleNamespace"},
}
"""Functions and classes that may be called with anything: they make plain data and tensors."""

_LAYERS = (
    "gam_yolo.blocks",
    "gam_yolo.bottleneck",
    "gam_yolo.resnet",
    "torch.nn",
    "torchvision.models",
    "torchvision.ops",
    "ultralytics.nn.distill_model",
    "ultralytics.nn.modules",
    "ultralytics.nn.tasks",
    "ultralytics.utils.loss",
    "ultralytics.utils.tal",
)
"""Modules and packages with layers."""

_FORMER = {
    "ultralytics.nn.modules.block.Silence",
    "ultralytics.nn.tasks.YOLOv10DetectionModel",
    "ultralytics.utils.loss.v10DetectLoss",
}
"""Layers that Ultralytics has renamed, and finds by their former names."""

_MOST = 1 << 26  # bytes of a pickle; the largest of Ultralytics' own have half a megabyte

_trusting: ContextVar[bool] = ContextVar("trusting", default=False)


@contextlib.contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Let checkpoints run code, as Ultralytics does, or else keep to what holds outside."""
    token = _trusting.set(trust or _trusting.get())
    try:
        yield
    finally:
        _trusting.reset(token)


def trusted() -> bool:
    """Return whether checkpoints may run code here."""
    return _trusting.get()


def reject_code(path: Path) -> None:
    """Reject a checkpoint that could run code when it is loaded, unless inside `trusting(True)`.

    Args:
        path: The file, as `torch.save` writes it.

    Raises:
        UserError: It could, or is no checkpoint.
    """
    if trusted():
        return
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError("has a path that is not UTF-8, which torch cannot open", at=path, fix="Rename it") from None
    try:
        _Reader(io.BytesIO(_pickle(path))).load()
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", at=path) from None
    except UserError as error:
        raise UserError(
            f"cannot be loaded as a checkpoint, because it {error}, and could run code",
            at=path,
            fix="If you trust whoever made it, add --trust (in Python trust=True)",
        ) from None
    except Exception:  # a damaged pickle can raise anything
        raise UserError("is empty, cut off or damaged", at=path, expected="a checkpoint") from None


def written_by(path: Path) -> str:
    """Return the Ultralytics release that wrote a checkpoint, or an empty string where it does not say."""
    return str(_content(path).get("version", ""))


def training_seed(path: Path) -> int | None:
    """Return the seed that a checkpoint was trained with, or None where it does not say."""
    arguments = _content(path).get("train_args")
    seed = arguments.get("seed") if isinstance(arguments, dict) else None
    return seed if isinstance(seed, int) else None


def _content(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says beside its layers; nothing where it cannot be read."""
    try:
        content = _Reader(io.BytesIO(_pickle(path))).load()
    except Exception:  # whoever loads it says what is wrong with it
        return {}
    return content if isinstance(content, dict) else {}


def _pickle(path: Path) -> bytes:
    """Return the pickle in a checkpoint, found as PyTorch finds it.

    Raises:
        UserError: PyTorch would not look for it there.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"PK\x03\x04":
        if start[:1] == b"\x80":
            raise UserError("is in the format of PyTorch before 1.6")
        raise ValueError
    import torch

    # PyTorch's own reader, as another one may see another file where an archive is forged.
    archive: Any = torch._C.PyTorchFileReader(str(path))
    if archive.has_record("constants.pkl"):
        raise UserError("is a TorchScript archive")
    with zipfile.ZipFile(path) as listed:
        largest = max(info.file_size for info in listed.infolist() if info.filename.endswith("data.pkl"))
        total = sum(info.file_size for info in listed.infolist())
    if largest > _MOST or total > 2 * path.stat().st_size + _MOST:
        raise UserError(f"unpacks to {total:,} bytes")
    content: bytes = archive.get_record("data.pkl")
    return content


class _Data:
    """Stands for plain data. By its methods a pickle fills an object; they drop what they get, on purpose."""

    def __new__(cls, *_: object) -> _Data:
        return object.__new__(cls)

    def _drop(self, *_: object) -> None:
        pass

    __setstate__ = __setitem__ = add = append = extend = _drop


class _Layer(_Data):
    """Stands for a layer, which a pickle fills without calling its constructor."""

    def __new__(cls, *arguments: object) -> _Layer:
        if arguments:
            raise UserError("calls the constructor of a layer")
        return object.__new__(cls)


class _Value:
    """Stands for what cannot be called."""


def _getattr(owner: object, name: object) -> _Value:
    """Stand for `getattr`, by which a checkpoint names a method `forward` or a member of an enumeration."""
    layer = owner is _Layer or isinstance(owner, _Layer)
    if not (name in ("forward", "forward_fuse") if layer else owner is _Data and str(name).isupper()):
        raise UserError(f"looks up {brief(name)}")
    return _Value()


class _Reader(pickle.Unpickler):
    """Reads a pickle with stand-ins only."""

    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # the pickle's own name of it
        if (module, name) == ("builtins", "getattr"):
            return _getattr
        if name in _PLAIN.get(module, ()) or (module == "torch" and _is_torch_data(name)):
            return _Data
        if _is_layer(module, name):
            return _Layer
        raise UserError(f"names {brief(f'{module}.{name}')}, which is no known layer")

    def persistent_load(self, pid: object) -> _Data:  # noqa: ARG002  # a tensor's storage
        return _Data()


def _is_torch_data(name: str) -> bool:
    import torch

    found = getattr(torch, name, None)
    return (
        isinstance(found, (torch.dtype, torch.layout, torch.memory_format))
        or found in (torch.Size, torch.device)
        or (isinstance(found, type) and name.endswith("Storage"))
    )


def _is_layer(module: str, name: str) -> bool:
    import torch
    from torch import nn

    full = f"{module}.{name}"
    allowed = {
        f"{c.__module__}.{c.__qualname__}" for c in torch.serialization.get_safe_globals() if isinstance(c, type)
    }
    if full in allowed:
        return issubclass(getattr(sys.modules.get(module), name, object), nn.Module)
    if full in _FORMER:
        return True
    if not any(f"{module}.".startswith(f"{known}.") for known in _LAYERS):
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and (
        issubclass(found, nn.Module) or (found.__module__ == module and module.startswith("ultralytics.utils."))
    )
