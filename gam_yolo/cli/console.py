"""What all commands print through: names as text, on any terminal, and errors on one line."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from gam_yolo.errors import EXIT_STATUS, UserError, reason
from gam_yolo.report.formatting import printable

__all__ = ["console", "exit_on_error", "print_file"]

_PLAIN = str.maketrans(
    {"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{MULTIPLICATION SIGN}": "x", "\N{MIDDLE DOT}": "."}
)

# What torch says of the memory of a GPU, of its own on CPUs and that of oneDNN; and Python where a thread has no stack.
_OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator", "could not create a primitive", "can't start new thread")


class _Console(Console):
    """A console on which the name of a file or class cannot move the cursor or change colours."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


def console(stderr: bool = False) -> Console:
    """Return a console that prints text as it is: no markup, no guessed colours, no broken lines."""
    return _Console(stderr=stderr, markup=False, highlight=False, soft_wrap=True)


def print_file(text: str) -> None:
    """Print the text of a file: on a terminal as far as that can show it, else unchanged and in UTF-8.

    What is redirected to a file is read as UTF-8, whatever encoding the terminal has.
    """
    buffer = getattr(sys.stdout, "buffer", None)  # a notebook has none
    if buffer is None or sys.stdout.isatty():
        sys.stdout.write(text)
        return
    sys.stdout.flush()
    buffer.write(text.encode("utf-8"))
    buffer.flush()


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an error that the user can fix on one line of standard error, and exit with status 2.

    Standard output and error show what their encoding lacks in the nearest characters.
    """
    codecs.register_error("gam-yolo", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="gam-yolo")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except UserError as error:
        _fail(str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        fix = "Close other programs, or take smaller images, batches or numbers of replicates"
        _fail(str(UserError(f"there is not enough memory ({reason(error)})", fix=fix)))
    except OSError as error:
        if error.filename is not None:
            _fail(f"{error.filename}: cannot be read or written ({error.strerror})")
        try:
            print(flush=True)  # fails again if it was this that failed
        except OSError:
            _fail_to_print(error)
        raise


def _fail_to_print(error: OSError) -> NoReturn:
    with contextlib.suppress(OSError):  # what is still to be flushed goes nowhere, without a second error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        sys.exit(1)  # the reader has seen enough, as in `gam-yolo blocks | head -1`
    _fail(f"standard output cannot be written ({error.strerror})")


def _fail(message: str) -> NoReturn:
    console(stderr=True).print(Text("error: ", style="bold red") + Text(printable(message)))
    sys.exit(EXIT_STATUS)


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """Replace what cannot be encoded: a minus sign by a hyphen, anything unknown by its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end].translate(_PLAIN)
    return part.encode("ascii", "backslashreplace").decode(), error.end
