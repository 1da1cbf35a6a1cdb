"""One writer to a place: `FOLDER/.lock` for a run or a study, `.NAME.lock` beside what is replaced as a whole.

filelock takes it: the system releases the lock when its process ends, however it ends, so that a lock which a dead
run left behind blocks nobody; a forked worker holds none; links are not followed. The file says who holds it, for
the message to the second one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dalr.errors import StorageError
from dalr.io.atomic import make_folders, storage_errors, warn_once
from dalr.io.paths import entries, is_dir

LOCK = ".lock"
_PATIENCE = 0.2
"""Seconds: a holder that ends removes the file, and a second attempt then takes the new one."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What file systems without locks answer: some NFS and Lustre mounts."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be.

    Raises:
        StorageError: another process holds it, named by its id and host; the folder cannot be written; or its
            lock is not a file of its own.
    """
    with storage_errors(folder / LOCK):
        make_folders(folder)
    with _held(folder / LOCK, folder):
        yield


@contextmanager
def locked_output(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock beside a file or folder that is written as a whole; what a killed writer left of it is removed.

    Args:
        wait: for the end of another process that holds it; otherwise as `locked`.
    """
    lock = path.with_name(f".{path.name}{LOCK}")
    with storage_errors(lock):
        make_folders(path.parent)
    with _held(lock, path, wait=wait):
        _remove_unfinished(path)
        yield


def _remove_unfinished(path: Path) -> None:
    """Temporary names of `path`: its lock is held, so that nobody is at work on them."""
    unfinished = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}\.(tmp|old)\Z")
    for each in entries(path.parent, StorageError):
        if unfinished.match(each.name):
            shutil.rmtree(each, ignore_errors=True) if is_dir(each, StorageError) else each.unlink(missing_ok=True)


def require_unlocked(folder: Path) -> None:
    """Refuse at once what `locked` would refuse later; leaves nothing.

    Raises:
        StorageError: another process holds the lock of `folder`, or its lock is not a file of its own.
    """
    path = folder / LOCK
    with storage_errors(path):
        if not os.path.lexists(path):
            return
    lock = _taken(path, folder)
    if lock is not None:
        lock.release()


@contextmanager
def _held(path: Path, what: Path, *, wait: bool = False) -> Iterator[None]:
    lock = _taken(path, what, wait=wait)
    try:
        yield
    finally:
        if lock is not None:
            path.unlink(missing_ok=True)  # while it is held: who has opened it meanwhile sees that it is gone
            lock.release()


def _taken(path: Path, what: Path, *, wait: bool = False) -> FileLock | None:
    """The lock at `path`, held; None where the file system has no locks."""
    with storage_errors(path):
        _require_own_file(path)
        lock = FileLock(
            path,
            timeout=-1 if wait else _PATIENCE,
            poll_interval=_PATIENCE / 10,
            fallback_to_soft=False,
            thread_local=False,
            on_acquired=_say_who,
        )
        try:
            lock.acquire()
        except Timeout:
            who = f"{what} is in use by {_holder(path)}; wait for it to end, or choose another --out"
            raise StorageError(who) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                _require_own_file(path)
            if error.errno not in _NO_LOCKS:
                raise
            advice = "make sure that one process at a time writes there"
            warn_once(f"{path.parent} is on a file system without locks ({error.strerror}): {advice}")
            return None
        return lock


def _require_own_file(path: Path) -> None:
    """Refuse a lock that is a link, or a second name of somebody's file: its content would be written over.

    Raises:
        StorageError: naming it.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return
    kind = "a second name of another file" if stat.S_ISREG(found.st_mode) else "not a regular file"
    kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else kind
    raise StorageError(f"{path}: expected a lock file of dalr, found {kind}; nothing was written: remove it")


def _say_who(descriptor: int) -> None:
    """Write down who holds the lock, into the file that is locked."""
    if os.fstat(descriptor).st_nlink > 1:
        raise StorageError("the lock is a second name of another file; nothing was written: remove it")
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_bytes()[:1000])
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has the lock and has not yet written who it is
        return "another process"
