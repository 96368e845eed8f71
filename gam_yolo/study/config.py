"""Read a study file: data, recipe, seeds and variants. Every key is checked before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gam_yolo import ultralytics_api
from gam_yolo.arguments import literal
from gam_yolo.errors import UserError, brief, similar
from gam_yolo.io import is_number, read_yaml
from gam_yolo.resources import STUDIES, shipped, shipped_names
from gam_yolo.training_keys import KEYS as BLOCK_KEYS
from gam_yolo.training_keys import BlockTraining

__all__ = ["CONTROL", "Study", "Variant", "read_studies", "read_study"]

CONTROL = "control"
"""The name of the variant that `control:` adds."""

SUMMARY_KEYS = ("datasets", "hypothesis", "smallest_difference")
KEYS = (
    "name",
    "data",
    "pretrained",
    "recipe",
    "seeds",
    "baseline",
    "variants",
    "control",
    "pair_seeds",
    "pilot",
    *SUMMARY_KEYS,
    *BLOCK_KEYS,
)
DATASET_KEYS = ("data", "pretrained", "recipe")
REPORT = "report"  # the folder of the report, next to those of the datasets
VARIANT_KEYS = ("model", "base", "block", "at", "args", "feeds", "overrides", *BLOCK_KEYS)
CONTROL_KEYS = ("match_cost", "overrides")
# What the study itself sets for each run, or what would make a run something other than a training.
OWN_TRAIN_KEYS = {
    **dict.fromkeys(("model", "data", "seed", "pretrained"), "The study file has its own key for it"),
    **dict.fromkeys(("project", "name", "exist_ok", "save_dir", "resume", "save"), "The study sets it"),
    **dict.fromkeys(("mode", "task", "cfg"), "The data and the models decide it"),
    **dict.fromkeys(("single_cls", "classes"), "The report scores all classes of the data: give it data of others"),
    "split": "The report is on 'val': give it data in which that is the split you want",
    "time": "A result must not depend on how fast the machine is: give 'epochs'",
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
NAME_RULE = "letters, digits, '.', '_' or '-', first a letter or digit"


@dataclass(frozen=True)
class Variant:
    """One model of a study.

    Attributes:
        name: Its name in folders and tables.
        model: The model YAML, or the YAML that a block is placed in.
        block: The block to place, or an empty string.
        at: Where to place it, or which row to remove, as `gam-yolo place --at`.
        args: The arguments of the block's row.
        feeds: Which rows read the block, as `gam-yolo place --feeds`.
        match_cost: The variant whose GFLOPs this one is widened to, or an empty string.
        overrides: Train arguments of this variant alone.
        block_training: Keys for its model YAML that say how its blocks are trained, see `gam_yolo.training_keys`.
    """

    name: str
    model: str
    block: str = ""
    at: str = ""
    args: list[Any] = field(default_factory=list)
    feeds: str = "all"
    match_cost: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    block_training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """The content of a study file, for one dataset.

    Attributes:
        path: The file.
        name: The name of the study's folder.
        data: The dataset YAML, or for classifiers the folder, as Ultralytics' `data=` takes it.
        pretrained: A checkpoint to take weights from, or False.
        recipe: Train arguments of all variants.
        seeds: One training of each variant for each of these.
        baseline: The variant that the others are compared with.
        variants: In the order of the file, the cost-matched control last.
        pair_seeds: Whether the report compares variants seed by seed, because equal seeds share the order of the data.
        pilot: A report that says beforehand what the study will be able to detect, or an empty string.
        dataset: Name of the dataset where the file has several, otherwise an empty string.
        hypothesis: What the user expects, for the report.
        smallest_difference: The smallest difference that matters to the user, in points, for the report.
    """

    path: Path
    name: str
    data: str
    pretrained: str | bool
    recipe: dict[str, Any]
    seeds: tuple[int, ...]
    baseline: str
    variants: tuple[Variant, ...]
    pair_seeds: bool = False
    pilot: str = ""
    dataset: str = ""
    hypothesis: str = ""
    smallest_difference: float | None = None

    @property
    def title(self) -> str:
        """The study's name in trackers, with that of the dataset where there are several."""
        return f"{self.name}-{self.dataset}" if self.dataset else self.name

    @property
    def where(self) -> str:
        """The place of the dataset in the file, for error messages."""
        return f"{self.path}, dataset '{self.dataset}'" if self.dataset else f"{self.path}, key 'data'"

    @property
    def notes(self) -> list[str]:
        """What the report repeats of the file."""
        notes = [f"Hypothesis, as the study file states it: {self.hypothesis}"] if self.hypothesis else []
        if least := self.smallest_difference:
            notes.append(f"The smallest difference of interest is {least:g} point{'s' if least != 1 else ''}.")
        return notes


