"""`compare`: test whether detectors or classifiers differ. The function behind `gam-yolo compare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gam_yolo.checkpoints import trusting
from gam_yolo.errors import UserError, brief, option, similar
from gam_yolo.evaluation.groups import GroupSpec
from gam_yolo.report.predictions import Settings
from gam_yolo.report.result import Comparison
from gam_yolo.report.run import run
from gam_yolo.report.schema import Statistics
from gam_yolo.report.variants import Paths, find_variants, name_arguments

__all__ = ["compare"]

MIN_REPLICATES = 100  # fewer say too little of a variance
MAX_REPLICATES = 100_000  # more take memory for nothing: 8 bytes for each image
_KINDS = {str: "a string", Path: "a Path", int: "a whole number", Mapping: "a mapping", type(None): "None"}


def compare(
    variants: Mapping[str, Paths] | Sequence[str | Path],
    *,
    data: str | Path | None = None,
    gt: str | Path | None = None,
    split: str = "val",
    control: str | None = None,
    imgsz: int | None = None,
    batch: int = 16,
    device: str = "",
    replicates: int = 1000,
    groups: GroupSpec = None,
    trust: bool = False,
    output: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Compare detectors, or classifiers, on the same images, with intervals and verdicts.

    Args:
        variants: The files of each variant by its name, the baseline first: a checkpoint, a run folder (its
            `weights/best.pt`), a prediction file (COCO's result format; of a classifier, its top classes), a glob
            pattern, or a list of these; one file per training seed. A list of paths is read as the command reads its
            arguments: each path is a variant, named after its run folder or file, or by a `NAME=` in front of it.
        data: Dataset YAML. Checkpoints are validated on it. For classifiers, a folder with `train` and `val`.
        gt: A COCO annotation file or VOC folder, if the annotations are not those of `data`.
        split: Split of the data set.
        control: Name of a second variant to subtract from the others, such as one of equal cost.
        imgsz: Image size in pixels; None for the size the checkpoints were trained at.
        batch: Images per batch of the validation.
        device: Where to validate, as Ultralytics names it: "0", "cpu", "mps"; "" for its choice.
        replicates: Bootstrap samples of the images.
        groups: Which images are not independent, such as frames of one video: groups are resampled then. A regular
            expression whose first group in the file name is the group, a CSV file of images and groups, a mapping of
            these, "parent" for the folder of each image, or "none". By default, what the dataset YAML says.
        trust: Let checkpoints run code, for layers of your own that are not registered. By default they are rejected.
        output: Folder for the report and the predictions; None to write nothing.
        progress: Called with a line of text at each step.

    Returns:
        The result; `print` shows its main table.

    Raises:
        UserError: An argument has a wrong type, an input cannot be read, or results must not be compared: they are of
            different data, image size or thresholds.

    Examples:
        Forty images with one object each; "good" finds it on all of them, "poor" on every other one.

        >>> import json, tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 64} for i in range(40)]
        >>> objects = [{"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 40, 40], "area": 1600, "iscrowd": 0}
        ...            for i in range(40)]
        >>> truth = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
        >>> _ = (folder / "truth.json").write_text(json.dumps(truth))
        >>> for name, step in (("good", 1), ("poor", 2)):
        ...     found = [{"image_id": i, "category_id": 1, "bbox": [8, 8, 40, 40], "score": 0.9}
        ...              for i in range(0, 40, step)]
        ...     _ = (folder / f"{name}.json").write_text(json.dumps(found))
        >>> result = compare({"poor": folder / "poor.json", "good": folder / "good.json"}, gt=folder / "truth.json")
        >>> gain = result.variants["good"].minus("poor")["AP50"]
        >>> round(result.variants["good"].metrics["AP50"].value, 2), gain.verdict
        (1.0, 'better')
        >>> gain.low < gain.value < gain.high
        True
    """
    for name, value, kinds in (
        ("data", data, (str, Path, type(None))),
        ("gt", gt, (str, Path, type(None))),
        ("split", split, (str,)),
        ("control", control, (str, type(None))),
        ("imgsz", imgsz, (int, type(None))),
        ("batch", batch, (int,)),
        ("device", device, (str,)),
        ("replicates", replicates, (int,)),
        ("groups", groups, (str, Path, Mapping, type(None))),
        ("output", output, (str, Path, type(None))),
    ):
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise UserError(f"{name} is {brief(value)}", expected=" or ".join(_KINDS[kind] for kind in kinds))
    found = find_variants(variants if isinstance(variants, Mapping) else name_arguments(variants))
    names = [variant.name for variant in found]
    if control is not None and control not in names[1:]:
        raise UserError(
            f"{option('control')} is '{control}'",
            expected=f"one of the variants after the baseline, {', '.join(names[1:])}",
            similar=similar(control, names[1:]),
        )
    check_replicates(replicates)
    settings = Settings(str(data) if data is not None else None, split, imgsz, batch, device, groups)
    truth = Path(gt) if gt is not None else None
    if data is None and split != "val" and truth is not None and truth.is_file():
        raise UserError(
            f"{option('split')} is '{split}', but {truth} is a file without splits",
            fix=f"Leave it out, or give a dataset YAML: {option('data')}",
        )
    statistics, report = Statistics(replicates=replicates), progress or _silent
    with trusting(trust):
        return run(found, truth, control, settings, statistics, Path(output) if output is not None else None, report)


def check_replicates(replicates: int) -> None:
    """Reject a number of replicates that says too little, or that no memory holds."""
    if not MIN_REPLICATES <= replicates <= MAX_REPLICATES:
        allowed = f"a number from {MIN_REPLICATES} to {MAX_REPLICATES}"
        raise UserError(f"{option('replicates')} is {replicates}", expected=allowed)


def _silent(_: str) -> None:
    """Report no progress."""
