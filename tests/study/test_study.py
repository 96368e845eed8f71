"""Complete studies in their own processes: an interruption costs time and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gam_yolo.errors import UserError
from gam_yolo.report.result import Comparison
from gam_yolo.study.config import Study
from gam_yolo.study.folder import StudyFolder
from gam_yolo.study.plan import Run, identify, plan
from gam_yolo.study.run import run_study

from .helpers import COMMAND, PATIENCE, assert_same_result, log, until

Write = Callable[[dict[str, Any]], Study]
FULL_AT_THE_MARK = """
import os, sys, tempfile
make = tempfile.mkstemp
def mkstemp(*args, **options):
    handle, path = make(*args, **options)
    folder = str(options.get("dir"))
    if sys.argv[0].endswith("worker.py") and os.path.exists(os.path.join(folder, "run.json")):
        os.dup2(os.open("/dev/full", os.O_WRONLY), handle)
    return handle, path
tempfile.mkstemp = mkstemp
"""


def written(file: Path) -> tuple[int, ...]:
    """What changes when a file is written, and not when it is read."""
    stat = file.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def accuracies(folder: Path) -> list[dict[str, Any]]:
    """What a study's report says, but for times and places."""
    report = json.loads((folder / "report" / "report.json").read_text())
    return [
        {key: variant[key] for key in ("name", "metrics", "classes", "differences")} for variant in report["variants"]
    ]


def test_interruptions_of_any_kind_leave_the_results_of_an_undisturbed_study(
    content: dict[str, Any], undisturbed: list[Run], study_of: Write, tmp_path: Path
) -> None:
    runs = plan(study_of(content), StudyFolder(tmp_path / "tiny")).runs
    assert [run.folder.path.name for run in runs] == [run.folder.path.name for run in undisturbed]
    first, second = runs
    command = [*COMMAND, str(tmp_path / "study.yaml"), "--project", str(tmp_path), "--workers", "1"]

    def start(**options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)

    # A disk on which no file of the size of a checkpoint fits.
    full = start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY)))
    output = full.communicate(timeout=PATIENCE)[0]
    assert full.returncode == 2
    assert "the disk is full. Free some space and run the same command again." in output
    assert "Traceback" not in output
    assert not first.finished
    assert not first.folder.failed_file.exists()

    # Killed in the middle of a training: the training's process goes too, whose checkpoint is then damaged.
    killed = start()
    until(lambda: (first.folder.snapshots / "epoch-1").exists(), killed)
    killed.kill()
    killed.communicate()
    newest = max(first.folder.snapshots.glob("epoch-*"), key=lambda path: path.name)
    with (newest / "last.pt").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"damaged")

    # Stopped by Ctrl-C in the other training.
    stopped = start()
    until(lambda: "is damaged" in log(first), stopped)
    with pytest.raises(UserError, match="another process is carrying out this study"):
        run_study(tmp_path / "study.yaml", project=tmp_path)
    until(lambda: (second.folder.snapshots / "epoch-0").exists(), stopped)
    stopped.send_signal(signal.SIGINT)
    output = stopped.communicate(timeout=PATIENCE)[0]
    assert stopped.returncode == 130
    assert "stopped; run the same command again to resume" in output
    assert f"{newest.name} is damaged (last.pt) and skipped" in log(first)
    finished = written(first.folder.finished_file)

    # A disk that is full when the other run is to be marked as finished.
    (tmp_path / "sitecustomize.py").write_text(FULL_AT_THE_MARK)
    marking = start(env={**os.environ, "PYTHONPATH": str(tmp_path)})
    output = marking.communicate(timeout=PATIENCE)[0]
    assert marking.returncode == 2, output
    assert "the disk is full. Free some space and run the same command again." in output
    assert "the training resumes after epoch-" in log(second)
    assert log(second).splitlines()[-1] == f"{second.folder}: cannot be written: No space left on device"
    assert not second.finished
    assert not second.folder.failed_file.exists()

    last = start()
    output = last.communicate(timeout=PATIENCE)[0]
    assert last.returncode == 0, output
    assert "plain-s3 started" not in output
    assert written(first.folder.finished_file) == finished
    assert "study: the training had ended with epoch-2" in log(second)
    for run, reference in zip(runs, undisturbed, strict=True):
        assert_same_result(run, reference)
        assert not run.folder.snapshots.exists()
    report = json.loads((tmp_path / "tiny" / "report" / "report.json").read_text())
    assert [variant["name"] for variant in report["variants"]] == ["plain", "gam"]


def test_the_function_returns_what_the_command_reports(undisturbed: list[Run]) -> None:
    """Run on finished trainings: both only compare, and everything but the time of it is equal."""
    study, project = undisturbed[0].folder.study, undisturbed[0].folder.study.path.parent
    file = project / "study.yaml"
    done = subprocess.run([*COMMAND, str(file), "--project", str(project)], check=True, capture_output=True, text=True)
    of_command = Comparison.load(study.report / "report.json")
    said: list[str] = []
    of_function = run_study(file, project=project, progress=said.append)
    assert isinstance(of_function, Comparison)
    assert of_function.headline in said
    assert " ".join(of_function.headline.split()) in " ".join(done.stdout.split())

    def timeless(found: Comparison) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(found.to_json())
        del content["created"]
        for variant in content["variants"]:
            del variant["cost"]["latency_median"], variant["cost"]["latency_p95"]
        return content

    assert timeless(of_function) == timeless(of_command)


