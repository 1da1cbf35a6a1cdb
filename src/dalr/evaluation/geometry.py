"""Alignment and uniformity: are pairs that mean the same close, and do all sentences spread over the sphere?

Both are lower for better vectors and only together say something: constant vectors are perfectly aligned. Rows are
L2-normalised here and everything is float64. Uniformity goes over all pairs in blocks of rows, so that the n² of a
whole split never lies in memory at once.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

_BLOCK = 1024
"""Rows whose distances to all others are held at once."""


def alignment(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], alpha: int | float = 2) -> float:
    """mean_i ‖x_i − y_i‖^α on L2-normalised rows, α = 2 (Wang & Isola 2020, ℒ_align). Pairs are row by row.

    Raises:
        ValueError: there is no pair.
    """
    if len(x) == 0:
        raise ValueError("alignment is a mean over pairs; expected 1 pair or more, found 0")
    distances = np.linalg.norm(_unit(x) - _unit(y), axis=1)
    return float((distances**alpha).mean())


def uniformity(x: Float[np.ndarray, "n d"], t: int | float = 2) -> float:
    """log mean_{i≠j} exp(−t ‖x_i − x_j‖²) on L2-normalised rows, t = 2 (Wang & Isola 2020, ℒ_uniform).

    For a task of sentence pairs, `x` is the rows of both sides together (method.md, section 4).

    Raises:
        ValueError: there are no two rows.
    """
    n = len(x)
    if n < 2:
        raise ValueError(f"uniformity is a mean over pairs of rows; expected 2 rows or more, found {n}")
    rows = _unit(x)
    squares = np.einsum("nd,nd->n", rows, rows)
    blocks = []
    for start in range(0, n, _BLOCK):
        block = slice(start, start + _BLOCK)
        exponents = -t * (squares[block, None] + squares[None] - 2 * rows[block] @ rows.T).clip(min=0)
        exponents[np.arange(len(exponents)), np.arange(start, start + len(exponents))] = -np.inf
        blocks.append(logsumexp(exponents))
    return float(logsumexp(blocks) - np.log(n * (n - 1)))


def _unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of length 1 in float64; a zero row stays zero."""
    norms = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    unit: np.ndarray = np.divide(x, norms, out=np.zeros(x.shape, np.float64), where=norms > 0)
    return unit
