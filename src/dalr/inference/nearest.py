"""The k rows that are nearest to a query by cosine, a block of rows at a time; ties go to the earlier row."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int64

_BLOCK = 65_536
"""Rows that are compared at once: of a memory-mapped matrix no more is in memory."""


def unit(vectors: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Rows at length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: np.ndarray = (vectors / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return scaled


def nearest(
    queries: Float32[np.ndarray, "q d"], rows: Float[np.ndarray, "n d"], k: int
) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
    """Numbers and cosines of the `k` best rows of each query (fewer where there are fewer rows), best first.

    Both have rows of length 1.
    """
    numbers = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = np.asarray(rows[start : start + _BLOCK], np.float32)
        found = queries @ block.T
        numbers = np.concatenate([numbers, np.broadcast_to(np.arange(start, start + len(block)), found.shape)], 1)
        numbers, scores = _best(numbers, np.concatenate([scores, found], 1), k)
    return numbers, scores


def _best(
    numbers: Int64[np.ndarray, "q n"], scores: Float32[np.ndarray, "q n"], k: int
) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
    if scores.shape[1] > k:
        # everything that equals the k-th best may be among them: which of those, the order of rows decides
        border = np.partition(scores, -k, axis=1)[:, -k][:, None]
        most = int((scores >= border).sum(axis=1).max())
        kept = np.argsort(scores < border, axis=1, kind="stable")[:, :most]
        numbers, scores = np.take_along_axis(numbers, kept, 1), np.take_along_axis(scores, kept, 1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(numbers, order, 1), np.take_along_axis(scores, order, 1)
