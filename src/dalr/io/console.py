"""What does a person see during work? Lines, bars and tables on the terminal.

Everything goes to standard error, so that standard output stays free for results. Bars are tqdm's: drawn on a
terminal and in a notebook; elsewhere (a log file, CI) a bar becomes a line now and then. All that dalr prints goes
through `show` and `tell`, which write above the bars that are drawn.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TextIO

from dalr.errors import StorageError

_LINE_SECONDS = 15.0
_LINE = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
BROKEN_PIPE = 141
"""As a shell says it of a program that SIGPIPE ended."""
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys instead of showing: all control characters but tab and newline, those that
turn the direction of writing, and halves of characters that cannot be encoded."""


def printable(text: str) -> str:
    """`text` with escapes in place of what a terminal would obey: names and captions are other people's."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def show(text: str, *, end: str = "\n") -> None:
    """Write a result to standard output, at once.

    Raises:
        StorageError: what standard output leads to takes no more.
        SystemExit: nobody reads it any longer.
    """
    if sys.stdout is None:
        return
    try:
        with _between_bars():
            sys.stdout.write(printable(text) + end)
            sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
        raise SystemExit(BROKEN_PIPE) from None
    except OSError as error:
        silence(sys.stdout)
        what = f"cannot write the result to standard output: {error.strerror}; redirect it elsewhere"
        raise StorageError(what) from None


def tell(text: str, *, end: str = "\n") -> None:
    """Write a line to standard error; work does not end because nobody can read what it says of itself."""
    if sys.stderr is None:
        return
    try:
        with _between_bars():
            sys.stderr.write(printable(text) + end)
            sys.stderr.flush()
    except OSError:
        silence(sys.stderr)


def silence(stream: TextIO) -> None:
    """Let what a stream still holds go nowhere: at exit Python would try again, and fail with words of its own."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def occupy_standard_streams() -> None:
    """Give standard streams that were closed (`2>&-`) to nowhere.

    Otherwise the next file that is opened gets their number, and what a library prints would go into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    with suppress(AttributeError, OSError, ValueError):  # AttributeError: no stream, or one of a test's
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


class Bar:
    """A running piece of work: `update` moves it to `done`, with `fields` beside it. By itself it shows nothing."""

    def __init__(self, shown: Any = None) -> None:
        self._shown = shown
        self._fields: dict[str, str] = {}

    def update(self, done: int, **fields: str) -> None:
        self._fields |= {name: printable(value) for name, value in fields.items()}
        if self._shown is not None:
            self._shown.set_postfix(self._fields, refresh=False)
            with suppress(OSError):  # as `tell`
                self._shown.update(done - self._shown.n)

    def expect(self, total: int) -> None:
        """How much there is to do, where that is learned later."""
        if self._shown is not None:
            self._shown.total = total

    def skip(self, pieces: int) -> None:
        """So many of what is done were there already: they say nothing about how long the rest takes."""
        if self._shown is not None:
            self._shown.initial += pieces


class Console:
    """Where progress goes. `quiet` shows only errors; off a terminal a bar is a line every `line_seconds`."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False, line_seconds: float = _LINE_SECONDS) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.line_seconds = line_seconds

    def say(self, text: str) -> None:
        if not self.quiet:
            tell(text)

    def detail(self, text: str) -> None:
        """A line for `-v` only."""
        if self.verbose:
            self.say(text)

    @contextmanager
    def bar(self, name: str, total: int | None, unit: str = "it") -> Iterator[Bar]:
        """A bar for `total` pieces of work (None: unknown) with rate, time left and fields."""
        if self.quiet or sys.stderr is None:
            yield Bar()
            return
        # smoothing 0: the mean rate of all that was done here; miniters 0: new fields are shown without new pieces
        options = {"desc": printable(name), "total": total, "unit": unit, "smoothing": 0, "miniters": 0}
        if _can_draw():
            shown = _tqdm()(**options, dynamic_ncols=True)
        else:
            shown = _tqdm()(**options, file=_Lines(), bar_format=_LINE, mininterval=self.line_seconds, delay=1.0)
            shown.delay = 0.0  # no line at the start, which would say nothing
        try:
            yield Bar(shown)
        finally:
            shown.leave = _can_draw() or shown.n != shown.last_print_n
            with suppress(OSError):
                shown.close()


class _Lines:
    """Where tqdm draws off a terminal: what it would draw over itself becomes a line each."""

    def write(self, text: str) -> None:
        if text.strip():
            tell(text.strip())

    def flush(self) -> None:
        """`tell` has done it."""


@cache
def _tqdm() -> Any:
    """tqdm's bar for where we are, without the thread that it would start beside the first one."""
    from tqdm.auto import tqdm

    return type("tqdm", (tqdm,), {"monitor_interval": 0})


def _can_draw() -> bool:
    """On a terminal, or in a notebook with its widgets."""
    from tqdm import tqdm

    return sys.stderr.isatty() or _tqdm().status_printer is not tqdm.status_printer


@contextmanager
def _between_bars() -> Iterator[None]:
    """Take drawn bars away while a line is written, and draw them again below it."""
    if "tqdm.std" not in sys.modules:
        yield
        return
    with _tqdm().external_write_mode(file=sys.stderr):
        yield


def duration(seconds: float) -> str:
    """For people, in two digits or three."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
