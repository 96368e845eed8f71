"""The readers of files get some broken files in every run of the tests; `scripts/evidence/fuzz.py` makes many more."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fuzz
import pytest
from fuzz_guided import Choices

KINDS = ("model", "study", "labels", "coco", "voc", "predictions", "variable", "command")


def test_broken_files_end_in_a_result_or_in_one_line_of_error(root: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(root / "scripts/evidence/fuzz.py"), *KINDS, "--cases", "15", "--seed", "26"]
    ran = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    counts = re.findall(r"'result': (\d+), 'error': (\d+), 'failure': 0", ran.stdout)
    assert [sum(map(int, row)) for row in counts] == [15] * len(KINDS)
    assert list(tmp_path.iterdir()) == []


def raises() -> None:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (raises, "KeyError"),
        (lambda: print("\x1b]0;title"), "control characters"),
        (lambda: Path("executed").touch(), "code from a file was executed"),
        (lambda: Path("../beside").touch(), "a file outside the folder was written"),
        (lambda: Path(".gam-yolo-x").touch(), "left behind"),
        (lambda: sys.exit(3), "status 3"),
        (lambda: sys.exit(2), "0 lines of error"),
    ],
)
def test_a_case_fails_for_what_a_user_must_not_meet(
    monkeypatch: pytest.MonkeyPatch, case: Callable[[], object], why: str
) -> None:
    monkeypatch.setitem(fuzz.KINDS, "bad", lambda _: case)
    outcome, _, found = fuzz.run("bad", Choices(b""), first=False)
    assert outcome == "failure"
    assert why in found


def test_bytes_choose_the_case_and_end_in_zeros() -> None:
    few = Choices(b"\x07\x01")
    assert few.getrandbits(4) == 7
    assert [few.randrange(100) for _ in range(3)] == [16, 0, 0]
    assert [Choices(bytes([n])).choice("abcd") for n in range(5)] == ["a", "b", "c", "d", "a"]
    values = [Choices(bytes([n, n])).random() for n in range(256)]
    assert min(values) == 0
    assert max(values) < 1
    assert len(set(values)) == 256
