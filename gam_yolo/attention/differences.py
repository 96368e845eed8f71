"""Look at the checkpoints of a comparison, and show in its report what their blocks do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gam_yolo.annotations.images import image_files
from gam_yolo.annotations.yolo import dataset
from gam_yolo.attention.look import look
from gam_yolo.attention.result import LookResult
from gam_yolo.attention.schema import LookedModel
from gam_yolo.errors import UserError, option
from gam_yolo.report.formatting import printable
from gam_yolo.report.gallery import as_url
from gam_yolo.report.predictions import Settings, find_task
from gam_yolo.report.result import Comparison
from gam_yolo.report.schema import BlockFinding, Look, Panel, Picture
from gam_yolo.report.variants import Variant

__all__ = ["add_look", "check_variants"]

_IMAGES = 32  # whose gates are read, if the gallery has not more; enough to see what depends on the image


def check_variants(variants: Sequence[Variant], data: object) -> dict[str, Path]:
    """Return the checkpoint of each variant that is looked at, the first, before anything takes time.

    Raises:
        UserError: There is no dataset, or a variant is not of checkpoints, or they are classifiers.
    """
    if data is None:
        raise UserError("--look is given without a dataset", fix=f"Give a dataset YAML: {option('data')}")
    models = {variant.name: variant.paths[0] for variant in variants}
    for name, file in models.items():
        if file.suffix != ".pt":
            raise UserError(f"--look: the variant {name} is not of checkpoints", at=file, expected="a .pt file")
    if find_task(variants) == "classify":
        raise UserError("--look is given for classifiers", expected="it with detectors only", fix="Leave it out")
    return models


def add_look(
    comparison: Comparison,
    models: Mapping[str, Path],
    settings: Settings,
    *,
    replicates: int,
    trust: bool,
    output: Path | None,
    progress: Callable[[str], None],
) -> Comparison:
    """Look at the checkpoints of a comparison, on the images on which they differ most and on others.

    Args:
        comparison: The comparison.
        models: What `check_variants` returned.
        settings: How it was made; with a dataset.
        replicates: Bootstrap samples of the images, for what each block is worth.
        trust: Whether checkpoints may run code.
        output: Folder for the page and the drawings of the look; None to write nothing.
        progress: Called with a line of text at each step.

    Returns:
        The comparison, with the blocks of each variant and with heat maps of the images in its gallery.

    Raises:
        UserError: The images or the checkpoints cannot be looked at.
    """
    drawn = list(dict.fromkeys(picture.path for picture in comparison.pictures))
    every = sorted(image_files(dataset(settings.data or "", settings.split)[settings.split], str(settings.data)))
    others = [path for path in map(str, every) if path not in drawn]
    images = drawn + others[: max(0, _IMAGES - len(drawn))]
    found = look(
        models,
        images,
        data=settings.data,
        split=settings.split,
        imgsz=settings.imgsz,
        batch=settings.batch,
        device=settings.device,
        limit=len(images) + 1,  # all of them
        pictures=len(drawn),
        replicates=replicates,
        trust=trust,
        output=output,
        progress=progress,
    )
    progress(str(found))
    looked = {model.name: _summary(model) for model in found.models}
    return replace(
        comparison,
        variants={name: replace(variant, look=looked[name]) for name, variant in comparison.variants.items()},
        pictures=tuple(_with_heat(picture, comparison.baseline, found) for picture in comparison.pictures),
    )


def _summary(model: LookedModel) -> Look:
    """Return what the report says of a model: each block with its findings, then all blocks together."""
    worth = {one.block: one for one in model.worth}
    rows = []
    for block in model.blocks:
        inside = [
            f", larger inside boxes: {100 * gate.inside:.0f} %" if gate.inside is not None else ""
            for gate in block.gates
        ]
        gates = [f"{gate.name}: {gate.finding}{text}" for gate, text in zip(block.gates, inside, strict=True)]
        own = worth.pop(block.label, None)
        lost, without = (own.lost, own.AP) if own else (None, None)
        rows.append(BlockFinding(block.label, (block.finding, *gates), lost, without))
    rows += [BlockFinding(name, (), one.lost, one.AP) for name, one in worth.items()]
    return Look(tuple(rows), model.AP, model.faithfulness.finding if model.faithfulness else None)


def _with_heat(picture: Picture, baseline: str, found: LookResult) -> Picture:
    """Return a picture of the gallery with the heat maps of its two models, if the image was looked at."""
    path = Path(picture.path).absolute()  # as Ultralytics returns it
    for looked in found.pictures:
        if Path(looked.path) == path:
            heat = [(name, looked.models[name][1]) for name in (baseline, picture.variant)]
            panels = (Panel(f"{printable(name)}: {tile.caption}", as_url(tile.image)) for name, tile in heat)
            return replace(picture, heat=tuple(panels))
    return picture
