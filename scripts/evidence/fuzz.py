"""Give every reader of files broken input, and check that it ends in a result or in one line of error.

    python scripts/evidence/fuzz.py --cases 200
    python scripts/evidence/fuzz.py model coco --minutes 10 --seed 7
    python scripts/evidence/fuzz.py coco --seed 7 --only 42 --keep /tmp/case

Each case takes a valid file, changes one to four places in it, and calls a command on it, as `gam-yolo` would. Values
are replaced by what files from elsewhere hold: empty and enormous ones, other types, other numbers, hostile names and
code. One case in five is damaged as bytes instead. One in twenty draws the charts of its report. A case fails if

- an exception other than the command's own error leaves it, or the exit status is not 0, 1 or 2;
- an error is not exactly one line, or a terminal's control characters are printed;
- it takes more than 10 seconds of processor time (apart from the first of a kind, which imports), or 4 GB of memory;
- code from a file was executed, a temporary file was left behind, or a file outside the case's folder was written.

Prints one row per kind of file, and how to repeat each failure. The exit status is 1 if a case failed. Linux only.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import copy
import functools
import gc
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unittest.mock
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import typer.main
import yaml
from rich.console import Console
from rich.table import Table

LIMIT = 10  # seconds of processor time, as other work may run beside it
DRAWN = 20  # of so many cases, one draws the charts of its report
WAITING = 20  # times as long by the clock
MEMORY = 4 << 30  # bytes
CODE = "__import__('pathlib').Path('executed').touch()"
UGLY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), 10**30, -(10**30), 2**63),
    *("", " ", "0", "x" * 5000, "\u202egnp.exe", "\x1b[31mred", "a\nb", "é", "e\u0301", "None", "nc", "nan", "1e999"),
    *("../../../../etc/passwd", "/dev/zero", "/", ".", "~", "CON", "a\x00b", "=1+1", "<script>alert(1)</script>"),
    *([], {}, [[]], [None], {"a": None}, [1, 2], [-1], [-1, -2], [10**9], {"": ""}, [[[[[[1]]]]]]),
    *(CODE, f"nn.ReLU({CODE})", "nn.Identity", "Detect", "GAM", "Concat", "os.system", "torch.hub.load", "$HOME", "*"),
)


Case = list[str] | Callable[[], object]
"""A command line, or what reads the files where no command does so alone."""


def main() -> int:
    """Run the cases of each kind, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=[*KINDS], help=f"kinds of files: {', '.join(KINDS)}")
    parser.add_argument("--cases", type=int, default=200, help="cases of each kind")
    parser.add_argument("--minutes", type=float, help="time for each kind, in place of a number of cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone, with its traceback")
    parser.add_argument("--keep", type=Path, help="copy the folder of each failed case there")
    options = parser.parse_args()
    for kind in options.kinds:
        if kind not in KINDS:
            parser.error(f"there is no kind '{kind}'")
    prepare()
    table = Table("kind", "cases", "results", "errors", "slowest, s", "failures")
    failures: dict[str, str] = {}
    for kind in options.kinds:
        counts, slowest, end = (
            {"result": 0, "error": 0, "failure": 0},
            0.0,
            time.monotonic() + 60 * (options.minutes or 0),
        )
        numbers = [options.only] if options.only is not None else range(1 << 40 if options.minutes else options.cases)
        for done, number in enumerate(numbers):
            if options.minutes and time.monotonic() > end:
                break
            rng = random.Random(f"{kind} {options.seed} {number}")  # noqa: S311  # a case, not a secret
            keep = options.keep and options.keep / f"{kind}-{options.seed}-{number}"
            outcome, seconds, why = run(kind, rng, keep, first=not done, draw=number % DRAWN == 0)
            counts[outcome] += 1
            if not done:
                gc.freeze()  # what was imported is not searched for garbage again
            slowest = max(slowest, seconds if done else 0)
            if why:
                failures.setdefault(
                    re.sub(r"\d+", "N", why.splitlines()[0]), f"{kind} --seed {options.seed} --only {number}: {why}"
                )
                if options.only is not None:
                    Console().print(why, markup=False)
        row = sum(counts.values()), counts["result"], counts["error"], f"{slowest:.1f}", counts["failure"]
        table.add_row(kind, *map(str, row))
        Console().print(f"{kind}: {counts}", markup=False)
    Console().print(table)
    for text in failures.values():
        Console().print(text.splitlines()[0], markup=False, soft_wrap=True)
    return bool(failures)


