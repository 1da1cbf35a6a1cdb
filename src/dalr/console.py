"""What a person sees while work goes on: lines, bars and tables on the terminal.

Everything goes to standard error, so that standard output stays free for results. Without a terminal (a log
file, CI) a bar becomes a line now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LINE_SECONDS = 15.0


class Bar:
    """A running piece of work. `update` moves it to `done` and shows `fields` beside it."""

    def update(self, done: int, **fields: str) -> None:
        """Nothing is shown by this base."""


class Console:
    """Where progress goes. `quiet` shows nothing but errors."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose

    def say(self, text: str) -> None:
        if not self.quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def detail(self, text: str) -> None:
        """A line for `-v` only."""
        if self.verbose:
            self.say(text)

    @contextmanager
    def bar(self, name: str, total: int, unit: str = "it") -> Iterator[Bar]:
        """A bar for `total` pieces of work with rate, time left and fields."""
        if self.quiet:
            yield Bar()
        elif sys.stderr.isatty():
            with _rich_bar(name, total, unit) as bar:
                yield bar
        else:
            bar = _LineBar(self, name, total, unit)
            yield bar
            bar.finish()


class _LineBar(Bar):
    """A line every few seconds."""

    def __init__(self, console: Console, name: str, total: int, unit: str) -> None:
        self.console, self.name, self.total, self.unit = console, name, total, unit
        self.start = self.last = time.monotonic()
        self.done = 0
        self.fields: dict[str, str] = {}
        self.shown = 0

    def update(self, done: int, **fields: str) -> None:
        self.done, self.fields = done, {**self.fields, **fields}
        if time.monotonic() - self.last >= _LINE_SECONDS:
            self._show()

    def finish(self) -> None:
        if self.done != self.shown:
            self._show()

    def _show(self) -> None:
        self.last, self.shown = time.monotonic(), self.done
        rate = self.done / max(self.last - self.start, 1e-9)
        left = (self.total - self.done) / rate if rate else float("inf")
        extra = "".join(f" · {name} {value}" for name, value in self.fields.items())
        self.console.say(
            f"{self.name}: {self.done}/{self.total} · {rate:.1f} {self.unit}/s · {left:.0f} s left{extra}"
        )


@contextmanager
def _rich_bar(name: str, total: int, unit: str) -> Iterator[Bar]:
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else f"– {unit}/s")

    def whole() -> Column:
        return Column(no_wrap=True)

    progress = Progress(
        TextColumn("{task.description}", table_column=whole()),
        BarColumn(bar_width=10),
        MofNCompleteColumn(table_column=whole()),
        Rate(table_column=whole()),
        TimeRemainingColumn(compact=True, table_column=whole()),
        TextColumn("{task.fields[extra]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=RichConsole(stderr=True),
    )
    with progress:
        task = progress.add_task(name, total=total, extra="")
        fields: dict[str, str] = {}

        class RichBar(Bar):
            def update(self, done: int, **changed: str) -> None:
                fields.update(changed)
                extra = " · ".join(f"{key} {value}" for key, value in fields.items())
                progress.update(task, completed=done, extra=extra)

        yield RichBar()
