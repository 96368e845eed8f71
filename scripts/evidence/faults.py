"""Disturb commands while they run, and check that earlier results stay whole and that the same command then succeeds.

    python scripts/evidence/faults.py --kills 20 --seed 0

Each case has a folder with complete results of an earlier call. The command is called again on changed input, in a
forked process that has imported everything, and is disturbed by one of these:

- Signals at random moments, a second call at the same time, a clock that jumps.
- A limit of file sizes, as a full disk in the middle of a write. Few open files. Too little memory.
- Folders and files of another user. Renames that fail as on a network file system.
- Files that vanish or are cut off while it runs. Hostile names.
- Closed and full standard output. Odd environments.

Then

- It must have ended by the signal, or with status 0, 1 or 2. At most one line of error is allowed, and no traceback.
- Each file of the results must be there and complete: as before, or as an undisturbed call writes it.
- Called again without the fault, it must succeed, and give what an undisturbed call gives.

In a study these are its finished runs and the numbers of its report, and no finished run may be trained again.
`kill_study.py` kills the trainings of studies too. Linux only; as root, so that there can be another user. The clock
needs libfaketime: `apt install libfaketime`.
"""

from __future__ import annotations

import argparse
import codecs
import copy
import functools
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
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from fuzz import MODEL, NAMES, STUDY, as_yaml, labels
from rich.console import Console
from rich.table import Table

from gam_yolo import resources

NOBODY = 65534
ODD = "a 'b' \"c\" ü \N{GRINNING FACE} \u202e\n$(touch executed)"
COMPARE = ["compare", "a.json", "b.json", "--gt", "truth.json", "--replicates", "100", "-o", "out"]
PLACE = ["place", "model.yaml", "--block", "GAM", "--at", "p3", "--force", "--show", "out/graph.svg"]
CHECKPOINTS = ["compare", "a.pt", "b.pt", "--data", "data.yaml", "--imgsz", "64", "--replicates", "100", "-o", "out"]
COMMANDS: dict[str, list[str]] = {
    "compare": COMPARE,
    "compare --latex": [*COMPARE, "--latex"],
    "compare --data": CHECKPOINTS,
    "place": [*PLACE, "-o", "out/placed.yaml"],
    "prepare": ["prepare", "demo.yaml"],
    "look": ["look", "a.pt", "photos", "--pictures", "1", "--imgsz", "64", "-o", "out"],
    "study": ["study", "study.yaml", "--project", "out", "--workers", "1"],
}
VARIANTS = {
    "plain": {"model": "base.yaml"},
    "gam": {"base": "base.yaml", "block": "GAM", "at": "5", "args": [{"start": "zero"}], "block_lr": 2.0},
}
RECIPE = {**STUDY["recipe"], "epochs": 2, "plots": False}
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
DAY = 86_400
Prepare = Callable[[Path], object]
Kills = list[tuple[float, int]]


