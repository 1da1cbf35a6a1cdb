"""Files appear whole or not at all: write to a temporary name, fsync, rename, fsync the folder.

All that dalr writes goes through here, so one place decides about durability, the umask (safetensors and
`tempfile` would leave 0600) and how a full disk is called.
"""

from __future__ import annotations

import errno
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from dalr.errors import StorageError

_remedy: ContextVar[str] = ContextVar("_remedy", default="choose another --out folder")
_WRAPPED = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically and durably."""
    write_with(path, lambda temporary: _write_all(temporary, data))


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then make it durable and give it its name."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with storage_errors(path):
        make_folders(path.parent)
        try:
            write(temporary)
            apply_umask(temporary)
            sync_file(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def remedy(text: str) -> Iterator[None]:
    """What to do where something inside cannot be written; without this, to choose another --out folder."""
    token = _remedy.set(text)
    try:
        yield
    finally:
        _remedy.reset(token)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into our own words."""
    try:
        yield
    except Exception as error:
        number, reason = _system_error(error)
        if number is None and not isinstance(error, OSError):
            raise
        raise _in_our_words(path, number, reason) from error


def _system_error(error: Exception) -> tuple[int | None, str]:
    """The system's number and words; safetensors and shutil wrap them in errors of their own, as text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno, str(error.strerror or error)
    found = _WRAPPED.search(str(error))
    if found is None:
        return None, str(error)
    number = int(found[1] or found[2])
    return number, os.strerror(number)


def _in_our_words(path: Path, number: int | None, reason: str) -> StorageError:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"no space left writing {path}: free some and start again")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"no permission to write {path}: {_remedy.get()}")
    return StorageError(f"cannot write {path}: {reason}; {_remedy.get()}")


def make_folders(folder: Path) -> None:
    """Make `folder` and those above it, each durable under its name."""
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def apply_umask(path: Path) -> None:
    """Give a file the mode that a plain `open` would have given it."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)


def sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_tree(folder: Path) -> None:
    """Make everything in `folder` durable: files, and the names of all that is below it."""
    for path in sorted(folder.rglob("*")):
        sync_folder(path) if path.is_dir() else sync_file(path)
    sync_folder(folder)


def sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
