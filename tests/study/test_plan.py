"""What identifies a run, what a plan says about it, and what a dry run leaves alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from gam_yolo.errors import UserError
from gam_yolo.study.config import Study
from gam_yolo.study.folder import RunFolder, StudyFolder
from gam_yolo.study.plan import Plan, plan
from gam_yolo.study.run import plan_study, run_study

from .helpers import COMMAND

Write = Callable[[dict[str, Any]], Study]


@pytest.fixture
def own(content: dict[str, Any], data: Path, tmp_path: Path) -> dict[str, Any]:
    """The study with one variant, on a copy of the dataset that may be changed."""
    plan_data = yaml.safe_load(data.read_text())
    source = Path(plan_data["path"])
    if not source.is_dir():  # rendered when a study is first planned
        from gam_yolo import ultralytics_api

        ultralytics_api.load_dataset_yaml(str(data), download=True)
    shutil.copytree(source, tmp_path / "set")
    file = tmp_path / "own.yaml"
    kept = {key: plan_data[key] for key in ("names", "train", "val")}
    file.write_text(yaml.safe_dump({**kept, "path": str(tmp_path / "set")}, sort_keys=False))
    return {**content, "data": str(file), "variants": {"plain": {"model": "yolov8n.yaml"}}}


@pytest.mark.usefixtures("uncounted")
def test_keys_for_the_blocks_are_in_the_models_that_have_blocks(
    content: dict[str, Any], study_of: Write, tmp_path: Path
) -> None:
    variants = {
        "plain": {"model": "yolov8n.yaml"},
        "gam": {"base": "yolov8n.yaml", "block": "GAM", "at": "p5"},
        "mine": {"model": "yolov8n-gam.yaml", "block_lr": "1e1", "block_epochs": 2},
    }
    before = plan(study_of({**content, "variants": variants}), StudyFolder(tmp_path / "study"))
    after = plan(study_of({**content, "variants": variants, "block_lr": 3}), StudyFolder(tmp_path / "study"))
    keys = [[yaml.safe_load(run.model).get(key) for key in ("block_lr", "block_epochs")] for run in after.runs]
    assert keys == [[None, None], [3, None], [10.0, 2]]
    same = [run.folder.path == other.folder.path for run, other in zip(before.runs, after.runs, strict=True)]
    assert same == [True, False, True]
    for place in ("block_lr", "block_epochs"):
        variants["mine"][place] = -1
        with pytest.raises(UserError, match=rf"study\.yaml, variant 'mine': {place} is -1\. Expected a"):
            study_of({**content, "variants": variants})
        variants["mine"][place] = 1


def planned(own: dict[str, Any], study_of: Write, tmp_path: Path) -> Plan:
    return plan(study_of(own), StudyFolder(tmp_path / "study"))


def an_image(own: dict[str, Any]) -> Path:
    return sorted(Path(own["data"]).parent.glob("set/images/train/*"))[0]


def replace_image(own: dict[str, Any]) -> None:
    """By another one of equal size and modification time, as `rsync -t` or `cp -p` may."""
    image = an_image(own)
    stat, content = image.stat(), image.read_bytes()
    image.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def edit_label(own: dict[str, Any]) -> None:
    """To another class of as many digits."""
    (label,) = Path(own["data"]).parent.glob(f"set/labels/train/{an_image(own).stem}.txt")
    stat, text = label.stat(), label.read_text()
    label.write_text(str((int(text[0]) + 1) % 6) + text[1:])
    os.utime(label, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def rename_class(own: dict[str, Any]) -> None:
    file = Path(own["data"])
    file.write_text(file.read_text().replace("0:", "0: other-", 1))


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "image": (replace_image, "data: train images"),
    "label": (edit_label, "data: train labels"),
    "class name": (rename_class, "data: names"),
    "variable": (lambda _: os.environ.update(ATEN_CPU_CAPABILITY="default"), "ATEN_CPU_CAPABILITY was not set and is"),
    "recipe": (lambda own: own["recipe"].update(lr0=0.5), "train: lr0 was 0.01 and is 0.5"),
    "model": (lambda own: own["variants"].update(plain={"model": "yolov8s.yaml"}), "changed: model"),
}


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_result_is_a_new_run_and_the_plan_says_what_changed(
    change: str, own: dict[str, Any], study_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    own = {**own, "recipe": dict(own["recipe"])}
    first = planned(own, study_of, tmp_path)
    assert not first.notes
    (run,) = first.runs
    run.lay_out()
    again = planned(own, study_of, tmp_path)
    assert again.runs[0].folder == run.folder
    assert not again.notes

    make, words = CHANGES[change]
    make(own)
    other = planned(own, study_of, tmp_path)
    assert other.runs[0].folder != run.folder
    (note,) = other.notes
    assert note.startswith(f"plain-s3: is trained as a new run. Since {run.folder.path.name}, this has changed: ")
    assert words in note
    other.runs[0].lay_out()
    assert not planned(own, study_of, tmp_path).notes  # said once


@pytest.mark.usefixtures("uncounted")
def test_a_set_that_moved_is_the_same(own: dict[str, Any], study_of: Write, tmp_path: Path) -> None:
    before = planned(own, study_of, tmp_path).runs[0].folder
    (tmp_path / "set").rename(tmp_path / "elsewhere")
    file = Path(own["data"])
    file.write_text(file.read_text().replace(str(tmp_path / "set"), str(tmp_path / "elsewhere")))
    assert planned(own, study_of, tmp_path).runs[0].folder == before


@pytest.mark.usefixtures("uncounted")
def test_a_label_of_equal_size_is_not_read_from_a_stale_cache(
    own: dict[str, Any], study_of: Write, tmp_path: Path
) -> None:
    """Older releases take a label cache for current by the sizes of the files."""
    planned(own, study_of, tmp_path)
    cache = tmp_path / "set" / "labels" / "train.cache"
    made = cache.stat().st_mtime_ns
    planned(own, study_of, tmp_path)
    assert cache.stat().st_mtime_ns == made
    edit_label(own)
    planned(own, study_of, tmp_path)
    assert cache.stat().st_mtime_ns > made


@pytest.mark.usefixtures("uncounted")
def test_an_array_of_other_pixels_beside_a_training_image_is_rejected(
    own: dict[str, Any], study_of: Write, tmp_path: Path
) -> None:
    """Ultralytics' `cache=disk` writes them, and reads them in place of an image that was replaced since."""
    image, other = sorted((tmp_path / "set" / "images" / "train").iterdir())[:2]
    array = image.with_suffix(".npy")
    np.save(array, np.asarray(cv2.imread(str(image))))
    planned(own, study_of, tmp_path)
    image.write_bytes(other.read_bytes())
    os.utime(image, (1e9, 1e9))
    with pytest.raises(UserError, match=f"{array.name}: has other pixels than {image.name}"):
        planned(own, study_of, tmp_path)