def inputs(number: int) -> None:
    """Write what the commands read; the number changes the content."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(40)]
    box = {"category_id": 1, "bbox": [8, 8, 16, 12], "area": 192, "iscrowd": 0}
    truth = {"images": images, "annotations": [{"id": i, "image_id": i, **box} for i in range(40)]}
    Path("truth.json").write_text(json.dumps({**truth, "categories": [{"id": 1, "name": "cat"}]}))
    for name, period in (("a", 4 + number), ("b", 40)):
        found = [
            {"image_id": i, "category_id": 1, "bbox": [8, 8, 16, 12], "score": 0.9} for i in range(40) if i % period
        ]
        Path(f"{name}.json").write_text(json.dumps(found))
    Path("model.yaml").write_text(as_yaml({**MODEL, "nc": 3 + number}))
    demo = {"path": str(Path.cwd() / "out/demo"), "train": "images/train", "val": "images/val", "seed": number}
    shipped = resources.shipped("gam-demo.yaml")
    content = yaml.safe_load(shipped.read_text(encoding="utf-8")) if shipped else {}
    Path("demo.yaml").write_text(as_yaml({**content, **demo, "scenes": {"train": 6, "val": 4}}))
    if not Path("images").exists():
        labels(random.Random(0), touch=False)  # noqa: S311
        shutil.copytree("images/val", "photos")
    data = {"path": str(Path.cwd()), "train": "images/val", "val": "images/val", "names": dict(enumerate(NAMES))}
    Path("data.yaml").write_text(as_yaml(data))
    Path("base.yaml").write_text(as_yaml(MODEL))
    study = {**STUDY, "variants": VARIANTS, "recipe": RECIPE, "seeds": [0, 1][: 1 + number]}
    Path("study.yaml").write_text(as_yaml(study))
    for name, which in (("a", number), ("b", 2)):
        Path(f"{name}.pt").write_bytes(checkpoint(which))


@functools.cache
def checkpoint(seed: int) -> bytes:
    """Return a checkpoint of random weights."""
    import torch

    from gam_yolo import ultralytics_api

    torch.manual_seed(seed)
    config: dict[str, Any] = {**MODEL, "nc": len(NAMES)}
    with ultralytics_api.quiet():
        model = ultralytics_api.model_class(config)(copy.deepcopy(config), verbose=False)
    model.names = dict(enumerate(NAMES))
    written = io.BytesIO()
    torch.save({"model": model, "ema": None, "version": "8.4.0", "train_args": {"imgsz": 64}}, written)
    return written.getvalue()


def results(name: str) -> dict[str, Any]:
    """Return the content of the files of the results, without what differs from call to call."""
    found: dict[str, Any] = {}
    for path in sorted(Path("out").rglob("*")):
        temporary = any(part.startswith((".gam-yolo-", ".demo-")) for part in path.parts)
        if temporary or not path.is_file() or path.suffix in (".cache", ".pdf", ".lock"):
            continue
        if path.name == "digests.json":  # the times of files are in it
            json.loads(path.read_text())
            continue
        content = re.sub(rb"\d{4}-\d\d-\d\dT[\d:.+]+", b"TIME", path.read_bytes())
        if name != "study":
            found[str(path)] = content
        elif path.name == "report.json":
            report = json.loads(content)["variants"]
            found[str(path)] = [{key: one[key] for key in ("name", "metrics", "differences")} for one in report]
        elif path.name == "finished.json":
            found[str(path)] = content
    return found


def trained() -> dict[str, int]:
    """Return when each finished run was trained."""
    return {str(path): path.stat().st_mtime_ns for path in Path("out").rglob("finished.json")}


def forked(arguments: list[str], before: Prepare = lambda _: None, kills: Kills | None = None) -> tuple[int, str]:
    """Run a command in a forked process; return its exit status, negative for a signal, and what it printed."""
    sys.stdout.flush()
    read, out = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        _command(arguments, before, out)
    os.close(out)
    for seconds, sent in kills or []:
        time.sleep(seconds)
        os.kill(child, sent)  # it stays until it is waited for
    with os.fdopen(read, "rb") as shown:
        text = shown.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def _command(arguments: list[str], before: Prepare, out: int) -> None:
    """Run a command, and end this process as Python would."""
    status = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        # The parent's may be files, which a pipe cannot replace.
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        sys.argv = ["gam-yolo", *arguments]
        before(Path.cwd())
        from gam_yolo.cli import main as command

        command()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


# Faults


def size_limit(limit: int) -> Prepare:
    """Fail each write beyond so many bytes of a file, as a full disk does."""
    return lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def other_user(folder: Path) -> None:
    """Become a user who may read everything, and write nothing."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder.parent.chmod(0o755)
    codecs.lookup("unicode-escape")  # which that user may not be able to import
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def unreadable(folder: Path) -> None:
    """Become a user who may not read the input."""
    for path in folder.glob("*.*"):
        path.chmod(0o600)
    other = [path for path in folder.glob("*.*") if path.is_file()]
    folder.parent.chmod(0o755)
    folder.chmod(0o777)
    for path in other:
        path.chmod(0)
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def few_files(_: Path) -> None:
    """Allow 64 open files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def environment(**values: str | None) -> Prepare:
    """Set or remove environment variables."""

    def change(_: Path) -> None:
        for name, value in values.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)

    return change


def full_output(_: Path) -> None:
    """Print to a full device."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def closed_output(_: Path) -> None:
    """Print to a pipe that has no reader."""
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)


