"""How is a path that a person names looked at? Expanded, checked and opened with clear errors.

`pathlib` raises some of the system's refusals and swallows others: `Path.exists` says False of a loop of links and
raises where a folder on the way may not be searched. Here each of them is one of our errors with the path and what
to do, before any work starts. Inputs are regular files: a pipe would wait for ever and a device never ends. All
other modules look at paths through this one (`tests/test_paths_are_checked.py`).
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from pathlib import Path

from dalr.errors import ConfigError, DalrError, DataError, Problem, StorageError

LONGEST_NAME = 255
"""Bytes of one name in a path, on every file system in common use."""
DEEPEST = 200
"""Folders inside each other; no path that a person means has more."""
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def expanded(path: str | Path, where: str = "path") -> Path:
    """`path` with a leading `~` or `~NAME` replaced, refused where it can be nobody's file.

    Args:
        where: the option or key that says it, for the message.

    Raises:
        ConfigError: empty, not UTF-8, with a NUL or too long a name, or `~` of somebody without a home folder.
    """
    text = os.fspath(path)
    if not text:
        raise ConfigError(Problem(where=where, what="expected a path, found nothing between the quotes"))
    try:
        found = Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        what = f"the home folder that {user} stands for is not known; write the path out, found {text!r:.200}"
        raise ConfigError(Problem(where=where, what=what)) from None
    except ValueError:
        found = Path(text)
    if (refused := _impossible(found)) is not None:
        raise ConfigError(Problem(where=where, what=f"{refused}, found {text!r:.300}"))
    if not found.is_absolute():
        _require_current_folder(where)
    if found.name in ("", ".."):
        return Path(os.path.realpath(found))  # a folder that is written needs a name of its own
    return found


def _impossible(path: Path) -> str | None:
    """Why no file can have this path, or our records cannot hold it."""
    text = str(path)
    if "\0" in text:
        return "a path cannot hold a NUL character; remove it"
    try:
        names = [part.encode("utf-8") for part in path.parts]
    except UnicodeEncodeError:
        return "the name is not UTF-8, and records of dalr are; rename the file or folder, or choose another"
    if any(len(name) > LONGEST_NAME for name in names):
        return f"a name in a path has at most {LONGEST_NAME} bytes; choose a shorter one"
    if len(names) > DEEPEST:
        return f"a path goes through at most {DEEPEST} folders; choose a shorter one"
    return None


def _require_current_folder(where: str) -> None:
    """A relative path starts at the current folder, which must exist and go into records too."""
    try:
        here = os.getcwd()
    except OSError as error:
        what = f"the current folder cannot be used ({error.strerror}); change to another and start again"
        raise ConfigError(Problem(where=where, what=what)) from None
    if (refused := _impossible(Path(here))) is not None:
        raise ConfigError(Problem(where=where, what=f"in the current folder {here!r:.300}: {refused}"))


def status(path: Path, kind: type[DalrError] = DataError) -> os.stat_result | None:
    """What the system says of `path`, links followed; None where there is nothing.

    Raises:
        `kind`: a folder on the way may not be searched, links lead in a circle, or the name can be no file's.
    """
    try:
        return os.stat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _ABSENT:
            return None
        raise refusal(path, error, kind) from None


def exists(path: Path, kind: type[DalrError] = DataError) -> bool:
    """Whether there is anything at `path`; raises as `status`."""
    return status(path, kind) is not None


def is_file(path: Path, kind: type[DalrError] = DataError) -> bool:
    """Whether `path` is a regular file; raises as `status`."""
    found = status(path, kind)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_dir(path: Path, kind: type[DalrError] = DataError) -> bool:
    """Whether `path` is a folder; raises as `status`."""
    found = status(path, kind)
    return found is not None and stat.S_ISDIR(found.st_mode)


def size_of(path: Path, kind: type[DalrError] = DataError) -> int:
    """Bytes of a regular file; 0 for anything else, and for what has gone meanwhile. Raises as `status`."""
    found = status(path, kind)
    return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else 0


def resolve(path: Path, kind: type[DalrError] = DataError) -> Path:
    """The absolute path without links; raises as `status`, except for what is not there."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise refusal(path, error, kind) from None