def read_study(study: str | Path) -> Study:
    """Read and check a study file of one dataset.

    Args:
        study: Its path, or the bare name of a shipped one; a file of that name here takes precedence.

    Raises:
        UserError: As `read_studies`; or it has several datasets.

    Examples:
        >>> read_study("demo.yaml").seeds
        (0, 1)
    """
    first, *others = read_studies(study)
    if others:
        raise UserError(f"has {1 + len(others)} datasets", at=first.path, expected="one")
    return first


def read_studies(study: str | Path) -> tuple[Study, ...]:
    """Read and check a study file; return one study for each of its datasets.

    Args:
        study: As in `read_study`.

    Raises:
        UserError: The file cannot be read, is not YAML, or a key or value in it is wrong.
    """
    path = _find(study)
    config = _mapping(read_yaml(path, "a study file"), str(path))
    _check_keys(config, KEYS, str(path))
    name = config.get("name", path.stem)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        if "name" not in config:
            problem = f"the study's name is that of its file, {brief(name)}"
            raise UserError(problem, at=path, expected=NAME_RULE, fix="Rename the file or add 'name:'")
        raise UserError(f"'name' is {brief(name)}", at=path, expected=NAME_RULE)
    variants = _mapping(config.get("variants"), f"{path}, variants")
    if not variants:
        raise UserError("'variants' is empty", at=path, expected="at least one")
    recipe = _train_arguments(config.get("recipe", {}), f"{path}, recipe")
    for_all = _block_training(config, str(path))
    models = [_variant(key, value, f"{path}, variant {brief(key)}", for_all) for key, value in variants.items()]
    names = [variant.name for variant in models]
    baseline = _one_of(config, "baseline", names[0], names, str(path))
    if "control" in config:
        base = next(variant for variant in models if variant.name == baseline)
        models.append(_control(config["control"], base, names, f"{path}, control"))
    sets = _datasets(config, path)
    common = Study(
        path=path,
        name=name,
        data="",
        pretrained=_pretrained(config.get("pretrained", False), str(path)),
        recipe=recipe,
        seeds=_seeds(config.get("seeds"), path),
        baseline=baseline,
        variants=tuple(models),
        pair_seeds=_flag(config, "pair_seeds", str(path)),
        pilot=_text(config, "pilot", "a report.json or its folder", str(path)) if "pilot" in config else "",
        hypothesis=" ".join(_text(config, "hypothesis", "a text", str(path)).split()) if "hypothesis" in config else "",
        smallest_difference=_smallest_difference(config, path),
    )
    several = len(sets) > 1
    return tuple(
        replace(
            common,
            dataset=key if several else "",
            data=_text(own, "data", "a dataset YAML, or a folder of classes", where),
            pretrained=_pretrained(own.get("pretrained", common.pretrained), where),
            recipe={**common.recipe, **_train_arguments(own.get("recipe", {}), f"{where}, recipe")},
        )
        for key, (own, where) in sets.items()
    )