def prepare() -> None:
    """Limit the memory of this process, and have it neither ask the network nor compute in several threads."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.environ |= {"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "COLUMNS": "200"}
    # The parser of the command is otherwise made each time.
    typer.main.get_command = functools.cache(typer.main.get_command)


def run(
    kind: str, rng: random.Random, keep: Path | None = None, *, first: bool, draw: bool = False
) -> tuple[str, float, str]:
    """Run one case in a folder of its own, kept if it fails; return its outcome, its time, and why it failed."""
    before, environment = Path.cwd(), dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as outer:
        folder = Path(outer) / "case"
        folder.mkdir()
        os.chdir(folder)
        begin = time.process_time()
        try:
            arguments = KINDS[kind](rng)
            with drawing(draw):
                outcome, why = call(arguments, limit=6 * LIMIT if first else LIMIT)
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(environment)
        seconds = time.process_time() - begin
        if [path for path in Path(outer).iterdir() if path != folder]:
            why = why or "a file outside the folder was written"
        if (folder / "executed").exists():
            why = "code from a file was executed"
        if left := [path.name for path in folder.rglob(".gam-yolo-*")]:
            why = why or f"left behind: {left}"
        if why and keep:
            shutil.copytree(folder, keep, dirs_exist_ok=True, symlinks=True)
    return ("failure" if why else outcome), seconds, why


@contextlib.contextmanager
def drawing(wanted: bool) -> Iterator[None]:
    """Leave out the charts of reports unless they are wanted: they take ten times as long as all else."""
    from gam_yolo.report import render

    with unittest.mock.patch.object(render, "draw_charts", render.draw_charts if wanted else lambda _: ({}, [])):
        yield


class _TooSlowError(BaseException):
    pass


def call(arguments: Case, limit: float) -> tuple[str, str]:
    """Run a command in this process; return whether it gave a result or an error, and why that is a failure."""
    from gam_yolo.cli import main
    from gam_yolo.cli.console import exit_on_error

    def command() -> None:
        if isinstance(arguments, list):
            main()
        else:
            with exit_on_error():
                arguments()

    def stop(*_: object) -> None:
        raise _TooSlowError

    signal.signal(signal.SIGPROF, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_PROF, limit)
    signal.setitimer(signal.ITIMER_REAL, WAITING * limit)  # for a command that waits without end
    out, err, status = io.StringIO(), io.StringIO(), 0
    argv, sys.argv = sys.argv, ["gam-yolo", *(arguments if isinstance(arguments, list) else [])]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            command()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except _TooSlowError:
        return "failure", f"takes more than {limit} s: {arguments}"
    except BaseException as error:  # that is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        return (
            "failure",
            f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {str(error)[:200]!r}\n"
            + traceback.format_exc(),
        )
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.argv = argv
    shown = out.getvalue() + err.getvalue()
    shown = re.sub(r"\x1b\[(?:[\d;]*m|K)", "", shown) if "Scanning" in shown else shown  # Ultralytics colours its own
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f\x9b\u202a-\u202e\u2066-\u2069]", re.sub(r"\r", "", shown)):
        return "failure", f"prints control characters: {shown[:300]!r}"
    if status not in (0, 1, 2):
        return "failure", f"status {status}"
    lines = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
    checks = isinstance(arguments, list) and arguments[0] == "check"  # which lists its findings
    if status == 2 and not checks and len(lines) != 1 and "Usage" not in shown:
        return "failure", f"{len(lines)} lines of error: {shown[-300:]!r}"
    return ("error" if status == 2 else "result"), ""


# How files are broken


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container of a document with each of its keys or indices."""
    for key in [*tree] if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from places(tree[key])


