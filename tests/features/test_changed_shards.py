"""A shard that is changed while it is open is noticed at the next look."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dalr.errors import CorruptFileError
from dalr.features.store import FeatureStore, open_store, write_store

ROWS, DIM = 10, 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    ids = [str(number) for number in range(ROWS)]
    write_store(tmp_path / "store", ids=ids, blocks=[vectors], source={}, origin="made", shard_rows=4)
    return tmp_path / "store"


def opened(folder: Path) -> FeatureStore:
    """A store of which every row was read."""
    store = open_store(folder)
    store.read(np.arange(ROWS))
    store.require_unchanged()
    return store


def overwrite(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with open(path, "r+b") as file:
        file.write(data)


def replace(path: Path) -> None:
    other = path.with_name("other")
    data = path.read_bytes()
    other.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.replace(other, path)


def behind_its_time(path: Path) -> None:
    """Overwritten, with another time than before, as a copying program sets it."""
    overwrite(path)
    os.utime(path, (1, 1))


def into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, Callable[[Path], None]] = {
    "overwritten in place": overwrite,
    "replaced": replace,
    "overwritten, of an older time": behind_its_time,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0") and None,
    "shorter": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
    "a folder": into_a_folder,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_changed_shard_is_named(folder: Path, change: str, number: int) -> None:
    store = opened(folder)
    path = folder / f"vectors-{number:05d}.safetensors"
    CHANGES[change](path)
    with pytest.raises(CorruptFileError) as refused:
        store.require_unchanged()
    assert str(path) in str(refused.value)


def test_the_same_bytes_at_another_time_are_no_change(folder: Path) -> None:
    store = opened(folder)
    for path in folder.glob("vectors-*"):
        os.utime(path, (1, 1))
    store.require_unchanged()
    shutil.copytree(folder, folder.parent / "copy")
    for path in folder.glob("vectors-*"):
        os.replace(folder.parent / "copy" / path.name, path)
    store.require_unchanged()
