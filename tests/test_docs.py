"""The documents' commands and examples run as written, against the installed package, from a folder of their own.

Every block with commands or Python code in README, `docs/` and the other documents is executed, block after block in
the order of its document. What differs from a reader's terminal is listed here and nowhere else: `QUICK` (trainings are
cut short), `STAND_INS` (files that a reader has), `SUBSTITUTES` (text that is replaced) and `NOT_RUN` (what cannot run
here, of which the arguments are parsed). An entry that no document needs any more fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import ultralytics
import yaml
from PIL import Image
from typer.main import get_command
from ultralytics.cfg import entrypoint, get_cfg
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import YAML, SettingsManager

from gam_yolo.cli import app
from gam_yolo.resources import STUDIES, shipped

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ["GAM_YOLO_TEST_DATA"])  # tests/conftest.py sets it
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

QUICK: dict[str, Any] = {"epochs": 1, "imgsz": 64, "batch": 16, "workers": 0, "device": "cpu"}
"""Arguments that every training gets on top of the documented ones; `plots` is false where no text names a picture."""
PART = {"fraction": 0.05}
"""And a training on a dataset that matches `LARGE`."""
LARGE = "-local"
DEMO_SCENES = {"train": 48, "val": 24}
"""The size of the demo set."""

SUBSTITUTES = {
    r"\.venv/bin/": "",  # the environment under test takes the place of a new one
    r"/data/(?:VOC2007|VOCdevkit)": "{shared}/data/VOC2007",
    r"/data/BCCD": "{shared}/data/BCCD",
    r"/data/imagenet|path/to/imagenet": "imagenet",
}
"""Regular expressions and what takes the place of their matches; {shared} is the folder of real images."""

NOT_RUN = {
    r"pip install|python3? -m venv": "installs: .ci/run does so",
    r"-m pytest": "this very test run",
    r"torchrun|--ray ": "needs more than one machine",
    r"benchmark_\w+\.py|transfer_voc\.py|dataset_coverage\.py|exports\.py|fuzz\.py|faults\.py": "takes minutes",
    r"study (?:voc|bccd|cifar|neu|placement)[\w-]*\.yaml": "takes from minutes to hours",
    r"publish_overview\.py": "reads the repository's reports: test_results_page.py runs it",
    r"resnet50-gam-cifar-cls\.yaml": "takes minutes on a CPU; resnet18-gam-cls.yaml is trained",
    r"yolo track": "needs the package lap, which Ultralytics installs when it is first used",
}
"""Regular expressions of commands that are parsed instead of run, each with the reason."""


def read_shipped(name: str, *where: tuple[str, ...]) -> dict[str, Any]:
    file = shipped(name, *where)
    assert file, name
    content: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    return content


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def weights(path: Path) -> None:
    real = SHARED / "weights" / path.name
    if real.is_file():
        shutil.copy(real, path)
    else:
        ultralytics.YOLO(f"{path.stem}.yaml").save(path)


def detection_set(path: Path) -> None:
    """Write an Ultralytics YAML with the names of the one that it shadows, and four images."""
    folder = path.parent / "sets" / path.stem
    for number in range(4):
        image(folder / "images" / f"{number}.jpg")
        label = folder / "labels" / f"{number}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text(f"0 {LABELS[path.stem]}\n")
    content = YAML.load(Path(ultralytics.__file__).parent / "cfg" / "datasets" / path.name)
    kept = {key: content[key] for key in ("names", "kpt_shape", "flip_idx") if key in content}
    path.write_text(json.dumps({"path": str(folder), "train": "images", "val": "images", **kept}))


LABELS = {
    "coco8-seg": "0.3 0.3 0.7 0.3 0.7 0.7 0.3 0.7",
    "dota8": "0.3 0.3 0.7 0.3 0.7 0.7 0.3 0.7",
    "coco8-pose": "0.5 0.5 0.4 0.4 " + 17 * "0.5 0.5 2 ",
}
"""What follows the class in a label file, by the name of the dataset."""


def classification_set(path: Path) -> None:
    for split in ("train", "val"):
        for number in range(16):
            image(path / split / "ab"[number % 2] / f"{number}.png")


def video(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for number in range(10):
        writer.write(np.full((64, 64, 3), 20 * number, np.uint8))
    writer.release()


def demo_study(path: Path) -> None:
    """Write the shipped study with one seed and one epoch."""
    study = read_shipped("demo.yaml", STUDIES)
    study["recipe"] |= {"epochs": 1, "imgsz": 32}
    path.write_text(yaml.safe_dump(study | {"seeds": [0]}))


def link(path: Path) -> None:
    path.symlink_to(ROOT / path.name)


STAND_INS: dict[str, Callable[[Path], None]] = {
    "image.jpg": image,
    "yolov8n.pt": weights,
    **{f"{name}.yaml": detection_set for name in LABELS},
    "clip.avi": video,
    "cifar100": classification_set,
    "imagenet": classification_set,
    "demo.yaml": demo_study,
    "scripts": link,
}
"""What a reader has in the working folder, by name; made where a document's commands name it."""


