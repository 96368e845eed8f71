"""From a study file to its runs: which model, which arguments, and what identifies each run."""

from __future__ import annotations

import contextlib
import fnmatch
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from gam_yolo import ultralytics_api
from gam_yolo.checkpoints import trusted
from gam_yolo.errors import UserError, one_line, similar
from gam_yolo.graph.find import load, scale_letter
from gam_yolo.graph.place import place_block
from gam_yolo.graph.shapes import measure
from gam_yolo.identity import block_sources, changes, environment, framework_code
from gam_yolo.io import file_sha256, text_sha256
from gam_yolo.known_faults import fault_notes
from gam_yolo.report.predictions import load as load_checkpoint
from gam_yolo.study.classification import attended, check_model, is_resnet, task_of
from gam_yolo.study.config import Study, Variant
from gam_yolo.study.control import gflops, only_scale, widened
from gam_yolo.study.data import Data, find_yaml, needs_preparation, read_data, unprepared
from gam_yolo.study.folder import RunFolder, StudyFolder

__all__ = ["Plan", "Run", "devices", "first_device", "identify", "merged", "plan"]

# What does not change the result, or only as two equal trainings differ. Everything else is in the identity.
NEUTRAL = ("device", "workers", "plots", "verbose", "save_period", "save_txt", "save_conf", "save_crop", "show")
ELSEWHERE = ("data", "pretrained")  # paths, of which the identity has the content


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        dataset: Name of its dataset where the study has several, otherwise an empty string.
        variant: Name of its variant.
        seed: Its seed.
        folder: Its folder.
        model: The text of its model YAML.
        train: Ultralytics' train arguments, without the model.
        spec: What `run.json` says.
    """

    dataset: str
    variant: str
    seed: int
    folder: RunFolder
    model: str
    train: dict[str, Any]
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        """What progress tables and `--only` call it."""
        return f"{self.label}-s{self.seed}"

    @property
    def label(self) -> str:
        """The same without the seed."""
        return f"{self.dataset}/{self.variant}" if self.dataset else self.variant

    @property
    def finished(self) -> bool:
        """Whether it has been trained and evaluated."""
        return self.folder.finished

    @property
    def epochs(self) -> int:
        """Epochs of its recipe."""
        return int(self.train.get("epochs", ultralytics_api.default_arguments()["epochs"]))

    def lay_out(self) -> None:
        """Write what its process reads."""
        self.folder.lay_out(self.spec, self.model)


@dataclass(frozen=True)
class Plan:
    """The runs of a study.

    Attributes:
        runs: Seed by seed, each with all variants, so that an interrupted study compares what it has.
        gflops: What the model costs for one image at the recipe's size, by `Run.label`.
        notes: What a reader of the plan must know: how models were changed, why a run is trained again.
    """

    runs: tuple[Run, ...]
    gflops: dict[str, float]
    notes: tuple[str, ...]

    def only(self, patterns: Sequence[str]) -> Plan:
        """Return the plan with those runs alone that a pattern names; all runs where there is no pattern.

        A pattern can name datasets, variants, or both as `Run.label` does; with or without the seed.

        Raises:
            UserError: A pattern matches no run.
        """
        for pattern in patterns:
            if not any(_matches(run, pattern) for run in self.runs):
                known = list(self.gflops)
                raise UserError(
                    f"no run of the study matches '{pattern}'",
                    at="--only",
                    expected=f"one of {', '.join(known)}, or a pattern such as '*-s0'",
                    similar=similar(pattern, [*known, *{run.dataset for run in self.runs}]),
                )
        return replace(
            self, runs=tuple(run for run in self.runs if not patterns or any(_matches(run, p) for p in patterns))
        )


def merged(plans: Iterable[Plan]) -> Plan:
    """Return the plans of several datasets as one, seed by seed."""
    plans = list(plans)
    runs = [run for one in plans for run in one.runs]
    order = list(dict.fromkeys(run.seed for run in runs))
    return Plan(
        tuple(sorted(runs, key=lambda run: order.index(run.seed))),
        {label: cost for one in plans for label, cost in one.gflops.items()},
        tuple(dict.fromkeys(note for one in plans for note in one.notes)),
    )


def plan(study: Study, folder: StudyFolder, *, dry_run: bool = False) -> Plan:
    """Build every variant's model, read the data, and name each run by what determines its result.

    Args:
        study: What the study file says of one dataset.
        folder: The dataset's folder.
        dry_run: Write nothing and run no code from a file: no `activation:`, no `download:`, no pickle. Otherwise the
            dataset is prepared and the pretrained weights are downloaded where they are missing. Where a dry run
            cannot know the folders for that reason, they end in "?", and the notes say why.

    Raises:
        UserError: A model, the data or the pretrained weights cannot be read.
    """
    unknown: list[str] = []
    data = _data(study, folder, dry_run, unknown)
    pretrained, weights = _pretrained(study, dry_run, unknown)
    prefix = f"{study.dataset}/" if study.dataset else ""
    notes = [*fault_notes({ultralytics_api.version()})]
    notes += [f"The folders of the runs {prefix}* are not known yet: {reason}." for reason in unknown]
    models: dict[str, dict[str, Any]] = {}
    costs: dict[str, float] = {}
    for variant in study.variants:
        where = f"{study.path}, variant '{variant.name}'"
        config = _config(variant, where)
        config = {**config, "nc": data.classes or config.get("nc", 1)}
        check_model(config, data.task, where)
        size = _imgsz({**study.recipe, **variant.overrides})
        if variant.match_cost:
            try:
                config, note = widened(
                    config, costs[variant.match_cost], size, prefix + variant.name, weights, data.task
                )
            except UserError as error:
                raise UserError(error, at=study.path) from None
            notes.append(note)
        models[variant.name], costs[variant.name] = config, gflops(config, size, weights, data.task)
    runs = []
    for seed in study.seeds:
        for variant in study.variants:
            train = {**study.recipe, **variant.overrides}
            # With False, Ultralytics resets a classifier's layers to torch's own start, not to the model's.
            start = str(pretrained) if pretrained else data.task == "classify"
            train |= {"data": str(data.yaml), "seed": seed, "pretrained": start}
            identity = {} if unknown else identify(train, models[variant.name], data.parts)
            place = folder.run(variant.name, seed, "?" if unknown else text_sha256(identity))
            text = yaml.safe_dump(models[variant.name], sort_keys=False, default_flow_style=None, width=120)
            spec = {"study": study.title, "variant": variant.name, "seed": seed, "imgsz": _imgsz(train)}
            spec |= {"task": data.task, "train": train, "identity": identity, "trust": trusted()}
            runs.append(Run(study.dataset, variant.name, seed, place, text, train, spec))
    if not unknown:
        notes += filter(None, map(_why_again, runs))
    notes += _twins(runs)
    return Plan(tuple(runs), {prefix + name: cost for name, cost in costs.items()}, tuple(notes))


def identify(train: Mapping[str, Any], model: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that determines a run's result, by parts.

    Args:
        train: Ultralytics' train arguments; the defaults of the installed release are added.
        model: The model YAML.
        data: See `gam_yolo.study.data.Data.parts`.
    """
    complete = {**ultralytics_api.default_arguments(), **train}
    weights = train["pretrained"]
    return {
        "train": {key: value for key, value in complete.items() if key not in (*NEUTRAL, *ELSEWHERE)},
        "model": {key: value for key, value in model.items() if key != "scale"},
        "data": dict(data),
        "pretrained": file_sha256(Path(weights)) if isinstance(weights, str) else "",
        "code": {**framework_code(), **block_sources(model)},
        "environment": environment(),
    }