def _datasets(config: Mapping[str, Any], path: Path) -> dict[str, tuple[Mapping[str, Any], str]]:
    """Return what the file says of each dataset by name, and where it says so."""
    if "datasets" not in config:
        data = config.get("data")
        listed: list[Any] = data if isinstance(data, list) else [data]
        if len(listed) == 1:
            return {"": ({"data": listed[0]}, str(path))}
        where = f"{path}, key 'data'"
        given = [(_stem(one, where), {"data": one}, where) for one in listed]
    elif "data" in config:
        raise UserError("both 'data' and 'datasets' are given", at=path, expected="one of them")
    else:
        named = _mapping(config["datasets"], f"{path}, datasets")
        given = [(key, value, f"{path}, dataset {brief(key)}") for key, value in named.items()]
    if not given:
        raise UserError("there is no dataset", at=path, expected="at least one")
    sets: dict[str, tuple[Mapping[str, Any], str]] = {}
    for key, value, where in given:
        if not isinstance(key, str) or not NAME.fullmatch(key) or key == REPORT:
            raise UserError(f"the name {brief(key)} cannot be that of a folder", at=where, expected=NAME_RULE)
        if key in sets:
            raise UserError(f"two datasets have the name '{key}'", at=where, fix="Name them with 'datasets:'")
        _check_keys(_mapping(value, where), DATASET_KEYS, where)
        sets[key] = value, where
    return sets


def _stem(data: Any, where: str) -> str:
    """Return the name of a dataset that is not named: that of its YAML."""
    return Path(_text({"data": data}, "data", "dataset YAMLs", where)).stem


def _smallest_difference(config: Mapping[str, Any], path: Path) -> float | None:
    value = config.get("smallest_difference")
    if "smallest_difference" in config and not (is_number(value) and 0 < value < 100):
        expected = "points of the main metric, between 0 and 100"
        raise UserError(f"'smallest_difference' is {brief(value)}", at=path, expected=expected)
    return value


def _find(study: str | Path) -> Path:
    path = Path(study)
    found = path if path.exists() or path.name != str(study) else shipped(path.name, STUDIES)
    if found is None or not found.exists():
        names = shipped_names(STUDIES)
        raise UserError(
            f"there is no file '{study}'",
            expected=f"a study file, or the name of a shipped one: {', '.join(names)}",
            similar=similar(path.stem, [Path(name).stem for name in names]) and similar(path.name, names),
        )
    return found


def _variant(name: Any, value: Any, where: str, common: dict[str, Any]) -> Variant:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError("the name cannot be that of a folder", at=where, expected=NAME_RULE)
    if name == CONTROL:
        raise UserError("the name is reserved for the variant of 'control:'", at=where, expected="another name")
    config = _mapping(value, where)
    _check_keys(config, VARIANT_KEYS, where)
    overrides = _overrides(config, where)
    block_training = {**common, **_block_training(config, where)}
    if ("model" in config) == ("base" in config):
        both = "both 'model' and 'base' are given" if "model" in config else "neither 'model' nor 'base' is given"
        raise UserError(both, at=where, expected="'model' (a YAML), or 'base', 'block' and 'at' (a block to place)")
    if "model" in config:
        for key in config.keys() - {"model", "overrides", *BLOCK_KEYS}:
            raise UserError(f"'{key}' is given with 'model'", at=where, expected="it with 'base'")
        return Variant(
            name, _text(config, "model", "a model YAML", where), overrides=overrides, block_training=block_training
        )
    args = config.get("args", [])
    needed = "block" in config or not str(config.get("at")).startswith("remove ")  # `at: remove C2PSA` places none
    return Variant(
        name,
        _text(config, "base", "a model YAML", where),
        block=_text(config, "block", "the name of a block, see `gam-yolo blocks`", where) if needed else "",
        at=_text(config, "at", "where to place the block, such as neck", where),
        args=args if isinstance(args, list) else [args],
        feeds=_one_of(config, "feeds", "all", ["all", "next"], where),
        overrides=overrides,
        block_training=block_training,
    )


