"""The one console of all commands: what they print, and how errors reach the user."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

__all__ = ["console", "print_error"]


def console(stderr: bool = False) -> Console:
    """Return a console that prints text as it is: no markup, no guessed colours, no wrapping."""
    return Console(stderr=stderr, markup=False, highlight=False, soft_wrap=True)


def print_error(error: Exception) -> None:
    """Print an error on standard error."""
    console(stderr=True).print(Text("error: ", style="bold red") + Text(str(error)))
