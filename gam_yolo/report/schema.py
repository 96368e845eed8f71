"""The layout of `report.json`: a comparison as frozen records, from the evaluator to the page.

The fields are in the order and under the names of `report.json`, which `docs/evaluation.md` describes. All scores are
shares, from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from gam_yolo.errors import UserError, option, similar
from gam_yolo.evaluation.statistics import Verdict
from gam_yolo.movement import Movement
from gam_yolo.report.tasks import TASKS, Task, TaskName

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "BestEpoch",
    "BlockFinding",
    "CommonProtocol",
    "ComparisonRecord",
    "Cost",
    "Data",
    "Difference",
    "Differences",
    "ImageGroups",
    "Look",
    "Panel",
    "Picture",
    "RunResult",
    "Scores",
    "Statistics",
    "Training",
    "Value",
    "VariantResult",
    "check_replicates",
]

T = TypeVar("T")

_FEWEST_REPLICATES = 100  # fewer say too little of a variance
_MOST_REPLICATES = 100_000  # more take memory for nothing: 8 bytes for each image

SCHEMA, SCHEMA_VERSION = "gam-yolo/comparison", 1
"""Name and version of the layout of `report.json`."""

_ABSENT = {"detect": {"task", "top1", "top5"}, "classify": {"AP", "AP50", "precision_recall"}}
"""What `report.json` leaves out, by task; without `task` it is of detectors, as the first version was."""

_ADDED = {"groups", "pair_seeds", "image_variance", "seed_variance", "interaction", "image_dof", "movement", "look"}
"""What `report.json` leaves out where it says nothing, so that an old report is written as it was."""


def check_replicates(replicates: int) -> None:
    """Reject a number of replicates that says too little, or that no memory holds."""
    if not _FEWEST_REPLICATES <= replicates <= _MOST_REPLICATES:
        allowed = f"a number from {_FEWEST_REPLICATES} to {_MOST_REPLICATES}"
        raise UserError(f"{option('replicates')} is {replicates}", expected=allowed)


@dataclass(frozen=True)
class Value:
    """A metric of one variant.

    Attributes:
        value: The mean over the training seeds; None where the metric does not exist.
        low: Lower end of the interval; None where there is none.
        high: Upper end of the interval.
        seeds: The value of each seed.
    """

    value: float | None
    low: float | None
    high: float | None
    seeds: tuple[float | None, ...]


@dataclass(frozen=True)
class Difference:
    """A metric of one variant minus that of another.

    Attributes:
        value: The difference; None where the metric does not exist.
        low: Lower end of the interval; None where there is none.
        high: Upper end of the interval.
        p: Two-sided p-value against zero.
        p_holm: The same, corrected by Holm's rule; None where the difference is not tested.
        verdict: What follows from `p_holm`; None where the difference is not tested.
        seed_share: The training seeds' share of the variance; None with one seed.
        image_variance: Variance between sets of images; this and what follows is None where there is no interval.
        seed_variance: Variance between training seeds.
        interaction: The part of the images' variance that is the seeds' different response to the images.
        image_dof: Degrees of freedom of the images' variance.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    verdict: Verdict | None
    seed_share: float | None
    image_variance: float | None = None
    seed_variance: float | None = None
    interaction: float | None = None
    image_dof: float | None = None


@dataclass(frozen=True)
class Differences:
    """One variant minus another: `differences["AP"]` over all classes, `differences.classes["cat"]["AP"]` for one."""

    metrics: Mapping[str, Difference]
    classes: Mapping[str, Mapping[str, Difference]]

    def __getitem__(self, metric: str) -> Difference:
        return _look_up(self.metrics, metric, "metric")


@dataclass(frozen=True)
class Cost:
    """The cost of one variant.

    Attributes:
        parameters: Number of parameters.
        gflops: Billion floating-point operations of a forward pass of one image, counted by Ultralytics; None if it
            could not.
        latency_median: Milliseconds of a forward pass of one image, without reading it and without suppression; None
            if it could not be measured.
        latency_p95: The same, 95th percentile.
        device: Where that was measured.
        yaml: The model YAML it was built from.
        yaml_sha256: SHA-256 of the content of that YAML.
    """

    parameters: int
    gflops: float | None
    latency_median: float | None
    latency_p95: float | None
    device: str
    yaml: str
    yaml_sha256: str


