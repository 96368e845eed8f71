"""Faults of Ultralytics releases that change results, so that a report can say so. See docs/compatibility.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError

__all__ = ["FAULTS", "Fault", "fault_notes", "reject_broken_numpy"]


@dataclass(frozen=True)
class Fault:
    """A fault of some releases.

    Attributes:
        first: The first release that has it.
        fixed: The first release after it that does not.
        words: What it does, and what follows for a comparison.
    """

    first: str
    fixed: str
    words: str

    def affects(self, release: str) -> bool:
        """Return whether a release has the fault."""
        numbers = ultralytics_api.numbers
        return numbers(self.first) <= numbers(release) < numbers(self.fixed)


FAULTS = (
    Fault(
        "8.3.0",
        "8.3.17",
        "gives YOLOv8 models that it builds from a YAML the head of YOLO11. Most pretrained weights of the head do not "
        "fit such a model, so it starts far behind yolov8n.pt itself",
    ),
    Fault(
        "8.4.0",
        "8.4.141",
        "builds SPPF from the YAMLs of earlier families without its activation. Such a model gets all pretrained "
        "weights and still computes something else than the checkpoint, so it starts behind it",
    ),
)
"""Found by comparing what a model computes before and after a transfer, and in the releases' own files."""

_TRAPZ = "8.3.108"  # the first release whose metrics do without `numpy.trapz`


def fault_notes(releases: Iterable[str]) -> Iterator[str]:
    """Yield a note for each fault of each of the releases that train models, or have trained them."""
    found = sorted({*releases})
    for fault in FAULTS:
        for release in filter(fault.affects, found):
            yield (
                f"Ultralytics {release} {fault.words}. Compare only models that were all built from YAMLs and trained "
                f"with one release, or train with {fault.fixed} or newer."
            )


def reject_broken_numpy() -> None:
    """Reject a numpy with which the installed Ultralytics cannot validate.

    Raises:
        UserError: It needs `numpy.trapz`, and numpy has removed it.
    """
    release = ultralytics_api.version()
    if ultralytics_api.numbers(release) < ultralytics_api.numbers(_TRAPZ) and not hasattr(np, "trapz"):
        raise UserError(
            f"Ultralytics {release} cannot validate with numpy {np.__version__}, which has no numpy.trapz",
            fix=f'Install "numpy<2.4" or "ultralytics>={_TRAPZ}"',
        )
