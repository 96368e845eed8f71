"""A study file is checked whole before anything is trained, and what is wrong is told in one sentence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from gam_yolo.errors import UserError
from gam_yolo.study.config import read_study


def test_every_shipped_study_file_reads(root: Path) -> None:
    files = sorted((root / "cfg" / "studies").glob("*.yaml"))
    assert files
    for file in files:
        study = read_study(file)
        assert study.baseline in {variant.name for variant in study.variants}


def test_a_control_is_the_baseline_with_a_cost_to_match(content: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({**content, "control": {"match_cost": "gam"}}, sort_keys=False))
    study = read_study(file)
    assert study.variants[-1].name == "control"
    assert study.variants[-1].model == study.variants[0].model
    assert study.variants[-1].match_cost == "gam"


BAD: dict[str, tuple[list[str], Any, str]] = {
    "unknown key": (["sedes"], [1], r"there is no key 'sedes'; did you mean 'seeds'\?"),
    "unknown train argument": (["recipe", "epoch"], 3, r"recipe: there is no key 'epoch'; did you mean 'epochs'\?"),
    "wrong type": (["recipe", "epochs"], "many", r"recipe: .*epochs"),
    "the study's own": (["recipe", "seed"], 3, r"recipe: 'seed' cannot be given here"),
    "seeds twice": (["seeds"], [1, 1], r"'seeds' is \[1, 1\], expected different whole numbers"),
    "no seeds": (["seeds"], None, r"'seeds' is None"),
    "pretrained": (["pretrained"], True, r"'pretrained' is True, expected a checkpoint"),
    "baseline": (["baseline"], "plane", r"'baseline' is 'plane', expected one of plain, gam; did you mean 'plain'\?"),
    "both": (["variants", "gam", "model"], "yolov8n.yaml", r"variants: 'gam': expected either 'model' .* or 'base'"),
    "no place": (["variants", "gam", "at"], None, r"variants: 'gam': 'at' is None, expected where"),
    "variant's key": (["variants", "gam", "blok"], 1, r"there is no key 'blok'; did you mean 'block'\?"),
    "variant's name": (["variants", "../x"], {"model": "a.yaml"}, r"variants: '../x': expected a name of letters"),
    "no variants": (["variants"], {}, r"'variants' is empty"),
    "control": (["control"], {"match_cost": "plain"}, r"'match_cost' is 'plain', expected one of gam"),
    "name": (["name"], "a/b", r"'name' is 'a/b', expected letters"),
    "no data": (["data"], None, r"'data' is None, expected a dataset YAML"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_with_file_key_and_nearest_name(
    case: str, content: dict[str, Any], tmp_path: Path
) -> None:
    keys, value, message = BAD[case]
    content = copy.deepcopy(content)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(UserError, match=message) as error:
        read_study(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[1, 2]", "", "a: [", "a: !!python/object/apply:os.system ['exit 1']", "\0"])
def test_what_is_no_study_file_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml"):
        read_study(file)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read"):
        read_study(tmp_path / "none.yaml")
