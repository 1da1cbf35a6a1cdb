"""Has the disk room for a training? Asked before it begins, not hours later."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dalr.errors import StorageError
from dalr.io.atomic import storage_errors
from dalr.io.paths import size_of
from dalr.training.resume import distinct_tensors

if TYPE_CHECKING:
    from torch import nn


def point_bytes(task: nn.Module) -> int:
    """About what a resume point takes: all weights, and two moments of those that are trained."""
    return sum(tensor.nbytes * (3 if tensor.requires_grad else 1) for _, tensor in distinct_tensors(task))


def require_space(out: Path, task: nn.Module, *, points: int) -> None:
    """Refuse a disk that cannot hold `points` resume points, two best checkpoints and the product at once.

    Raises:
        StorageError: with what is needed and what is free.
    """
    product = sum(tensor.nbytes for _, tensor in distinct_tensors(task))
    needed = points * point_bytes(task) + 3 * product - _used(out)
    free = free_bytes(out)
    if needed > free:
        what = f"no space left for a training in {out}: needs about {in_mb(needed)}, {in_mb(free)} free"
        raise StorageError(f"{what}; free some, choose another --out, or raise training.save_every")


def free_bytes(folder: Path) -> int:
    with storage_errors(folder):
        return shutil.disk_usage(folder).free


def in_mb(number: int) -> str:
    return f"{number / 1e6:,.0f} MB"


def _used(folder: Path) -> int:
    return sum(size_of(path, StorageError) for path in folder.rglob("*"))