def devices(train: Mapping[str, Any]) -> list[str]:
    """Return what the train argument `device` lists; nothing where the choice is left to Ultralytics."""
    device = train.get("device")
    return [] if device is None else [name for name in str(device).strip("[]() ").replace(" ", "").split(",") if name]


def first_device(train: Mapping[str, Any]) -> str:
    """Return the first of these; an empty string where there is none."""
    return next(iter(devices(train)), "")


def _matches(run: Run, pattern: str) -> bool:
    names = (run.name, run.label, f"{run.variant}-s{run.seed}", run.variant, run.dataset)
    return any(fnmatch.fnmatch(name, pattern) for name in names if name)


def _twins(runs: Sequence[Run]) -> Iterator[str]:
    """Say which variants differ in nothing, so that their runs are one training under two names."""
    first: dict[str, Run] = {}
    for run in (run for run in runs if run.seed == runs[0].seed):
        train = {key: value for key, value in run.train.items() if key not in NEUTRAL}
        other = first.setdefault(text_sha256([run.model, train]), run)
        if other is not run:
            yield f"{other.label} and {run.label} have the same model and train arguments, so they cannot differ"


def _why_again(run: Run) -> str:
    """Say how an unfinished run differs from an earlier one of its variant and seed; nothing where there is none."""
    if run.folder.path.exists():
        return ""
    for earlier in run.folder.study.runs_of(run.variant, run.seed):
        spec = earlier.spec()
        if "identity" not in spec:  # of a release before 0.2
            return f"{run.name}: is trained as a new run. {earlier.path.name} does not record the code it ran."
        if (spec["variant"], spec["seed"]) == (run.variant, run.seed):
            changed = "; ".join(changes(spec["identity"], json.loads(json.dumps(run.spec["identity"]))))
            return f"{run.name}: is trained as a new run. Since {earlier.path.name}, this has changed: {changed}."
    return ""


