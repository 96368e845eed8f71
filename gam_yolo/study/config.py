"""Read a study file: data, recipe, seeds and variants, every key checked before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError, brief, nearest
from gam_yolo.io import read_yaml

__all__ = ["CONTROL", "Study", "Variant", "read_study"]

CONTROL = "control"
"""The name of the variant that `control:` adds."""

KEYS = ("name", "data", "pretrained", "recipe", "seeds", "baseline", "variants", "control")
VARIANT_KEYS = ("model", "base", "block", "at", "args", "feeds", "overrides")
CONTROL_KEYS = ("match_cost", "overrides")
# What the study itself sets for each run, or what would make a run something else than a training.
OWN_TRAIN_KEYS = {
    **dict.fromkeys(("model", "data", "seed", "pretrained"), "the study file has a key of its own for it"),
    **dict.fromkeys(("project", "name", "exist_ok", "save_dir", "resume", "save"), "the study decides it"),
    **dict.fromkeys(("mode", "task", "cfg"), "a study trains detectors"),
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Variant:
    """One model of a study.

    Attributes:
        name: What folders and tables call it.
        model: The model YAML, or the YAML that a block is placed in.
        block: The block to place, or an empty string.
        at: Where to place it, as `gam-yolo place --at`.
        args: The arguments of the block's row.
        feeds: Who reads the block, as `gam-yolo place --feeds`.
        match_cost: The variant whose GFLOPs this one is widened to, or an empty string.
        overrides: Train arguments of this variant alone.
    """

    name: str
    model: str
    block: str = ""
    at: str = ""
    args: list[Any] = field(default_factory=list)
    feeds: str = "all"
    match_cost: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """What a study file says.

    Attributes:
        path: The file.
        name: What the study's folder is called.
        data: The dataset YAML, as Ultralytics' `data=` takes it.
        pretrained: A checkpoint to take weights from, or False.
        recipe: Train arguments of all variants.
        seeds: One training of each variant for each of these.
        baseline: The variant that the others are compared with.
        variants: In the order of the file; the cost-matched control is the last.
    """

    path: Path
    name: str
    data: str
    pretrained: str | bool
    recipe: dict[str, Any]
    seeds: tuple[int, ...]
    baseline: str
    variants: tuple[Variant, ...]


def read_study(path: Path) -> Study:
    """Read and check a study file.

    Raises:
        UserError: The file cannot be read, is no YAML, or a key or value in it is not what it should be.
    """
    config = _mapping(read_yaml(path, "a study file"), str(path))
    _known(config, KEYS, str(path))
    name = config.get("name", path.stem)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(f"{path}: 'name' is {brief(name)}, expected letters, digits, '.', '_' or '-'")
    recipe = _train_arguments(config.get("recipe", {}), f"{path}: recipe")
    variants = _mapping(config.get("variants"), f"{path}: 'variants'")
    if not variants:
        raise UserError(f"{path}: 'variants' is empty, expected at least one")
    models = [_variant(key, value, f"{path}: variants: {brief(key)}") for key, value in variants.items()]
    names = [variant.name for variant in models]
    baseline = _one_of(config.get("baseline", names[0]), names, f"{path}: 'baseline'")
    if "control" in config:
        base = next(variant for variant in models if variant.name == baseline)
        models.append(_control(config["control"], base, names, str(path)))
    return Study(
        path=path,
        name=name,
        data=_text(config.get("data"), f"{path}: 'data'", "a dataset YAML"),
        pretrained=_pretrained(config.get("pretrained", False), f"{path}: 'pretrained'"),
        recipe=recipe,
        seeds=_seeds(config.get("seeds"), f"{path}: 'seeds'"),
        baseline=baseline,
        variants=tuple(models),
    )


def _variant(name: Any, value: Any, where: str) -> Variant:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(f"{where}: expected a name of letters, digits, '.', '_' or '-'")
    if name == CONTROL:
        raise UserError(f"{where}: the name is kept for what 'control:' adds, expected another")
    config = _mapping(value, where)
    _known(config, VARIANT_KEYS, where)
    overrides = _train_arguments(config.get("overrides", {}), f"{where}: overrides")
    if ("model" in config) == ("base" in config):
        raise UserError(f"{where}: expected either 'model' (a YAML) or 'base', 'block' and 'at' (a block to place)")
    if "model" in config:
        for key in config.keys() - {"model", "overrides"}:
            raise UserError(f"{where}: '{key}' goes with 'base', not with 'model'")
        return Variant(name, _text(config["model"], f"{where}: 'model'", "a model YAML"), overrides=overrides)
    args = config.get("args", [])
    return Variant(
        name,
        _text(config["base"], f"{where}: 'base'", "a model YAML"),
        block=_text(config.get("block"), f"{where}: 'block'", "the name of a block, see `gam-yolo blocks`"),
        at=str(_text(config.get("at"), f"{where}: 'at'", "where to place the block, such as neck")),
        args=args if isinstance(args, list) else [args],
        feeds=_one_of(config.get("feeds", "all"), ["all", "next"], f"{where}: 'feeds'"),
        overrides=overrides,
    )


def _control(value: Any, base: Variant, names: list[str], path: str) -> Variant:
    where = f"{path}: control"
    config = _mapping(value, where)
    _known(config, CONTROL_KEYS, where)
    others = [name for name in names if name != base.name]
    match_cost = _one_of(config.get("match_cost"), others, f"{where}: 'match_cost'")
    overrides = _train_arguments(config.get("overrides", {}), f"{where}: overrides")
    if base.block:
        raise UserError(f"{where}: the baseline '{base.name}' has a block, expected a plain 'model' to widen")
    return Variant(CONTROL, base.model, match_cost=match_cost, overrides={**base.overrides, **overrides})


def _train_arguments(value: Any, where: str) -> dict[str, Any]:
    """Check names and types by Ultralytics' own rules."""
    arguments = _mapping(value, where)
    for key in arguments:
        if key in OWN_TRAIN_KEYS:
            raise UserError(f"{where}: '{key}' cannot be given here, {OWN_TRAIN_KEYS[key]}")
    _known(arguments, [key for key in ultralytics_api.default_arguments() if key not in OWN_TRAIN_KEYS], where)
    try:
        ultralytics_api.validated_arguments(dict(arguments))
    except (TypeError, ValueError, SyntaxError, AssertionError) as error:
        raise UserError(f"{where}: {str(error).partition(chr(10))[0]}") from None
    return dict(arguments)


