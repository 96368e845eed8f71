"""Comparisons of classifiers: from checkpoints or rankings to the same result that detectors have."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gam_yolo import ultralytics_api
from gam_yolo.annotations.classes import (
    LabelledImages,
    Rankings,
    map_classes,
    ranking_records,
    read_labelled_images,
    read_rankings,
)
from gam_yolo.errors import UserError
from gam_yolo.evaluation import Estimate, Samples, accuracy, draw_weights
from gam_yolo.file_digests import FileDigests
from gam_yolo.io import file_sha256, is_number, text_sha256, write
from gam_yolo.report.comparison import compare_samples, headline
from gam_yolo.report.document import common_protocol, describe_run, package_versions
from gam_yolo.report.formatting import points, printable
from gam_yolo.report.predictions import Settings, common_imgsz, folder_name, load, reject_copies
from gam_yolo.report.protocol import Protocol, read_protocol, reject_differences, write_protocol
from gam_yolo.report.result import Comparison, Cost, Data, Panel, Picture, Statistics, VariantResult
from gam_yolo.report.tasks import CLASSIFY
from gam_yolo.report.variants import Variant

__all__ = ["Classified", "build", "collect", "compare_rankings", "pictures", "read_truth"]

_METHOD = "top classes, whole images in order"  # in the name of a stored file; those made otherwise are not used again
_APART = 1e-6  # Ultralytics computes its accuracy in single precision
_SIDE, _SHOWN = 160, 6  # longer side of a drawn image in pixels; images drawn for either side


@dataclass(frozen=True)
class Classified:
    """One seed's rankings.

    Attributes:
        path: The checkpoint or ranking file the user named.
        rankings: The classes that it finds most probable.
        protocol: How that was made.
        own: Scores of the same rankings by Ultralytics' validation, under its names; empty if it did not run.
    """

    path: Path
    rankings: Rankings
    protocol: Protocol
    own: dict[str, float]


def read_truth(variants: Sequence[Variant], gt: Path | None, settings: Settings) -> LabelledImages:
    """Read the images and their classes.

    Raises:
        UserError: There is no data set, or it cannot be read.
    """
    if gt is not None:
        raise UserError(f"--gt (in Python gt=) is {gt}", expected="it with detectors only", fix="Leave it out")
    if settings.data is None:
        raise UserError(
            "there is no data set to compare classifiers on",
            at=variants[0].paths[0],
            expected="a folder with train/ and val/",
            fix="Give it: --data, in Python data=",
        )
    return read_labelled_images(settings.data, settings.split)


def collect(
    variants: Sequence[Variant],
    truth: LabelledImages,
    settings: Settings,
    cache: Path,
    progress: Callable[[str], None],
) -> dict[str, list[Classified]]:
    """Get the rankings of all variants. Results of different protocols are rejected.

    Args:
        variants: What to compare.
        truth: What to compare it with.
        settings: What the user chose.
        cache: Folder for rankings made here; those found in it are used if weights and protocol are the same.
        progress: Called with a line of text at each step.

    Raises:
        UserError: A file is unfit, or protocols differ.
    """
    reject_copies(variants)
    imgsz = common_imgsz(variants, settings, progress, "classify")
    images = _images_digest(truth, cache) if imgsz else ""
    total = sum(len(variant.paths) for variant in variants)
    result: dict[str, list[Classified]] = {variant.name: [] for variant in variants}
    for number, (name, path) in enumerate(((v.name, path) for v in variants for path in v.paths), 1):
        progress(f"[{number}/{total}] {name}: {path}")
        if path.suffix == ".json":
            result[name].append(_read(path, truth))
        else:
            result[name].append(_validated(path, truth, settings, imgsz, images, cache / folder_name(name), progress))
    reject_differences([(str(c.path), c.protocol, None, 0) for seeds in result.values() for c in seeds])
    return result


def compare_rankings(
    truth: LabelledImages,
    variants: Mapping[str, list[Rankings]],
    references: list[str],
    statistics: Statistics,
    progress: Callable[[str], None],
) -> dict[str, VariantResult]:
    """Estimate every classifier and its difference to each reference; see `compare_samples`."""
    draws = draw_weights(len(truth.files), statistics.replicates, statistics.seed)
    samples: dict[str, Samples] = {}
    for name, seeds in variants.items():
        progress(f"{name}: {statistics.replicates} bootstrap replicates of {len(seeds)} seed(s)")
        samples[name] = accuracy.resample(truth, seeds, draws)

    def subtract(name: str, reference: str) -> Estimate:
        ours, theirs = ((variants[key], samples[key]) for key in (name, reference))
        return accuracy.difference(truth, ours, theirs, statistics.level, paired=statistics.pair_seeds)

    counts = np.bincount(truth.label, minlength=len(truth.classes))
    return compare_samples(samples, subtract, references, statistics, CLASSIFY, truth.classes, counts)


def build(
    truth: LabelledImages,
    classified: Mapping[str, list[Classified]],
    costs: Mapping[str, Cost],
    references: list[str],
    statistics: Statistics,
    settings: Settings,
    compared: Mapping[str, VariantResult],
    notes: Sequence[str] = (),
) -> Comparison:
    """Assemble the result, without pictures; the arguments are those of `gam_yolo.report.document.build`."""
    variants = {
        name: replace(
            found,
            cost=costs.get(name),
            runs=tuple(
                describe_run(seed.path, seed.protocol, seed.own, i, found.metrics)
                for i, seed in enumerate(classified[name])
            ),
        )
        for name, found in compared.items()
    }
    return Comparison(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        headline=headline(compared, references[0], truth, statistics.level, CLASSIFY),
        notes=(*_doubts(variants), *truth.notes, *_notes(classified), *notes),
        baseline=references[0],
        control=references[1] if len(references) > 1 else None,
        data=Data(
            yaml=settings.data,
            split=truth.split,
            ground_truth=truth.source,
            digest=truth.digest,
            images=len(truth.files),
            objects=len(truth.files),
            crowds=0,
            difficult=0,
            classes=truth.classes,
        ),
        protocol=common_protocol([c.protocol for seeds in classified.values() for c in seeds]),
        statistics=replace(
            statistics, interval="Bayesian image bootstrap, paired; Student's factor over images that differ and seeds"
        ),
        versions=package_versions(),
        variants=variants,
        task="classify",
    )


def pictures(truth: LabelledImages, variants: Mapping[str, list[Rankings]]) -> tuple[Picture, ...]:
    """Draw images that the first seed of a variant classifies correctly and the baseline's does not, and vice versa."""
    baseline, *others = ((name, seeds[0].best[:, 0]) for name, seeds in variants.items())
    found = []
    for variant in others:
        for (right, ours), (wrong, theirs) in ((variant, baseline), (baseline, variant)):
            chosen = np.flatnonzero((ours == truth.label) & (theirs != truth.label))
            if not len(chosen):
                continue
            # Evenly over the images, which are sorted by class.
            shown = chosen[np.unique(np.linspace(0, len(chosen) - 1, _SHOWN).astype(int))]
            panels = tuple(_panel(truth, int(i), f"{wrong}: {truth.classes[theirs[i]]}") for i in shown)
            note = f"{len(chosen)} of {len(truth.files)} images, {len(shown)} of them shown"
            found.append(Picture(variant[0], f"{right} is right, {wrong} is wrong", note, panels))
    return tuple(found)


