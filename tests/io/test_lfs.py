"""git-LFS pointers are told from the files they stand for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dalr.io.lfs import is_lfs_pointer

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90868376\n"


def test_a_pointer_is_recognized_by_how_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(POINTER)
    assert is_lfs_pointer(path)
    (tmp_path / "link").symlink_to(path)
    assert is_lfs_pointer(tmp_path / "link")


@pytest.mark.parametrize("content", [b"", b"version", b"version 1\n", b"\x93NUMPY", b" " + POINTER])
def test_anything_else_is_not_a_pointer(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not is_lfs_pointer(path)


def test_what_cannot_be_read_is_not_a_pointer_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "missing", tmp_path / ("n" * 300), tmp_path / "fifo", Path("a\0b")):
        assert not is_lfs_pointer(path)