@dataclass(frozen=True)
class Scores:
    """The two metrics that Ultralytics reports as well: of detectors the first two, of classifiers the others."""

    AP: float | None = None
    AP50: float | None = None
    top1: float | None = None
    top5: float | None = None


@dataclass(frozen=True)
class BestEpoch:
    """The epoch of the highest main metric (mAP 50-95, or top-1 accuracy) in Ultralytics' training log."""

    epoch: int
    AP: float | None = None
    AP50: float | None = None
    top1: float | None = None
    top5: float | None = None


@dataclass(frozen=True)
class Training:
    """What a run folder records of the training.

    Attributes:
        seed: Its seed, if recorded.
        epochs: Number of each epoch.
        AP: mAP 50-95 after each epoch, by Ultralytics; empty for classifiers.
        best: The best epoch.
        seconds: Duration, if recorded.
        top1: Top-1 accuracy after each epoch, by Ultralytics; empty for detectors.
    """

    seed: int | None
    epochs: tuple[int, ...]
    AP: tuple[float, ...]
    best: BestEpoch
    seconds: float | None
    top1: tuple[float, ...] = ()

    @property
    def curve(self) -> tuple[float, ...]:
        """The main metric after each epoch."""
        return self.AP or self.top1


@dataclass(frozen=True)
class RunResult:
    """One training seed.

    Attributes:
        path: The checkpoint or prediction file.
        sha256: Its SHA-256; of a prediction file we made, the SHA-256 of its checkpoint.
        ours: Its scores by this evaluator.
        ultralytics: Its scores by Ultralytics' validation on the same predictions; None where that did not run.
        training: Its training; None where the run folder does not record it.
    """

    path: str
    sha256: str
    ours: Scores
    ultralytics: Scores | None
    training: Training | None


@dataclass(frozen=True)
class BlockFinding:
    """What a look found of one block, or of all blocks together.

    Attributes:
        block: Row and class, such as `16 GAM`, or `all blocks`.
        findings: What it does, in words: the block as a whole, then each of its gates.
        lost: mAP 50-95 of the model minus mAP with the block replaced by the identity.
        AP: mAP 50-95 without the block.
    """

    block: str
    findings: tuple[str, ...]
    lost: Difference | None
    AP: float | None


@dataclass(frozen=True)
class Look:
    """What a look at the first checkpoint of a variant found.

    Attributes:
        blocks: Each block; then, if there are several, all together.
        AP: mAP 50-95 of the checkpoint; None without blocks.
        heat_maps: Whether its heat maps are true, in words; None where nothing was detected.
    """

    blocks: tuple[BlockFinding, ...]
    AP: float | None
    heat_maps: str | None


@dataclass(frozen=True)
class VariantResult:
    """One variant.

    Attributes:
        name: Its name.
        metrics: Over all classes, by metric.
        classes: By class, then metric; classes without objects are left out.
        differences: This variant minus the baseline, and minus the control if there is one, by that variant's name.
        cost: What it costs; None without a checkpoint.
        runs: One for each training seed.
        precision_recall: Precision at recall 0, 0.01, ... 1 and IoU 0.5, mean over classes and seeds.
        movement: How much each block changes its input, mean over seeds; empty without checkpoints or blocks.
        look: What its blocks do and are worth; None if that was not looked at.
    """

    name: str
    metrics: Mapping[str, Value]
    classes: Mapping[str, Mapping[str, Value]]
    differences: Mapping[str, Differences]
    cost: Cost | None = None
    runs: tuple[RunResult, ...] = ()
    precision_recall: tuple[float, ...] = ()
    movement: tuple[Movement, ...] = ()
    look: Look | None = None

    def minus(self, reference: str) -> Differences:
        """Return this variant minus the baseline or the control; those two have no differences to the others.

        Raises:
            UserError: The comparison has no such difference.
        """
        return _look_up(self.differences, reference, f"difference of '{self.name}' minus")


@dataclass(frozen=True)
class ImageGroups:
    """Groups of images that are not independent, and were resampled instead of images.

    Attributes:
        by: How they were declared.
        number: How many there are.
        largest: Images of the largest group.
        largest_name: Its name.
    """

    by: str
    number: int
    largest: int
    largest_name: str


