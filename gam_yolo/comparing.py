"""`compare`: test whether detectors or classifiers differ. The function behind `gam-yolo compare`.

It stands above the report and above the look at the blocks, as it can show the one in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gam_yolo.annotations.images import exists, is_file
from gam_yolo.checkpoints import trusting
from gam_yolo.errors import UserError, brief, option, reason, similar
from gam_yolo.evaluation.groups import GroupSpec
from gam_yolo.io import output_path
from gam_yolo.report.predictions import Settings
from gam_yolo.report.result import Comparison
from gam_yolo.report.run import run
from gam_yolo.report.schema import Statistics, check_replicates
from gam_yolo.report.task_evaluation import Request
from gam_yolo.report.variants import Paths, find_variants, name_arguments

__all__ = ["compare"]

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
    look: bool = False,
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
        split: Split of the dataset.
        control: Name of a second variant to subtract from the others, such as one of equal cost.
        imgsz: Image size in pixels; None for the size the checkpoints were trained at.
        batch: Images per batch of the validation.
        device: Where to validate, as Ultralytics names it: "0", "cpu", "mps"; "" for its choice.
        replicates: Bootstrap samples of the images.
        groups: Which images are not independent, such as frames of one video: groups are resampled then. A regular
            expression whose first group in the file name is the group, a CSV file of images and groups, a mapping of
            these, "parent" for the folder of each image, or "none". By default, what the dataset YAML says.
        look: Show in the report what the blocks of each variant's first checkpoint do and are worth, and heat maps
            where the variants differ. The folder `look` in `output` gets the page of `gam_yolo.look`. Needs
            checkpoints and `data`.
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
        if value == "" and name not in ("device", "output"):
            raise UserError(f"{option(name)} is empty", fix="Is a variable of the shell not set?")
    _check_inputs(data, gt)
    found = find_variants(variants if isinstance(variants, Mapping) else name_arguments(variants))
    names = [variant.name for variant in found]
    if control is not None and control not in names[1:]:
        raise UserError(
            f"{option('control')} is '{control}'",
            expected=f"one of the variants after the baseline, {', '.join(names[1:])}",
            similar=similar(control, names[1:]),
        )
    check_replicates(replicates)
    if any(path.suffix == ".pt" for variant in found for path in variant.paths):
        from gam_yolo.identity import reject_edited_blocks  # imports torch

        reject_edited_blocks()
    folder = output_path(output, "the report's folder") if output is not None else None
    if look:
        from gam_yolo.attention.differences import add_look, check_variants  # imports torch

        models = check_variants(found, data)
    settings = Settings(str(data) if data is not None else None, split, imgsz, batch, device, groups)
    truth = Path(gt) if gt is not None else None
    if data is None and split != "val" and truth is not None and truth.is_file():
        raise UserError(
            f"{option('split')} is '{split}', but {truth} is a file without splits",
            fix=f"Leave it out, or give a dataset YAML: {option('data')}",
        )
    say = progress or (lambda _: None)
    with trusting(trust):
        result = run(Request(found, settings, Statistics(replicates=replicates), truth, control, say), folder)
    if look:
        try:  # the report is written by now: whatever fails here costs a picture, not the result
            pages = folder / "look" if folder is not None else None
            result = add_look(result, models, settings, replicates=replicates, trust=trust, output=pages, progress=say)
        except Exception as error:
            note = f"The blocks could not be looked at ({reason(error)})."
            result = replace(result, notes=(*result.notes, note))
        if folder is not None:
            result.save(folder)
    return result


def _check_inputs(data: str | Path | None, gt: str | Path | None) -> None:
    """Raise an error that names the option where its value cannot be what the option is for."""
    yaml, annotations = (".yaml", ".yml"), "a COCO annotation file or a VOC folder"
    if data is not None and is_file(Path(data)) and not str(data).lower().endswith(yaml):
        fix = f"Give annotations with {option('gt')}"
        raise UserError(f"{option('data')} is {data}", expected="a dataset YAML", fix=fix)
    if gt is not None and str(gt).lower().endswith(yaml):
        fix = f"Give a dataset YAML with {option('data')}"
        raise UserError(f"{option('gt')} is {gt}", expected=annotations, fix=fix)
    if gt is not None and not exists(Path(gt)):
        raise UserError(f"{option('gt')} is {gt}, which does not exist", expected=annotations)
