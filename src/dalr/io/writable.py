"""Can a file be written later? Asked before the work whose result it will hold.

Permissions say too little (root has all of them, a read-only mount none), so a small file is written beside the
wanted one and removed.
"""

from __future__ import annotations

import os
from pathlib import Path

from dalr.errors import StorageError
from dalr.io.atomic import hidden_beside, remedy, storage_errors
from dalr.io.paths import require_place_for_file

_PROBE_BYTES = 4096


def require_writable(path: Path, where: str = "output") -> None:
    """Refuse a place where `path` cannot be written; `where` is the option that names it.

    Raises:
        StorageError: it is a folder, lies below a file, or its folder refuses new files or has no space.
    """
    require_place_for_file(path, where)
    with remedy(f"choose another {where}"), storage_errors(path):
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            return  # a device or a pipe: nothing is written beside it
        folder = next(each for each in target.parents if each.exists())
        if not folder.is_dir():
            raise StorageError(f"cannot write {path}: {folder} is a file; name a file in a folder")
        probe = hidden_beside(folder / target.name, "tmp")  # removed by the next one, if a kill leaves it
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
