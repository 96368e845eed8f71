"""How files are read, at the commands that read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gam_yolo import UserError, check, prepare
from gam_yolo.io import read_yaml
from gam_yolo.study.config import read_study


@pytest.mark.parametrize(
    ("text", "read", "line", "key"),
    [
        ("data: a.yaml\nseeds: [0]\nvariants:\n  gam: {model: a.yaml}\n  gam: {model: b.yaml}\n", read_study, 5, "gam"),
        ("train: a\nval: b\nnames:\n  0: cat\n  0: dog\n", prepare, 5, "0"),
        ("nc: 2\nbackbone: [[-1, 1, Conv, [8, 3, 2]]]\nhead: []\nnc: 3\n", check, 4, "nc"),
    ],
)
def test_a_key_that_occurs_twice_is_an_error(
    text: str, read: Callable[[Path], Any], line: int, key: str, tmp_path: Path
) -> None:
    """YAML's readers take the last one; a variant of a study, or a class, would be gone without a word."""
    file = tmp_path / "a.yaml"
    file.write_text(text)
    says = rf"line {line}: is not valid YAML \(key '{key}' occurs twice\)"
    if read is check:
        (found,) = read(file)
        assert re.search(says, found.message)
    else:
        with pytest.raises(UserError, match=says):
            read(file)
    file.write_text("a: &one {x: 1, y: 2}\nb: {<<: *one, x: 3}\n")  # to override what is merged is what a merge is for
    assert read_yaml(file, "a file")["b"] == {"x": 3, "y": 2}