def _config(variant: Variant, where: str) -> dict[str, Any]:
    """Return a variant's model YAML, of one scale, its block placed."""
    try:
        document, letter = load(variant.model), scale_letter(variant.model)
        config = document.config
        if variant.block and is_resnet(config):
            config = attended(config, variant.block, variant.at, variant.args)
        elif variant.at:
            config = place_block(document, variant.block, variant.at, variant.args, variant.feeds, letter)[1].config
        measure(config, document.name, letter)
        keys = variant.block_training if block_sources(config) else {}
        return only_scale({**config, **keys}, letter)
    except UserError as error:
        raise UserError(error, at=where) from None


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Name the place in the study file in every error about the file or folder that it names."""
    try:
        yield
    except UserError as error:
        raise UserError(error, at=where) from None
    except OSError as error:
        reason = error.strerror or one_line(error)
        name = f"{error.filename}: " if error.filename else ""
        raise UserError(f"{name}cannot be read or written ({reason})", at=where) from error


def _imgsz(train: Mapping[str, Any]) -> int:
    size = train.get("imgsz", 640)
    return int(size if isinstance(size, int) else max(size))


def _data(study: Study, folder: StudyFolder, dry_run: bool, unknown: list[str]) -> Data:
    with _naming(study.where):
        if not dry_run:
            return read_data(study.data, folder, prepare=True)
        found = find_yaml(study.data)
        if needs_preparation(found):
            how = f"`gam-yolo prepare {study.data}` does that"
            how = how if task_of(found) == "detect" else "the study's first run lets Ultralytics download it"
            unknown.append(f"{study.data} is not prepared; {how}")
            return unprepared(found)
        return read_data(found, folder, prepare=False)


def _pretrained(study: Study, dry_run: bool, unknown: list[str]) -> tuple[Path | None, Any]:
    """Return the checkpoint's path and its model. Ultralytics downloads it where it is one of its own and missing."""
    if not isinstance(study.pretrained, str):
        return None, None
    with _naming(study.where if study.dataset else f"{study.path}, key 'pretrained'"):
        found = ultralytics_api.find_checkpoint(study.pretrained)
        if not dry_run:
            found = found or ultralytics_api.download_checkpoint(study.pretrained)
            if not found.is_file():
                raise UserError(f"there is no file {study.pretrained}", expected="a checkpoint")
            return found.resolve(), load_checkpoint(found, None).model
    why = "is not here"
    if found:
        try:
            return found.resolve(), ultralytics_api.safe_checkpoint(str(found))
        except Exception as error:  # an unknown class in it leads to another error in each release
            why = f"cannot be loaded without running code from it ({one_line(error, 100)})"
    unknown.append(f"{study.pretrained} {why}; GFLOPs are those of the models without it")
    return None, None
