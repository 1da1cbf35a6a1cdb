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
    left, right = (rows[rows >= 0] for rows in (store.find(training), store.find(held_out)))
    if not len(left) or not len(right):
        return []
    if float(len(left)) * len(right) * store.dim > MOST:
        return None
    targets = unit_rows(store.read(right)).T
    found: list[NearDuplicate] = []
    for start in range(0, len(left), _BLOCK):
        rows = left[start : start + _BLOCK]
        cosines = unit_rows(store.read(rows)) @ targets
        nearest = cosines.argmax(axis=1)
        best = cosines[np.arange(len(rows)), nearest]
        found += [
            NearDuplicate(
                training=store.ids[int(rows[row])],
                held_out=store.ids[int(right[nearest[row]])],
                cosine=float(best[row]),
            )
            for row in np.flatnonzero(best >= threshold).tolist()
        ]
    return sorted(found, key=lambda each: (-each.cosine, each.training))