def broken(tree: Any, rng: random.Random) -> Any:
    """Return a copy of a document with one to four changes."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        found = [*places(tree)]
        if not found:
            return rng.choice(UGLY)
        owner, key = rng.choice(found)
        change = rng.randrange(8)
        if change < 4:
            owner[key] = copy.deepcopy(rng.choice(UGLY))
        elif change == 4:
            del owner[key]
        elif change == 5:  # what is elsewhere in the file
            other, name = rng.choice(found)
            with contextlib.suppress(LookupError):  # one that an earlier change removed
                owner[key] = copy.deepcopy(other[name])
        elif change == 6 and isinstance(owner, list):
            owner.insert(key, copy.deepcopy(owner[key]))
        elif change == 7 and isinstance(owner, dict):
            owner[rng.choice([u for u in UGLY if isinstance(u, (str, int, float))])] = owner.pop(key)
        else:
            owner[key] = [owner[key]]
    return tree


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return bytes with one to four of them changed, a part removed or repeated, or cut off."""
    for _ in range(rng.choice((1, 2, 4))):
        at, length = rng.randrange(len(content) + 1), rng.choice((1, 1, 4, 40))
        new = rng.choice((b"", bytes([rng.randrange(256)]), content[at : at + length] * 2, b"\xff\xfe", b"\x00", b"\t"))
        content = content[:at] + new + (b"" if rng.random() < 0.1 else content[at + length :])
    return content


def put(path: str, tree: Any, rng: random.Random, dump: Callable[[Any], str], *, touch: bool = True) -> None:
    """Write a document, broken unless `touch` is false."""
    if not touch:
        Path(path).write_text(dump(tree), encoding="utf-8")
    elif rng.random() < 0.2:
        Path(path).write_bytes(damaged(dump(tree).encode(), rng))
    else:
        Path(path).write_bytes(dump(broken(tree, rng)).encode("utf-8", "surrogatepass"))


def as_yaml(tree: Any) -> str:
    """Write YAML."""
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, allow_unicode=True)


# Kinds of files: each function writes the files of a case and returns the command line, or the function to call


BACKBONE: list[Any] = [
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "Conv", [32, 3, 4]],
    [-1, 2, "C2f", [32, True]],
    [-1, 1, "GAM", [16]],
    [-1, 1, "Conv", [64, 3, 2]],
    [-1, 1, "SPPF", [64, 5]],
    [-1, 1, "CBAM", [{"kernel": 7}]],
]
HEAD: list[Any] = [
    [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
    [[-1, 3], 1, "Concat", [1]],
    [-1, 1, "C2f", [32]],
    [-1, 1, "ECA", []],
    [[10, 6], 1, "Detect", ["nc"]],
]
MODEL = {"nc": 3, "scales": {"n": [0.5, 0.5, 1024], "s": [1.0, 1.0, 1024]}, "backbone": BACKBONE, "head": HEAD}
NAMES = ["cat", "dog"]
TRUTH = "annotations/instances_val.json"


def a_model(rng: random.Random) -> list[str]:
    """A model YAML: `check` or `place`."""
    put("model.yaml", MODEL, rng, as_yaml)
    place = ["place", "model.yaml", "--block", "GAM", "--at", rng.choice(("p3", "5", "head-inputs", "after SPPF"))]
    return rng.choice((["check", "model.yaml"], [*place, "-o", "out.yaml"]))


RECIPE = {"epochs": 1, "imgsz": 64, "batch": 4, "optimizer": "AdamW", "device": "cpu", "lr0": 0.01}
VARIANTS = {
    "plain": {"model": "model.yaml"},
    "gam": {"base": "model.yaml", "block": "GAM", "at": "5", "args": [{"start": "zero"}], "block_lr": 2.0},
}
STUDY: dict[str, Any] = {
    **{"name": "s", "data": "data.yaml", "seeds": [0, 1], "recipe": RECIPE, "baseline": "plain"},
    **{"variants": VARIANTS, "pretrained": False, "hypothesis": "none"},
}


def a_study(rng: random.Random) -> list[str]:
    """A study file: a dry run."""
    put("model.yaml", MODEL, rng, as_yaml, touch=False)
    labels(rng, touch=False)
    put("study.yaml", STUDY, rng, as_yaml)
    return ["study", "study.yaml", "--dry-run", "--project", "studies"]


def labels(rng: random.Random, *, touch: bool) -> None:
    """Write a dataset YAML, its images and label files, one of them broken if `touch`."""
    from PIL import Image

    which = rng.choice(("yaml", "label", "image")) if touch else ""
    Path("images/val").mkdir(parents=True)
    Path("labels/val").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (64, 48), (i, 0, 0)).save(f"images/val/{i}.jpg")
        Path(f"labels/val/{i}.txt").write_text("0 0.5 0.5 0.25 0.25\n1 0.3 0.3 0.1 0.2\n")
    data = {"path": str(Path.cwd()), "train": "images/val", "val": "images/val", "names": dict(enumerate(NAMES))}
    put("data.yaml", {**data, "groups": r"(\d+)\.jpg"}, rng, as_yaml, touch=which == "yaml")
    if which == "label":
        rows: list[Any] = [[0, 0.5, 0.5, 0.25, 0.25], [1, 0.3, 0.3, 0.1, 0.2]]
        put(
            "labels/val/1.txt", rows, rng, lambda tree: "\n".join(map(_row, tree if isinstance(tree, list) else [tree]))
        )
    elif which == "image":
        image = Path("images/val/1.jpg")
        image.write_bytes(damaged(image.read_bytes(), rng))


