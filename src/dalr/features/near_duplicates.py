"""Photos that occur twice: a training image whose features are nearly those of a held-out image.

What it costs: a multiply-add for each pair of a training and a held-out image and each of their numbers, 0.1 s for
6,000 × 2,000 × 1,280. Beyond `MOST` of them nothing is compared, and that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dalr.evaluation.metrics import unit_rows
from dalr.features.store import FeatureStore

MOST = 4e12
"""Multiply-adds; some minutes of one processor."""
_BLOCK = 4096


@dataclass(frozen=True, kw_only=True)
class NearDuplicate:
    """A training image and the held-out image that it is nearest to."""

    training: str
    held_out: str
    cosine: float


def near_duplicates(
    store: FeatureStore, training: Sequence[str], held_out: Sequence[str], *, threshold: float
) -> list[NearDuplicate] | None:
    """Training images with a held-out image at a cosine of `threshold` or more, the nearest pairs first.

    Images without a vector are not compared: who needs their vectors says so. None where there are too many.
    """
    known = {name: row for row, name in enumerate(store.ids)}
    left, right = ([name for name in names if name in known] for names in (training, held_out))
    if not left or not right:
        return []
    if float(len(left)) * len(right) * store.dim > MOST:
        return None

    def vectors(names: Sequence[str]) -> np.ndarray:
        rows = np.array([known[name] for name in names], np.int64)
        return unit_rows(store.read(rows))

    targets = vectors(right).T
    found: list[NearDuplicate] = []
    for start in range(0, len(left), _BLOCK):
        names = left[start : start + _BLOCK]
        cosines = vectors(names) @ targets
        nearest = cosines.argmax(axis=1)
        best = cosines[np.arange(len(names)), nearest]
        found += [
            NearDuplicate(training=names[row], held_out=right[int(nearest[row])], cosine=float(best[row]))
            for row in np.flatnonzero(best >= threshold).tolist()
        ]
    return sorted(found, key=lambda each: (-each.cosine, each.training))
