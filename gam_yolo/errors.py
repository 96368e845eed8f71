"""Errors that the user can fix, reported on one line.

    ValueError
    └── UserError            bad input: a file, a row, a key, an option
        └── RowError         a row of a model YAML that cannot be built (`gam_yolo.arguments`)

Every entry point (the `gam-yolo` command, and the `yolo` command through `gam_yolo.plugin`) prints such an error
without a traceback and exits with status 2. Any other exception is a bug of ours and keeps its traceback.

Every message has one form: `FILE, row N: what is wrong. Expected X. What to do. Did you mean 'Y'?`
"""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "EXIT_STATUS",
    "UserError",
    "brief",
    "causes",
    "find_cause",
    "noting",
    "one_line",
    "option",
    "reason",
    "similar",
]

E = TypeVar("E", bound=BaseException)

EXIT_STATUS = 2  # what a shell command returns for bad input, as argparse, click and typer have it


class UserError(ValueError):
    """Bad input, reported on one line.

    Args:
        problem: What was read, and what is wrong with it.
        at: Where: the file, then the row, line or key. Empty where `problem` says it already.
        expected: What was expected instead; the message says "Expected ...".
        fix: What to do, as a sentence: "Write [] for no arguments".
        similar: The nearest valid name, from `similar`; the message says "Did you mean '...'?".

    Examples:
        >>> print(UserError("the module is 'GAN'", at="my.yaml, row 3", similar="GAM"))
        my.yaml, row 3: the module is 'GAN'. Did you mean 'GAM'?
    """

    def __init__(
        self, problem: object, *, at: str | Path = "", expected: str = "", fix: str = "", similar: str = ""
    ) -> None:
        sentences = [f"{at}: {problem}" if at else str(problem)]
        if expected:
            sentences.append(f"Expected {expected}")
        if fix:
            sentences.append(fix)
        if similar:
            sentences.append(f"Did you mean '{similar}'?")
        super().__init__(" ".join(map(_closed, sentences)) if len(sentences) > 1 else sentences[0])


def _closed(sentence: str) -> str:
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def similar(name: str, known: Iterable[str]) -> str:
    """Return the known name closest to `name`, or an empty string where none is close.

    Args:
        name: The name that was read.
        known: The valid names.

    Examples:
        >>> similar("sigmoyd", ["none", "sigmoid"])
        'sigmoid'
    """
    by_lower = {k.lower(): k for k in known}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else ""


def option(name: str) -> str:
    """Return how a message names an option of a command, which is also an argument of its function.

    Examples:
        >>> option("vid_stride")
        '--vid-stride (in Python vid_stride=)'
    """
    return f"--{name.replace('_', '-')} (in Python {name}=)"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, what caused it, and so on.

    Ultralytics wraps what a dataset's preparation raises in an exception of its own.
    """
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def find_cause(error: BaseException, kind: type[E]) -> E | None:
    """Return the first exception of a kind among an exception and its causes."""
    return next((cause for cause in causes(error) if isinstance(cause, kind)), None)


def brief(value: Any) -> str:
    """Return a short printable form of any value that a YAML can hold, cyclic and enormous ones included."""
    shorten = reprlib.Repr()
    shorten.maxstring = shorten.maxother = 80
    try:
        return " ".join(shorten.repr(value).split())
    except ValueError:  # a whole number of more digits than Python prints
        return f"an enormous {type(value).__name__}"


def one_line(error: BaseException, most: int = 1000) -> str:
    r"""Return an exception's message on one line, cut after `most` characters; its type where it has no message.

    Examples:
        >>> one_line(ValueError("too small\nsee the manual")), one_line(ValueError())
        ('too small see the manual', 'ValueError')
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


@contextlib.contextmanager
def noting(notes: list[str], failure: str) -> Iterator[None]:
    """Let what only decorates a result fail: add a note with the reason, and continue after the block.

    Args:
        notes: Where the note goes.
        failure: What did not work; the note begins with it.

    Examples:
        >>> notes = []
        >>> with noting(notes, "The ratio is missing"):
        ...     1 / 0
        >>> notes
        ['The ratio is missing (division by zero).']
    """
    try:
        yield
    except Exception as error:
        notes.append(f"{failure} ({one_line(error, 200)}).")


def reason(error: Exception) -> str:
    r"""Return an exception's type and the first line of its message, shortened at the end.

    Examples:
        >>> reason(ValueError("too small\nsee the manual"))
        'ValueError: too small'
    """
    text = " ".join(f"{type(error).__name__}: {error}".partition("\n")[0].split())
    return text if len(text) <= 160 else f"{text[:157].rsplit(' ', 1)[0]} ..."