def _pretrained(value: Any, where: str) -> str | bool:
    if value is False or (isinstance(value, str) and value.endswith(".pt")):
        return value
    raise UserError(f"{where} is {brief(value)}, expected a checkpoint (.pt), or false to train from scratch")


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(type(seed) is int and 0 <= seed < 2**31 for seed in value)
    if not whole or not value or len(set(value)) < len(value):
        raise UserError(f"{where} is {brief(value)}, expected different whole numbers from 0, such as [0, 1, 2]")
    return tuple(value)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} is {brief(value)}, expected a mapping")
    return value


def _known(config: Mapping[Any, Any], keys: Iterable[str], where: str) -> None:
    keys = list(keys)
    for key in config:
        if key not in keys:
            shown = (
                f", expected one of {', '.join(keys)}" if len(keys) < 12 else ", which Ultralytics does not train by"
            )
            raise UserError(f"{where}: there is no key {brief(key)}{nearest(str(key), keys) or shown}")


def _one_of(value: Any, names: list[str], where: str) -> str:
    if value not in names:
        raise UserError(f"{where} is {brief(value)}, expected one of {', '.join(names)}{nearest(str(value), names)}")
    return str(value)


def _text(value: Any, where: str, what: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # `at: 15`
    if not isinstance(value, str) or not value:
        raise UserError(f"{where} is {brief(value)}, expected {what}")
    return value