def _row(row: Any) -> str:
    return " ".join(map(str, row if isinstance(row, list) else [row]))


PREDICTIONS = [
    {"image_id": i, "category_id": c, "bbox": [8, 8, 16 + i, 12], "score": 0.9 - 0.1 * c}
    for i in range(3)
    for c in (1, 2)
]


def predictions(rng: random.Random, *, touch: bool) -> list[str]:
    """Write two prediction files with records of how they were made; return the start of a command line."""
    which = rng.choice(("file", "record")) if touch else ""
    put("a.json", PREDICTIONS, rng, json.dumps, touch=which == "file")
    put("b.json", PREDICTIONS[:-1], rng, json.dumps, touch=False)
    if which == "record" or rng.random() < 0.3:
        record = {
            "imgsz": 640,
            "conf": 0.001,
            "iou": 0.7,
            "max_det": 300,
            "ultralytics": "8.4.0",
            "own": {"mAP50": 0.5},
        }
        put("a.protocol.json", record, rng, json.dumps, touch=which == "record")
    return ["compare", "a.json", "b.json", "--replicates", "100", "-o", "report"]


def a_label_folder(rng: random.Random) -> list[str]:
    """A dataset YAML, a label file or an image: `compare`, `prepare`."""
    labels(rng, touch=True)
    return rng.choice(([*predictions(rng, touch=False), "--data", "data.yaml"], ["prepare", "data.yaml"]))


def coco(rng: random.Random, *, touch: bool, number: int = 3) -> None:
    """Write a COCO annotation file in a folder of its own."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(number)]
    box = {"bbox": [8, 8, 16, 12], "area": 192, "iscrowd": 0, "segmentation": [[8, 8, 24, 8, 24, 20]]}
    objects = [{"id": 10 * i + c, "image_id": i, "category_id": c, **box} for i in range(number) for c in (1, 2)]
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
    Path("annotations").mkdir()
    tree = {"images": images, "annotations": objects, "categories": categories}
    put("annotations/instances_val.json", tree, rng, json.dumps, touch=touch)


def a_coco_file(rng: random.Random) -> list[str]:
    """A COCO annotation file: `compare`, `prepare --init`."""
    coco(rng, touch=True)
    return rng.choice(([*predictions(rng, touch=False), "--gt", TRUTH], ["prepare", "--init", "annotations"]))


def a_prediction_file(rng: random.Random) -> list[str]:
    """A prediction file or the record beside it: `compare`."""
    coco(rng, touch=False)
    return [*predictions(rng, touch=True), "--gt", TRUTH]


def a_voc_folder(rng: random.Random) -> list[str]:
    """A VOC XML file or list: `compare`."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        Path("voc", folder).mkdir(parents=True)
    box = {"xmin": 9, "ymin": 9, "xmax": 24, "ymax": 20}
    objects = [{"name": name, "difficult": 0, "truncated": 1, "bndbox": box} for name in NAMES]
    for i in range(3):
        tree = {"filename": f"{i}.jpg", "size": {"width": 64, "height": 48, "depth": 3}, "object": objects}
        put(f"voc/Annotations/{i}.xml", tree, rng, as_xml, touch=i == 1)
    put("voc/ImageSets/Main/val.txt", ["0", "1", "2"], rng, "\n".join, touch=False)
    return [*predictions(rng, touch=False), "--gt", "voc"]