EDITED = """
from torch import nn
from gam_yolo import register

@register
class PlanGate(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()

    def forward(self, x):
        return FACTOR * x
"""


def test_an_edited_block_of_the_user_is_a_new_run_for_the_command(own: dict[str, Any], tmp_path: Path) -> None:
    block = tmp_path / "plan_gate_block.py"
    gate = {"base": "yolov8n.yaml", "block": "PlanGate", "at": "p5"}
    own = {**own, "name": "study", "variants": {**own["variants"], "gate": gate}}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(own, sort_keys=False))
    lay_out = (
        "import sys; from gam_yolo.study.run import plan_study\n"
        "for run in plan_study(sys.argv[1], project=sys.argv[2]).runs: run.lay_out()"
    )
    environment = {**os.environ, "GAM_YOLO_BLOCKS": str(block)}

    def output(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout

    block.write_text(EDITED.replace("FACTOR", "1.5"))
    output(sys.executable, "-c", lay_out, str(file), str(tmp_path))
    block.write_text(EDITED.replace("FACTOR", "0"))
    shown = output(*COMMAND, str(file), "--dry-run", "--project", str(tmp_path))
    assert "gate-s3: is trained as a new run. Since gate-s3-" in shown
    assert "this has changed: code: PlanGate." in shown
    assert "plain-s3: is trained" not in shown


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("key", ["train", "val"])
@pytest.mark.parametrize("value", ["images/nowhere", None, "empty", ["images/val", 4]])
def test_an_error_in_a_split_names_the_dataset_and_the_key(
    key: str, value: object, own: dict[str, Any], study_of: Write, tmp_path: Path
) -> None:
    (tmp_path / "set" / "empty").mkdir()
    file = Path(own["data"])
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), key: value}, sort_keys=False))
    study_of(own)
    for verb in (plan_study, run_study):
        with pytest.raises(UserError) as error:
            verb(tmp_path / "study.yaml", project=tmp_path)
        assert "own.yaml" in str(error.value)
        assert f"'{key}'" in str(error.value) or "nowhere" in str(error.value)
        assert "None)" not in str(error.value)
        assert "operand" not in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize("key", ["data", "pretrained"])
@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "loop/a"])
def test_a_name_that_the_system_cannot_open_is_reported_with_its_key(
    key: str, name: str, own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({**own, key: f"{name}.pt" if key == "pretrained" else name}))
    with pytest.raises(UserError, match=f"study.yaml.*'{key}'"):
        run_study(study, project=tmp_path)


