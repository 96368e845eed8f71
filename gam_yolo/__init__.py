"""gam_yolo: put an attention block anywhere in a YOLO, train it, and know, with error bars, whether it was worth it.

Importing it registers the blocks with Ultralytics, which an installed package does by itself (see
`gam_yolo.plugin.autoload`). The public names load when they are first used, so that neither torch nor Ultralytics is
imported before it is needed.

    place       put a block into a model YAML, or take blocks out
    check       find what is wrong with a model YAML
    transfer    show which pretrained weights a model would get
    blocks      list the registered blocks
    prepare     make a dataset ready
    compare     compare trained detectors, with intervals
    look        see what the attention blocks of trained detectors do
    power       say how many seeds and images a difference needs
    run_study   train variants with several seeds, and compare them
    export_plain  write a module that loads a checkpoint without this package
    register    add a block of your own
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from gam_yolo.plugin import autoload as _autoload

if TYPE_CHECKING:
    from gam_yolo.attention.look import look as look
    from gam_yolo.attention.result import LookResult as LookResult
    from gam_yolo.blocks import *  # noqa: F403
    from gam_yolo.comparing import compare as compare
    from gam_yolo.datasets import PreparedDataset as PreparedDataset
    from gam_yolo.datasets import prepare as prepare
    from gam_yolo.describe import BlockInfo as BlockInfo
    from gam_yolo.describe import blocks as blocks
    from gam_yolo.errors import UserError as UserError
    from gam_yolo.graph.lint import Finding as Finding
    from gam_yolo.graph.lint import check as check
    from gam_yolo.graph.place import PlacedModel as PlacedModel
    from gam_yolo.graph.place import place as place
    from gam_yolo.graph.place import remove_blocks as remove_blocks
    from gam_yolo.graph.transfer import TransferReport as TransferReport
    from gam_yolo.graph.transfer import transfer as transfer
    from gam_yolo.plain import PlainExport as PlainExport
    from gam_yolo.plain import export_plain as export_plain
    from gam_yolo.registry import BLOCKS as BLOCKS
    from gam_yolo.registry import register as register
    from gam_yolo.report.overall import StudyResult as StudyResult
    from gam_yolo.report.power import Power as Power
    from gam_yolo.report.power import power as power
    from gam_yolo.report.result import Comparison as Comparison
    from gam_yolo.study.run import run_study as run_study

__version__ = "0.2.0"

_BLOCKS = (
    "BAM",
    "CAA",
    "CBAM",
    "ECA",
    "ELA",
    "EMA",
    "GAM",
    "LSKA",
    "MLCA",
    "SCSA",
    "SE",
    "CoordAtt",
    "GAM_Attention",
    "SimAM",
    "Triplet",
    "UltralyticsCBAM",
)
_PUBLIC = {
    **dict.fromkeys(_BLOCKS, "gam_yolo.blocks"),
    "BLOCKS": "gam_yolo.registry",
    "BlockInfo": "gam_yolo.describe",
    "Comparison": "gam_yolo.report.result",
    "Finding": "gam_yolo.graph.lint",
    "LookResult": "gam_yolo.attention.result",
    "PlacedModel": "gam_yolo.graph.place",
    "PlainExport": "gam_yolo.plain",
    "Power": "gam_yolo.report.power",
    "PreparedDataset": "gam_yolo.datasets",
    "StudyResult": "gam_yolo.report.overall",
    "TransferReport": "gam_yolo.graph.transfer",
    "UserError": "gam_yolo.errors",
    "check": "gam_yolo.graph.lint",
    "compare": "gam_yolo.comparing",
    "export_plain": "gam_yolo.plain",
    "look": "gam_yolo.attention.look",
    "place": "gam_yolo.graph.place",
    "power": "gam_yolo.report.power",
    "prepare": "gam_yolo.datasets",
    "register": "gam_yolo.registry",
    "remove_blocks": "gam_yolo.graph.place",
    "run_study": "gam_yolo.study.run",
    "transfer": "gam_yolo.graph.transfer",
}
__all__ = ["__version__", "blocks", *_PUBLIC]


if not TYPE_CHECKING:  # to a type checker it would make every name valid

    def __getattr__(name: str) -> object:
        if name == "blocks":  # the package of the blocks, which can be called: see `gam_yolo.describe`
            return importlib.import_module("gam_yolo.blocks")
        if name in _PUBLIC:
            return getattr(importlib.import_module(_PUBLIC[name]), name)
        raise AttributeError(f"module 'gam_yolo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """This package; `gam_yolo.blocks` becomes callable when it is imported, whoever imports it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "blocks" and isinstance(value, ModuleType):  # as the import of a submodule ends
            importlib.import_module("gam_yolo.describe").make_callable(value)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

_autoload.autoload()
