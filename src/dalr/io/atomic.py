"""Files appear whole or not at all: write to a temporary name, fsync, rename, fsync the folder.

All that dalr writes goes through here, so one place decides about durability, the umask (safetensors and
`tempfile` would leave 0600) and how a full disk is called. A link stays a link: the file that it leads to is
replaced. What is no file (a device, a pipe, standard output) is opened by the path that was given.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from dalr.console import tell
from dalr.errors import StorageError

_LONGEST_STEM = 200
"""Bytes of a name that its temporary name keeps."""
_FOLDER_SYNC_IS_OPTIONAL = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_warned: set[str] = set()
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
    with storage_errors(path):
        if _is_no_file(path):
            _write_into(path, write)
            return
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        temporary = hidden_beside(target, "tmp")
        make_folders(target.parent)
        try:
            write(temporary)
            apply_umask(temporary)
            sync_file(temporary)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)


def hidden_beside(path: Path, ending: str) -> Path:
    """A hidden name beside `path` for what is not there yet, or no longer; short enough for every file system."""
    name = path.name.encode()[:_LONGEST_STEM].decode(errors="ignore")
    return path.with_name(f".{name}.{uuid.uuid4().hex[:8]}.{ending}")


def _is_no_file(path: Path) -> bool:
    """Whether `path` leads to something that is there and is not replaced: a device, a pipe, an output of ours.

    Raises:
        IsADirectoryError: it leads to a folder.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, and the name of a file was expected")
    return not stat.S_ISREG(found.st_mode) or _output_of_ours(found) is not None


def _output_of_ours(found: os.stat_result) -> int | None:
    """Standard output or error, where it is this very file (`--json /dev/stdout > file`)."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), found):
                return descriptor
    return None


def _write_into(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file elsewhere, and copy it into what `path` leads to; a pipe waits for its reader."""
    with tempfile.TemporaryDirectory(prefix="dalr-") as folder:
        whole = Path(folder) / "whole"
        write(whole)
        ours = _output_of_ours(os.stat(path))
        if ours is not None:
            (sys.stdout, sys.stderr)[ours - 1].flush()
        with open(whole, "rb") as source, open(os.dup(ours) if ours else os.open(path, os.O_WRONLY), "wb") as sink:
            shutil.copyfileobj(source, sink)


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
    if number == errno.ENOSPC and _has_no_inodes(path):
        what = "the file system has room, but no inodes left: delete files that are not needed, however small"
        return StorageError(f"cannot write {path}: {what}, and start again")
    if number == errno.EDQUOT:
        return StorageError(f"no space left writing {path}: your quota is used up; free some and start again")
    if number == errno.ENOSPC:
        return StorageError(f"no space left writing {path}: free some and start again")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"no permission to write {path}: {_remedy.get()}")
    return StorageError(f"cannot write {path}: {reason}; {_remedy.get()}")


def _has_no_inodes(path: Path) -> bool:
    """Whether the file system of `path` can take bytes and no more files."""
    if not hasattr(os, "statvfs"):
        return False
    for folder in path.absolute().parents:
        with suppress(OSError):
            found = os.statvfs(folder)
            return found.f_files > 0 and found.f_favail == 0 and found.f_bavail > 0
    return False


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
    """Make the names in a folder durable, where its file system can do that (CIFS, vboxfs and some FUSE cannot)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _FOLDER_SYNC_IS_OPTIONAL:
            raise
        warn_once("folders of this file system cannot be synced: a loss of power may cost what was written last")
    finally:
        os.close(descriptor)


def warn_once(text: str) -> None:
    """A warning about the machine, once per process."""
    if text not in _warned:
        _warned.add(text)
        tell(f"warning: {text}")


def _write_all(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
