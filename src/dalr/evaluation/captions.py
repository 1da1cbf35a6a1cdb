"""Captions of one image find each other: a score on one's own captions that any sentence encoder can have.

A caption asks all others; right are those of the same image. It needs no image vectors and no trained heads, so it
says of two encoders which knows better that two sentences describe the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

from dalr.evaluation.metrics import unit_rows

_BLOCK = 1_024
"""Captions that are compared with all others at once."""


@dataclass(frozen=True, kw_only=True)
class CaptionsScore:
    """How the queries came out: the captions that have others of the same image."""

    queries: Int64[np.ndarray, " queries"]
    """Their numbers."""
    ranks: Int64[np.ndarray, " queries"]
    """Captions of other images before the first of the same image."""
    average_precision: Float64[np.ndarray, " queries"]
    """Mean, over the captions of the same image, of the fraction of right ones up to each."""


def captions_score(
    vectors: Float[np.ndarray, "captions d"], owner: Int64[np.ndarray, " captions"]
) -> CaptionsScore:
    """Rank all other captions by cosine for each caption; caption i belongs to image `owner[i]`.

    Ties count against the query: of equal cosines, captions of other images come first.
    """
    unit = unit_rows(vectors)
    counts = np.bincount(owner)
    queries = np.flatnonzero(counts[owner] > 1)
    ranks, precision = np.empty(len(queries), np.int64), np.empty(len(queries))
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        cosines = unit[block] @ unit.T
        cosines[np.arange(len(block)), block] = -np.inf
        for row, query in enumerate(block.tolist()):
            right = np.flatnonzero(owner == owner[query])
            right = right[right != query]
            own = np.sort(cosines[row, right])[::-1]
            wrong = np.sort(np.delete(cosines[row], [*right, query]))
            before = len(wrong) - np.searchsorted(wrong, own, side="left")
            ranks[start + row] = before[0]
            places = np.arange(1, len(own) + 1)
            precision[start + row] = float(np.mean(places / (places + before)))
    return CaptionsScore(queries=queries, ranks=ranks, average_precision=precision)
