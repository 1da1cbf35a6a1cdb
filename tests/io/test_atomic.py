"""Files appear whole or not at all, with the modes of a plain `open`; what the system refuses is said in words."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalr.errors import StorageError
from dalr.io.atomic import storage_errors, write_bytes, write_json, write_text, write_with


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As a full disk: the kernel refuses to let any file grow beyond `size`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_is_written_is_read_back_and_folders_are_made(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "x.bin", b"\x00\xff")
    write_text(tmp_path / "a" / "x.txt", "grün\u2028\r\n")
    write_json(tmp_path / "a" / "x.json", {"β": [1, None]})
    assert (tmp_path / "a" / "b" / "x.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "a" / "x.txt").read_bytes() == "grün\u2028\r\n".encode()
    assert json.loads((tmp_path / "a" / "x.json").read_bytes()) == {"β": [1, None]}
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b", "x.json", "x.txt"]


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_modes_follow_the_umask_also_for_safetensors(tmp_path: Path, mask: int, expected: int) -> None:
    from safetensors.numpy import save_file

    with umask(mask):
        write_text(tmp_path / "x.txt", "x")
        write_with(tmp_path / "x.safetensors", lambda path: save_file({"x": np.ones(3)}, path))
        assert os.umask(mask) == mask, "the umask of the process is as it was"
    assert mode(tmp_path / "x.txt") == expected
    assert mode(tmp_path / "x.safetensors") == expected


@pytest.mark.parametrize("failure", [RuntimeError("half way"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: BaseException) -> None:
    write_text(tmp_path / "x", "old")

    def half(path: Path) -> None:
        path.write_text("ne")
        raise failure

    with pytest.raises(type(failure)):
        write_with(tmp_path / "x", half)
    assert (tmp_path / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_data_is_durable_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            done.append(name)
            return function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
    monkeypatch.setattr(os, "replace", noted("replace", os.replace))
    write_text(tmp_path / "x", "x")
    assert done == ["fsync", "replace", "fsync"], "file, name, folder"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left writing"),
        (errno.EDQUOT, "no space left writing"),
        (errno.EACCES, "no permission to write"),
        (errno.EPERM, "no permission to write"),
        (errno.EROFS, "mounted read-only"),
        (errno.ENOTDIR, "cannot write"),
        (errno.EISDIR, "cannot write"),
        (errno.EIO, "cannot write"),
    ],
)
def test_refusals_of_the_system_are_said_in_words(tmp_path: Path, number: int, words: str) -> None:
    target = tmp_path / "x"
    with pytest.raises(StorageError, match=words) as caught, storage_errors(target):
        raise OSError(number, os.strerror(number), str(target))
    assert str(target) in str(caught.value)
    assert caught.value.exit_code == 6


def test_a_parent_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="another --out"):
        write_text(tmp_path / "file" / "x", "x")


OPERATIONS = ("open", "chmod", "fsync", "replace")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("occurrence", [1, 2])
def test_a_fault_at_any_operation_leaves_the_old_or_the_new_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, occurrence: int, number: int
) -> None:
    target = tmp_path / "x"
    write_text(target, "old")
    seen = 0
    original = getattr(os, operation)

    def faulty(*arguments: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == occurrence:
            raise OSError(number, os.strerror(number))
        return original(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, operation, faulty)
        with contextlib.suppress(StorageError):
            write_text(target, "new")
            assert seen < occurrence, "the fault was swallowed"
    assert target.read_text() in ("old", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_disk_that_is_really_full_is_a_storage_error(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with largest_file(1000), pytest.raises(StorageError, match=r"cannot write|no space"):
        write_bytes(target, bytes(5000))
    assert list(tmp_path.iterdir()) == []


def test_safetensors_on_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    """safetensors raises a class of its own, which is no OSError."""
    from safetensors.numpy import save_file

    with largest_file(1000), pytest.raises(StorageError, match=r"cannot write|no space"):
        write_with(tmp_path / "x.safetensors", lambda path: save_file({"x": np.ones(5000)}, path))
    assert list(tmp_path.iterdir()) == []