@pytest.mark.usefixtures("uncounted")
@pytest.mark.parametrize(("split", "line"), [("val", "0 9 9 9 9"), ("train", "0 9 9 9 9"), ("val", "tiny")])
def test_images_that_no_training_can_use_are_found_before_it(
    split: str, line: str, own: dict[str, Any], study_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("gam_yolo.ultralytics_api.warn", said.append)
    image = min((tmp_path / "set/images" / split).iterdir())
    if line == "tiny":  # fewer pixels than Ultralytics takes
        Image.new("RGB", (9, 9)).save(image)
    else:
        (tmp_path / f"set/labels/{split}/{image.stem}.txt").write_text(f"{line}\n")
    study = study_of(own)
    if split == "train":
        plan(study, StudyFolder(tmp_path / "study"))
        assert any("key 'train': Ultralytics leaves out 1 of the 8 images" in line for line in said)
        return
    with pytest.raises(UserError, match=f"leaves out 1 of the 4 .*{image.name}" if line == "tiny" else image.stem):
        plan(study, StudyFolder(tmp_path / "study"))


@pytest.mark.parametrize("name", ["report", "report/predictions", "report/report.csv"])
def test_what_is_in_the_way_of_the_report_is_found_before_any_training(
    name: str, own: dict[str, Any], study_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each training would end in a failure, or all of them without a report."""
    monkeypatch.setattr("gam_yolo.study.run.execute", lambda *_: pytest.fail("a run was started"))
    study = study_of(own)
    place = tmp_path / study.name / name
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    with pytest.raises(UserError, match=f"{place}: (is in the way of a folder|already exists and was not written by)"):
        run_study(tmp_path / "study.yaml", project=tmp_path)
    assert place.read_text() == "mine"


@pytest.mark.usefixtures("uncounted")
def test_a_report_of_earlier_runs_is_said_to_be(
    own: dict[str, Any], study_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an edit of a block all runs are new, and the page in the folder is still that of the old code."""
    monkeypatch.setattr("gam_yolo.study.run.execute", lambda *_: None)
    report = tmp_path / study_of(own).name / "report"
    said: list[str] = []
    assert run_study(tmp_path / "study.yaml", project=tmp_path, progress=said.append) is None
    assert not any("earlier runs" in line for line in said)
    report.mkdir()
    (report / "report.html").write_text("<p>GAM is better</p>")
    (report / "report.json").write_text('{"schema": "gam-yolo/comparison", "schema_version": 1}')
    assert run_study(tmp_path / "study.yaml", project=tmp_path, progress=said.append) is None
    assert said[-1] == f"{report / 'report.html'} is of earlier runs, which are not this study's any more"


@pytest.mark.usefixtures("uncounted")
def test_a_file_of_the_system_is_named(own: dict[str, Any], study_of: Write, tmp_path: Path) -> None:
    study_of(own)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*: cannot be read or written \((Not a directory|File exists)\)"):
        run_study(tmp_path / "study.yaml", project=tmp_path / "file")


class Touch:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_dry_run_executes_and_writes_nothing(own: dict[str, Any], study_of: Write, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    call = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    model = yaml.safe_load(Path(plan_model()).read_text())
    evil = tmp_path / "evil.yaml"
    evil.write_text(yaml.safe_dump({**model, "activation": f"({call}, torch.nn.ReLU())[1]"}, sort_keys=False))
    data = yaml.safe_load(Path(own["data"]).read_text())
    missing = tmp_path / "missing.yaml"
    script = {"path": str(tmp_path / "missing"), "download": f"import pathlib\n{call}\n"}
    missing.write_text(yaml.safe_dump({**data, **script}, sort_keys=False))
    torch.save({"model": Touch(mark)}, tmp_path / "evil.pt")
    variants = {"plain": {"model": str(evil)}, "gam": {"base": str(evil), "block": "SE", "at": "p5"}}
    files = sorted(tmp_path.rglob("*"))
    study = tmp_path / "study.yaml"
    for change, known in (
        ({}, True),
        ({"data": str(missing)}, False),
        ({"pretrained": str(tmp_path / "evil.pt")}, False),
        ({"pretrained": "not-here-yet.pt"}, False),
    ):
        study_of({**own, "variants": variants, **change})
        shown = plan_study(study, project=tmp_path / "studies")
        assert [run.name for run in shown.runs] == ["plain-s3", "gam-s3"]
        assert all(cost > 0 for cost in shown.gflops.values())
        assert all(run.folder.path.name.endswith("?") != known for run in shown.runs)
        assert any("not known yet" in note for note in shown.notes) != known
        assert not mark.exists()
    study.unlink()
    assert sorted(tmp_path.rglob("*")) == files


def plan_model() -> Path:
    import ultralytics

    return Path(ultralytics.__file__).parent / "cfg" / "models" / "v8" / "yolov8.yaml"


def test_a_dry_run_plans_the_folders_of_the_study(own: dict[str, Any], study_of: Write, tmp_path: Path) -> None:
    study_of(own)
    dry = plan_study(tmp_path / "study.yaml", project=tmp_path)
    wet = plan(study_of(own), StudyFolder(tmp_path / "tiny"))
    assert [run.folder for run in dry.runs] == [run.folder for run in wet.runs]
    assert dry.gflops == wet.gflops


@pytest.mark.usefixtures("uncounted")
def test_a_finished_study_reports_and_names_what_its_validations_lost(
    content: dict[str, Any], own: dict[str, Any], study_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gam_yolo.report import run as report

    study_of({**own, "variants": content["variants"]})
    runs = plan_study(tmp_path / "study.yaml", project=tmp_path).runs
    for run in runs:
        run.lay_out()
        run.folder.best.parent.mkdir(parents=True)
        run.folder.best.write_text(run.name)
        run.folder.mark_finished({"nms_time_limit": 3 if run.variant == "gam" else 0})
    made: list[Any] = []

    def compared(request: Any, _: Path) -> SimpleNamespace:
        made.append(request.variants)
        return SimpleNamespace(headline="equal")

    monkeypatch.setattr(report, "run", compared)
    lines: list[str] = []
    watched: list[list[str]] = []
    run_study(
        tmp_path / "study.yaml",
        project=tmp_path,
        progress=lines.append,
        watch=lambda jobs: watched.append([job.state for job in jobs]),
    )
    assert [variant.name for variant in made[0]] == ["plain", "gam"]
    assert made[0][0].paths == (runs[0].folder.best,)
    assert sum("lost detections to Ultralytics' NMS time limit 3 times" in line for line in lines) == 1
    assert any(line.startswith("gam-s3: the training's own validation") for line in lines)
    assert lines[-2:] == ["equal", f"The report is {tmp_path / 'tiny' / 'report' / 'report.html'}"]
    assert watched == [["finished", "finished"]]

    with pytest.raises(UserError, match=r"--only: no run of the study matches 'gum'.*Did you mean 'gam'\?"):
        run_study(tmp_path / "study.yaml", project=tmp_path, only=["gum"])


@pytest.mark.usefixtures("uncounted")
def test_variants_that_differ_in_nothing_are_noted(own: dict[str, Any], study_of: Write, tmp_path: Path) -> None:
    gam = {"base": "yolov8n.yaml", "block": "GAM", "at": "p5"}
    variants = {"plain": {"model": "yolov8n.yaml"}, "gam": gam, "again": {**gam, "overrides": {"workers": 1}}}
    variants["other"] = {**gam, "overrides": {"lr0": 0.1}}
    notes = plan_study(study_of({**own, "variants": variants, "seeds": [0, 1]}), project=tmp_path).notes
    assert notes == ("gam and again have the same model and train arguments, so they cannot differ",)


@pytest.mark.usefixtures("uncounted")
def test_a_checkpoint_that_was_replaced_after_its_run_is_not_reported(
    content: dict[str, Any], own: dict[str, Any], study_of: Write, tmp_path: Path
) -> None:
    study_of({**own, "variants": content["variants"]})
    run, other = plan_study(tmp_path / "study.yaml", project=tmp_path).runs
    for one in (run, other):
        one.lay_out()
        one.folder.best.parent.mkdir(parents=True)
        one.folder.best.write_text(one.name)
        one.folder.mark_finished({})
    run.folder.best.write_text("another")
    with pytest.raises(UserError, match=r"best\.pt: is not the checkpoint that this run finished with\. Put that one"):
        run_study(tmp_path / "study.yaml", project=tmp_path, only=[other.name])
    run.folder.best.unlink()
    with pytest.raises(UserError, match=r"best\.pt: cannot be read"):
        run_study(tmp_path / "study.yaml", project=tmp_path)


@pytest.mark.parametrize(
    "mark", ["", "[]", "null", "3", '{"nms_time_limit": "many"}', '{"nms_time_limit": NaN}', '{"checkpoint": 7}']
)
def test_a_damaged_mark_is_one_line_of_error(mark: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.finished_file.write_text(mark)
    for read in (folder.nms_time_limit, folder.check_checkpoint):
        with pytest.raises(UserError, match=r"finished\.json"):
            read()


def test_the_mark_of_an_earlier_release_has_no_digest(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.finished_file.write_text('{"environment": {}}')
    folder.check_checkpoint()
    assert folder.nms_time_limit() == 0
