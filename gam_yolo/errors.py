"""The one kind of error that is the user's to mend, told in one sentence.

Every entry point (the `gam-yolo` command, and the `yolo` command through `gam_yolo.plugin`) prints such an error
without a traceback and ends with exit status 2. Anything else that is raised is a bug of ours and keeps its
traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["EXIT_STATUS", "UserError", "nearest"]

EXIT_STATUS = 2  # what a shell command returns for bad input, as argparse, click and typer have it


class UserError(ValueError):
    """Bad input, told in one sentence: which file, row or key; what was read; what was expected; the nearest name."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'X'?"` for the known name closest to `name`, or an empty string where none is close.

    Args:
        name: The name that was read.
        known: The names that would have been accepted.
    """
    by_lower = {k.lower(): k for k in known}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean '{by_lower[close[0]]}'?" if close else ""
