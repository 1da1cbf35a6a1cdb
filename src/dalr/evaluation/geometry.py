"""How do sentence vectors lie on the sphere? Alignment, uniformity, anisotropy, hubness.

Alignment and uniformity are lower for better vectors and only together say something: constant vectors are
perfectly aligned. Anisotropy is vectors that all point the same way or use few directions; hubs are sentences that
turn up among everybody's neighbours, which spoils search. Rows are L2-normalised here and everything is float64.
What goes over all pairs does so in blocks of rows, so that the n² of a whole split never lies in memory at once.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64
from scipy.special import logsumexp

from dalr.errors import DataError, Problem
from dalr.evaluation.metrics import require_usable, unit_rows
from dalr.evaluation.results import GeometryResult
from dalr.evaluation.sts import ScoredPairs

_BLOCK = 1024
"""Rows whose distances to all others are held at once."""
_POSITIVE = 4
"""Pairs with more than this gold score, of 5, mean the same (Gao et al. 2021)."""
_NEIGHBOURS = 10


def score_geometry(pairs: ScoredPairs, vectors: Float[np.ndarray, "sentences d"]) -> GeometryResult:
    """Diagnostics of one split; `vectors` are those of `pairs.sentences()`.

    Alignment is over pairs with gold > 4, uniformity over the sentences of both sides as they stand, the rest over
    distinct sentences.

    Raises:
        NumericsError: vectors that are not finite, or constant.
        DataError: too few distinct sentences to have neighbours.
    """
    from scipy.stats import skew  # half a second to import, and everything that evaluates imports this module

    require_usable(vectors, "geometry")
    sentences = pairs.sentences()
    distinct = vectors[list({sentence: row for row, sentence in enumerate(sentences)}.values())]
    if len(distinct) <= _NEIGHBOURS:
        what = f"expected more than {_NEIGHBOURS} distinct sentences, found {len(distinct)}"
        raise DataError(Problem(where=f"geometry of {pairs.name}", what=what))
    half = len(pairs.first)
    positive = np.flatnonzero(pairs.gold > _POSITIVE)
    mean_cosine, top_component, effective_rank = anisotropy(distinct)
    occurrences = neighbour_occurrences(distinct, _NEIGHBOURS)
    return GeometryResult(
        source=f"{pairs.name} {pairs.split}",
        alignment=alignment(vectors[positive], vectors[half + positive]) if len(positive) else None,
        uniformity=uniformity(vectors),
        mean_cosine=mean_cosine,
        top_component=top_component,
        effective_rank=effective_rank,
        hubness=float(skew(occurrences)),
        largest_hub=int(occurrences.max()),
        antihubs=float((occurrences == 0).mean()),
        sentences=len(distinct),
    )


def alignment(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], alpha: int | float = 2) -> float:
    """mean_i ‖x_i − y_i‖^α on L2-normalised rows, α = 2 (Wang & Isola 2020, ℒ_align). Pairs are row by row.

    Raises:
        ValueError: there is no pair.
    """
    if len(x) == 0:
        raise ValueError("alignment is a mean over pairs; expected 1 pair or more, found 0")
    distances = np.linalg.norm(unit_rows(x) - unit_rows(y), axis=1)
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
    rows = unit_rows(x)
    squares = np.einsum("nd,nd->n", rows, rows)
    blocks = []
    for start in range(0, n, _BLOCK):
        block = slice(start, start + _BLOCK)
        exponents = -t * (squares[block, None] + squares[None] - 2 * rows[block] @ rows.T).clip(min=0)
        exponents[np.arange(len(exponents)), np.arange(start, start + len(exponents))] = -np.inf
        blocks.append(logsumexp(exponents))
    return float(logsumexp(blocks) - np.log(n * (n - 1)))


def anisotropy(x: Float[np.ndarray, "n d"]) -> tuple[float, float, float]:
    """Mean cosine of two different rows; share of the variance on the first principal axis; effective rank.

    The effective rank is exp of the entropy of the variance over the principal axes (Roy & Vetterli 2007).
    """
    rows = unit_rows(x)
    n = len(rows)
    total = rows.sum(axis=0)
    mean_cosine = (total @ total - np.einsum("nd,nd->", rows, rows)) / (n * (n - 1))
    centred = rows - total / n
    variance = np.linalg.eigvalsh(centred.T @ centred).clip(min=0)
    shares = variance / variance.sum()
    entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
    return float(mean_cosine), float(shares.max()), float(np.exp(entropy))


def neighbour_occurrences(x: Float[np.ndarray, "n d"], k: int) -> Int64[np.ndarray, " n"]:
    """How many other rows have each row among their k nearest by cosine (Radovanović et al. 2010, N_k)."""
    rows = unit_rows(x)
    counts = np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), _BLOCK):
        similarity = rows[start : start + _BLOCK] @ rows.T
        similarity[np.arange(len(similarity)), np.arange(start, start + len(similarity))] = -np.inf
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        counts += np.bincount(nearest.ravel(), minlength=len(rows))
    return counts