def test_kills_at_random_moments_leave_the_results_of_an_undisturbed_study(
    content: dict[str, Any], undisturbed: list[Run], study_of: Write, tmp_path: Path
) -> None:
    runs = plan(study_of(content), StudyFolder(tmp_path / "tiny")).runs
    command = [*COMMAND, str(tmp_path / "study.yaml"), "--project"]
    rng = random.Random()  # noqa: S311  # other moments every time, not secrets
    begin = time.monotonic()
    subprocess.run([*command, str(undisturbed[0].folder.study.path.parent)], check=True, capture_output=True)
    planning_and_report = time.monotonic() - begin
    finished: dict[str, tuple[int, ...]] = {}
    moments = []
    for attempt in range(5):
        killed = subprocess.Popen(
            [*command, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if attempt < 4:
            moments.append(rng.uniform(0, 2 * planning_and_report))  # in all of it: planning, training, report
            with contextlib.suppress(subprocess.TimeoutExpired):
                killed.wait(moments[-1])
            killed.kill()
        output = killed.communicate(timeout=PATIENCE)[0]
        for run in runs:
            if run.name in finished:
                assert written(run.folder.finished_file) == finished[run.name], moments
                assert f"{run.name} started" not in output, moments
            elif run.finished:
                finished[run.name] = written(run.folder.finished_file)
    assert killed.returncode == 0, (output, moments)
    for run, reference in zip(runs, undisturbed, strict=True):
        assert_same_result(run, reference)
    assert accuracies(tmp_path / "tiny") == accuracies(undisturbed[0].folder.study.path), moments


def test_a_run_that_cannot_be_trained_is_started_twice_and_recorded_while_others_continue(
    content: dict[str, Any], study_of: Write, tmp_path: Path
) -> None:
    from gam_yolo.study.local import Local
    from gam_yolo.study.scheduler import Job, execute

    recipe: dict[str, Any] = content["recipe"]
    bad, good = plan(study_of({**content, "recipe": {**recipe, "epochs": 1}}), StudyFolder(tmp_path / "tiny")).runs
    text = "nc: 6\nbackbone: [[-1, 1, Nonsense, []]]\nhead: [[-1, 1, Detect, [nc]]]\n"
    identity = identify(bad.train, yaml.safe_load(text), bad.spec["identity"]["data"])
    bad = dataclasses.replace(bad, model=text, spec={**bad.spec, "identity": identity})
    broken, fine = Job(bad), Job(good)
    messages: list[str] = []
    # The device that the recipe names takes precedence.
    execute([broken, fine], Local(2, ["7"]), messages.append, lambda _: None)
    assert (broken.state, fine.state) == ("failed", "finished")
    assert broken.attempts == 2
    record = json.loads(broken.run.folder.failed_file.read_text())
    assert "Nonsense" in " ".join(record["log"])
    assert any("failed with exit status 2 and is started again" in line for line in messages)


@pytest.mark.usefixtures("uncounted")
def test_the_hash_covers_what_determines_a_run_and_nothing_else(
    content: dict[str, Any], data: Path, study_of: Write, tmp_path: Path
) -> None:
    def names(**changes: Any) -> list[str]:
        changed = {**content, **changes}
        return [run.folder.path.name for run in plan(study_of(changed), StudyFolder(tmp_path)).runs]

    recipe: dict[str, Any] = content["recipe"]
    plain, gam = names()
    assert names(recipe={**recipe, "workers": 3, "device": "0,1", "plots": True}) == [plain, gam]
    longer = names(recipe={**recipe, "epochs": 4})
    assert plain not in longer
    assert gam not in longer
    assert set(names(seeds=[3, 4])) > {plain, gam}
    variants: dict[str, Any] = content["variants"]
    other = names(variants={**variants, "gam": {**variants["gam"], "args": [8]}})
    assert other[0] == plain
    assert other[1] != gam
    overridden = names(variants={**variants, "gam": {**variants["gam"], "overrides": {"lr0": 0.1}}})
    assert overridden[0] == plain
    assert overridden[1] != gam

    label = sorted((data.parent / "set" / "labels" / "train").glob("*.txt"))[0]
    text = label.read_text()
    label.write_text("\n".join(text.splitlines()[1:]) + "\n")
    try:
        assert not {plain, gam} & set(names())
    finally:
        label.write_text(text)
    assert names() == [plain, gam]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "nowhere.yaml"}, r"study\.yaml, key 'data': .*nowhere\.yaml"),
        ({"variants": {"a": {"model": "yolov8q.yaml"}}}, r"variant 'a': there is no file 'yolov8q\.yaml'"),
        ({"variants": {"a": {"base": "yolov8n.yaml", "block": "GAMM", "at": "p3"}}}, r"variant 'a': .*'GAM'"),
        ({"variants": {"a": {"base": "yolov8n.yaml", "block": "GAM", "at": "p9"}}}, r"variant 'a': .*stride"),
        ({"pretrained": "nothing-here.pt"}, r"study\.yaml, key 'pretrained': there is no file nothing-here\.pt"),
    ],
)
def test_what_cannot_be_planned_is_reported(
    change: dict[str, Any], message: str, content: dict[str, Any], study_of: Write, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        plan(study_of({**content, **change}), StudyFolder(tmp_path))
