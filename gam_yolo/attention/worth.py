"""What each attention block is worth: the mAP that a model loses when the block is replaced by the identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from gam_yolo import ultralytics_api
from gam_yolo.attention.gates import without
from gam_yolo.attention.schema import Block, Worth
from gam_yolo.checkpoints import trusting
from gam_yolo.report.predictions import Settings
from gam_yolo.report.run import run
from gam_yolo.report.schema import Difference, Statistics
from gam_yolo.report.task_evaluation import Request
from gam_yolo.report.variants import Paths, find_variants

__all__ = ["ALL", "measure_worth", "save_without"]

ALL = "all blocks"


def measure_worth(
    checkpoint: Path,
    blocks: Sequence[Block],
    settings: Settings,
    *,
    replicates: int = 1000,
    trust: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[float | None, tuple[Worth, ...]]:
    """Measure what each block of a checkpoint is worth, without any training.

    The model without a block was not trained without it. So a block's worth is how much the trained model relies on it,
    not what the architecture gains by it. A model trained without the block answers that: see `gam_yolo.compare`.

    Args:
        checkpoint: The checkpoint.
        blocks: Its blocks.
        settings: The dataset, and how to validate on it.
        replicates: Bootstrap samples of the images.
        trust: Whether the checkpoint may run code.
        progress: Called with a line of text at each step.

    Returns:
        mAP 50-95 of the whole model, and the worth of each block, and of all of them if there are several.

    Raises:
        UserError: The dataset cannot be read.
    """
    if not blocks:
        return None, ()
    removed = {block.label: [block.path] for block in blocks}
    if len(blocks) > 1:
        removed[ALL] = [block.path for block in blocks]
    with TemporaryDirectory(prefix="gam-yolo-") as folder, trusting(trust):
        files: dict[str, Paths] = {"whole": checkpoint}
        for number, (label, paths) in enumerate(removed.items()):
            files[label] = save_without(checkpoint, paths, Path(folder) / f"{number}.pt")
        request = Request(find_variants(files), settings, Statistics(replicates=replicates), progress=progress)
        found = run(request, scores_only=True)
    worth, main = [], found.about.main
    for label in removed:
        variant = found.variants[label]
        worth.append(Worth(label, _negative(variant.differences["whole"][main]), variant.metrics[main].value))
    return found.variants["whole"].metrics[main].value, tuple(worth)


def save_without(checkpoint: Path, paths: Sequence[str], output: Path) -> Path:
    """Write a copy of a checkpoint with some blocks replaced by the identity.

    Args:
        checkpoint: The checkpoint.
        paths: The blocks' paths, such as `model.16`.
        output: The file to write.

    Returns:
        `output`.
    """
    content = ultralytics_api.checkpoint(checkpoint)
    for key in ("ema", "model"):
        for path in paths if content.get(key) is not None else ():
            without(content[key], path)
    torch.save(content, output)
    return output


def _negative(found: Difference) -> Difference:
    """Return "whole minus without" for "without minus whole"."""
    low, high = (None if end is None else 0.0 - end for end in (found.high, found.low))
    words = {"better": "worse", "worse": "better"}
    value = None if found.value is None else 0.0 - found.value  # no negative zero
    verdict = words.get(found.verdict or "", found.verdict)
    return Difference(value, low, high, found.p, found.p_holm, verdict, found.seed_share)  # type: ignore[arg-type]