@dataclass(frozen=True)
class Data:
    """The dataset that all variants were compared on.

    Attributes:
        yaml: Dataset YAML, if one was given.
        split: Its split.
        ground_truth: Where the annotations were read.
        digest: SHA-256 of ids, classes and objects.
        images: Number of images.
        objects: Number of objects, crowds and difficult ones included; of images for classifiers.
        crowds: Number of crowds.
        difficult: Number of difficult objects.
        classes: Class names.
        groups: Groups of images; None where each image is independent.
    """

    yaml: str | None
    split: str
    ground_truth: str
    digest: str
    images: int
    objects: int
    crowds: int
    difficult: int
    classes: tuple[str, ...]
    groups: ImageGroups | None = None


@dataclass(frozen=True)
class CommonProtocol:
    """How all predictions were made; None where no prediction file records it.

    Attributes:
        imgsz: Image size in pixels.
        conf: Lowest confidence kept.
        iou: IoU of non-maximum suppression.
        max_det: Most detections per image.
        ultralytics: The versions that made the predictions.
    """

    imgsz: int | None
    conf: float | None
    iou: float | None
    max_det: int | None
    ultralytics: tuple[str, ...]


@dataclass(frozen=True)
class Statistics:
    """How the comparison is made.

    Attributes:
        replicates: Bootstrap samples of the images.
        level: Confidence level of intervals and verdicts.
        seed: Seed of the random draws.
        interval: The kind of interval, in words.
        correction: The correction for several tests, in words.
        pair_seeds: Whether differences are taken seed by seed.
    """

    replicates: int = 1000
    level: float = 0.95
    seed: int = 0
    interval: str = "Bayesian image bootstrap, paired, corrected for classes on few images; Student's factor over seeds"
    correction: str = "Holm"
    pair_seeds: bool = False


@dataclass(frozen=True)
class Panel:
    """One drawing of an image: a caption, and a JPEG as a data URL."""

    caption: str
    url: str


@dataclass(frozen=True)
class Picture:
    """One image on which a variant and the baseline differ.

    Attributes:
        variant: The variant.
        name: File name.
        note: What happened on it.
        panels: Its drawings.
        path: The file; empty if there are several.
        heat: The heat maps of baseline and variant; empty if they were not looked at.
    """

    variant: str
    name: str
    note: str
    panels: tuple[Panel, ...]
    path: str = ""
    heat: tuple[Panel, ...] = ()


@dataclass(frozen=True)
class ComparisonRecord:
    """The result of a comparison: what `report.json` holds.

    Attributes:
        created: When it was made, in ISO 8601.
        headline: The result in one sentence.
        notes: What to know before trusting it.
        baseline: Name of the variant that the others are compared with.
        control: Name of a second one, or None.
        data: What the variants were compared on.
        protocol: How the predictions were made.
        statistics: How the comparison was made.
        versions: Versions of the packages that took part; None where one is not installed.
        variants: The variants by name, the baseline first.
        task: What the variants do, as Ultralytics names it: `detect` or `classify`.
        pictures: Images on which the first seeds differ most from the baseline's; not in `report.json`.
    """

    created: str
    headline: str
    notes: tuple[str, ...]
    baseline: str
    control: str | None
    data: Data
    protocol: CommonProtocol
    statistics: Statistics
    versions: Mapping[str, str | None]
    variants: Mapping[str, VariantResult]
    task: TaskName = "detect"
    pictures: tuple[Picture, ...] = field(default=(), repr=False, compare=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notes that put the numbers in doubt."""
        return tuple(note for note in self.notes if note.startswith("Warning: "))

    @property
    def about(self) -> Task:
        """The metrics of the task, and the words for them."""
        return TASKS[self.task]

    @property
    def references(self) -> tuple[str, ...]:
        """The baseline and, if there is one, the control."""
        return (self.baseline,) if self.control is None else (self.baseline, self.control)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `report.json`."""
        absent = _ABSENT[self.task]
        content = asdict(
            replace(self, pictures=()),
            dict_factory=lambda items: {
                key: value
                for key, value in items
                # A training's empty curve of AP stays, as readers of the first version expect the key.
                if (key not in absent or (key == "AP" and value == ()))
                and not (key in _ADDED and (value is None or value is False or value == ()))
            },
        )
        del content["pictures"]
        content["variants"] = [*content["variants"].values()]
        return {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **content}


def _look_up(known: Mapping[str, T], name: str, what: str) -> T:
    if name not in known:
        names = ", ".join(f"'{key}'" for key in known) or "none at all"
        raise UserError(f"there is no {what} '{name}'", expected=names, similar=similar(name, known))
    return known[name]
