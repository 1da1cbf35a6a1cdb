"""In which ways does dalr refuse? Six classes of error, each with its exit code.

An error says what was expected, what was found, where, and what to do. Errors about input carry a list of
problems, because a user who fixes one typo at a time starts the program ten times.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar, TypeVar

_T = TypeVar("_T")

_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 20
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80

SHOWN = 20
"""Problems shown before the rest is only counted."""
KEPT = 1_000
"""Problems of one kind kept one by one: a file of a million bad lines must not become a million messages."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: `where` is a place a person can go to (file:line, key path, model name)."""

    where: str
    what: str
    count: int = 1
    """How many of its kind it stands for, itself included."""

    def __str__(self) -> str:
        where = self.where.replace("\n", "\\n").replace("\r", "\\r")  # a name cannot begin a line of its own
        return f"{where}: {self.what}" if where else self.what


class Problems(list[Problem]):
    """A list that keeps the first `KEPT` problems; one more at its end stands for all that follow."""

    def append(self, problem: Problem) -> None:
        if len(self) <= KEPT:
            super().append(problem)
        else:
            self[-1] = replace(self[-1], count=self[-1].count + problem.count)

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.append(problem)


def few(found: Iterable[_T], problem: Callable[[_T], Problem]) -> list[Problem]:
    """A problem for each of the first `KEPT` that were found; one more stands for all the others."""
    rest = iter(found)
    problems = [problem(each) for each in islice(rest, KEPT)]
    for following in rest:
        problems.append(replace(problem(following), count=1 + sum(1 for _ in rest)))
    return problems


def install(extra: str) -> str:
    """How the packages of an extra are installed; dalr itself is installed from a clone, as the README says."""
    return f"in the clone of dalr: pip install '.[{extra}]'"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'the nearest of these'? `, with the space after it; empty where none is near."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def shown(value: object, *, most: int = 80) -> str:
    """A value from a file as a message shows it: its `repr` up to `most` characters, at no more work than that."""
    if isinstance(value, str):
        return ascii(value[:most])[:most] if has_odd_characters(value[:most]) else repr(value[:most])[:most]
    return _SHORT.repr(value)[:most]


def has_odd_characters(text: str) -> bool:
    """Whether a text holds halves of characters, which no terminal shows."""
    return any("\ud800" <= char <= "\udfff" for char in text)


class DalrError(Exception):
    """Base of all errors that dalr raises on purpose. A traceback of anything else is a bug."""

    exit_code: ClassVar[int] = 1

    def __init__(self, problems: str | Problem | Iterable[Problem], *, total: int | None = None) -> None:
        if isinstance(problems, str):
            problems = [Problem(where="", what=problems)]
        elif isinstance(problems, Problem):
            problems = [problems]
        self.problems = list(problems)
        self.total = sum(problem.count for problem in self.problems) if total is None else total
        super().__init__(self._text())

    def _text(self) -> str:
        lines = [str(problem) for problem in self.problems[:SHOWN]]
        hidden = self.total - len(lines)
        if hidden > 0:
            lines.append(f"... and {hidden} more ({self.total} in total)")
        return "\n".join(lines)


class ConfigError(DalrError):
    """A recipe, an option or a combination of them cannot work."""

    exit_code = 2


class DataError(DalrError):
    """Captions, text, images, scores or features are not what they should be."""

    exit_code = 3


class ModelFileError(DalrError):
    """A model is missing, is not available offline, or is of a kind that cannot be loaded."""

    exit_code = 4


class CorruptFileError(DalrError):
    """A sealed folder or a file of ours fails its verification."""

    exit_code = 4


class NumericsError(DalrError):
    """A number that must be finite is not, or a score is undefined."""

    exit_code = 5


class StorageError(DalrError):
    """Writing failed: no space, no permission, a folder in use."""

    exit_code = 6


class Attempts:
    """Readings that may fail; what is wrong with all of them is raised at once.

    ```
    attempt = Attempts()
    text = attempt(lambda: read_text(path))
    attempt.require()
    ```
    """

    def __init__(self) -> None:
        self.errors: list[DalrError] = []

    def __call__(self, read: Callable[[], _T]) -> _T | None:
        """What `read` returns; None if it raises one of our errors, which is kept."""
        try:
            return read()
        except DalrError as error:
            self.errors.append(error)
            return None

    def require(self) -> None:
        """Raise what was kept, if anything."""
        if self.errors:
            raise together(self.errors)


def together(errors: Sequence[DalrError]) -> DalrError:
    """One error with the problems of all, each once; data decides its class before files, recipe and models."""
    order = (DataError, CorruptFileError, ConfigError, ModelFileError)
    kinds = [type(error) for error in errors]
    kind = next((kind for kind in order if kind in kinds), kinds[0])
    gravest_first = sorted(errors, key=lambda error: type(error) is not kind)
    listed = [problem for error in gravest_first for problem in error.problems]
    problems = list(dict.fromkeys(listed))
    repeated = len(listed) - len(problems)
    return kind(problems, total=sum(error.total for error in errors) - repeated)
