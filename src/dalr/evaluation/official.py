"""Is this the official data? Rows, size and checksums of every file that SentEval's tasks are scored on.

A corrupted SUBJ once gave more than 99 % wherever it was used, without an error anywhere. So a file that scoring
reads is compared with `official.json`, row counts and checksums of a copy whose counts equal the official ones.
Other copies were unpacked with other line ends or converted to UTF-8: beside the sha256 of the bytes there is one
of the *folded* text, and a file counts as changed only when that differs too. What then happens is the caller's
decision; the default should be to refuse.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path

from dalr.errors import Problem
from dalr.io.paths import regular

_TASK_FILES: Mapping[str, str] = {
    **{f"STS{year}": f"STS/STS{year}-en-test/" for year in range(12, 17)},
    "STS-B": "STS/STSBenchmark/sts-test.csv",
    "sts-b-dev": "STS/STSBenchmark/sts-dev.csv",
    "SICK-R": "SICK/SICK_test_annotated.txt",
    "MR": "MR/",
    "CR": "CR/",
    "SUBJ": "SUBJ/",
    "MPQA": "MPQA/",
    "SST2": "SST/binary/",
    "TREC": "TREC/",
    "MRPC": "MRPC/",
}
"""What the paths of a task's files begin with."""

TASKS: tuple[str, ...] = tuple(_TASK_FILES)

_GROUP_FILES: Mapping[str, tuple[str, ...]] = {
    "sts": ("STS/", "SICK/"),
    "transfer": ("MR/", "CR/", "SUBJ/", "MPQA/", "SST/", "TREC/", "MRPC/"),
}

GROUPS: tuple[str, ...] = tuple(_GROUP_FILES)


@dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """What is known of one file; `path` is relative to the `downstream` folder."""

    path: str
    rows: int
    """Lines, a header among them."""
    bytes: int
    sha256: str
    folded_sha256: str
    """Of the text with line ends, final newline, byte-order mark, encoding and runs of white space folded."""


class State(StrEnum):
    """How a file compares with the official one."""

    SAME = "same"
    FOLDED = "same text, other bytes"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    ROWS = "other number of rows"
    CONTENT = "other content"


@dataclass(frozen=True, kw_only=True)
class FileCheck:
    """One file of a data folder beside the official one."""

    place: Path
    official: OfficialFile
    state: State
    found: OfficialFile | None = None

    @property
    def good(self) -> bool:
        return self.state in (State.SAME, State.FOLDED)

    @property
    def changed(self) -> bool:
        """There, but not the official text: what `--allow-changed-data` may let through."""
        return self.state in (State.ROWS, State.CONTENT)

    def problem(self) -> Problem:
        """What differs, for a person; asked of a good file it is a mistake of the caller."""
        rows = self.official.rows
        match self.state:
            case State.MISSING:
                what = f"no such file; `dalr data get {group_of(self.official.path)} --out FOLDER` fetches it"
            case State.ROWS:
                found = self.found.rows if self.found else 0
                what = f"expected {rows} rows as in the official file, found {found}; fetch it again"
            case State.CONTENT:
                found_sum = self.found.sha256[:12] if self.found else ""
                what = (
                    f"{rows} rows as in the official file, but different content (sha256 {found_sum}..., "
                    f"expected {self.official.sha256[:12]}...); fetch it again"
                )
            case State.UNREADABLE:
                what = "cannot be read"
            case _:
                raise ValueError(f"{self.place} is as expected")
        return Problem(where=str(self.place), what=what)


def differences(data: Path, task: str) -> list[Problem]:
    """What is wrong with the files of one of `TASKS` under `data`; empty when all are official."""
    return [check.problem() for check in check_task(data, task) if not check.good]


def check_task(data: Path, task: str) -> list[FileCheck]:
    """Every file that the score of one of `TASKS` is read from, compared with the official one."""
    return check_files(data, files_of_task(task))


def check_files(data: Path, expected: Iterable[OfficialFile]) -> list[FileCheck]:
    return [check_file(data / official.path, official) for official in expected]


def check_file(place: Path, official: OfficialFile) -> FileCheck:
    """Compare the file at `place` with what is known of the official one."""
    try:
        found = describe(place, official.path)
    except (FileNotFoundError, NotADirectoryError):
        return FileCheck(place=place, official=official, state=State.MISSING)
    except (OSError, ValueError):
        return FileCheck(place=place, official=official, state=State.UNREADABLE)
    if found.sha256 == official.sha256:
        state = State.SAME
    elif found.folded_sha256 == official.folded_sha256:
        state = State.FOLDED
    else:
        state = State.CONTENT if found.rows == official.rows else State.ROWS
    return FileCheck(place=place, official=official, state=state, found=found)


def files_of_task(task: str) -> list[OfficialFile]:
    """The files that one of `TASKS` is scored on."""
    return _beginning_with((_TASK_FILES[task],))


def files_of_group(group: str) -> list[OfficialFile]:
    """All files of one of `GROUPS`, training parts too."""
    return _beginning_with(_GROUP_FILES[group])


def group_of(path: str) -> str:
    """The one of `GROUPS` that a file belongs to."""
    return next(group for group, beginnings in _GROUP_FILES.items() if path.startswith(beginnings))


@cache
def official_files() -> Mapping[str, OfficialFile]:
    """Path below `downstream` -> what is known of that file."""
    listed = json.loads((package_files("dalr.evaluation") / "official.json").read_bytes())
    return {entry["path"]: OfficialFile(**entry) for entry in listed}


def describe(place: Path, path: str) -> OfficialFile:
    """Rows, size and checksums of the file at `place`, under the name `path`.

    Raises:
        OSError: it cannot be read.
    """
    content = regular(place).read_bytes()
    lines = folded_lines(content)
    return OfficialFile(
        path=path,
        rows=len(lines),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        folded_sha256=hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest(),
    )


_SPACES = re.compile(r"[^\S\t\n]+")
_AROUND_TABS = re.compile(r" ?\t ?")


def folded_lines(content: bytes) -> list[str]:
    """The lines of a file without what differs between copies of the same text.

    Tabs stay, because they separate columns, and so do empty lines: a missing gold score is one.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    text = _AROUND_TABS.sub("\t", _SPACES.sub(" ", text))
    return [line.strip(" ") for line in text.split("\n")]


def _beginning_with(beginnings: Sequence[str]) -> list[OfficialFile]:
    return [official for path, official in official_files().items() if path.startswith(tuple(beginnings))]
