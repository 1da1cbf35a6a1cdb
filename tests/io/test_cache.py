"""The cache: where it is, what it holds, and that cleaning takes nothing else with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalr.io.cache import cache_folder, cache_root, cache_use, clean_cache


def test_the_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DALR_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("DALR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "dalr"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "dalr"


def test_an_absent_cache_is_empty(fresh_cache: Path) -> None:
    assert cache_use() == []
    clean_cache()
    assert not fresh_cache.exists()


def test_entries_and_bytes_are_counted_by_kind_and_cleaned(fresh_cache: Path) -> None:
    for entry in ("a", "b"):
        (cache_folder("tokens") / entry).mkdir(parents=True)
        (cache_folder("tokens") / entry / "tokens.npy").write_bytes(bytes(100))
    [use] = cache_use()
    assert (use.kind, use.entries, use.bytes) == ("tokens", 2, 200)
    clean_cache()
    assert cache_use() == []


def test_cleaning_takes_only_what_dalr_put_there(fresh_cache: Path) -> None:
    """$DALR_CACHE may be set to a folder that holds other things, such as /data or a home folder."""
    (fresh_cache / "photos").mkdir(parents=True)
    (fresh_cache / "photos" / "wedding.jpg").write_bytes(b"irreplaceable")
    (cache_folder("tokens") / "x").mkdir(parents=True)
    clean_cache()
    assert (fresh_cache / "photos" / "wedding.jpg").exists()
    assert not cache_folder("tokens").exists()