@dataclass(frozen=True)
class Block:
    """A block of a document.

    Attributes:
        place: Document and line.
        language: As the document gives it; empty for an indented block.
        text: The content.
        file: The name under which the text before it says to save it, or "".
    """

    place: str
    language: str
    text: str
    file: str

    @property
    def is_shell(self) -> bool:
        starts = re.search(r"^(\w+=\S* )*(yolo|gam-yolo|torchrun|python3?|pip) ", self.text, re.M)
        return self.language in {"bash", "sh", "console"} or bool(starts and self.language in {"", "text"})

    @property
    def runs(self) -> bool:
        return self.is_shell or self.language == "python"

    def commands(self) -> list[str]:
        """The block's simple commands, without comments, with continued lines joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [part for line in lines for part in re.sub(r"(^|\s+)#.*", "", line).split(" && ") if part.strip()]


def blocks(document: Path) -> list[Block]:
    """Find the fenced and the indented blocks of a document."""
    found, before = [], ""
    pattern = r"^```(?P<language>\w*)\n(?P<fenced>.*?)^```$|(?<=\n\n)(?P<indented>(?:    \S.*\n(?:(?=\n    )\n)?)+)"
    text = document.read_text("utf-8")
    for match in re.finditer(pattern, text, re.M | re.S):
        content = match["fenced"] if match["indented"] is None else re.sub("^    ", "", match["indented"], flags=re.M)
        before = text[: match.start()].rstrip().rpartition("\n\n")[2]
        file = re.match(r"`([\w-]+\.(?:py|ya?ml))`.*:$", before, re.S)
        place = f"{document.relative_to(ROOT)}, line {text[: match.start()].count(chr(10)) + 1}"
        found.append(Block(place, match["language"] or "", content, file[1] if file else ""))
    return found


EXAMPLES = {document: blocks(document) for document in DOCUMENTS}
COMMANDS = "\n".join(block.text for found in EXAMPLES.values() for block in found if block.runs)


def test_readers_of_documents_find_the_blocks() -> None:
    places = [block.place for found in EXAMPLES.values() for block in found if block.is_shell]
    assert len(places) > 15
    assert sum(place.startswith("README.md") for place in places) > 4


@pytest.mark.parametrize("pattern", [*SUBSTITUTES, *NOT_RUN, *STAND_INS])
def test_every_exception_is_needed(pattern: str) -> None:
    assert re.search(pattern, COMMANDS), f"no document's command has {pattern}: remove the entry"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ultralytics' settings of a user whose environment is in no repository; datasets are shared by all documents."""
    folder = tmp_path_factory.mktemp("settings")
    file = folder / "Ultralytics" / "settings.json"
    file.parent.mkdir()
    datasets = folder / "datasets"
    SettingsManager(file).update({"datasets_dir": str(datasets), "runs_dir": "runs", "weights_dir": "weights"})
    demo = read_shipped("gam-demo.yaml") | {"scenes": DEMO_SCENES, "path": str(datasets / "gam-demo")}
    (folder / "gam-demo.yaml").write_text(yaml.safe_dump(demo))
    check_det_dataset(str(folder / "gam-demo.yaml"))
    return folder


