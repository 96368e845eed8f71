"""Test the plug-in with many Ultralytics releases, each with the numpy that it asks for, in fresh processes.

    python scripts/evidence/ultralytics_versions.py --output docs/results/versions.json
    python scripts/evidence/ultralytics_versions.py 8.3.0 8.4.190 --weights yolov8n.pt

Each release is installed, without its other dependencies, into a temporary folder that comes first on the path. Without
names, 34 releases from the oldest supported to the newest are tested. Prints one row per release and exits 1 if one
failed. `docs/compatibility.md` has the last figures, made from the JSON by `--table`.

What is tested, and what a row says:

- assumptions: every name of Ultralytics that we use is there (`gam_yolo.ultralytics_api`);
- YAMLs: how many of the shipped model YAMLs can be parsed into layers, and those of GAM built into whole models; the
  others need modules of a newer release, and the error says which release;
- transfer: the base tensors of a YOLOv8n checkpoint that arrive in YOLOv8n-GAM, compared value by value, and the rows
  that compute something else than in the checkpoint;
- identity: whether YOLOv8n-GAM with a zero start then predicts what the checkpoint predicts;
- commands: train and val with restricted loading, each in a fresh process that imports nothing of ours by itself; then
  check, place, train without a block, val, predict, export, transfer, a study of two trainings that start from the
  weights of one, compare, each in a fork of one more process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from rich.console import Console

# From the oldest supported to the newest: the first and the last of each line, and releases in between.
RELEASES = """
    8.2.103 8.3.0 8.3.8 8.3.15 8.3.16 8.3.40 8.3.60 8.3.78 8.3.99 8.3.109 8.3.110 8.3.120 8.3.140 8.3.160 8.3.180
    8.3.200 8.3.220 8.3.240 8.3.253 8.4.0 8.4.20 8.4.40 8.4.52 8.4.60 8.4.80 8.4.91 8.4.95 8.4.110 8.4.120 8.4.140
    8.4.145 8.4.160 8.4.175 8.4.190
"""
DATA = "data=demo.yaml"
SMALL = ["imgsz=32", "device=cpu"]
TRAIN = ["epochs=1", "batch=4", "optimizer=SGD", "workers=0", "plots=False", *SMALL]
WITHOUT_TRAPZ = "8.3.108"  # the first release that does not call `numpy.trapz`, which numpy 2.4 has removed
YOLO = "from ultralytics.cfg import entrypoint; entrypoint()"


@dataclass
class Outcome:
    """What happened with one release.

    Attributes:
        release: Ultralytics' version.
        numpy: numpy's version.
        broken: Assumptions that do not hold, in words.
        built: Number of shipped YAMLs that were built.
        newer: What is missing for the others, with the release that brings it.
        failed: Errors about YAMLs that name no release, and failed commands.
        transfer: Base tensors that arrived, and all of them.
        changed: Rows with all weights and another function.
        difference: Largest difference of the predictions from the checkpoint's, of a model with a zero start.
    """

    release: str
    numpy: str = ""
    broken: list[str] = field(default_factory=list)
    built: int = 0
    newer: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    transfer: list[int] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    difference: float | None = None

    def row(self) -> str:
        """Return a row of the table in docs/compatibility.md."""
        newer = sorted({re.sub(r".*(ultralytics>=\S+),.*", r"\1", text).rstrip(",") for text in self.newer})
        notes = [*self.broken, *self.failed, *(f"{row} computes something else" for row in self.changed)]
        same = "-" if self.difference is None else "yes" if self.difference < 1e-2 else f"no, by {self.difference:.1f}"
        yamls = f"{self.built}" + (f"; others need {', '.join(newer)}" if newer else "")
        cells = self.release, self.numpy, yamls, "/".join(map(str, self.transfer)), same, "; ".join(notes) or "passed"
        return f"| {' | '.join(cells)} |"


def main() -> int:
    """Test each release, or print the table of an earlier run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", nargs="*", default=RELEASES.split())
    parser.add_argument("--weights", type=Path, help="a YOLOv8n checkpoint, for transfer and identity")
    parser.add_argument("--output", type=Path, help="JSON to write after each release; releases in it are not repeated")
    parser.add_argument("--table", type=Path, help="print the table of this JSON, and test nothing")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(asdict(inside(options.weights))))  # read by the parent process
        return 0
    if options.table:
        print("\n".join(Outcome(**row).row() for row in json.loads(options.table.read_text())["releases"]))
        return 0
    done = json.loads(options.output.read_text())["releases"] if options.output and options.output.is_file() else []
    outcomes = [Outcome(**row) for row in done]
    with tempfile.TemporaryDirectory() as numpys:
        for release in options.releases:
            if release in {outcome.release for outcome in outcomes}:
                continue
            with tempfile.TemporaryDirectory() as folder:
                outcomes.append(outcome := try_release(release, Path(folder), Path(numpys), options.weights))
            Console().print(outcome.row(), soft_wrap=True)
            outcomes.sort(key=lambda o: tuple(map(int, o.release.split("."))))
            if options.output:
                options.output.write_text(_report(outcomes))
    return any(outcome.failed or outcome.broken for outcome in outcomes)


