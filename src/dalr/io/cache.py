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

from dalr.errors import CorruptFileError
from dalr.io.atomic import storage_errors
from dalr.io.lock import locked_output

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
    """`$DALR_CACHE`, or `dalr` in the user's cache folder."""
    if (instead := _instead.get()) is not None:
        return instead
    if chosen := os.environ.get("DALR_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dalr"


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
    if folder.is_dir():
        with suppress(CorruptFileError):
            return read(folder)
    with locked_output(folder, wait=True):
        if folder.is_dir():  # another process may have made it meanwhile
            try:
                return read(folder)
            except CorruptFileError:
                with storage_errors(folder):
                    shutil.rmtree(folder)
        write(folder)
        return read(folder)


def cache_use() -> list[CacheUse]:
    root = cache_root()
    kinds = [root / kind for kind in KINDS if (root / kind).is_dir()]
    return [
        CacheUse(
            kind=kind.name,
            entries=sum(1 for _ in kind.iterdir()),
            bytes=sum(path.stat().st_size for path in kind.rglob("*") if path.is_file()),
        )
        for kind in kinds
    ]


def clean_cache() -> None:
    for use in cache_use():
        shutil.rmtree(cache_folder(use.kind))