def entries(folder: Path, kind: type[DalrError] = DataError) -> list[Path]:
    """What is in `folder`, sorted; nothing where there is no such folder.

    Raises:
        `kind`: it cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _ABSENT:
            return []
        raise refusal(folder, error, kind) from None


class NotRegularError(OSError):
    """A pipe, device or socket where a file was expected; its text says what to do."""

    def __str__(self) -> str:
        return str(self.strerror)


def regular(path: Path) -> Path:
    """`path`, for whatever opens it next: `open(regular(path), "rb")`.

    Raises:
        NotRegularError: a pipe would wait for ever, and a device never end.
        OSError: as `open` would.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "expected a file, found a folder", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise NotRegularError(errno.EINVAL, _not_regular(found), str(path))
    return path


def require_regular_below(folder: Path, kind: type[DalrError] = DataError) -> None:
    """Refuse a folder of files, such as a model, in which one is a pipe, device or socket.

    Raises:
        `kind`: naming the first of them, or a folder that cannot be listed.
    """
    for each in entries(folder, kind):
        try:
            mode = os.stat(each).st_mode
        except OSError:
            continue  # whoever needs it says so
        if stat.S_ISDIR(mode) and not each.is_symlink():
            require_regular_below(each, kind)
        elif not stat.S_ISDIR(mode):
            try:
                regular(each)
            except OSError as error:
                raise refusal(each, error, kind) from None


def refusal(path: Path, error: Exception, kind: type[DalrError] = DataError) -> DalrError:
    """The system's refusal to look at or open `path`, in our words."""
    return kind(Problem(where=str(path), what=_reason(path, error)))


def _reason(path: Path, error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EACCES, errno.EPERM):
        return _no_permission(path)
    if number == errno.ENAMETOOLONG:
        return f"a name in a path has at most {LONGEST_NAME} bytes, and a path at most 4,096; choose a shorter one"
    if number == errno.ELOOP or isinstance(error, RuntimeError):
        return "its symbolic links form a loop; remove one of them, or name the file itself"
    if number == errno.ENOENT:
        return "no such file"
    if number == errno.EISDIR:
        return "expected a file, found a folder"
    if isinstance(error, NotRegularError):
        return str(error)
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return _impossible(path) or f"cannot be a path: {error}"


def _no_permission(path: Path) -> str:
    """Which permission is missing: to search a folder on the way, or to read `path` itself."""
    for folder in reversed(path.parents):
        try:
            if stat.S_ISDIR(os.stat(folder).st_mode) and not os.access(folder, os.X_OK):
                return f"no permission to read {folder}; ask its owner for access, or name another path"
        except (OSError, ValueError):
            break
    return "no permission to read; ask its owner for access (chmod +r), or name another path"


def _not_regular(found: os.stat_result) -> str:
    what = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
    return f"expected a regular file, found {what}; write its content to a file first and name that"


def require_place_for_file(path: Path, where: str) -> None:
    """Refuse, before any work, a place where a file cannot be written; writes nothing.

    Args:
        where: the option that names it.

    Raises:
        StorageError: a folder, below a file, or without permission.
    """
    found = status(path, StorageError)
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise StorageError(
            Problem(where=where, what=f"{path} is a folder; expected the name of a file: choose one")
        )
    if found is not None and not stat.S_ISREG(found.st_mode):
        return  # a device or pipe is opened when there is something to write
    _require_place(path.parent, where)


def require_place_for_folder(path: Path, where: str) -> None:
    """Refuse, before any work, a place where no folder can be made or written into; otherwise as for a file."""
    _require_place(path, where)


def _require_place(folder: Path, where: str) -> None:
    """The nearest folder that exists, at or above `folder`, must take new files."""
    while (found := status(folder, StorageError)) is None and folder != folder.parent:
        folder = folder.parent
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise StorageError(Problem(where=where, what=f"{folder} is a file, not a folder: choose another {where}"))
    if not os.access(folder, os.W_OK | os.X_OK):
        reason = f"{folder} is mounted read-only" if _read_only(folder) else f"no permission to write in {folder}"
        raise StorageError(Problem(where=where, what=f"{reason}: choose another {where}"))
    if _is_odd(folder) and takes_no_files(folder):
        what = f"cannot write in {folder}: its file system takes no new files; choose another {where}"
        raise StorageError(Problem(where=where, what=what))


def takes_no_files(folder: Path) -> bool:
    """Whether the system has no new files there, as in /proc: tried, because permissions do not say so."""
    probe = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(probe)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _is_odd(folder: Path) -> bool:
    """Whether a folder has been removed, or its file system has no space at all, as those of the kernel."""
    try:
        return os.stat(folder).st_nlink == 0 or os.statvfs(folder).f_blocks == 0
    except OSError:
        return False


def _read_only(folder: Path) -> bool:
    """Whether nobody may write there, whatever the permissions say."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False
