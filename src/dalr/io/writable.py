"""Whether a file can be written later, asked before the work that will fill it.

Permissions say too little (root has all of them, a read-only mount none), so a small file is written beside the
wanted one and removed.
"""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

from dalr.errors import StorageError
from dalr.io.atomic import storage_errors

_PROBE_BYTES = 4096


def require_writable(path: Path) -> None:
    """Refuse a place where `path` cannot be written.

    Raises:
        StorageError: it is a folder, lies below a file, or its folder refuses new files or has no space.
    """
    with storage_errors(path):
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and stat.S_ISDIR(mode):
            raise StorageError(f"expected a file to write, {path} is a folder: name a file in it")
        if mode is not None and not stat.S_ISREG(mode):
            return  # a device or a pipe: nothing is written beside it
        folder = next(each for each in target.parents if each.exists())
        if not folder.is_dir():
            raise StorageError(f"cannot write {path}: {folder} is a file; name a file in a folder")
        probe = folder / f".{uuid.uuid4().hex[:8]}.tmp"
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
