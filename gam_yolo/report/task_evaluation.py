"""What a comparison asks for, and what it needs to know of a task: `detection.py` and `classification.py` say it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from gam_yolo.evaluation.groups import Groups
from gam_yolo.report.predictions import Predicted, Settings, Validation
from gam_yolo.report.schema import Data, Picture, Statistics, VariantResult
from gam_yolo.report.variants import Variant

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Request", "TaskEvaluation"]

P = TypeVar("P")


@dataclass(frozen=True)
class Request:
    """What to compare, and how.

    Attributes:
        variants: What to compare; the first is the baseline.
        settings: How to validate.
        statistics: How to compare.
        gt: Ground truth, if not the one of the dataset YAML.
        control: Name of a second variant to subtract.
        progress: Called with a line of text at each step.
        notes: What else a reader of the report has to know.
    """

    variants: Sequence[Variant]
    settings: Settings
    statistics: Statistics
    gt: Path | None = None
    control: str | None = None
    progress: Callable[[str], None] = lambda _: None
    notes: tuple[str, ...] = ()

    @property
    def references(self) -> list[str]:
        """Names of the variants to subtract: the baseline, and the control where there is one."""
        return [self.variants[0].name, *([self.control] if self.control else [])]


@dataclass(frozen=True)
class TaskEvaluation(ABC, Generic[P]):
    """How the models of one task are compared on one dataset.

    Attributes:
        validation: How their predictions are read and made; has the task, the truth and the settings.
        files: The image files that are known, by index.
        groups: The groups of images to resample; None if each image is its own.
        declares_groups: Whether the user or the dataset says which images are independent.
        interval: How intervals are made, in words.
        grouped_interval: The same with groups.
    """

    validation: Validation[P]
    files: Mapping[int, Path]
    groups: Groups | None
    declares_groups: bool
    interval: ClassVar[str]
    grouped_interval: ClassVar[str]

    @classmethod
    @abstractmethod
    def open(cls, request: Request) -> Self:
        """Read the truth, and the groups of images.

        Raises:
            UserError: They cannot be read.
        """

    @abstractmethod
    def compare(self, predictions: Mapping[str, list[P]], request: Request) -> dict[str, VariantResult]:
        """Estimate every variant and its difference to each reference, without cost and runs.

        Args:
            predictions: Those of each training seed of each variant.
            request: What is asked for.
        """

    @abstractmethod
    def pictures(self, predictions: Mapping[str, list[P]], notes: list[str]) -> tuple[Picture, ...]:
        """Draw the images on which the first seed of each variant differs most from the baseline's.

        Args:
            predictions: Those of each training seed of each variant.
            notes: Gets a line for what could not be drawn.
        """

    @abstractmethod
    def notes(self, variants: Mapping[str, VariantResult], predicted: Mapping[str, list[Predicted[P]]]) -> list[str]:
        """Return what a reader has to know before trusting the numbers."""

    @abstractmethod
    def data(self) -> Data:
        """Describe the dataset."""
