"""Is a file only a git-LFS pointer, the few lines of text that stand for a large file?

A clone made without git-lfs, or a folder copied out of one, holds pointers in place of weights, features and
captions.
"""

from __future__ import annotations

from pathlib import Path

from dalr.io.paths import regular

LFS_ADVICE = "a git-LFS pointer, not the file itself; fetch it with: git lfs pull"
"""What to say of such a file, behind its name."""
LFS_BEGINNING = b"version https://git-lfs.github.com/spec/v1"


def is_lfs_pointer(path: Path) -> bool:
    """Whether `path` is a git-LFS pointer; false where it cannot be read, or is no regular file."""
    try:
        with open(regular(path), "rb") as file:
            return file.read(len(LFS_BEGINNING)) == LFS_BEGINNING
    except (OSError, ValueError):
        return False