def as_xml(tree: Any) -> str:
    """Write XML: a mapping's keys are elements, and a list's items are elements of one name."""
    root = ElementTree.Element("annotation")

    def fill(element: ElementTree.Element, value: Any) -> None:
        if not isinstance(value, dict):
            element.text = re.sub(r"[\x00-\x08\x0b-\x1f]", "", str(value))
            return
        for key, found in value.items():
            for one in found if isinstance(found, list) else [found]:
                fill(
                    ElementTree.SubElement(
                        element, re.sub(r"\W", "", f"x{key}" if str(key)[:1].isdigit() else str(key)) or "x"
                    ),
                    one,
                )

    fill(root, tree)
    return ElementTree.tostring(root, encoding="unicode")


def a_checkpoint(rng: random.Random) -> list[str]:
    """A checkpoint, its pickle or its archive damaged: `transfer`, `export-plain`."""
    source = _checkpoint()
    if rng.random() < 0.3:
        Path("a.pt").write_bytes(damaged(source, rng))
    else:
        with zipfile.ZipFile(io.BytesIO(source)) as old, zipfile.ZipFile("a.pt", "w") as new:
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, damaged(content, rng) if name.endswith("data.pkl") else content)
    put("model.yaml", MODEL, rng, as_yaml, touch=False)
    return rng.choice((["transfer", "a.pt", "model.yaml"], ["export-plain", "a.pt"]))


def _checkpoint(made: dict[str, bytes] = {}) -> bytes:  # noqa: B006  # made once
    if not made:
        import torch

        from gam_yolo import ultralytics_api

        with ultralytics_api.quiet():
            model = ultralytics_api.model_class(MODEL)(copy.deepcopy(MODEL), verbose=False)
        torch.save({"model": model, "ema": None, "version": "8.4.0", "train_args": {"imgsz": 64}}, "made.pt")
        made["a"] = Path("made.pt").read_bytes()
        Path("made.pt").unlink()
    return made["a"]


def a_report(rng: random.Random) -> list[str]:
    """A report.json of a finished comparison: `power`."""
    put("report.json", json.loads(_report()), rng, json.dumps)
    return ["power", "report.json", "--detect", "1"]


def _report(made: dict[str, str] = {}) -> str:  # noqa: B006  # made once
    if not made:
        import gam_yolo

        with tempfile.TemporaryDirectory() as folder:
            here = Path.cwd()
            os.chdir(folder)
            coco(random.Random(0), touch=False, number=40)  # noqa: S311
            for n, name in enumerate("abcd"):
                found = [{**PREDICTIONS[i % 2], "image_id": i} for i in range(40) if (i + n) % (n + 3)]
                Path(f"{name}.json").write_text(json.dumps(found))
            variants = {"a": ["a.json", "b.json"], "c": ["c.json", "d.json"]}
            gam_yolo.compare(variants, gt=TRUTH, replicates=100, output="report")
            made["a"] = Path("report/report.json").read_text()
            os.chdir(here)
    return made["a"]


def a_command_line(rng: random.Random) -> list[str]:
    """Arguments of every command."""
    put("model.yaml", MODEL, rng, as_yaml, touch=False)
    coco(rng, touch=False)
    start = predictions(rng, touch=False)
    lines = (
        [*start, "--gt", TRUTH, "--control", "b", "--groups", "none", "--imgsz", "64", "--split", "val"],
        ["place", "model.yaml", "--block", "GAM", "--at", "p3", "--args", "16", "--feeds", "all", "-o", "out.yaml"],
        ["check", "model.yaml", "--json"],
        ["transfer", "a.pt", "model.yaml"],
        ["study", "study.yaml", "--dry-run", "--only", "gam", "--project", "x"],
        ["power", "a.json", "--detect", "1", "--metric", "AP", "--seeds", "3", "--images", "100"],
        ["look", "a.pt", "a.jpg", "--limit", "3", "--pictures", "0", "--conf", "0.2"],
        ["blocks", "GAM"],
        ["prepare", "data.yaml"],
        ["prepare", "--init", "voc"],
        ["export-plain", "a.pt", "-o", "b.py"],
    )
    line = [*rng.choice(lines)]
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(1, len(line)) if len(line) > 1 else 0
        value = rng.choice(
            [str(u).replace("\x00", "") for u in UGLY] + ["--", "-", "a.json", "b=a.json", "[", "*.json"]
        )
        line[at : at + rng.randrange(2)] = [value]
    return line if line[0] != CODE else lines[0]


