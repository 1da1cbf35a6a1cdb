"""How are the metrics computed? In float64."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dalr.errors import NumericsError, Problem

CONSTANT = 1e-6
"""Below this standard deviation over rows, embeddings are called constant."""


def cosines(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """cos(x_i, y_i); 0 where a vector is zero, as SentEval has it."""
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    norms = np.linalg.norm(x64, axis=1) * np.linalg.norm(y64, axis=1)
    dots = np.einsum("nd,nd->n", x64, y64)
    result: np.ndarray = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    return result


def unit_rows(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows of length 1 in float64; a zero row stays zero."""
    norms = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    unit: np.ndarray = np.divide(x, norms, out=np.zeros(x.shape, np.float64), where=norms > 0)
    return unit


def spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN if one side is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(x), rankdata(y))


def pearson(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    x_centred, y_centred = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x_centred @ x_centred) * (y_centred @ y_centred)))
    return float(x_centred @ y_centred) / scale if scale > 0 else float("nan")


def require_usable(vectors: Float[np.ndarray, "n d"], task: str) -> None:
    """Refuse vectors of which no score can be computed.

    Raises:
        NumericsError: NaN or infinite values, or constant embeddings.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        what = f"{len(bad)} of {len(vectors)} embeddings are not finite, so the score is undefined"
        raise NumericsError(Problem(where=task, what=what))
    if len(vectors) > 1 and float(vectors.std(axis=0).max()) < CONSTANT:
        what = f"constant embeddings (std < {CONSTANT:g} over {len(vectors)} sentences), so the score is undefined"
        raise NumericsError(Problem(where=task, what=what))