@dataclass(frozen=True)
class Reader:
    """Someone who follows a document.

    Attributes:
        folder: The working folder.
        settings: The folder of Ultralytics' settings.
        quick: Arguments of every training.
    """

    folder: Path
    settings: Path
    quick: dict[str, Any]

    def follow(self, block: Block) -> Iterator[str]:
        """Save or run a block; yield what went wrong."""
        if block.file:
            (self.folder / block.file).write_text(block.text)
        elif block.is_shell:
            yield from self.run_shell(block)
        elif block.language == "python":
            (self.folder / "example.py").write_text(block.text)
            (self.folder / "quick.py").write_text(QUICK_PYTHON.format(quick=self.quick, part=PART, large=LARGE))
            quick = ["quick.py"] if "train(" in block.text else []
            yield from self.run([sys.executable, *quick, "example.py"], block.place)

    def run_shell(self, block: Block) -> Iterator[str]:
        """Run a block's commands in one shell; parse instead those that cannot run."""
        script = ""
        for command in block.commands():
            if not any(re.search(pattern, command) for pattern in NOT_RUN):
                script += f"{command}\n"
                continue
            try:
                parse(command)
            except (Exception, SystemExit) as error:
                yield f"{block.place}: {command}\n{error!r}"
        for pattern, replacement in SUBSTITUTES.items():
            script = re.sub(pattern, replacement.format(shared=SHARED), script)
        if str(SHARED) in script and not SHARED.is_dir():
            return  # no real images here
        if script:
            brief = {key: self.quick[key] for key in ("imgsz", "device")}
            function = QUICK_SHELL % (LARGE, options(PART), options(self.quick), options(brief))
            yield from self.run(["bash", "-euo", "pipefail", "-c", function + script], block.place)

    def run(self, command: list[str], place: str) -> Iterator[str]:
        """Run one process; yield its output if it failed."""
        env = dict(os.environ)
        env.pop("PYTEST_CURRENT_TEST", None)  # with it, Ultralytics writes into its own folder
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        env["YOLO_CONFIG_DIR"] = str(self.settings)
        process: dict[str, Any] = {"cwd": self.folder, "env": env, "timeout": 900, "check": False}
        done = subprocess.run(command, text=True, capture_output=True, **process)
        if done.returncode:
            yield f"{place}: exit status {done.returncode}\n{command[-1]}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"


QUICK_PYTHON = """
import re, runpy
from ultralytics.engine import trainer
full = trainer.get_cfg
def quick(cfg, overrides):
    part = {part} if re.search({large!r}, str(overrides.get("data"))) else {{}}
    return full(cfg, {{**overrides, **{quick}, **part}})
trainer.get_cfg = quick
runpy.run_path("example.py", run_name="__main__")
"""

# `command yolo` is the executable; this function of the same name is what a line of a block calls.
QUICK_SHELL = """
yolo() {
  if [[ "$*" =~ %s ]]; then part=%s; else part=; fi
  case " $1 $2 " in
    *" train "*) command yolo "$@" %s $part ;;
    *) command yolo "$@" %s ;;
  esac
}
"""


def options(arguments: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in arguments.items())


def on_real_images(block: Block) -> bool:
    """Return whether a block's commands need the folder of real images."""
    return any(
        "{shared}" in replacement and re.search(pattern, block.text) for pattern, replacement in SUBSTITUTES.items()
    )


@pytest.mark.checkout
@pytest.mark.parametrize(
    "document",
    # The Chinese README has only commands of README.md, as a test below shows.
    [file for file in DOCUMENTS if any(b.runs for b in EXAMPLES[file]) and file.name != "README.zh-CN.md"],
    ids=lambda file: file.name,
)
def test_the_examples_run(document: Path, settings: Path, tmp_path: Path) -> None:
    text = "\n".join(block.text for block in EXAMPLES[document])
    for name, make in STAND_INS.items():
        if re.search(rf"(?<![\w-]){name}\b", text):
            make(tmp_path / name)
    named = re.findall(r"`(runs/[\w./-]+\.\w+)`", document.read_text("utf-8"))
    if not SHARED.is_dir():  # no real images here, so the blocks that need them do not run
        left_out = [block.text for block in EXAMPLES[document] if block.is_shell and on_real_images(block)]
        named = [name for name in named if not any(str(Path(name).parent) in text for text in left_out)]
    pictures = any(name.endswith((".jpg", ".png")) for name in named)
    reader = Reader(tmp_path, settings, QUICK | {"plots": pictures})
    problems = [problem for block in EXAMPLES[document] for problem in reader.follow(block)]
    assert not problems, "\n\n".join(problems)
    missing = [name for name in named if not (tmp_path / name).is_file()]
    assert not missing, f"{document.name} names files that its commands did not leave"