def changing(damage: Callable[[Path], object], moment: int) -> Prepare:
    """Damage the input when so many files have been opened."""

    def install(folder: Path) -> None:
        opened = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal opened
            if event == "open" and str(arguments[0]).endswith((".json", ".yaml", ".jpg")):
                opened += 1
                if opened == moment:
                    for path in [*folder.glob("*.json"), *folder.glob("*.yaml")]:
                        damage(path)

        sys.addaudithook(hook)

    return install


def cut(path: Path) -> None:
    """Cut a file off in its middle."""
    os.truncate(path, path.stat().st_size // 2)


def twice(_: Path) -> None:
    """Run the command a second time at the same time."""
    os.fork()


def little_memory(megabytes: int) -> Prepare:
    """Fail each allocation beyond so many megabytes more than there are now."""

    def limit(_: Path) -> None:
        found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
        most = (int(found[1]) << 10 if found else 0) + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    return limit


def sabotage(code: str, where: str = "") -> Prepare:
    """Execute code in the command and in the processes that it starts, or in those whose command line has a word."""

    def install(folder: Path) -> None:
        site = folder.parent / "site"
        site.mkdir(exist_ok=True)
        chosen = f"import sys\nif {where!r} in ' '.join(sys.orig_argv):\n    exec({code!r})\n"
        (site / "sitecustomize.py").write_text(chosen)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
        if not where:
            exec(code, {})  # noqa: S102

    return install


def renames(error: str, *which: int) -> str:
    """Return code that makes the given renames of a process fail, all if none are given."""
    return f"""
import errno, itertools, os
count, which = itertools.count(1), {which}
def failing(rename):
    def call(source, target, **extra):
        if not which or next(count) in which:
            raise OSError(errno.{error}, os.strerror(errno.{error}), str(source), None, str(target))
        return rename(source, target, **extra)
    return call
os.replace, os.rename = failing(os.replace), failing(os.rename)
"""


def memory(megabytes: int) -> str:
    """Return code that fails each allocation of a process beyond so many megabytes."""
    return f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({megabytes << 20}, {megabytes << 20}))"


def clock(by: str, after: int) -> Prepare:
    """Have the clock of the command and the processes that it starts jump after so many seconds."""

    def jump(_: Path) -> None:
        os.environ |= {"LD_PRELOAD": FAKETIME, "FAKETIME": by, "FAKETIME_START_AFTER_SECONDS": str(after)}
        os.environ |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        code = "from gam_yolo.cli import main; main()"
        os.execv(sys.executable, [sys.executable, "-c", code, *sys.argv[1:]])  # noqa: S606

    return jump


def from_tomorrow(folder: Path) -> None:
    """Give all files times of tomorrow, as after a clock that was ahead."""
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (time.time() + DAY,) * 2)


