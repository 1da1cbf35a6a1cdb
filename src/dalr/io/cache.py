"""The user's cache: token streams, vectors, mteb's scores; keyed by content, safe to delete at any time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from dalr.errors import ConfigError, CorruptFileError, Problem, StorageError
from dalr.io.atomic import remedy, storage_errors
from dalr.io.lock import locked_output
from dalr.io.paths import entries, expanded, is_dir, size_of

REMEDY = "set DALR_CACHE to a folder that can be written, with space in it"
KINDS = ("tokens", "features", "teachers", "mteb")
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

    Of several processes that want a new entry one makes it, and the others wait for it.
    """
    if is_dir(folder, StorageError):
        with suppress(CorruptFileError):
            return read(folder)
    with remedy(REMEDY), locked_output(folder, wait=True):
        if is_dir(folder, StorageError):  # another process may have made it meanwhile
            try:
                return read(folder)
            except CorruptFileError:
                with storage_errors(folder):
                    shutil.rmtree(folder)
        write(folder)
        return read(folder)


def cache_use() -> list[CacheUse]:
    root = cache_root()
    kinds = [root / kind for kind in KINDS if is_dir(root / kind, StorageError)]
    return [
        CacheUse(
            kind=kind.name,
            entries=len(entries(kind, StorageError)),
            bytes=sum(size_of(path, StorageError) for path in kind.rglob("*")),
        )
        for kind in kinds
    ]


def clean_cache() -> None:
    for use in cache_use():
        with remedy(REMEDY), storage_errors(cache_folder(use.kind)):
            shutil.rmtree(cache_folder(use.kind))