@pytest.mark.checkout
@pytest.mark.parametrize("notebook", sorted((ROOT / "docs").glob("*.ipynb")), ids=lambda file: file.name)
def test_notebooks_run(notebook: Path, settings: Path, tmp_path: Path) -> None:
    """The cells run in a kernel, with the trainings cut short; the committed file has no outputs."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    content = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in content.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells)
    quick = QUICK_PYTHON.format(quick=QUICK | {"plots": False}, part={}, large=LARGE).rpartition("runpy")[0]
    content.cells.insert(0, nbformat.v4.new_code_cell(quick))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)  # with it, Ultralytics writes into its own folder
        patch.setenv("YOLO_CONFIG_DIR", str(settings))
        nbclient.NotebookClient(content, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs/compare/report.html").is_file()
    assert (tmp_path / "runs/look/look.html").is_file()
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


class Parsed(Exception):  # noqa: N818  not an error
    """Raised where a command has read its arguments, before it does anything."""


def parse(command: str) -> None:
    """Read a command's arguments as the command itself would, and do nothing.

    Raises:
        Exception: What the command's own parser says of them.
    """
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    name, arguments = Path(words[0]).name, words[1:]
    if name == "torchrun":
        from torch.distributed.run import get_args_parser

        known = get_args_parser().parse_args([word for word in arguments if word != "$(which"])
        assert known.training_script == "yolo)"
        name, arguments = "yolo", known.training_script_args
    if name == "yolo":
        parse_yolo(arguments)
    elif name == "gam-yolo":
        group: Any = get_command(app)
        context = group.make_context(name, list(arguments))
        _, sub, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        sub.make_context(sub.name, rest, parent=context)
    elif name.startswith("python") and arguments[0].endswith(".py"):
        parse_script(ROOT / arguments[0], arguments[1:])


def parse_yolo(arguments: list[str]) -> None:
    """Let Ultralytics read the arguments, with a model that only notes what it is asked for."""
    asked: dict[str, Any] = {}

    class Model:
        task = "detect"

        def __init__(self, *_: object, **__: object) -> None: ...

        def __getattr__(self, mode: str) -> Callable[..., None]:
            return lambda **overrides: asked.update(overrides)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ultralytics, "YOLO", Model)
        entrypoint(" ".join(["yolo", *arguments]))
    assert asked
    get_cfg(overrides={key: value for key, value in asked.items() if key != "mode"})


def parse_script(script: Path, arguments: list[str]) -> None:
    """Start a script and stop it when it has read its arguments."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *args: Any) -> Any:
        original(self, *args)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Parsed):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", [str(script), *arguments])
        patch.syspath_prepend(script.parent)
        runpy.run_path(str(script), run_name="__main__")
        raise AssertionError(f"{script.name} reads no arguments")


@pytest.mark.checkout
@pytest.mark.parametrize(
    "script",
    [path for path in sorted((ROOT / "scripts").glob("*/*.py")) if path.name != "site_hooks.py"],  # MkDocs calls it
    ids=lambda path: path.name,
)
def test_every_script_reads_its_arguments(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        parse_script(script, ["--help"])
    assert done.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["gam-yolo place x --blokc GAM", "gam-yolo plaice x", "yolo train epoch=3"])
def test_a_wrong_argument_is_seen(command: str) -> None:
    with pytest.raises((Exception, SystemExit), match=r"--blokc|plaice|epoch"):
        parse(command)


@pytest.mark.checkout
def test_commands_within_sentences_can_be_parsed() -> None:
    for document in DOCUMENTS:
        sentences = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.S)
        for command in re.findall(r"`(gam-yolo [^`]+|yolo (?:\w+ )?(?:train|val|predict|export) [^`]+)`", sentences):
            if len(command.split()) > 2 and not re.search(r"\.\.\.|[<>|]|[A-Z]{3}", command):
                parse(command)


@pytest.mark.checkout
def test_yaml_examples_are_valid() -> None:
    for block in (block for found in EXAMPLES.values() for block in found if block.language == "yaml"):
        content = yaml.safe_load(block.text)
        if isinstance(content, list):  # rows of a model
            rows = [[-1, 1, "Conv", [64, 3, 2]], *content]
            DetectionModel({"nc": 2, "backbone": rows, "head": [[[-1], 1, "Detect", ["nc"]]]}, verbose=False)
        else:
            assert isinstance(content, dict), block.place


@pytest.mark.checkout
def test_the_chinese_readme_has_the_same_commands() -> None:
    chinese = [document for document in DOCUMENTS if document.name == "README.zh-CN.md"]
    english = [command for block in EXAMPLES[ROOT / "README.md"] if block.is_shell for command in block.commands()]
    for block in (block for document in chinese for block in EXAMPLES[document] if block.is_shell):
        assert set(block.commands()) <= set(english), block.place