FAULTS: dict[tuple[str, str], Prepare] = {
    **{("no file over some bytes (disk full)", f"{limit}"): size_limit(limit) for limit in (0, 300, 5000, 40_000)},
    ("folder of another user", ""): other_user,
    ("unreadable input", ""): unreadable,
    ("64 open files", ""): few_files,
    ("umask 077", ""): lambda _: os.umask(0o077),
    ("no HOME, no locale", ""): environment(HOME=None, LANG=None, LC_ALL="C", XDG_CONFIG_HOME=None),
    ("20 columns, no colour", ""): environment(COLUMNS="20", TERM="dumb", NO_COLOR="1"),
    ("full standard output", ""): full_output,
    ("closed standard output", ""): closed_output,
    **{("input vanishes", f"open {n}"): changing(Path.unlink, n) for n in (1, 2, 3, 6)},
    **{("input is cut", f"open {n}"): changing(cut, n) for n in (1, 2, 3, 6)},
    **{("too little memory", f"{n} MB more"): little_memory(n) for n in (1, 4, 10, 25, 60, 150)},
    **{
        ("renames fail", f"{error} {which or 'all'}"): sabotage(renames(error, *which))
        for error, which in (("EBUSY", ()), ("ESTALE", (1,)), ("EBUSY", (2,)), ("ESTALE", (3,)), ("EIO", (4, 5, 6)))
    },
    **{("two at the same time", f"{n}"): twice for n in (1, 2, 3)},
    **{("clock jumps", f"{by} after {n} s"): clock(by, n) for by, n in (("-1d", 4), ("-3000d", 5), ("+400d", 4))},
    ("clock jumps", "all files are from tomorrow"): from_tomorrow,
}
OF_A_STUDY: dict[tuple[str, str], Prepare] = {
    **{
        ("too little memory in one training", f"{n} MB"): sabotage(memory(n), "gam-s1-")
        for n in (150, 400, 600, 800, 1000, 1200)
    },
    **{
        ("renames fail in the trainings", f"{error} {which or 'all'}"): sabotage(renames(error, *which), "study.worker")
        for error, which in (("EBUSY", ()), ("ESTALE", (1,)), ("EBUSY", (2,)), ("ESTALE", (3,)), ("EBUSY", (4,)))
    },
}


