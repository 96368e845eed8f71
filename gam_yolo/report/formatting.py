"""Numbers and names as people read them: points of 100, a true minus sign, a dash for a missing value."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gam_yolo.evaluation.meta_analysis import Overall
    from gam_yolo.report.schema import Difference, Value

__all__ = [
    "METRIC_NAMES",
    "MINUS",
    "cell",
    "gflops",
    "in_full",
    "listed",
    "markdown",
    "plain_text",
    "points",
    "printable",
    "short_path",
    "signed",
    "signed_in_full",
    "signed_span",
    "span",
]

MINUS, _MISSING = "\N{MINUS SIGN}", "\N{EN DASH}"

METRIC_NAMES = {
    "AP": "mAP 50-95",
    "AP50": "mAP 50",
    "AP75": "mAP 75",
    "APs": "mAP small",
    "APm": "mAP medium",
    "APl": "mAP large",
    "AR1": "recall, 1 detection",
    "AR10": "recall, 10 detections",
    "AR100": "recall, 100 detections",
    "ARs": "recall small",
    "ARm": "recall medium",
    "ARl": "recall large",
    "VOC2007 AP50": "VOC2007 mAP 50 (11 points)",
    "VOC2010 AP50": "VOC2010 mAP 50 (all points)",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
}
"""The metrics' names in tables and charts."""


def points(value: float | None) -> str:
    """Write a share as points of 100.

    Examples:
        >>> points(0.4156)
        '41.6'
    """
    return _MISSING if value is None else f"{100 * value:.1f}"


def signed(value: float | None) -> str:
    """Write a difference as points with its sign."""
    return _MISSING if value is None else f"{100 * value:+.1f}".replace("-", MINUS)


def gflops(value: float | None) -> str:
    """Write GFLOPs; those of small models with more digits.

    Examples:
        >>> gflops(8.71), gflops(0.0734)
        ('8.7', '0.073')
    """
    return _MISSING if not value else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def span(found: Value | Difference) -> str:
    """Write the interval of a value; nothing where there is none."""
    return "" if found.low is None else f"{points(found.low)} to {points(found.high)}"


def signed_span(found: Value | Difference | Overall) -> str:
    """Write the interval of a difference; nothing where there is none."""
    return "" if found.low is None else f"{signed(found.low)} to {signed(found.high)}"


def in_full(found: Value | Difference) -> str:
    """Write a value and, where there is one, its interval in brackets."""
    return _bracketed(points(found.value), span(found))


def signed_in_full(found: Value | Difference | Overall) -> str:
    """Write a difference and, where there is one, its interval in brackets."""
    return _bracketed(signed(found.value), signed_span(found))


_REORDERS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Unicode's classes of characters that change the order in which text after them is shown."""


def printable(text: str) -> str:
    r"""Escape control characters, what reorders text, and what is not UTF-8: names of files and classes may hold them.

    Examples:
        >>> print(printable("cat" + chr(27)))
        cat\x1b
    """
    return "".join(
        c.encode("unicode_escape", "surrogatepass").decode()
        if unicodedata.category(c) in ("Cc", "Cs") or unicodedata.bidirectional(c) in _REORDERS
        else c
        for c in text
    )


def markdown(text: str) -> str:
    """Escape what Markdown would take for markup, and what is not printable, so that the text is shown as it is."""
    return re.sub(r"([\\`*_\[\]<>|~$&#])", r"\\\1", printable(text))


def plain_text(headline: str, table: Sequence[Sequence[str]], notes: Iterable[str]) -> str:
    """Lay out a headline, a table and notes for terminals: columns of equal width, a hyphen for a minus sign."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([headline, "", *lines, "", *notes]).replace(MINUS, "-").strip()


def listed(names: list[str]) -> str:
    """Write names as a list in a sentence.

    Examples:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def short_path(path: str) -> str:
    """Write the end of a path, enough to tell runs apart; for a run folder's best weights, the folder.

    Examples:
        >>> short_path("runs/study/voc/gam-s1/train/weights/best.pt")
        'gam-s1/train'
    """
    parts = Path(path).parts
    return "/".join((parts[:-2] if parts[-2:] == ("weights", "best.pt") else parts)[-2:])


def _bracketed(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value


def cell(value: object) -> object:
    """Return the value of a spreadsheet's cell; text that the program would run as a formula gets an apostrophe.

    Examples:
        >>> cell("=1+1"), cell("gam"), cell(-1.5)
        ("'=1+1", 'gam', -1.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
