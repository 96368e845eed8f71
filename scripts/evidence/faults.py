"""Disturb commands while they run, and check that earlier results stay whole and that the same command then succeeds.

    python scripts/evidence/faults.py --kills 20 --seed 0

Each case has a folder with complete results of an earlier call. The command is called again on changed input, in a
forked process that has imported everything, and is disturbed: by signals at random moments, a limit of file sizes (as
a full disk, in the middle of a write), folders and files of another user, few open files, files that vanish or are cut
off while it runs, hostile names, closed and full standard output, and odd environments. Then

- it must have ended by the signal, or with status 0, 1 or 2, and with at most one line of error and no traceback;
- each file of the results must be complete: as before, or as an undisturbed call writes it;
- called again without the fault, it must succeed, and give what an undisturbed call gives.

`kill_study.py` does this for studies. Linux only; as root, so that there can be another user.
"""

from __future__ import annotations

import argparse
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
from fuzz import MODEL, as_yaml
from rich.console import Console
from rich.table import Table

from gam_yolo import resources

NOBODY = 65534
ODD = "a 'b' \"c\" ü \N{GRINNING FACE} \u202e\n$(touch executed)"
COMPARE = ["compare", "a.json", "b.json", "--gt", "truth.json", "--replicates", "100", "-o", "out"]
COMMANDS: dict[str, list[str]] = {
    "compare": COMPARE,
    "compare --latex": [*COMPARE, "--latex"],
    "place": [
        "place",
        "model.yaml",
        "--block",
        "GAM",
        "--at",
        "p3",
        "-o",
        "out/placed.yaml",
        "--show",
        "out/graph.svg",
        "--force",
    ],
    "prepare": ["prepare", "demo.yaml"],
}
Prepare = Callable[[Path], object]


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


def results() -> dict[str, bytes]:
    """Return the files of the results, without what differs from call to call."""
    found = {}
    for path in sorted(Path("out").rglob("*")):
        if path.is_file() and not path.name.startswith(".gam-yolo-") and path.suffix not in (".cache", ".pdf", ".lock"):
            content = path.read_bytes()
            found[str(path)] = re.sub(rb"\d{4}-\d\d-\d\dT[\d:.+]+", b"TIME", content)
    return found


def forked(
    arguments: list[str], before: Prepare = lambda _: None, kill: tuple[float, int] | None = None
) -> tuple[int, str]:
    """Run a command in a forked process; return its exit status, negative for a signal, and what it printed."""
    sys.stdout.flush()
    read, out = os.pipe()
    child = os.fork()
    if not child:
        _command(arguments, before, out)
    os.close(out)
    if kill:
        time.sleep(kill[0])
        os.kill(child, kill[1])
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(read, "rb") as shown:
        return status, shown.read().decode(errors="replace")


def _command(arguments: list[str], before: Prepare, out: int) -> None:
    """Run a command, and end this process as Python would."""
    status = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(out, 1)
        os.dup2(out, 2)
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


FAULTS: dict[str, Prepare] = {
    **{f"no file over {limit} bytes": size_limit(limit) for limit in (0, 300, 5000, 40_000)},
    "folder of another user": other_user,
    "unreadable input": unreadable,
    "64 open files": few_files,
    "umask 077": lambda _: os.umask(0o077),
    "no HOME, no locale": environment(HOME=None, LANG=None, LC_ALL="C", XDG_CONFIG_HOME=None),
    "20 columns, no colour": environment(COLUMNS="20", TERM="dumb", NO_COLOR="1"),
    "full standard output": full_output,
    "closed standard output": closed_output,
    **{f"input vanishes at open {n}": changing(Path.unlink, n) for n in (1, 2, 3, 6)},
    **{f"input is cut at open {n}": changing(cut, n) for n in (1, 2, 3, 6)},
}


