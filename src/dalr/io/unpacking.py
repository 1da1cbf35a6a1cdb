"""How do listed files come out of a tar archive that others made? Nothing else of it is written.

The caller says which files it wants and how large each may be. A member is refused before a byte of it is written
where it is no regular file, claims more, or comes twice; a name that leads out of the folder condemns the archive.
What is read in all is bounded too: a few bytes of gzip can stand for as many as there are.
"""

from __future__ import annotations

import bz2
import gzip
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dalr.errors import DataError, Problem
from dalr.io.atomic import storage_errors
from dalr.io.paths import refusal, regular

_OPENERS: Mapping[str, Callable[[Path, str], Any]] = {
    ".tar": open,
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
}
ARCHIVES = tuple(_OPENERS)
MOST_BYTES = 4 << 30
_MOST_MEMBERS = 100_000
_MOST_AT_ONCE = 1 << 20
"""Of a header; content is read in smaller pieces."""
_DEEPEST = 8
"""Folders above the listed path in the name of a member."""
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError, RecursionError)


def unpack(archive: Path, into: Path, listed: Mapping[str, int], *, most_bytes: int = MOST_BYTES) -> None:
    """Extract those of the `listed` files that the archive has.

    Args:
        listed: path below `into` -> the most bytes that it may have. The member's name ends with this path.
        most_bytes: so much may be read of the unpacked archive.

    Raises:
        DataError: a damaged archive, or one that holds what no honest one does.
        StorageError: the disk refuses.
    """
    opener = require_archive(archive)
    try:
        regular(archive)
    except OSError as error:
        raise refusal(archive, error) from None
    with storage_errors(into):
        try:
            with opener(archive, "rb") as file:
                content: Any = _Bounded(archive, file, most_bytes)
                with tarfile.open(fileobj=content, mode="r:") as tar:
                    tar.extractall(str(into), filter=_Chosen(archive, listed))
        except _DAMAGED as error:
            raise _refused(archive, f"damaged or no tar archive ({error}); get it anew") from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise _refused(archive, f"damaged ({error}); get it anew") from None


def require_archive(path: Path) -> Callable[[Path, str], Any]:
    """What opens the archive, by its name.

    Raises:
        DataError: no kind of archive that is opened here.
    """
    for ending, opener in _OPENERS.items():
        if path.name.lower().endswith(ending):
            return opener
    raise _refused(path, f"expected one of {', '.join(ARCHIVES)}; unpack any other yourself and name the folder")


class _Chosen:
    """The filter of `TarFile.extractall`: what is not listed is left out, what should not be there is an error."""

    def __init__(self, archive: Path, listed: Mapping[str, int]) -> None:
        self.archive, self.listed = archive, listed
        self.seen = 0
        self.found: dict[str, str] = {}

    def __call__(self, member: tarfile.TarInfo, into: str) -> tarfile.TarInfo | None:
        self.seen += 1
        if self.seen > _MOST_MEMBERS:
            raise _refused(
                self.archive, f"more than {_MOST_MEMBERS} members; unpack it yourself and name the folder"
            )
        parts = member.name.split("/")
        if parts[0] == "" or ".." in parts:
            raise self._refused(member, "a name that leads out of the folder; nothing of this archive is taken")
        target = self._listed(parts)
        if target is None:
            if member.size < 0:
                raise self._refused(member, "a negative size; the archive is damaged or forged")
            return None
        if not member.isreg() or member.issparse():
            raise self._refused(member, "expected a regular file, found a link, a device or another special one")
        if target in self.found:
            raise self._refused(member, f"{target} is in the archive twice, also as {self.found[target]!r:.200}")
        most = self.listed[target]
        if not 0 <= member.size <= most:
            raise self._refused(member, f"expected at most {most} bytes, found {member.size}")
        self.found[target] = member.name
        return tarfile.data_filter(member.replace(name=target, deep=False), into)

    def _listed(self, parts: list[str]) -> str | None:
        kept = [part for part in parts if part != "."]
        endings = ("/".join(kept[above:]) for above in range(min(len(kept), _DEEPEST)))
        return next((ending for ending in endings if ending in self.listed), None)

    def _refused(self, member: tarfile.TarInfo, what: str) -> DataError:
        return _refused(self.archive, f"member {member.name!r:.200}: {what}")


class _Bounded:
    """A file for `tarfile` to read, up to a number of bytes; to go back costs as much as to come here again."""

    def __init__(self, archive: Path, file: Any, most: int) -> None:
        self.archive, self.file = archive, file
        self.most = self.left = most

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise _refused(self.archive, f"a header of {size} bytes; the archive is damaged or forged")
        self._spend(size)
        found: bytes = self.file.read(size)
        return found

    def seek(self, position: int) -> int:
        here = self.file.tell()
        self._spend(position - here if position >= here else position)
        reached: int = self.file.seek(position)
        return reached

    def tell(self) -> int:
        here: int = self.file.tell()
        return here

    def _spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            what = f"more than {self.most} bytes once unpacked; unpack it yourself and name the folder"
            raise _refused(self.archive, what)


def _refused(archive: Path, what: str) -> DataError:
    return DataError(Problem(where=str(archive), what=what))