def _report(outcomes: list[Outcome]) -> str:
    today = datetime.now(timezone.utc).date().isoformat()
    versions = {"date": today, "python": sys.version.split()[0], "torch": installed("torch")}
    return json.dumps({**versions, "releases": [asdict(o) for o in outcomes]}, separators=(",", ":")) + "\n"


def try_release(release: str, folder: Path, numpys: Path, weights: Path | None) -> Outcome:
    """Install one release into a folder, its numpy into a folder that is kept, and test it in fresh processes."""
    site, work = folder / "site", folder / "work with blanks"
    work.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--target"]
    subprocess.run([*pip, str(site), f"ultralytics=={release}"], check=True)
    metadata = next(site.glob("ultralytics-*.dist-info/METADATA")).read_text()
    asked = re.search(r"^Requires-Dist: numpy *\(?([^;)\n]*)\)?\s*$", metadata, re.MULTILINE)
    wanted = asked[1].strip() if asked else ""
    if Version(release) < Version(WITHOUT_TRAPZ):
        wanted = ",".join(filter(None, (wanted, "<2.4")))  # their metadata allow a numpy that they cannot work with
    path = [str(site)]
    if not SpecifierSet(wanted).contains(installed("numpy")):
        path.append(str(other := numpys / wanted))
        if not other.exists():
            subprocess.run([*pip, str(other), f"numpy{wanted}"], check=True)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path), "YOLO_CONFIG_DIR": str(folder / "config")}
    env |= {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "PYTHONWARNINGS": "ignore"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # the first process compiles for the others
    (work / "demo.yaml").write_text(_demo(work / "demo"))

    def python(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=work, env=env | extra, capture_output=True, text=True, check=False
        )

    run = [f"project={work / 'runs'}", "exist_ok=True"]
    last = work / "runs" / "gam" / "weights" / "last.pt"
    train = python("-c", YOLO, "train", "model=yolov8n-gam.yaml", DATA, "name=gam", *run, *TRAIN)
    this = [str(Path(__file__).resolve()), "--inside", *(["--weights", str(weights.resolve())] if weights else [])]
    ran = python(*this)
    if ran.returncode:
        return Outcome(release, failed=[_last(ran.stdout + ran.stderr)])
    outcome = Outcome(**json.loads(ran.stdout.strip().splitlines()[-1]))
    restricted = python("-c", YOLO, "val", f"model={last}", DATA, *run, *SMALL, ULTRALYTICS_SAFE_LOAD="1")
    for name, done in (("train", train), ("restricted val", restricted)):
        if done.returncode:
            outcome.failed.append(f"{name}: {_last(done.stdout + done.stderr)}")
    return outcome


def _demo(folder: Path) -> str:
    """Return the YAML of a small demo set in a folder."""
    from gam_yolo import resources

    shipped = resources.shipped("gam-demo.yaml")
    content = yaml.safe_load(shipped.read_text(encoding="utf-8")) if shipped else {}
    return yaml.safe_dump({**content, "path": str(folder), "scenes": {"train": 12, "val": 12}}, sort_keys=False)


def _last(shown: str) -> str:
    lines = shown.strip().splitlines()
    return lines[-1].strip()[-200:] if lines else "failed silently"


def commands() -> list[str]:
    """Run commands in forks of this process, in its working folder; return which failed, and their last lines."""
    from ultralytics.cfg import entrypoint

    from gam_yolo.cli import main as ours

    plain, gam = (f"runs/{name}/weights/last.pt" for name in ("plain", "gam"))
    variants = {"plain": {"model": "yolov8n.yaml"}, "gam": {"model": "yolov8n-gam.yaml"}}
    recipe = {"epochs": 1, "imgsz": 32, "optimizer": "SGD", "device": "cpu"}
    study = {"data": "demo.yaml", "pretrained": plain, "seeds": [0], "variants": variants, "recipe": recipe}
    Path("study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    run = [f"project={Path.cwd() / 'runs'}", "exist_ok=True"]
    lines: list[tuple[Callable[[], object], list[str]]] = [
        (ours, ["check", "yolov8n-gam.yaml"]),
        (ours, ["place", "yolov8n.yaml", "--block", "GAM", "--at", "after SPPF", "-o", "mine.yaml"]),
        (entrypoint, ["train", "model=yolov8n.yaml", DATA, "name=plain", *run, *TRAIN]),
        (entrypoint, ["val", f"model={gam}", DATA, *run, *SMALL]),
        (entrypoint, ["predict", f"model={gam}", "source=demo/images/val", *run, *SMALL]),
        (entrypoint, ["export", f"model={gam}", "format=torchscript", "imgsz=32"]),
        (ours, ["transfer", plain, "mine.yaml"]),
        (ours, ["study", "study.yaml", "--project", "studies"]),
        (ours, ["compare", f"plain={plain}", f"gam={gam}", "--data", "demo.yaml", "--imgsz", "32", "-o", "report"]),
    ]
    failed = []
    for command, arguments in lines:
        with tempfile.TemporaryFile() as shown:
            if not (child := os.fork()):
                os.dup2(shown.fileno(), 1)
                os.dup2(shown.fileno(), 2)
                sys.argv[:] = ["command", *arguments]  # in place: old releases keep the list
                _exit_after(command)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            shown.seek(0)
            if status:
                failed.append(f"{arguments[0]}: {_last(shown.read().decode(errors='replace'))}")
    (log,) = [file.read_text() for file in Path("studies").glob("*/gam-s0-*/log.txt")] or ["no training"]
    if not re.search(r"Transferred 3\d\d/3\d\d base tensors", log):  # see the row's own figures
        failed.append(f"study: the training did not start from the pretrained weights: {_last(log)}")
    return failed


def _exit_after(command: Callable[[], object]) -> None:
    """Run a command and end this process with its status, as Python would."""
    status = 1
    try:
        command()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def inside(weights: Path | None) -> Outcome:
    """Test what needs no command, in a process with the release on its path."""
    import numpy as np
    import torch
    from ultralytics import __version__

    from gam_yolo import resources, ultralytics_api
    from gam_yolo.errors import UserError

    outcome = Outcome(__version__, np.__version__, ultralytics_api.broken_assumptions())
    ultralytics_api.get("LOGGER").setLevel("ERROR")
    tasks: Any = ultralytics_api.tasks()
    for name in resources.shipped_names(("cfg",)):
        try:
            if name.endswith("-gam.yaml"):
                ultralytics_api.model(name)
            with torch.device("meta"):
                tasks.parse_model(tasks.yaml_model_load(name), 3, verbose=False)
            outcome.built += 1
        except UserError as error:
            (outcome.newer if "ultralytics>=" in str(error) else outcome.failed).append(str(error))
        except Exception as error:  # what a user would see as a traceback
            outcome.failed.append(f"{name}: {type(error).__name__}: {error}"[:200])
    if weights is not None:
        _transfer(outcome, weights)
    outcome.failed += commands()
    return outcome


def _transfer(outcome: Outcome, weights: Path) -> None:
    """Transfer a YOLOv8n checkpoint, and compare values and predictions."""
    import torch

    import gam_yolo
    from gam_yolo import ultralytics_api

    tasks: Any = ultralytics_api.tasks()
    source = ultralytics_api.safe_checkpoint(str(weights))
    target = tasks.DetectionModel("yolov8n-gam.yaml", verbose=False)
    rows = [i for i, layer in enumerate(target.model) if type(layer).__name__ == "GAM"]
    target.load(source)
    arrived = 0
    for row, layer in enumerate(source.model):
        place = row + sum(r <= row + k for k, r in enumerate(rows))
        mine = target.model[place].state_dict()
        arrived += sum(key in mine and torch.equal(mine[key], t) for key, t in layer.state_dict().items())
    base = sum(len(layer.state_dict()) for i, layer in enumerate(target.model) if i not in rows)
    outcome.transfer = [arrived, base]
    outcome.changed = list(gam_yolo.transfer(weights, "yolov8n-gam.yaml").changed)
    placed = gam_yolo.place("yolov8n.yaml", block="GAM", at="head-inputs", args=[{"start": "zero", "gain": 10}])
    zero = tasks.DetectionModel({**placed.yaml, "scale": "n"}, verbose=False)
    zero.load(source)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got, want = zero.eval()(image), source.eval()(image)
    outcome.difference = float((got[0] - want[0]).abs().max())


if __name__ == "__main__":
    sys.exit(main())
