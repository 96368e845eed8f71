"""Numbers as people read them: points of 100, with a true minus sign, and a dash where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["MINUS", "in_full", "points", "short_path", "signed", "signed_in_full", "signed_span", "span"]

MINUS, _NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


def points(value: float | None) -> str:
    """Write a share as points of 100."""
    return _NONE if value is None else f"{100 * value:.1f}"


def signed(value: float | None) -> str:
    """Write a difference as points with its sign."""
    return _NONE if value is None else f"{100 * value:+.1f}".replace("-", MINUS)


def span(found: dict[str, Any]) -> str:
    """Write the interval of a value; nothing where there is none."""
    return "" if found["low"] is None else f"{points(found['low'])} to {points(found['high'])}"


def signed_span(found: dict[str, Any]) -> str:
    """Write the interval of a difference; nothing where there is none."""
    return "" if found["low"] is None else f"{signed(found['low'])} to {signed(found['high'])}"


def in_full(found: dict[str, Any]) -> str:
    """Write a value and, where there is one, its interval in brackets."""
    return _bracketed(points(found["value"]), span(found))


def signed_in_full(found: dict[str, Any]) -> str:
    """Write a difference and, where there is one, its interval in brackets."""
    return _bracketed(signed(found["value"]), signed_span(found))


def short_path(path: str) -> str:
    """Write the end of a path, enough to tell runs apart; of a run folder's best weights the folder says it."""
    parts = Path(path).parts
    return "/".join((parts[:-2] if parts[-2:] == ("weights", "best.pt") else parts)[-2:])


def _bracketed(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value
