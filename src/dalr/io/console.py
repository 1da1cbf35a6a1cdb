"""What does a person see during work? Lines, bars and tables on the terminal.

Everything goes to standard error, so that standard output stays free for results. Without a terminal (a log
file, CI) a bar becomes a line now and then. All that dalr prints goes through `show` and `tell`.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from dalr.errors import StorageError

_LINE_SECONDS = 15.0
_BROKEN_PIPE = 141
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
        sys.stdout.write(printable(text) + end)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
        raise SystemExit(_BROKEN_PIPE) from None
    except OSError as error:
        _silence(sys.stdout)
        what = f"cannot write the result to standard output: {error.strerror}; send it to another place"
        raise StorageError(what) from None


def tell(text: str, *, end: str = "\n") -> None:
    """Write a line to standard error; work does not end because nobody can read what it says of itself."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(printable(text) + end)
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
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
    """A running piece of work. `update` moves it to `done` and shows `fields` beside it."""

    def update(self, done: int, **fields: str) -> None:
        """Nothing is shown by this base."""

    def skip(self, pieces: int) -> None:
        """So many of what is done were there already: they say nothing about how long the rest takes."""


class Console:
    """Where progress goes. `quiet` shows nothing but errors."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose

    def say(self, text: str) -> None:
        if not self.quiet:
            tell(text)

    def detail(self, text: str) -> None:
        """A line for `-v` only."""
        if self.verbose:
            self.say(text)

    @contextmanager
    def bar(self, name: str, total: int, unit: str = "it") -> Iterator[Bar]:
        """A bar for `total` pieces of work with rate, time left and fields."""
        if self.quiet:
            yield Bar()
        elif sys.stderr is not None and sys.stderr.isatty():
            with _rich_bar(name, total, unit) as bar:
                yield bar
        else:
            bar = _LineBar(self, name, total, unit)
            yield bar
            bar.finish()


class _Pace:
    """How fast pieces get done, and how long the rest will take at that."""

    def __init__(self, total: int, unit: str) -> None:
        self.total, self.unit = total, unit
        self.start = self.last = time.monotonic()
        self.done = self.skipped = 0

    def update(self, done: int) -> None:
        self.done, self.last = done, time.monotonic()

    @property
    def _rate(self) -> float:
        return max(0, self.done - self.skipped) / max(self.last - self.start, 1e-9)

    def speed(self) -> str:
        """Pieces a second, or seconds a piece."""
        rate = self._rate
        if not rate:
            return f"– {self.unit}/s"
        return f"{rate:.1f} {self.unit}/s" if rate >= 1 else f"{duration(1 / rate)}/{self.unit}"

    def left(self) -> str:
        if self.done >= self.total:
            return duration(0.0)
        if not self._rate:
            return "–"
        return duration(max(0.0, (self.total - self.done) / self._rate - (time.monotonic() - self.last)))


def duration(seconds: float) -> str:
    """For people, in two digits or three."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


class _PacedBar(Bar):
    """What bars that are shown have in common."""

    def __init__(self, pace: _Pace) -> None:
        self.pace = pace
        self.fields: dict[str, str] = {}

    def update(self, done: int, **fields: str) -> None:
        self.pace.update(done)
        self.fields |= fields

    def skip(self, pieces: int) -> None:
        self.pace.skipped += pieces

    def extra(self) -> str:
        return " · ".join(f"{name} {value}" for name, value in self.fields.items())


class _LineBar(_PacedBar):
    """A line every few seconds."""

    def __init__(self, console: Console, name: str, total: int, unit: str) -> None:
        super().__init__(_Pace(total, unit))
        self.console, self.name = console, name
        self.shown, self.shown_at = 0, time.monotonic()

    def update(self, done: int, **fields: str) -> None:
        super().update(done, **fields)
        if time.monotonic() - self.shown_at >= _LINE_SECONDS:
            self._show()

    def finish(self) -> None:
        if self.pace.done != self.shown:
            self._show()

    def _show(self) -> None:
        pace = self.pace
        self.shown, self.shown_at = pace.done, time.monotonic()
        extra = f" · {self.extra()}" if self.fields else ""
        self.console.say(f"{self.name}: {pace.done}/{pace.total} · {pace.speed()} · {pace.left()} left{extra}")


@contextmanager
def _rich_bar(name: str, total: int, unit: str) -> Iterator[Bar]:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    pace = _Pace(total, unit)  # rich's own forgets what is older than half a minute

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{pace.speed()} · {pace.left()} left")

    def whole() -> Column:
        return Column(no_wrap=True)

    progress = Progress(
        TextColumn("{task.description}", table_column=whole()),
        BarColumn(bar_width=10),
        MofNCompleteColumn(table_column=whole()),
        Rate(table_column=whole()),
        TextColumn("{task.fields[extra]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=RichConsole(stderr=True),
    )
    with progress:
        task = progress.add_task(name, total=total, extra="")

        class RichBar(_PacedBar):
            def update(self, done: int, **fields: str) -> None:
                super().update(done, **fields)
                progress.update(task, completed=done, extra=printable(self.extra()))

        yield RichBar(pace)