def case(name: str, fault: Prepare, kill: tuple[float, int] | None, folder: Path) -> tuple[str, str]:
    """Run one case; return how the disturbed call ended, and what is wrong, if anything."""
    arguments = COMMANDS[name]
    os.chdir(folder)
    Path("out").mkdir()
    inputs(0)
    status, shown = forked(arguments)
    if status:
        return "setup", f"the first call fails: {shown[-300:]}"
    old = results()
    inputs(1)
    status, shown = forked(arguments, fault, kill)
    ended = "signal" if status < 0 or status == 130 else "completed" if status in (0, 1) else f"status {status}"
    wrong = ""
    if "Traceback" in shown and status != 130:
        wrong = f"traceback: {shown[-500:]}"
    elif status not in (0, 1, 2, 130) and not (kill and status == -kill[1]):
        wrong = f"status {status}: {shown[-300:]}"
    elif status == 2 and sum(line.startswith("error: ") for line in shown.splitlines()) > 1:
        wrong = f"several errors: {shown[-300:]}"
    middle = results()
    inputs(1)
    status, shown = forked(arguments)
    if status:
        return ended, wrong or f"the same command fails afterwards: {shown[-300:]}"
    after = results()
    for path, content in middle.items():
        if content not in (old.get(path), after.get(path)) and not path.startswith("out/demo"):
            wrong = wrong or f"{path} is neither the old file nor the new one"
    shutil.rmtree("out")
    Path("out").mkdir()
    forked(arguments)
    fresh = results()
    if {k: v for k, v in after.items() if k in fresh} != fresh:
        changed = [k for k in fresh if after.get(k) != fresh[k]]
        wrong = wrong or f"after the fault the command gives another result: {changed[:3]}"
    if (folder / "executed").exists():
        wrong = "code in a name was executed"
    return ended, wrong


def main() -> int:
    """Run all cases, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", default=[*COMMANDS], help=f"some of: {', '.join(COMMANDS)}")
    parser.add_argument("--kills", type=int, default=20, help="signals at random moments, for each command and signal")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp()
    Path(os.environ["YOLO_CONFIG_DIR"]).chmod(0o777)
    from gam_yolo import comparing, graph, ultralytics_api  # imported once, for all forks
    from gam_yolo.attention import look

    del comparing, graph, look
    ultralytics_api.tasks()
    rng = random.Random(options.seed)  # noqa: S311
    table = Table("command", "fault", "cases", "ended", "failures")
    failures = []
    for name in options.commands:
        with tempfile.TemporaryDirectory(prefix="faults-") as outer:
            os.chdir(outer)
            Path("out").mkdir()
            inputs(0)
            begin = time.monotonic()
            forked(COMMANDS[name])
            length = time.monotonic() - begin
            os.chdir("/")
        cases: list[tuple[str, Prepare, tuple[float, int] | None]] = [
            (fault, make, None) for fault, make in FAULTS.items()
        ]
        for sent in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            cases += [(sent.name, lambda _: None, (rng.uniform(0, 1.1 * length), sent)) for _ in range(options.kills)]
        ends: dict[str, Counter[str]] = {}
        wrongs: Counter[str] = Counter()
        for number, (fault, make, kill) in enumerate(cases):
            with tempfile.TemporaryDirectory(prefix="faults-") as outer:
                folder = Path(outer) / (ODD if number % 7 == 3 else "case")
                folder.mkdir()
                ended, wrong = case(name, make, kill, folder)
                Console(stderr=True).print(f"{name}, {fault}: {ended}; {wrong or 'all is well'}", markup=False)
                os.chdir("/")
            ends.setdefault(fault, Counter())[ended] += 1
            if wrong:
                wrongs[fault] += 1
                failures.append(f"{name}, {fault}, in {folder.name!r}: {wrong}")
        for fault, found in ends.items():
            how = ", ".join(f"{end}: {count}" for end, count in found.items())
            table.add_row(name, fault, str(sum(found.values())), how, str(wrongs[fault]))
    Console(width=140).print(table)
    for failure in failures:
        Console().print(failure, markup=False, soft_wrap=True)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
