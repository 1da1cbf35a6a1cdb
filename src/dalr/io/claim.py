"""May dalr write into this folder? Only into a new or empty one, or into one that it wrote for the same purpose."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dalr.errors import StorageError
from dalr.io.atomic import (
    behind_link,
    hidden_beside,
    hidden_names,
    make_folders,
    put_in_place,
    storage_errors,
    sync_tree,
)
from dalr.io.lock import LOCK
from dalr.io.paths import entries, exists, is_dir, is_file

_OURS_UNFINISHED = hidden_names()


def require_ours(
    out: Path, what: str, *, ours: Callable[[], bool] = lambda: False, remedy: str = "choose another --out"
) -> None:
    """Refuse a folder that holds something else than `what`: nothing is overwritten by accident.

    Args:
        what: what is to be written, such as "a study", for the message.
        ours: whether the folder's content is an earlier one; asked only where there is something in it.

    Raises:
        StorageError: a file, or a folder with other content.
    """
    with storage_errors(out):
        if not exists(out, StorageError):
            return
        if not is_dir(out, StorageError):
            raise StorageError(f"{out} is a file, and a folder for {what} was expected; {remedy}")
        if all(is_unfinished(path) for path in entries(out, StorageError)) or ours():
            return
    found = f"{out} already exists and is not empty, and it is not {what}"
    raise StorageError(f"{found}; nothing was written: {remedy}")


def is_unfinished(path: Path) -> bool:
    """Whether this is a lock or a temporary name of dalr, as a killed process leaves them."""
    name = path.name
    return name == LOCK or (name.startswith(".") and name.endswith(LOCK)) or bool(_OURS_UNFINISHED.match(name))


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder under a temporary name, which takes the place of `out` when all of it is written.

    Where `out` holds the same already, byte for byte, it is left as it is.

    Raises:
        StorageError: `out` holds something else, or cannot be written.
    """
    out = behind_link(out)
    temporary = hidden_beside(out, "tmp")
    with storage_errors(out):
        make_folders(out.parent)
        temporary.mkdir()
        try:
            yield temporary
            sync_tree(temporary)
            if entries(out, StorageError):
                _require_same(temporary, out)
                shutil.rmtree(temporary)
                return
            put_in_place(temporary, out)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _require_same(made: Path, there: Path) -> None:
    for path in sorted(made.rglob("*")):
        found = there / path.relative_to(made)
        if is_dir(path, StorageError):
            same = is_dir(found, StorageError)
        else:
            same = is_file(found, StorageError) and filecmp.cmp(path, found, shallow=False)
        if not same:
            what = "is not what this makes now; nothing was overwritten: choose another --out, or remove it"
            raise StorageError(f"{found} {what}")