def _panel(truth: LabelledImages, index: int, said: str) -> Panel:
    with Image.open(truth.root / truth.files[index]) as opened:
        image = ImageOps.contain(ImageOps.exif_transpose(opened).convert("RGB"), (_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Panel(printable(f"{truth.classes[truth.label[index]]} ({said})"), url)


def _images_digest(truth: LabelledImages, cache: Path) -> str:
    digests = FileDigests(cache / "digests.json")
    found = digests.of([truth.root / file for file in truth.files])
    with contextlib.suppress(UserError):  # it only saves time
        digests.save()
    return text_sha256(found)


def _read(path: Path, truth: LabelledImages) -> Classified:
    protocol, own = read_protocol(path)
    if protocol.data not in (None, truth.digest):
        raise UserError(
            f"was made for other images or classes ({str(protocol.data)[:12]}) than {truth.root} ({truth.digest[:12]})",
            at=path,
        )
    return Classified(path, read_rankings(path, truth), protocol, own)


def _validated(
    path: Path,
    truth: LabelledImages,
    settings: Settings,
    imgsz: int,
    images: str,
    cache: Path,
    progress: Callable[[str], None],
) -> Classified:
    """Return a checkpoint's rankings from the cache, or validate it and put them there; as detections are."""
    model = load(path, "classify")
    protocol = Protocol(
        data=truth.digest, imgsz=imgsz, ultralytics=ultralytics_api.version(), weights=file_sha256(path)
    )
    from gam_yolo.identity import checkpoint_code_digest, environment  # imports torch

    code = checkpoint_code_digest(model.model)
    key = text_sha256(repr((protocol, _METHOD, settings.batch, images, code, environment())))[:16]
    stored = cache / f"{key}.json"
    if stored.is_file():
        progress("its predictions are stored already")
        known, own = read_protocol(stored)
        return Classified(path, read_rankings(stored, truth), known, own)
    numbers = map_classes(model.names, truth, path)
    try:  # before anything takes time
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"predictions cannot be stored there ({error.strerror})", at=cache) from None
    progress(f"validating on {len(truth.files)} images at {imgsz} pixels")
    best, own = _validate(model, path, truth, settings, imgsz)
    rankings = Rankings(str(path), numbers[best])
    write_protocol(stored, protocol, own)
    write(stored, json.dumps(ranking_records(rankings, truth)))  # last: it is never there without its protocol
    return Classified(path, rankings, protocol, own)


def _validate(
    model: Any, path: Path, truth: LabelledImages, settings: Settings, imgsz: int
) -> tuple[NDArray[np.intp], dict[str, float]]:
    """Run Ultralytics' validation; return the model's best classes of each image, and Ultralytics' own metrics."""
    seen: list[Any] = []
    base = model._smart_load("validator")

    class Validator(base):  # type: ignore[misc, valid-type]
        """Ultralytics' validator with the images in the order of its data set."""

        def get_dataloader(self, dataset_path: str, batch_size: int) -> Any:
            seen.append(self)
            dataset = self.build_dataset(dataset_path)
            build: Any = ultralytics_api.get("build_dataloader")
            return build(dataset, batch_size, self.args.workers, shuffle=False)

    with (
        tempfile.TemporaryDirectory() as scratch,
        ultralytics_api.quiet(),  # its log names the folder of `scratch`
        contextlib.redirect_stdout(io.StringIO()),  # its progress bar
    ):
        metrics = model.val(
            validator=Validator,
            data=str(truth.root.parent),
            split=settings.split,
            imgsz=imgsz,
            batch=settings.batch,
            device=settings.device or None,
            plots=False,
            verbose=False,
            project=scratch,
            name="val",
        )
    (validator,) = seen
    files = [Path(sample[0]).relative_to(truth.root).as_posix() for sample in validator.dataloader.dataset.samples]
    best = np.concatenate([batch.numpy() for batch in validator.pred]).astype(np.intp)
    row = {file: i for i, file in enumerate(files)}
    if row.keys() != set(truth.files) or len(best) != len(files):
        raise UserError(f"Ultralytics validated {len(best)} of the {len(truth.files)} images", at=path)
    own = {key: float(value) for key, value in metrics.results_dict.items() if is_number(value)}
    return best[[row[file] for file in truth.files]], own


def _doubts(variants: Mapping[str, VariantResult]) -> list[str]:
    """Warn where Ultralytics' top-1 of the same predictions differs."""
    return [
        f"Warning: top-1 of {name} ({run.path}) is {points(ours)} here and {points(theirs)} by Ultralytics. It numbers "
        "the classes by their folders, here they are found by name. Check the names of the model and of the folders."
        for name, variant in variants.items()
        for run in variant.runs
        if (ours := run.ours.top1) is not None
        and run.ultralytics
        and (theirs := run.ultralytics.top1) is not None
        and abs(ours - theirs) > _APART
    ]


def _notes(classified: Mapping[str, list[Classified]]) -> list[str]:
    notes = []
    if single := [name for name, seeds in classified.items() if len(seeds) == 1]:
        notes.append(
            f"One training seed of {', '.join(single)}: the intervals hold for these weights only. How much another "
            "seed would change cannot be known from one; train three seeds or more of each variant."
        )
    if unknown := [name for name, seeds in classified.items() if any(c.protocol.imgsz is None for c in seeds)]:
        notes.append(
            f"The prediction files of {', '.join(unknown)} do not record how they were made. We could not verify that "
            "the image size agrees."
        )
    return notes
