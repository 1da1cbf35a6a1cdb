"""May this file be written over (`--json`, `report --out`)? One rule for every command that leaves a single file.

A file is written where nothing is, or nothing is in it, or where it bears the mark of what dalr writes there;
anything else is somebody's, and stays. It is locked for the whole of the work, so that a second process is refused
before hours of it. Pipes, devices and open outputs are written into: they have nothing to lose, and no lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dalr.errors import Problem, StorageError
from dalr.io.atomic import behind_link, is_stream, remedy, storage_errors
from dalr.io.lock import locked_output
from dalr.io.paths import exists, is_file, refusal, regular, require_place_for_file

_LOOKED_AT = 1 << 16
"""Bytes at the start and at the end of a file in which a mark is looked for."""
_NOTHING = (b"", b"{}", b"[]", b"null")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a file is, in words, and the bytes that every file of the kind holds near its start or end."""

    name: str
    mark: bytes


RESULT = Kind(name="a result of dalr", mark=b'"format": "dalr-')
PAGE = Kind(name="a page of dalr", mark=b'<meta name="generator" content="dalr ')
MARKDOWN = Kind(name="Markdown of dalr report", mark=b"<!-- written by dalr report -->")
LATEX = Kind(name="LaTeX of dalr report", mark=b"% written by dalr report")


@contextmanager
def claimed_file(path: Path, kind: Kind, where: str) -> Iterator[None]:
    """Hold the file at `path` for the work that will fill it.

    Args:
        where: the option that names it.

    Raises:
        StorageError: it is somebody else's, another process writes it, or it cannot be written.
    """
    require_place_for_file(path, where)
    with storage_errors(path):
        stream = is_stream(path)
    if stream:
        yield
        return
    _require_ours(path, kind, where)
    made = _folders_to_make(behind_link(path))
    try:
        with ExitStack() as held:
            with remedy(f"choose another {where}"):
                held.enter_context(locked_output(path))
            _require_ours(path, kind, where)
            yield
    finally:
        for folder in made:  # those that nothing was written into
            with suppress(OSError):
                folder.rmdir()


def _require_ours(path: Path, kind: Kind, where: str) -> None:
    if not is_file(path, StorageError) or _bears(path, kind.mark):
        return
    what = f"{path} already exists, and it is not {kind.name}; nothing was written: choose another {where}"
    raise StorageError(Problem(where=where, what=what))


def _bears(path: Path, mark: bytes) -> bool:
    """Whether a file holds the mark, or nothing that could be lost."""
    try:
        with open(regular(path), "rb") as file:
            start = file.read(_LOOKED_AT)
            size = file.seek(0, 2)
            file.seek(max(size - _LOOKED_AT, 0))
            return mark in start or mark in file.read() or start.strip() in _NOTHING
    except OSError as error:
        raise refusal(path, error, StorageError) from None


def _folders_to_make(path: Path) -> list[Path]:
    """The folders above `path` that are not there yet, the innermost first."""
    missing = []
    for folder in path.absolute().parents:
        if exists(folder, StorageError):
            break
        missing.append(folder)
    return missing
