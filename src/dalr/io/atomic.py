"""How does a file appear completely or not at all? Temporary name, fsync, rename, fsync of the folder.

All that dalr writes goes through here, so one place decides about durability, the umask (safetensors and
`tempfile` would leave 0600) and how a full disk is called. Only regular files are replaced by a rename: of a link,
the target is replaced, and devices and pipes are opened and written into.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from dalr.errors import StorageError
from dalr.io.console import Console
from dalr.io.paths import is_dir, takes_no_files

_LONGEST_STEM = 200
"""Bytes of a name that its temporary name keeps, so that it fits every file system."""
_remedy: ContextVar[str] = ContextVar("_remedy", default="choose another --out folder")
_WRAPPED = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
_DESCRIPTOR = re.compile(r"/proc/(\d+)/(?:task/\d+/)?fd/(\d+)")
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE of Linux."""
_LINKS = 40
"""As many as Linux follows."""
_said: set[str] = set()
READER_SECONDS = 10.0
"""How long a pipe without a reader is waited for."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, atomically and durably where it is a regular file or nothing yet."""
    with storage_errors(path):
        if is_stream(path):
            _write_stream(path, data)
        else:
            _replace(path, lambda temporary: _write_all(temporary, data))


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then make it durable and give it its name.

    A device or a pipe at `path` gets the content of a temporary file that lies elsewhere.
    """
    with storage_errors(path):
        if not is_stream(path):
            _replace(path, write)
            return
        with tempfile.TemporaryDirectory(prefix="dalr-") as folder:
            filled = Path(folder) / "content"
            write(filled)
            _write_stream(path, filled.read_bytes())


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    target = behind_link(path)
    temporary = hidden_beside(target, "tmp")
    make_folders(target.parent)
    try:
        with storage_errors(path):  # said while what takes the space is still there
            write(temporary)
            apply_umask(temporary)
            sync_file(temporary)
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def behind_link(path: Path) -> Path:
    """Where a link leads, which is then written or replaced instead of it; any other path as it is."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def put_in_place(temporary: Path, folder: Path) -> None:
    """Give a folder that is ready its name; one that has it is removed afterwards.

    The two names are exchanged in one step where the system can, so that a kill at any moment leaves one of the
    folders under the name. Elsewhere the old one is moved aside first.
    """
    if os.path.isdir(folder) and _exchanged(temporary, folder):
        sync_folder(folder.parent)
        shutil.rmtree(temporary, ignore_errors=True)
        return
    if os.path.lexists(folder):
        retired = hidden_beside(folder, "old")
        os.replace(folder, retired)
        try:
            os.replace(temporary, folder)
        except BaseException:
            os.replace(retired, folder)
            raise
        shutil.rmtree(retired, ignore_errors=True)
    else:
        os.replace(temporary, folder)
    sync_folder(folder.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the names of two folders were exchanged: Linux can, on most file systems."""
    call = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        return False
    return int(call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)) == 0


def hidden_beside(path: Path, ending: str) -> Path:
    """A hidden name beside `path` for what is not there yet, or no longer."""
    return path.with_name(f".{_stem(path)}.{uuid.uuid4().hex[:8]}.{ending}")


def hidden_names(path: Path | None = None) -> re.Pattern[str]:
    """The names that `hidden_beside` gives to what is unfinished or retired: beside `path`, or beside anything."""
    stem = ".+" if path is None else re.escape(_stem(path))
    return re.compile(rf"\.{stem}\.[0-9a-f]{{8}}\.(tmp|old)\Z")


def discard(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, as far as the system lets us."""
    shutil.rmtree(path, ignore_errors=True) if is_dir(path, StorageError) else path.unlink(missing_ok=True)


def _stem(path: Path) -> str:
    return path.name.encode()[:_LONGEST_STEM].decode(errors="ignore")


def lock_beside(path: Path, ending: str) -> Path:
    """The hidden name of the lock of `path`; one too long for a name is told from others by its checksum."""
    stem = _stem(path)
    if stem != path.name:
        stem += f".{hashlib.sha256(path.name.encode()).hexdigest()[:8]}"
    return path.with_name(f".{stem}{ending}")


def is_stream(path: Path) -> bool:
    """Whether `path` names what is written into and not replaced: a device, a pipe, or an open file of ours."""
    if _own_descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:  # also a link to what is not there
        return False
    if stat.S_ISDIR(mode):
        raise StorageError(f"{path} is a folder; expected the name of a file to write")
    return not stat.S_ISREG(mode)


def _own_descriptor(path: Path) -> int | None:
    """The number of the open file that a path such as /dev/stdout names, if it is one of this process.

    Reopened by its name, a redirected output would be written from its start and not from where it is.
    """
    place = os.path.abspath(path)
    for _ in range(_LINKS):
        parent = os.path.realpath(os.path.dirname(place))
        place = os.path.join(parent, os.path.basename(place))
        found = _DESCRIPTOR.fullmatch(place)
        if found is not None:
            return int(found[2]) if int(found[1]) == os.getpid() else None
        try:
            place = os.path.join(parent, os.readlink(place))
        except OSError:  # no link
            return None
    return None


def _write_stream(path: Path, data: bytes) -> None:
    own = _own_descriptor(path)
    if own is not None:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()  # what was said before stands before it
    descriptor = os.dup(own) if own is not None else _opened_stream(path)
    with open(descriptor, "wb") as file:
        file.write(data)


def _opened_stream(path: Path) -> int:
    mode = os.stat(path).st_mode
    if stat.S_ISBLK(mode):
        raise StorageError(f"{path} is a block device, and disks are not overwritten; name a file")
    if stat.S_ISSOCK(mode):
        raise StorageError(f"{path} is a socket, which cannot be opened by name; name a file")
    return _opened_pipe(path) if stat.S_ISFIFO(mode) else os.open(path, os.O_WRONLY | os.O_NOCTTY)


def _opened_pipe(path: Path) -> int:
    """A named pipe, once somebody reads from it; to open it plainly would wait forever where nobody does."""
    deadline = time.monotonic() + READER_SECONDS
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > deadline:
                what = f"{path} is a pipe that nobody has read from for {READER_SECONDS:.0f} s"
                raise StorageError(f"{what}; start the reader first, or name a file") from None
            time.sleep(0.05)
            continue
        os.set_blocking(descriptor, True)
        return descriptor


@contextmanager
def remedy(text: str) -> Iterator[None]:
    """What to do where something inside cannot be written; without this, to choose another --out folder."""
    token = _remedy.set(text)
    try:
        yield
    finally:
        _remedy.reset(token)


def next_step() -> str:
    """What `remedy` says here."""
    return _remedy.get()


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
    if number == errno.ENOSPC and _no_inodes_left(path):
        what = "the file system has free space, but cannot hold more files (no free inodes)"
        return StorageError(f"no more files can be made writing {path}: {what}; delete some and start again")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"no space left writing {path}: free some and start again")
    if number == errno.EROFS:
        return StorageError(f"cannot write {path}: its file system is mounted read-only; {_remedy.get()}")
    if number in (errno.EACCES, errno.EPERM):
        return StorageError(f"no permission to write {path}: {_remedy.get()}")
    if number == errno.ENOENT and (folder := _closed(path)) is not None:
        what = f"the file system of {folder} takes no new files"
        return StorageError(f"cannot write {path}: {what}; {_remedy.get()}")
    return StorageError(f"cannot write {path}: {reason}; {_remedy.get()}")


