"""The rows that `docs/forks.md` tells users of ten forks to write are rows that build."""

from __future__ import annotations

import re
from pathlib import Path

import gam_yolo


def rows(root: Path) -> list[tuple[str, str]]:
    """Return the class and the row to write of each line of the table that has a row to write."""
    text = (root / "docs/forks.md").read_text("utf-8")
    section = text.partition("## Ten forks, row by row\n")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    return [(own.strip("`"), write.strip("`")) for _, own, _, write, _ in cells[2:] if write != "-"]


def test_every_row_to_write_builds_without_a_finding(root: Path, tmp_path: Path) -> None:
    found = rows(root)
    assert len(found) > 12
    for own, row in found:
        file = tmp_path / "model.yaml"
        file.write_text(
            "nc: 3\nbackbone:\n- [-1, 1, Conv, [128, 3, 2]]\n"
            f"- [-1, 1, {row}]\nhead:\n- [-1, 1, Conv, [128, 3, 2]]\n- [[1, 2], 1, Detect, [nc]]\n"
        )
        assert [finding for finding in gam_yolo.check(file) if finding.level != "note"] == [], (own, row)


def test_there_are_ten_forks(root: Path) -> None:
    text = (root / "docs/forks.md").read_text("utf-8")
    section = text.partition("## Ten forks, row by row\n")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| [\w.-]+/[\w.-]+ \|", section, re.M)) == 10
