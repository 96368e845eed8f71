"""Let a checkpoint with blocks be loaded where this package is not installed: write their source into one module.

A checkpoint names the classes of its layers by module, such as `gam_yolo.blocks.gam.GAM`. The file that is written
contains the source of these modules and answers their imports. The checkpoint itself stays as it is.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gam_yolo import __version__, ultralytics_api
from gam_yolo.checkpoints import trusting
from gam_yolo.errors import UserError, reason
from gam_yolo.io import output_path, write

__all__ = ["PlainExport", "export_plain"]

blocks: Any = importlib.import_module("gam_yolo.blocks")  # to a type checker `gam_yolo.blocks` is the function

_PACKAGES = ("gam_yolo", "gam_yolo.blocks")
_REGISTER = """

def register(block=None, **options):
    return block or (lambda block: block)
"""
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
    names = {kind.__module__ for kind in kinds}
    own = sorted(name for name in names if _root(name) == "gam_yolo")
    missing = sorted(name for name in names if _root(name) not in ("gam_yolo", "torch", "ultralytics", "torchvision"))
    imported = {pair for name in missing for pair in _imports(_source_of(name))}
    if not own and not imported:
        raise UserError("has no blocks of gam_yolo", at=path, fix="Load it with Ultralytics as it is")
    alone = {name: _classes(name, kinds) for name in own if not name.startswith("gam_yolo.blocks.")}
    sources = {**_sources({*own} - {*alone}, imported), **alone}
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
    return PlainExport(module, tuple(sorted(kind.__name__ for kind in kinds if kind.__module__ in own)), tuple(missing))


def _root(name: str) -> str:
    return name.partition(".")[0]


def _source_of(name: str) -> str:
    """Return the source of an imported module, or nothing where it has none."""
    try:
        return inspect.getsource(sys.modules[name])
    except (KeyError, OSError, TypeError):
        return ""


def _imports(source: str) -> Iterator[tuple[str, str]]:
    """Yield module and name of what a source imports from modules of this package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and _root(node.module or "") == "gam_yolo":
            yield from ((node.module or "", alias.name) for alias in node.names)


def _sources(names: Iterable[str], imported: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the source of modules of this package, and of those that they import.

    Args:
        names: Modules of blocks.
        imported: Module and name of what the modules of users' blocks import from this package.
    """
    exports: dict[str, set[str]] = {package: set() for package in _PACKAGES}
    found: dict[str, str] = {}

    def add(module: str, name: str = "") -> None:
        if module not in _PACKAGES:
            if module not in found and importlib.util.find_spec(module):
                found[module] = inspect.getsource(importlib.import_module(module))
                for pair in _imports(found[module]):
                    add(*pair)
        elif name in blocks.__all__:
            home = getattr(blocks, name).__module__
            exports[module].add(f"from {home} import {name}")
            add(home)
        elif name != "register":
            add(f"{module}.{name}")

    for name in names:
        add(name)
    for pair in imported:
        add(*pair)
    packages = {package: "\n".join(sorted(lines)) for package, lines in exports.items()}
    packages["gam_yolo"] += _REGISTER
    return {**packages, **dict(sorted(found.items()))}


def _classes(name: str, kinds: Iterable[type]) -> str:
    """Return the source of the classes of a module that hold blocks, such as attended bottlenecks, without the rest.

    The rest of such a module builds them, and needs this package. The classes alone can be unpickled and run.
    """
    found = sorted((kind for kind in kinds if kind.__module__ == name), key=lambda kind: kind.__name__)
    tree = ast.parse(_source_of(name))
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    lines = [line for line in map(ast.unparse, imports) if "gam_yolo" not in line]
    lines += sorted({f"from {base.__module__} import {base.__name__}" for kind in found for base in kind.__bases__})
    return "\n\n\n".join(["\n".join(lines), *map(inspect.getsource, found)])


def _quoted(source: str) -> str:
    """Write a text as a Python literal that can be read, where that is possible."""
    return repr(source) if "'''" in source or source.endswith("\\") else f"r'''{source}'''"