def _closed(path: Path) -> Path | None:
    """The nearest folder above `path`, where the system has no new files there; else None."""
    folder = next(each for each in path.absolute().parents if os.path.isdir(each))
    return folder if takes_no_files(folder) else None


def _no_inodes_left(path: Path) -> bool:
    """Whether the disk of `path` has free bytes and no free inodes; some file systems count none (`f_files` 0)."""
    there = next((each for each in (path, *path.absolute().parents) if os.path.exists(each)), None)
    if there is None:
        return False
    try:
        free = os.statvfs(there)
    except OSError:
        return False
    return free.f_files > 0 and free.f_favail == 0 and free.f_bavail > 0


def make_folders(folder: Path) -> None:
    """Make `folder` and those above it, each durable under its name; a link that leads nowhere gets its target."""
    folder = behind_link(folder)
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
    """Make the names in a folder durable, where its file system can (CIFS, vboxsf and some FUSE cannot)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
        what = f"this file system cannot make the names in a folder durable ({error.strerror})"
        warn_once(path, f"{what}; after a power failure, the last files written may be missing")
    finally:
        os.close(descriptor)


def warn_once(where: Path, what: str) -> None:
    """Say what the file system of `where` lacks, the same thing once."""
    if what not in _said:
        _said.add(what)
        Console().say(f"warning: {where}: {what}")


def _write_all(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
