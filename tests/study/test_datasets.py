"""Studies of several datasets: the file, the plan, and one from its start to the summary."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gam_yolo.datasets import prepare
from gam_yolo.errors import UserError
from gam_yolo.report.overall import StudyResult
from gam_yolo.report.result import Comparison
from gam_yolo.study.config import read_studies, read_study
from gam_yolo.study.run import plan_study, run_study

from .helpers import COMMAND, PATIENCE, until

SIZES = {"train": 24, "val": 16}
ORDER = ("plain", "gam", "control")


@pytest.fixture(scope="module")
def real(root: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Dataset YAMLs of a few images of BCCD and of NEU-DET, prepared."""
    folder, files = tmp_path_factory.mktemp("real"), {}
    for name, source in (("bccd", "BCCD"), ("neu", "NEU-DET")):
        (folder / source / "ImageSets" / "Main").mkdir(parents=True)
        for part in ("Annotations", "JPEGImages"):
            (folder / source / part).symlink_to(shared / "data" / source / part)
        for split, size in SIZES.items():
            names = (shared / "data" / source / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
            chosen = names[:: len(names) // size][:size]
            (folder / source / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(chosen))
        content = yaml.safe_load((root / "data" / f"{name}-local.yaml").read_text())
        content |= {"source": str(folder / source), "path": str(folder / "ready" / name)}
        content.pop("test", None)
        files[name] = folder / f"{name}.yaml"
        files[name].write_text(yaml.safe_dump(content, sort_keys=False))
        prepare(files[name])
    return files


@pytest.fixture
def content(real: dict[str, Path], shared: Path) -> dict[str, Any]:
    """A study file of both, two variants and two seeds."""
    recipe = {"epochs": 1, "batch": 4, "nbs": 4, "optimizer": "AdamW", "lr0": 0.002, "warmup_epochs": 0}
    return {
        "name": "two",
        "datasets": {
            "bccd": {"data": str(real["bccd"]), "recipe": {"imgsz": 96}},
            "neu": {"data": str(real["neu"])},
        },
        "pretrained": str(shared / "weights" / "yolov8n.pt"),
        "seeds": [0, 1],
        "hypothesis": "ECA gains\n  nothing",
        "smallest_difference": 1,
        "recipe": {**recipe, "imgsz": 64, "mosaic": 0.0, "close_mosaic": 0, "plots": False, "device": "cpu"},
        "variants": {
            "plain": {"model": "yolov8n.yaml"},
            "eca": {"base": "yolov8n.yaml", "block": "ECA", "at": "p5"},
        },
    }


Write = Callable[[dict[str, Any]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a study file."""

    def written(content: dict[str, Any]) -> Path:
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        return file

    return written


def test_a_killed_study_of_two_data_sets_ends_in_reports_and_a_summary(
    content: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    file, folder = write(content), tmp_path / "two"
    command = [*COMMAND, str(file), "--project", str(tmp_path), "--workers", "2"]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until(lambda: len(list(folder.glob("*/*/finished.json"))) > 2, killed)
    killed.kill()
    killed.communicate()
    finished = {mark: mark.stat().st_mtime_ns for mark in folder.glob("*/*/finished.json")}
    resumed = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    assert resumed.returncode == 0, resumed.stdout
    assert len(finished) < 8
    assert len(list(folder.glob("*/*/finished.json"))) == 8
    assert all(mark.stat().st_mtime_ns == before for mark, before in finished.items())

    summary = StudyResult.load(folder / "report" / "report.json")
    assert list(summary.datasets) == ["bccd", "neu"]
    for name, own in summary.datasets.items():
        assert own == Comparison.load(folder / name / "report" / "report.json")
        assert [len(variant.runs) for variant in own.variants.values()] == [2, 2]
        assert own.variants["eca"].minus("plain")["AP"].verdict is not None
        assert own.notes[:2] == summary.notes[:2]
    assert [own.protocol.imgsz for own in summary.datasets.values()] == [96, 64]
    assert summary.notes[0].endswith(": ECA gains nothing")
    assert summary.notes[1] == "The smallest difference of interest is 1 point."
    overall = summary.overall["eca"]["plain"]
    assert overall.verdict == "no detectable difference"
    assert overall.datasets == ("bccd", "neu")
    found = [own.variants["eca"].minus("plain")["AP"].value or 0.0 for own in summary.datasets.values()]
    assert overall.value == pytest.approx(sum(found) / 2)
    page = (folder / "report" / "report.html").read_text()
    for name, own in summary.datasets.items():
        (link,) = (part for part in page.split('"') if part.startswith(f"../{name}/"))
        assert (folder / "report" / link).is_file()
        assert own.headline in page
    assert " ".join(summary.headline.split()) in " ".join(resumed.stdout.split())
    specs = [yaml.safe_load((mark.parent / "run.json").read_text()) for mark in finished]
    assert {spec["study"] for spec in specs} <= {"two-bccd", "two-neu"}

    again = run_study(file, project=tmp_path, only=["bccd/eca-s1"])  # nothing is left to train
    assert isinstance(again, StudyResult)
    assert (again.overall, again.headline) == (summary.overall, summary.headline)
    marks = list(folder.glob("neu/*/finished.json"))
    for mark in marks:
        mark.unlink()
    said: list[str] = []
    assert run_study(file, project=tmp_path, only=["bccd"], progress=said.append) is None
    assert said[-1] == "no summary yet: it needs the reports of two datasets"


def test_runs_are_planned_seed_by_seed_and_chosen_by_data_set(
    content: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    content["datasets"]["neu"] |= {"pretrained": False}
    content["control"] = {"match_cost": "gam"}
    content["variants"] = {
        "plain": {"model": "yolov8n.yaml"},
        "gam": {"base": "yolov8n.yaml", "block": "GAM", "at": "p5"},
    }
    file = write(content)
    plan = plan_study(file, project=tmp_path)
    names = [f"{name}/{variant}-s{seed}" for seed in (0, 1) for name in ("bccd", "neu") for variant in ORDER]
    assert [run.name for run in plan.runs] == names
    for name in ("bccd", "neu"):  # of other classes and another size: each has its own control
        assert plan.gflops[f"{name}/control"] == pytest.approx(plan.gflops[f"{name}/gam"], rel=0.01)
    assert plan.gflops["bccd/gam"] > 1.5 * plan.gflops["neu/gam"]
    assert [note.partition(":")[0] for note in plan.notes] == ["bccd/control", "neu/control"]
    assert [run.train["pretrained"] for run in plan.runs[::3]] == [
        str(Path(content["pretrained"]).resolve()),
        False,
    ] * 2
    assert {run.folder.path.parent for run in plan.runs} == {tmp_path / "two" / name for name in ("bccd", "neu")}

    def chosen(*only: str) -> list[str]:
        return [run.name for run in plan.only(only).runs]

    assert chosen("neu") == [name for name in names if name.startswith("neu/")]
    assert chosen("gam-s1") == ["bccd/gam-s1", "neu/gam-s1"]
    assert chosen("neu/gam") == ["neu/gam-s0", "neu/gam-s1"]
    assert chosen("bccd/*-s1", "neu/gam-s0") == ["neu/gam-s0", *(f"bccd/{variant}-s1" for variant in ORDER)]
    with pytest.raises(UserError, match=r"no run of the study matches 'neo'.*Did you mean 'neu'\?"):
        plan.only(["neo"])


@pytest.mark.usefixtures("uncounted")
def test_one_data_set_is_planned_alike_however_it_is_written(
    content: dict[str, Any], real: dict[str, Path], write: Write, tmp_path: Path
) -> None:
    del content["datasets"], content["hypothesis"], content["smallest_difference"]
    plain = plan_study(write({**content, "data": str(real["neu"])}), project=tmp_path)
    assert plain.runs[0].name == "plain-s0"
    assert plain.runs[0].folder.path.parent == tmp_path / "two"
    listed = plan_study(write({**content, "data": [str(real["neu"])]}), project=tmp_path)
    named = plan_study(write({**content, "datasets": {"x": {"data": str(real["neu"])}}}), project=tmp_path)
    assert plain == listed == named
    both = plan_study(write({**content, "data": [str(file) for file in real.values()]}), project=tmp_path)
    of_neu = [run for run in both.runs if run.dataset == "neu"]
    assert [run.folder.path.name for run in of_neu] == [run.folder.path.name for run in plain.runs]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": ["a/x.yaml", "b/x.yaml"]},
            r"key 'data': two datasets have the name 'x'\. Name them with 'datasets:'",
        ),
        ({"data": ["a.yaml", 3.5]}, r"key 'data': 'data' is 3\.5\. Expected dataset YAMLs"),
        ({"data": []}, r": there is no dataset\. Expected at least one"),
        ({"data": "a.yaml", "datasets": {"x": {"data": "a.yaml"}}}, r"both 'data' and 'datasets' are given"),
        ({"datasets": {}}, r": there is no dataset\. Expected at least one"),
        ({"datasets": ["a.yaml"]}, r", datasets: is \['a\.yaml'\]\. Expected a mapping"),
        ({"datasets": {"x": {"dota": "a.yaml"}}}, r"dataset 'x': there is no key 'dota'\..*Did you mean 'data'\?"),
        ({"datasets": {"x": {}}}, r"dataset 'x': 'data' is None\. Expected a dataset YAML"),
        ({"datasets": {"x": {"data": "a.yaml", "recipe": {"epoch": 2}}}}, r"'x', recipe: .*Did you mean 'epochs'\?"),
        ({"datasets": {"x": {"data": "a.yaml", "pretrained": 1}}}, r"dataset 'x': 'pretrained' is 1\."),
        ({"datasets": {"../x": {"data": "a.yaml"}}}, r"dataset '\.\./x': the name .* cannot be that of a folder"),
        ({"datasets": {"report": {"data": "a.yaml"}}}, r"the name 'report' cannot be that of a folder"),
        ({"data": "a.yaml", "hypothesis": 3.5}, r"'hypothesis' is 3\.5\. Expected a text"),
        ({"data": "a.yaml", "smallest_difference": -1}, r"'smallest_difference' is -1\. Expected points"),
    ],
)
def test_a_mistake_in_the_data_sets_is_one_line(change: dict[str, Any], message: str, write: Write) -> None:
    file = write({"seeds": [0], "variants": {"plain": {"model": "yolov8n.yaml"}}, **change})
    with pytest.raises(UserError, match=message) as error:
        read_studies(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_a_file_of_several_data_sets_is_not_read_as_one(write: Write) -> None:
    file = write({"data": ["a.yaml", "b.yaml"], "seeds": [0], "variants": {"plain": {"model": "yolov8n.yaml"}}})
    with pytest.raises(UserError, match=r"has 2 datasets\. Expected one"):
        read_study(file)
    assert [study.dataset for study in read_studies(file)] == ["a", "b"]


@pytest.mark.usefixtures("uncounted")
def test_data_that_cannot_be_prepared_ends_the_study_before_its_first_training(
    content: dict[str, Any], real: dict[str, Path], write: Write, tmp_path: Path
) -> None:
    bad = yaml.safe_load(real["neu"].read_text()) | {"source": str(tmp_path / "nowhere"), "path": str(tmp_path / "set")}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(bad, sort_keys=False))
    content["datasets"]["neu"]["data"] = str(tmp_path / "bad.yaml")
    with pytest.raises(UserError, match=r"study\.yaml, dataset 'neu': .*nowhere"):
        run_study(write(content), project=tmp_path)
    assert not list((tmp_path / "two").glob("*/*/run.json"))
