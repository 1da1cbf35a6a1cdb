"""The user's cache: token streams and teacher vectors, keyed by content, safe to delete at any time."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class CacheUse:
    """How much one kind of cached thing takes."""

    kind: str
    entries: int
    bytes: int


def cache_root() -> Path:
    """`$DALR_CACHE`, or `dalr` in the user's cache folder."""
    if chosen := os.environ.get("DALR_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dalr"


def cache_folder(kind: str) -> Path:
    return cache_root() / kind


def cache_use() -> list[CacheUse]:
    root = cache_root()
    kinds = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
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
