"""Let a checkpoint with blocks be loaded where this package is not installed: write their source into one module.

A checkpoint names the classes of its layers by module, such as `gam_yolo.blocks.gam.GAM`. The file that is written
contains the source of these modules and answers their imports. The checkpoint itself stays as it is.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gam_yolo import __version__, ultralytics_api
from gam_yolo.checkpoints import trusting
from gam_yolo.errors import UserError, reason
from gam_yolo.io import output_path, write

__all__ = ["PlainExport", "export_plain"]

_PACKAGES = ("gam_yolo", "gam_yolo.blocks")
_TEMPLATE = '''"""The attention blocks of {checkpoint}, written by gam-yolo {version}; licence: AGPL-3.0-only.

Import this module, then load the checkpoint with Ultralytics as usual:

    import {module}
    from ultralytics import YOLO

    model = YOLO("{checkpoint}")

It serves prediction, validation and export. An installed gam-yolo takes precedence. To train, install gam-yolo.
"""

import importlib.abc
import importlib.machinery
import sys

import torch

SOURCES = {{
{sources}
}}


class _Blocks(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the modules below from this file."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname in SOURCES:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname in {packages})

    def get_source(self, fullname):
        return SOURCES[fullname]


sys.meta_path.append(_Blocks())
for _name in {modules}:
    _module = importlib.import_module(_name)
    torch.serialization.add_safe_globals([v for v in vars(_module).values() if isinstance(v, type)])
'''


_HEAD = b'"""The attention blocks of '  # how the template begins


@dataclass(frozen=True)
class PlainExport:
    """What was written.

    Attributes:
        path: The module.
        blocks: The classes in it that the checkpoint names.
        missing: Modules of other packages that the checkpoint needs too, such as those of your own blocks.
    """

    path: Path
    blocks: tuple[str, ...]
    missing: tuple[str, ...]


def export_plain(checkpoint: str | Path, output: str | Path | None = None, *, trust: bool = False) -> PlainExport:
    """Write a module with which a checkpoint can be loaded where gam_yolo is not installed.

    Args:
        checkpoint: A checkpoint (.pt).
        output: The module to write; by default `NAME_plain.py` beside the checkpoint.
        trust: Let the checkpoint run code, for layers of your own that are not registered. By default it is rejected.

    Returns:
        The file, and what else the checkpoint needs.

    Raises:
        UserError: The checkpoint cannot be read, or has no blocks of this package.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise UserError(
            f"there is no file '{checkpoint}'", expected="a checkpoint, such as runs/detect/train/weights/best.pt"
        )
    if path.suffix != ".pt":
        raise UserError("is not the file of a checkpoint", at=path, expected="a file that ends in .pt")
    default = path.with_name(re.sub(r"\W", "_", path.stem) + "_plain.py")
    module = default if output is None else output_path(output, "the module", ".py")
    if not module.stem.isidentifier():
        raise UserError(f"the module is '{module.name}'", expected="a Python name that ends in .py")
    if module.is_file() and module.stat().st_size and not module.read_bytes().startswith(_HEAD):
        raise UserError("already exists and was not written by gam-yolo", at=module, fix="Give another name with -o")
    try:
        with trusting(trust):
            model = ultralytics_api.model(path).model
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot be loaded as a checkpoint ({reason(error)})", at=path) from None
    kinds = {type(module) for module in model.modules()}
    own = sorted({kind.__module__ for kind in kinds if kind.__module__.partition(".")[0] == "gam_yolo"})
    if not own:
        raise UserError("has no blocks of gam_yolo", at=path, fix="Load it with Ultralytics as it is")
    alone = {name: _classes(name, kinds) for name in own if not name.startswith("gam_yolo.blocks.")}
    sources = {**dict.fromkeys(_PACKAGES, ""), **_sources({*own} - {*alone}), **alone}
    write(
        module,
        _TEMPLATE.format(
            checkpoint=path.name,
            version=__version__,
            module=module.stem,
            packages=_PACKAGES,
            modules=tuple(own),
            sources="\n".join(f"    {name!r}: {_quoted(source)}," for name, source in sources.items()),
        ),
    )
    others = {kind.__module__ for kind in kinds} - {*own}
    missing = sorted(name for name in others if name.partition(".")[0] not in ("torch", "ultralytics", "torchvision"))
    return PlainExport(module, tuple(sorted(kind.__name__ for kind in kinds if kind.__module__ in own)), tuple(missing))


def _sources(names: Iterable[str]) -> dict[str, str]:
    """Return the source of modules of this package, and of those that they import."""
    found: dict[str, str] = {}
    waiting = [*names]
    while waiting:
        name = waiting.pop()
        if name in found or name in _PACKAGES:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        found[name] = Path(spec.origin).read_text("utf-8")
        for node in ast.walk(ast.parse(found[name])):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "gam_yolo":
                packaged = node.module in _PACKAGES
                waiting += [f"{node.module}.{alias.name}" for alias in node.names] if packaged else [node.module]
    return dict(sorted(found.items()))


def _classes(name: str, kinds: Iterable[type]) -> str:
    """Return the source of the classes of a module that hold blocks, such as attended bottlenecks, without the rest.

    The rest of such a module builds them, and needs this package. The classes alone can be unpickled and run.
    """
    found = sorted((kind for kind in kinds if kind.__module__ == name), key=lambda kind: kind.__name__)
    tree = ast.parse(Path(inspect.getfile(found[0])).read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    lines = [line for line in map(ast.unparse, imports) if "gam_yolo" not in line]
    lines += sorted({f"from {base.__module__} import {base.__name__}" for kind in found for base in kind.__bases__})
    return "\n\n\n".join(["\n".join(lines), *map(inspect.getsource, found)])


def _quoted(source: str) -> str:
    """Write a text as a Python literal that can be read, where that is possible."""
    return repr(source) if "'''" in source or source.endswith("\\") else f"r'''{source}'''"
