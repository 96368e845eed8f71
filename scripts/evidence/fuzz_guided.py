"""Let a fuzzer choose how files are broken, guided by the branches of gam_yolo that a case reaches.

    pip install atheris
    python scripts/evidence/fuzz_guided.py model coco --minutes 5 --seed 1

The cases and what counts as a failure are those of `fuzz.py`. There a random generator chooses each change. Here the
choices are read from bytes, and Atheris (libFuzzer) changes the bytes: those that reach a new branch are kept and
changed further. Each kind runs in a process of its own, without the charts of reports.

Prints one row per kind: the branches of gam_yolo reached at the beginning and at the end as libFuzzer counts them, and
how to repeat each failure. `--repeat BYTES` runs one case again. The exit status is 1 if a case failed. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import pkgutil
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fuzz
from rich.console import Console
from rich.table import Table

SKIPPED = ("study folder",)  # a case takes two seconds


class Choices(random.Random):
    """Random numbers that are read from bytes, and are 0 where these end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self.data = int.from_bytes(data, "little")

    def getrandbits(self, k: int) -> int:
        """Take so many bits."""
        taken = self.data & ((1 << k) - 1)
        self.data >>= k
        return taken

    def random(self) -> float:
        """Take a number from 0 to 1."""
        return self.getrandbits(16) / (1 << 16)


def main() -> int:
    """Fuzz each kind, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [kind for kind in fuzz.KINDS if kind not in SKIPPED]
    parser.add_argument("kinds", nargs="*", default=known, help=f"kinds of files: {', '.join(known)}")
    parser.add_argument("--minutes", type=float, default=5, help="time for each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="folder in which the bytes of each kind are kept and found again")
    parser.add_argument("--repeat", metavar="BYTES", help="run the case of these bytes (hexadecimal), of one kind")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for kind in options.kinds:
        if kind not in known:
            parser.error(f"there is no kind '{kind}'")
    if options.child:
        explore(options.kinds[0], options.child, options)
    if options.repeat:
        outcome, _, why = fuzz.run(options.kinds[0], Choices(bytes.fromhex(options.repeat)), first=True)
        Console().print(outcome, why, markup=False)
        return outcome == "failure"
    table = Table("kind", "cases", "results", "errors", "slowest, s", "branches", "failures")
    failures: dict[str, str] = {}
    for kind in options.kinds:
        row, found = guided(kind, options)
        table.add_row(kind, *row)
        failures |= {f"{kind}: {reason}": data for reason, data in found.items()}
        Console().print(kind, *row, markup=False)
    Console().print(table)
    for reason, data in failures.items():
        Console().print(f"{reason} --repeat {data}", markup=False, soft_wrap=True)
    return bool(failures)


def guided(kind: str, options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """Fuzz one kind in a process; return the row of the table, and the bytes of each distinct failure by its reason."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "cases.jsonl")
        command = [sys.executable, __file__, kind, "--child", str(file), "--seed", str(options.seed)]
        command += ["--minutes", str(options.minutes)]
        command += ["--corpus", str(options.corpus)] if options.corpus else []
        log = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False).stderr
        cases = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    if not cases:
        raise SystemExit(f"error: no case of '{kind}' was run: {log[-500:]}")
    reached = [int(number) for number in re.findall(r"\bcov: (\d+)", log)]
    counts = {outcome: sum(case[0] == outcome for case in cases) for outcome in ("result", "error", "failure")}
    failures: dict[str, str] = {}
    for outcome, _, why, data in cases:
        if outcome == "failure":
            failures.setdefault(re.sub(r"\d+", "N", why.splitlines()[0]), data)
    slowest = max((seconds for _, seconds, _, _ in cases[1:]), default=0.0)
    branches = f"{reached[0]} to {reached[-1]}" if reached else "?"
    row = [len(cases), counts["result"], counts["error"], f"{slowest:.1f}", branches, counts["failure"]]
    return [*map(str, row)], failures


def explore(kind: str, file: Path, options: argparse.Namespace) -> None:
    """Fuzz one kind for some time, and write what each case gave; libFuzzer then ends the process."""
    import atheris

    import gam_yolo

    with atheris.instrument_imports(include=["gam_yolo"]):
        for module in pkgutil.walk_packages(gam_yolo.__path__, "gam_yolo."):
            if not module.name.endswith("__main__"):
                __import__(module.name)
    fuzz.prepare()
    ran, end = file.open("w"), time.monotonic() + 60 * options.minutes

    def one_case(data: bytes) -> None:
        if time.monotonic() > end:
            ran.flush()
            os._exit(0)  # libFuzzer looks at the time between its own steps only
        first = not ran.tell()
        outcome, seconds, why = fuzz.run(kind, Choices(data), first=first)
        ran.write(json.dumps([outcome, seconds, why, data.hex() if why else ""]) + "\n")

    corpus = []
    if options.corpus:
        (options.corpus / kind).mkdir(parents=True, exist_ok=True)
        corpus = [str(options.corpus / kind)]
    limits = [f"-seed={options.seed}", "-max_len=256", "-len_control=0", "-rss_limit_mb=0"]
    limits += ["-timeout=600", "-report_slow_units=600"]  # `fuzz.run` has limits of its own
    atheris.Setup([sys.argv[0], *limits, *corpus], one_case, enable_python_coverage=True)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