def a_snapshot(rng: random.Random) -> Case:
    """A snapshot of a training: which one is resumed from, and its files."""
    import torch

    from gam_yolo.study import snapshots
    from gam_yolo.study.folder import RunFolder

    run = RunFolder(Path("run"))
    for epoch in (0, 1):
        folder = run.snapshots / f"epoch-{epoch}"
        folder.mkdir(parents=True)
        for name in (snapshots.LAST, snapshots.BEST, snapshots.STATE):
            torch.save({"ended": False, "model": torch.zeros(3)}, folder / name)
        (folder / snapshots.RESULTS).write_text("epoch,time\n1,2.0\n")
    for _ in range(rng.choice((1, 1, 3))):
        file = rng.choice([path for path in run.snapshots.rglob("*") if path.is_file()])
        file.write_bytes(damaged(file.read_bytes(), rng))

    def resume() -> None:
        found, _ = snapshots.newest(run)
        if found:
            snapshots.restore_files(run, found)

    return resume


def a_study_folder(rng: random.Random) -> Case:
    """A file in the folder of a finished study: the same study again."""
    finished = _study()
    shutil.copytree(finished / "studies", "studies", ignore=shutil.ignore_patterns("*.jpg", "*.png"))
    for name in ("study.yaml", "data.yaml", "model.yaml"):
        shutil.copy(finished / name, name)
    files = [path for path in sorted(Path("studies").rglob("*")) if path.suffix in (".json", ".csv", ".yaml", ".txt")]
    file = rng.choice([path for path in files if path.name != "finished.json" or rng.random() < 0.5])
    if file.suffix == ".json":
        put(str(file), json.loads(file.read_text()), rng, json.dumps)
    else:
        file.write_bytes(damaged(file.read_bytes(), rng))
    return ["study", "study.yaml", "--project", "studies"]


def _study(made: dict[str, Path] = {}) -> Path:  # noqa: B006  # made once
    if not made:
        import gam_yolo

        here = Path.cwd()
        os.chdir(folder := tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder)
        a_study(random.Random(0))  # noqa: S311
        put("study.yaml", {**STUDY, "seeds": [0]}, random.Random(0), as_yaml, touch=False)  # noqa: S311
        gam_yolo.run_study("study.yaml", project="studies")
        made["a"] = Path(folder)
        os.chdir(here)
    return made["a"]


DOWNLOAD = "from gam_yolo.datasets import prepare_voc\nprepare_voc(yaml)\n"
OWN = """from torch import nn
from gam_yolo import register
@register
class Own(nn.Module):
    def __init__(self, c, by=2):
        super().__init__()
"""


def a_variable(rng: random.Random) -> Case:
    """`GAM_YOLO_BLOCKS` with the file that it names, and `GAM_YOLO_VOC`."""
    from gam_yolo.discovery import discover

    value = rng.choice([str(u).replace("\x00", "") for u in UGLY] + ["own.py", "own.py:own.py", ".:own.py"])
    if rng.random() < 0.3:
        a_voc_folder(rng)
        os.environ["GAM_YOLO_VOC"] = rng.choice((value, "voc", str(Path("voc").absolute())))
        data: dict[str, Any] = {"source": "$GAM_YOLO_VOC", "path": str(Path("set").absolute()), "train": "images/val"}
        data |= {"val": "images/val", "protocol": "voc", "first_pixel": 1, "names": dict(enumerate(NAMES))}
        put("data.yaml", {**data, "download": DOWNLOAD}, rng, as_yaml, touch=False)
        return ["prepare", "data.yaml"]
    Path("own.py").write_bytes(damaged(OWN.encode(), rng))
    os.environ["GAM_YOLO_BLOCKS"] = value

    def find() -> None:
        path = [*sys.path]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            print(*discover(), sep="\n")
        sys.path[:] = path
        sys.modules.pop("own", None)

    return find


KINDS: dict[str, Callable[[random.Random], Case]] = {
    "model": a_model,
    "study": a_study,
    "labels": a_label_folder,
    "coco": a_coco_file,
    "voc": a_voc_folder,
    "predictions": a_prediction_file,
    "checkpoint": a_checkpoint,
    "report": a_report,
    "snapshot": a_snapshot,
    "study folder": a_study_folder,
    "variable": a_variable,
    "command": a_command_line,
}

if __name__ == "__main__":
    sys.exit(main())