def _block_training(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check the keys that the models of variants with blocks get, and return those given."""
    BlockTraining.of(config, where)
    return {key: literal(config[key]) for key in BLOCK_KEYS if key in config}


def _control(value: Any, base: Variant, names: list[str], where: str) -> Variant:
    config = _mapping(value, where)
    _check_keys(config, CONTROL_KEYS, where)
    others = [name for name in names if name != base.name]
    match_cost = _one_of(config, "match_cost", None, others, where)
    overrides = _overrides(config, where)
    if base.at:
        raise UserError(f"the baseline '{base.name}' has a block", at=where, expected="a plain 'model' to widen")
    return Variant(CONTROL, base.model, match_cost=match_cost, overrides={**base.overrides, **overrides})


def _overrides(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the train arguments of a variant alone."""
    overrides = _train_arguments(config.get("overrides", {}), f"{where}, overrides")
    if "imgsz" in overrides:
        fix = "Give it in the recipe: the report compares all variants at one size"
        raise UserError("'imgsz' cannot be given here", at=f"{where}, overrides", fix=fix)
    return overrides


def _train_arguments(value: Any, where: str) -> dict[str, Any]:
    """Check names and types by Ultralytics' own rules."""
    defaults = ultralytics_api.default_arguments()
    numeric = {key for key, default in defaults.items() if is_number(default)}
    # YAML 1.1 reads `1e-3` as text.
    arguments = {key: literal(v) if key in numeric else v for key, v in _mapping(value, where).items()}
    for key in arguments:
        if key in OWN_TRAIN_KEYS:
            raise UserError(f"'{key}' cannot be given here", at=where, fix=OWN_TRAIN_KEYS[key])
    _check_keys(arguments, [key for key in defaults if key not in OWN_TRAIN_KEYS], where)
    try:
        ultralytics_api.validated_arguments(arguments)
    except (TypeError, ValueError, SyntaxError, AssertionError) as error:
        raise UserError(str(error).partition("\n")[0], at=where) from None
    size = arguments.get("imgsz", 640)
    if not all(type(pixels) is int for pixels in (size if isinstance(size, list) else [size])) or size == []:
        raise UserError(f"'imgsz' is {brief(size)}", at=where, expected="a whole number of pixels")
    batch = arguments.get("batch", 16)
    if type(batch) is not int or batch < 1:
        expected = "a whole number of images from 1, as Ultralytics would choose another batch for each model"
        raise UserError(f"'batch' is {brief(batch)}", at=where, expected=expected)
    return arguments


def _pretrained(value: Any, where: str) -> str | bool:
    if value is False or (isinstance(value, str) and value.endswith(".pt") and "\0" not in value):
        return value
    expected = "a checkpoint (.pt), or false to train from scratch"
    raise UserError(f"'pretrained' is {brief(value)}", at=where, expected=expected)


def _seeds(value: Any, path: Path) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(type(seed) is int and 0 <= seed < 2**31 for seed in value)
    if not whole or not value or len(set(value)) < len(value):
        expected = "different whole numbers from 0, such as [0, 1, 2]"
        raise UserError(f"'seeds' is {brief(value)}", at=path, expected=expected)
    return tuple(value)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"is {brief(value)}", at=where, expected="a mapping")
    return value


def _check_keys(config: Mapping[Any, Any], keys: Iterable[str], where: str) -> None:
    keys = list(keys)
    for key in config:
        if key not in keys:
            shown = f"one of {', '.join(keys)}" if len(keys) < 40 else "a train argument of Ultralytics"
            places = {"the study file": KEYS, "a variant": VARIANT_KEYS, "recipe": ultralytics_api.default_arguments()}
            place = next((place for place, known in places.items() if key in known), "")
            raise UserError(
                f"there is no key {brief(key)}",
                at=where,
                expected=shown,
                fix=f"It is a key of {place}" if place else "",
                similar="" if place else similar(str(key), keys),
            )


def _one_of(config: Mapping[str, Any], key: str, default: Any, names: list[str], where: str) -> str:
    value = config.get(key, default)
    if value not in names:
        raise UserError(
            f"'{key}' is {brief(value)}",
            at=where,
            expected=f"one of {', '.join(names)}",
            similar=similar(str(value), names),
        )
    return str(value)


def _flag(config: Mapping[str, Any], key: str, where: str) -> bool:
    value = config.get(key, False)
    if not isinstance(value, bool):
        raise UserError(f"'{key}' is {brief(value)}", at=where, expected="true or false")
    return value


def _text(config: Mapping[str, Any], key: str, expected: str, where: str) -> str:
    value = config.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # `at: 15`
    if not isinstance(value, str) or not value or "\0" in value:  # which no name of a file can hold
        raise UserError(f"'{key}' is {brief(value)}", at=where, expected=expected)
    return value
