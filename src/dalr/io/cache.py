"""What does the user's cache hold? Token streams, vectors, mteb's scores: keyed by content, safe to delete."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from dalr.errors import ConfigError, CorruptFileError, Problem, StorageError
from dalr.io.atomic import remedy, storage_errors, sync_folder
from dalr.io.lock import scratch_folder
from dalr.io.paths import entries, expanded, is_dir, status

REMEDY = "set DALR_CACHE to a folder that can be written, with space in it"

KINDS = ("tokens", "features", "teachers", "mteb")
_ATTEMPTS = 3
_T = TypeVar("_T")
_instead: ContextVar[Path | None] = ContextVar("_instead", default=None)


@dataclass(frozen=True, kw_only=True)
class CacheUse:
    """How much one kind of cached thing takes."""

    kind: str
    entries: int
    bytes: int


def cache_root() -> Path:
    """`$DALR_CACHE`, or `dalr` in the user's cache folder.

    Raises:
        ConfigError: neither is known.
    """
    if (instead := _instead.get()) is not None:
        return instead
    if chosen := os.environ.get("DALR_CACHE"):
        return expanded(chosen, "environment variable DALR_CACHE")
    if base := os.environ.get("XDG_CACHE_HOME"):
        return expanded(base, "environment variable XDG_CACHE_HOME") / "dalr"
    return _home() / ".cache" / "dalr"


def _home() -> Path:
    """The user's home folder; containers and batch systems may give none to a user whom they do not know."""
    try:
        return Path.home()
    except RuntimeError:
        what = (
            f"there is no place for dalr's cache: HOME is not set and user {os.getuid()} has no home folder; "
            "set DALR_CACHE to a folder that can be written"
        )
        raise ConfigError(Problem(where="environment variable DALR_CACHE", what=what)) from None


@contextmanager
def temporary_cache() -> Iterator[None]:
    """Another, empty cache for the work inside, removed with all that came into it."""
    with TemporaryDirectory(prefix="dalr-", ignore_cleanup_errors=True) as folder:
        token = _instead.set(Path(folder))
        try:
            yield
        finally:
            _instead.reset(token)


def cache_folder(kind: str) -> Path:
    return cache_root() / kind


def cached(folder: Path, *, read: Callable[[Path], _T], write: Callable[[Path], None]) -> _T:
    """What `read` gives of a cache entry, which `write` makes if it is not there or fails its verification.

    Several processes may make one entry at once: each makes it under a name of its own, the first gives it its
    name, and the others use that one.
    """
    with remedy(REMEDY):
        return _cached(folder, read, write)


def _cached(folder: Path, read: Callable[[Path], _T], write: Callable[[Path], None]) -> _T:
    for _ in range(_ATTEMPTS):
        seen = _identity(folder)
        if seen is not None:
            try:
                return read(folder)
            except CorruptFileError:
                _remove(folder, seen)
        _make(folder, write)
        with suppress(CorruptFileError):  # removed by another process, that had seen a damaged one before
            return read(folder)
    return read(folder)


def _make(folder: Path, write: Callable[[Path], None]) -> None:
    with scratch_folder(folder) as scratch:
        made = scratch / folder.name
        write(made)
        with storage_errors(folder):
            try:
                os.rename(made, folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            sync_folder(folder.parent)


def _remove(folder: Path, seen: tuple[int, int]) -> None:
    """Take a damaged entry away, unless another process has put one in its place meanwhile."""
    with scratch_folder(folder) as scratch, storage_errors(folder), suppress(FileNotFoundError):
        if _identity(folder) == seen:
            os.rename(folder, scratch / folder.name)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Tells one entry from another under the same name; None where there is none."""
    found = status(folder, StorageError)
    return (found.st_ino, found.st_mtime_ns) if found is not None else None


def cache_use() -> list[CacheUse]:
    root = cache_root()
    kinds = [root / kind for kind in KINDS if is_dir(root / kind, StorageError)]
    return [
        CacheUse(
            kind=kind.name,
            entries=sum(not path.name.startswith(".") for path in entries(kind, StorageError)),
            bytes=sum(map(_size, kind.rglob("*"))),
        )
        for kind in kinds
    ]


def clean_cache() -> None:
    """Remove every entry, also those that another process removes at the same time.

    Raises:
        StorageError: an entry cannot be removed.
    """
    for use in cache_use():
        folder = cache_folder(use.kind)
        shutil.rmtree(folder, ignore_errors=True)
        with remedy(REMEDY), storage_errors(folder), suppress(FileNotFoundError):
            if is_dir(folder, StorageError):
                shutil.rmtree(folder)


def _size(path: Path) -> int:
    """Of a file; 0 for anything else, and for what has been removed meanwhile."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
