"""One writer to a folder: `FOLDER/.lock`, held by flock.

The kernel releases the lock when its process ends, however it ends, so a lock that a dead run left behind blocks
nobody. The file says who holds it, for the message to the second one.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dalr.errors import StorageError
from dalr.io.atomic import make_folders, storage_errors
from dalr.io.paths import is_file

LOCK = ".lock"
_held: set[int] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made if need be.

    Raises:
        StorageError: another process holds it, named by its id and host; or the folder cannot be written.
    """
    path = folder / LOCK
    with storage_errors(path):
        make_folders(folder)
        descriptor = _take(path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
    _held.add(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        _held.discard(descriptor)
        os.close(descriptor)


def require_unlocked(folder: Path) -> None:
    """Refuse at once what `locked` would refuse later; writes nothing.

    Raises:
        StorageError: another process holds the lock of `folder`.
    """
    path = folder / LOCK
    if is_file(path, StorageError):
        with storage_errors(path):
            os.close(_take(path))


def _take(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            what = f"{path.parent} is in use by {holder}; wait for it to end, or choose another --out"
            raise StorageError(what) from None
        except OSError:
            os.close(descriptor)
            raise
        if _is_still(descriptor, path):
            return descriptor
        os.close(descriptor)  # its holder ended and removed it while we opened it: take the new one


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    try:
        who = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {who['pid']} on {who['host']}"
    except (ValueError, KeyError, TypeError):  # it has the lock and has not yet written who it is
        return "another process"


def _let_go() -> None:
    """A forked worker must not keep the lock of a killed run: flock ends with the last copy of the file."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
