"""From a study file to its runs: which model, which arguments, and the hash that tells one run from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gam_yolo import __version__, ultralytics_api
from gam_yolo.errors import UserError, find_cause
from gam_yolo.graph.find import load, scale_letter
from gam_yolo.graph.place import place_block
from gam_yolo.graph.shapes import measure
from gam_yolo.io import file_sha256, text_sha256, write
from gam_yolo.study.config import Study, Variant
from gam_yolo.study.control import gflops, only_scale, widened

__all__ = ["FINISHED", "MODEL", "SPEC", "Plan", "Run", "devices", "first_device", "plan", "versions"]

SPEC, MODEL, FINISHED = "run.json", "model.yaml", "finished.json"

# What does not bear on the result, or only as two equal trainings differ anyway. All else is in the hash.
NEUTRAL = ("device", "workers", "plots", "verbose", "save_period", "save_txt", "save_conf", "save_crop", "show")


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        variant: Name of its variant.
        seed: Its seed.
        folder: Where it is, `<variant>-s<seed>-<hash>`.
        model: The text of its model YAML.
        train: Ultralytics' train arguments, without the model.
        spec: What `run.json` says.
    """

    variant: str
    seed: int
    folder: Path
    model: str
    train: dict[str, Any]
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        """What progress tables and `--only` call it."""
        return f"{self.variant}-s{self.seed}"

    @property
    def finished(self) -> bool:
        """Whether it has been trained and evaluated."""
        return (self.folder / FINISHED).is_file()

    def lay_out(self) -> None:
        """Write what its process reads."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / MODEL, self.model)
        write(self.folder / SPEC, json.dumps(self.spec, indent=1))


@dataclass(frozen=True)
class Plan:
    """All runs of a study.

    Attributes:
        runs: Seed by seed, each with all variants, so that an interrupted study compares what it has.
        data: The dataset YAML's path.
        gflops: What each variant's model costs for one image at the recipe's size.
        notes: What was done to models, in sentences.
    """

    runs: tuple[Run, ...]
    data: str
    gflops: dict[str, float]
    notes: tuple[str, ...]


def plan(study: Study, folder: Path) -> Plan:
    """Build every variant's model, prepare the data, and hash what determines each run.

    Args:
        study: What the study file says.
        folder: The study's folder.

    Raises:
        UserError: A model, the data or the pretrained weights cannot be had.
    """
    data, facts = _data(study)
    pretrained = _pretrained(study)
    weights = ultralytics_api.model(pretrained).model if isinstance(pretrained, str) else None
    models: dict[str, dict[str, Any]] = {}
    costs: dict[str, float] = {}
    notes: list[str] = []
    for variant in study.variants:
        where = f"{study.path}: variants: {variant.name}"
        config = {**_config(variant, where), "nc": facts["nc"]}
        size = _imgsz({**study.recipe, **variant.overrides})
        if variant.match_cost:
            config, note = widened(config, costs[variant.match_cost], size, variant.name, weights)
            notes.append(note)
        models[variant.name], costs[variant.name] = config, gflops(config, size, weights)
    installed = versions()
    runs = []
    for seed in study.seeds:
        for variant in study.variants:
            train = {**study.recipe, **variant.overrides, "data": data, "seed": seed, "pretrained": pretrained}
            text = yaml.safe_dump(models[variant.name], sort_keys=False, default_flow_style=None, width=120)
            determines = {
                "train": {key: value for key, value in train.items() if key not in (*NEUTRAL, "data", "pretrained")},
                "model": {key: value for key, value in models[variant.name].items() if key != "scale"},
                "data": facts["fingerprint"],
                "pretrained": _digest(pretrained),
                "versions": installed,
            }
            digest = text_sha256(determines)[:12]
            spec = {"study": study.name, "variant": variant.name, "seed": seed, **determines}
            spec |= {"train": train, "imgsz": _imgsz(train)}
            runs.append(Run(variant.name, seed, folder / f"{variant.name}-s{seed}-{digest}", text, train, spec))
    return Plan(tuple(runs), data, costs, tuple(notes))


def _config(variant: Variant, where: str) -> dict[str, Any]:
    """Return a variant's model YAML, of one scale, its block placed."""
    try:
        document, letter = load(variant.model), scale_letter(variant.model)
        if variant.block:
            _, document = place_block(document, variant.block, variant.at, variant.args, variant.feeds, letter)
        measure(document.config, document.name, letter)
        return only_scale(document.config, letter)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def versions() -> dict[str, str]:
    """Return the versions on which a result depends."""
    import torch

    return {"gam_yolo": __version__, "torch": torch.__version__, "ultralytics": ultralytics_api.version()}


def devices(train: Mapping[str, Any]) -> list[str]:
    """Return what the train argument `device` lists; nothing where the choice is left to Ultralytics."""
    device = train.get("device")
    return [] if device is None else [name for name in str(device).strip("[]() ").replace(" ", "").split(",") if name]


def first_device(train: Mapping[str, Any]) -> str:
    """Return the first of these; an empty string where there is none."""
    return next(iter(devices(train)), "")


def _imgsz(train: Mapping[str, Any]) -> int:
    size = train.get("imgsz", 640)
    return int(size if isinstance(size, int) else max(size))


def _pretrained(study: Study) -> str | bool:
    """Return the checkpoint's path, which Ultralytics downloads where it is one of its own and not there."""
    if not isinstance(study.pretrained, str):
        return False
    found = ultralytics_api.download_checkpoint(study.pretrained)
    if not found.is_file():
        raise UserError(f"{study.path}: 'pretrained' is {study.pretrained}, expected a checkpoint that is there")
    return str(found.resolve())


def _digest(checkpoint: str | bool) -> str:
    return file_sha256(Path(checkpoint)) if isinstance(checkpoint, str) else ""


def _data(study: Study) -> tuple[str, dict[str, Any]]:
    """Prepare the dataset and return its YAML's path, its number of classes and a fingerprint of what is in it.

    The fingerprint covers class names, and of both splits each image's name, file size, and labels as Ultralytics reads
    them; so the set may move. Reading them also leaves Ultralytics' label caches, which several runs would
    otherwise write at once.
    """
    build = ultralytics_api.get("build_yolo_dataset")
    try:
        found = ultralytics_api.load_dataset_yaml(study.data, download=True)
    except Exception as error:
        told = find_cause(error, UserError) or " ".join(str(error).split())
        raise UserError(f"{study.path}: data: {told}") from None
    digest = hashlib.sha256(json.dumps(list(found["names"].values())).encode())
    for split in ("train", "val"):
        images: Any = build(ultralytics_api.validated_arguments(), found[split], 1, found, mode="val")
        for file, label in zip(images.im_files, images.labels, strict=True):
            size = Path(file).stat().st_size
            digest.update(repr((split, Path(file).name, size, label["shape"])).encode())
            digest.update(label["cls"].tobytes() + label["bboxes"].tobytes())
    return str(Path(found["yaml_file"]).resolve()), {"nc": int(found["nc"]), "fingerprint": digest.hexdigest()}