class Cases:
    """The cases of one command: each begins with a copy of a folder with complete results, at the same place."""

    def __init__(self, name: str, outer: Path) -> None:
        self.name, self.arguments, self.outer = name, COMMANDS[name], outer
        self._made: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.length = 0.0

    def begin(self, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """Set a folder up, and go there; return its results, and those of the changed input."""
        kept = self.outer / f"kept-{len(folder.name)}"
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
        if folder.name not in self._made:
            folder.mkdir()
            os.chdir(folder)
            new = self._results(1)
            shutil.rmtree("out")
            old = self._results(0)
            os.chdir("/")
            folder.rename(kept)
            self._made[folder.name] = old, new
        shutil.copytree(kept, folder, symlinks=True)
        os.chdir(folder)
        return self._made[folder.name]

    def _results(self, number: int) -> dict[str, Any]:
        Path("out").mkdir()
        inputs(number)
        begin = time.monotonic()
        status, shown = forked(self.arguments)
        self.length = time.monotonic() - begin
        if status:
            raise SystemExit(f"{self.name}: the undisturbed command fails: {shown[-1000:]}")
        return results(self.name)

    def run(self, fault: Prepare, kills: Kills | None, folder: Path) -> tuple[str, str]:
        """Run one case; return how the disturbed call ended, and what is wrong, if anything."""
        old, new = self.begin(folder)
        if self.name == "prepare":  # which keeps a dataset that is there, whatever has changed
            shutil.rmtree("out/demo")
        inputs(1)
        before = trained()
        status, shown = forked(self.arguments, fault, kills)
        ended = "signal" if status < 0 or status == 130 else {0: "completed", 1: "failed runs"}.get(status, "error")
        wrong = self._wrong_end(status, shown, kills)
        try:
            middle = results(self.name)
        except (ValueError, KeyError) as error:
            middle, wrong = {}, wrong or f"a result is not whole: {error}"
        for path in old.keys() | middle.keys():
            if self.name != "prepare" and middle.get(path) not in (old.get(path), new.get(path)):
                wrong = wrong or f"{path} is {'neither the old file nor the new one' if path in middle else 'lost'}"
        inputs(1)
        status, said = forked(self.arguments)
        if status:
            return ended, wrong or f"the same command fails afterwards: {said[-300:]}"
        after = results(self.name)
        if {k: v for k, v in after.items() if k in new} != new:
            changed = [k for k in new if after.get(k) != new[k]]
            wrong = wrong or f"after the fault the command gives another result: {changed[:3]}"
        if fault is not from_tomorrow and before.items() - trained().items():
            wrong = wrong or "a finished run was trained again"
        if (folder / "executed").exists():
            wrong = "code in a name was executed"
        return ended, wrong

    def _wrong_end(self, status: int, shown: str, kills: Kills | None) -> str:
        logged = self.name == "study" and "the end of " in shown  # of a training's log
        if "Traceback" in shown and status != 130 and not logged:
            return f"traceback: {shown[-1500:]}"
        if status not in (0, 1, 2, 130) and status not in [-sent for _, sent in kills or []]:
            return f"status {status}: {shown[-300:]}"
        if status == 2 and sum(line.startswith("error: ") for line in shown.splitlines()) > 1:
            return f"several errors: {shown[-300:]}"
        return ""


def main() -> int:
    """Run all cases, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", default=[*COMMANDS], help=f"some of: {', '.join(COMMANDS)}")
    parser.add_argument("--kills", type=int, default=20, help="signals at random moments, for each command and signal")
    parser.add_argument("--only", default="", help="only faults whose names match this expression")
    parser.add_argument("--minutes", type=float, help="time for each command; its cases come in random order then")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp()
    Path(os.environ["YOLO_CONFIG_DIR"]).chmod(0o777)
    from gam_yolo import comparing, graph, ultralytics_api  # imported once, for all forks
    from gam_yolo.attention import look
    from gam_yolo.study import run as study

    del comparing, graph, look, study
    ultralytics_api.tasks()
    for seed in range(3):
        checkpoint(seed)
    rng = random.Random(options.seed)  # noqa: S311
    ends: dict[str, Counter[str]] = {}
    failures = []
    for name in options.commands:
        with tempfile.TemporaryDirectory(prefix="faults-") as outer:
            made = Cases(name, Path(outer))
            made.begin(Path(outer) / "case")
            faults = FAULTS | (OF_A_STUDY if name == "study" else {})
            cases: list[tuple[tuple[str, str], Prepare, Kills | None]] = [
                (key, make, None) for key, make in faults.items()
            ]
            for signals in ("KILL", "TERM", "INT", "INT INT"):
                for _ in range(options.kills):
                    sent = [signal.Signals[f"SIG{one}"] for one in signals.split()]
                    moments = [rng.uniform(0, 1.1 * made.length), rng.uniform(0, 1)]
                    key = "Ctrl-C twice" if len(sent) > 1 else "signal (KILL, TERM, INT)", signals
                    cases.append((key, lambda _: None, [*zip(moments, sent, strict=False)]))
            cases = [case for case in cases if re.search(options.only, " ".join(case[0]))]
            if options.minutes:
                rng.shuffle(cases)
            begin = time.monotonic()
            for number, ((fault, detail), make, kills) in enumerate(cases):
                if options.minutes and time.monotonic() - begin > 60 * options.minutes:
                    break
                folder = Path(outer) / (ODD if number % 7 == 3 and name != "study" else "case")
                ended, wrong = made.run(make, kills, folder)
                line = f"{name}, {fault} {detail}: {ended}; {wrong or 'all is well'}"
                Console(stderr=True).print(line, markup=False, soft_wrap=True)
                ends.setdefault(fault, Counter()).update([ended, *(["failures"] if wrong else [])])
                if wrong:
                    failures.append(f"{name}, {fault} {detail}, in {folder.name!r}: {wrong}")
            os.chdir("/")
    columns = {"completed": "completed", "failed runs": "runs failed", "error": "one line of error"}
    columns |= {"signal": "ended by the signal", "failures": "failures"}
    table = Table("fault", "cases", *columns.values())
    for fault, found in ends.items():
        table.add_row(fault, str(found.total() - found["failures"]), *(str(found[key]) for key in columns))
    Console(width=140).print(table)
    for failure in failures:
        Console().print(failure, markup=False, soft_wrap=True)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
