"""How is a folder or a file kept to one writer? By a lock file held by the operating system (`filelock`).

What is filled over hours (a run, a study) is locked inside, `FOLDER/.lock`; what is replaced as a whole (a store, a
model, a report) is locked beside, `.NAME.lock`, because its folder gets another name. Each looks for the other.

The kernel releases the lock when its process ends, however it ends, so a lock that a dead run left behind blocks
nobody; the copies that forked workers inherit are closed by `filelock`. The file says who holds it, for the message
to the second one. It is never opened through a link: whatever a link led to would be written over. Where a file
system has no locks (some NFS and Lustre), work continues without one, with a warning: the marker file that
`filelock` would fall back to outlives a killed run and blocks the next.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dalr.errors import StorageError
from dalr.io.atomic import (
    behind_link,
    discard,
    hidden_beside,
    hidden_names,
    lock_beside,
    make_folders,
    next_step,
    storage_errors,
    warn_once,
)
from dalr.io.paths import entries, require_place_for_folder

LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
PATIENCE_SECONDS, _POLL_SECONDS = 0.1, 0.02
"""Enough for a holder that ends at this moment to remove its file."""
_ATTEMPTS = 5
_SIGNED_WITHIN_SECONDS = 60.0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be.

    Raises:
        StorageError: another process holds it, named by its id and host; `.lock` is a link or no regular file; or
            the folder cannot be written.
    """
    with _held(folder / LOCK):
        _require_free(_beside(folder), folder)
        yield


@contextmanager
def locked_output(path: Path, *, wait: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Hold a lock beside a file or folder that is written as a whole; what a killed writer left of it is removed.

    Args:
        wait: seconds that another process has to end; few, where its work takes long.

    Raises:
        StorageError: as `locked`, also where another process is at work inside the folder.
    """
    target = behind_link(path)
    with _held(_beside(path), path, wait):
        if os.path.isdir(target):
            _require_free(target / LOCK, path)
        unfinished = hidden_names(target)
        for each in entries(target.parent, StorageError):
            if unfinished.match(each.name):
                discard(each)  # nobody is at work on it, because the lock is held
        yield


def _beside(path: Path) -> Path:
    """The lock of `locked_output`: the same whichever link `path` is reached by."""
    return lock_beside(behind_link(path), LOCK)


@contextmanager
def _held(path: Path, what: Path | None = None, wait: float = PATIENCE_SECONDS) -> Iterator[None]:
    lock = _made_and_taken(path, what, wait)
    process = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == process:  # not in a worker that was forked meanwhile
            if lock is not None or _is_empty(path):
                path.unlink(missing_ok=True)
            if lock is not None:
                lock.release()


def require_unlocked(folder: Path) -> None:
    """Refuse at once what `locked` would refuse later; writes nothing.

    Raises:
        StorageError: another process holds the lock of `folder`.
    """
    for lock in (folder / LOCK, _beside(folder)):
        _require_free(lock, folder)


def _require_free(path: Path, what: Path) -> None:
    with storage_errors(path):
        lock = _take(path, what, sign=False) if os.path.lexists(path) else None
    if lock is not None:
        lock.release()


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A hidden, locked folder beside `beside`, removed in the end; those that killed processes left go first."""
    with storage_errors(beside):
        make_folders(beside.parent)
        _remove_abandoned(beside.parent)
        place, lock = _scratch(beside)
    process = os.getpid()
    try:
        yield place
    finally:
        if os.getpid() == process:
            shutil.rmtree(place, ignore_errors=True)
            if lock is not None:
                lock.release()


def _scratch(beside: Path) -> tuple[Path, FileLock | None]:
    for _ in range(_ATTEMPTS):
        place = hidden_beside(beside, "scratch")
        place.mkdir()
        with suppress(FileNotFoundError, FileExistsError):  # taken for abandoned before it was locked
            return place, _take(place / LOCK)
    raise StorageError(f"{beside.parent}: a temporary folder is removed as soon as it is created")


def _remove_abandoned(parent: Path) -> None:
    """Remove scratch folders whose lock nobody holds; without locks nobody can tell, and they stay.

    One whose lock says nothing yet is being made at this moment, unless it has been there for a while.
    """
    for place in parent.glob(".*.scratch"):
        with suppress(OSError, StorageError):
            if _is_empty(place / LOCK) and time.time() - place.stat().st_mtime < _SIGNED_WITHIN_SECONDS:
                continue
            if (lock := _take(place / LOCK, sign=False)) is not None:
                shutil.rmtree(place, ignore_errors=True)
                lock.release()


def _made_and_taken(path: Path, what: Path | None, wait: float) -> FileLock | None:
    require_place_for_folder(path.parent, "--out")
    with storage_errors(what or path.parent):
        for _ in range(_ATTEMPTS):
            make_folders(path.parent)
            with suppress(FileNotFoundError, FileExistsError):  # removed by its maker, which left it empty
                return _take(path, what, wait)
    raise StorageError(f"{path.parent} is removed as soon as it is created; choose another --out")


def _take(
    path: Path, what: Path | None = None, wait: float = PATIENCE_SECONDS, *, sign: bool = True
) -> FileLock | None:
    """The lock, held; None where the file system has none."""

    def acquired(descriptor: int) -> None:
        _require_plain(path, os.fstat(descriptor))
        if sign:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)

    with suppress(FileNotFoundError):
        _require_kind(path, os.lstat(path))
    lock = FileLock(path, timeout=wait, poll_interval=_POLL_SECONDS, fallback_to_soft=False, on_acquired=acquired)
    try:
        lock.acquire()
    except Timeout:
        if not os.path.lexists(path):
            _require_new_files(path, what)
        used = f"{what or path.parent} is in use by {_holder(path)}; wait for it to end, or {next_step()}"
        raise StorageError(used) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        lacking = f"this file system has no locks ({error.strerror})"
        warn_once(path.parent, f"{lacking}; do not let a second process write there at the same time")
        return None
    return lock


def _require_new_files(path: Path, what: Path | None) -> None:
    """Refuse a file system without new files: `filelock` waits there as for a file that is about to be made."""
    with storage_errors(what or path.parent), suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW))


def _require_kind(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a regular file"
        raise StorageError(f"{path} is {what}, expected a lock file of dalr; nothing was changed: remove it")


def _require_plain(path: Path, found: os.stat_result) -> None:
    _require_kind(path, found)
    if found.st_nlink != 1:
        what = f"has {found.st_nlink} names (hard links), expected a lock file of dalr with one"
        raise StorageError(f"{path} {what}; nothing was changed: remove it")


def _is_empty(path: Path) -> bool:
    """Whether a lock file is not there or says nothing: no process has taken it."""
    try:
        return os.lstat(path).st_size == 0
    except OSError:
        return True


def _holder(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            who = json.loads(file.read(1000))
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has the lock and has not yet written who it is
        return "another process"
