"""A study file is checked completely before anything is trained, and a mistake is a one-line error."""

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
    "unknown key": (["sedes"], [1], r": there is no key 'sedes'\. Expected one of name, data.*Did you mean 'seeds'\?"),
    "unknown train argument": (
        ["recipe", "epoch"],
        3,
        r", recipe: there is no key 'epoch'\..* Did you mean 'epochs'\?",
    ),
    "wrong type": (["recipe", "epochs"], "many", r"recipe: .*epochs"),
    "a word for a size": (["recipe", "imgsz"], "~", r"recipe: 'imgsz' is '~'\. Expected a whole number of pixels"),
    "no size": (["recipe", "imgsz"], [], r"recipe: 'imgsz' is \[\]\. Expected a whole number of pixels"),
    "the study's own": (["recipe", "seed"], 3, r"recipe: 'seed' cannot be given here\. The study file has its own key"),
    "hours": (["recipe", "time"], 0.5, r"recipe: 'time' cannot be given here\. A result must not depend on how fast"),
    "a batch that each model chooses": (["recipe", "batch"], -1, r"recipe: 'batch' is -1\. Expected a whole number of"),
    "a batch as a share of the memory": (
        ["recipe", "batch"],
        0.7,
        r"recipe: 'batch' is 0\.7\. Expected a whole number",
    ),
    "seeds twice": (["seeds"], [1, 1], r"'seeds' is \[1, 1\]\. Expected different whole numbers"),
    "no seeds": (["seeds"], None, r"'seeds' is None"),
    "pretrained": (["pretrained"], True, r"'pretrained' is True\. Expected a checkpoint"),
    "baseline": (["baseline"], "plane", r"'baseline' is 'plane'\. Expected one of plain, gam\. Did you mean 'plain'\?"),
    "both": (
        ["variants", "gam", "model"],
        "yolov8n.yaml",
        r"variant 'gam': both 'model' and 'base' are given\. Expected 'model' .* or 'base'",
    ),
    "one class for all": (
        ["recipe", "single_cls"],
        True,
        r"'single_cls' cannot be given here\. The report scores all cl",
    ),
    "some classes": (
        ["recipe", "classes"],
        [0],
        r"recipe: 'classes' cannot be given here\. The report scores all classes",
    ),
    "another split": (["recipe", "split"], "test", r"recipe: 'split' cannot be given here\. The report is on 'val'"),
    "a size of its own": (
        ["variants", "gam", "overrides"],
        {"imgsz": 96},
        r"variant 'gam', overrides: 'imgsz' cannot be given here\. Give it in the recipe",
    ),
    "no place": (["variants", "gam", "at"], None, r"variant 'gam': 'at' is None\. Expected where"),
    "key of the file in the recipe": (
        ["recipe", "block_lr"],
        10,
        r"recipe: there is no key 'block_lr'\..* key of the study file\.",
    ),
    "train argument in the file": (["imgsz"], 64, r": there is no key 'imgsz'\..* It is a key of recipe\."),
    "variant's key": (["variants", "gam", "blok"], 1, r"there is no key 'blok'\..* Did you mean 'block'\?"),
    "variant's name": (
        ["variants", "../x"],
        {"model": "a.yaml"},
        r"variant '\.\./x': the name cannot be that of a folder\. Expected letters",
    ),
    "no variants": (["variants"], {}, r"'variants' is empty"),
    "control": (["control"], {"match_cost": "plain"}, r"'match_cost' is 'plain'\. Expected one of gam"),
    "name": (["name"], "a/b", r"'name' is 'a/b'\. Expected letters"),
    "no data": (["data"], None, r"'data' is None\. Expected a dataset YAML"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_reported_with_file_key_and_nearest_name(
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
def test_a_file_of_another_kind_is_rejected(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml"):
        read_study(file)


def test_a_number_that_yaml_reads_as_text_is_a_number(content: dict[str, Any], tmp_path: Path) -> None:
    content = {**content, "recipe": {**content["recipe"], "lr0": "1e-3"}}  # a copy: other tests use the content too
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(content).replace("'1e-3'", "1e-3"))
    assert "lr0: 1e-3\n" in file.read_text()
    assert read_study(file).recipe["lr0"] == 0.001


def test_a_file_name_that_cannot_be_the_studys_says_so(content: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "my study.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in content.items() if key != "name"}))
    with pytest.raises(UserError, match=r"that of its file, 'my study'\. .* Rename the file or add 'name:'\.$"):
        read_study(file)


def test_a_missing_file_is_not_taken_for_a_shipped_one() -> None:
    with pytest.raises(UserError, match=r"there is no file 'nope\.yaml'\. .*voc\.yaml\.$"):
        read_study("nope.yaml")


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file '.*none\.yaml'"):
        read_study(tmp_path / "none.yaml")


def test_a_shipped_study_is_found_by_bare_name_unless_a_file_of_that_name_is_here(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_study("demo.yaml").name == "demo"
    with pytest.raises(
        UserError, match=r"'demos\.yaml'\. Expected .* shipped .*voc\.yaml\. Did you mean 'demo\.yaml'\?"
    ):
        read_study("demos.yaml")
    Path("demo.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert read_study("demo.yaml").name == "tiny"
