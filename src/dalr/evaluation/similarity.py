"""How is an STS task scored? Over all pairs and by subset, with intervals.

`all` puts the pairs of all subsets together, the aggregation of the SimCSE papers and the headline here. Mean and
weighted mean over subsets are what SentEval prints beside it; they differ by several points, so every number says
which it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from dalr.errors import NumericsError, Problem
from dalr.evaluation.bootstrap import interval, spearman_draws
from dalr.evaluation.metrics import cosines, pearson, require_usable, spearman
from dalr.evaluation.results import (
    Correlation,
    PairDetails,
    StsResult,
    SubsetCorrelation,
    WithoutOverlap,
    WorstPair,
)
from dalr.evaluation.sts import ScoredPairs

_WORST = 5
"""Pairs shown of those that a model rates most wrongly."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Pairs of a task that hold a training sentence."""

    exact: Bool[np.ndarray, " pairs"]
    near: Bool[np.ndarray, " pairs"]


def score_pairs(pairs: ScoredPairs, vectors: Float[np.ndarray, "sentences d"]) -> float:
    """Spearman × 100 between gold and cosine; `vectors` are those of `pairs.sentences()`.

    Raises:
        NumericsError: vectors or score undefined.
    """
    return _correlation(pairs.name, pair_cosines(pairs, vectors), pairs.gold).spearman


def score_sts(
    pairs: ScoredPairs, vectors: Float[np.ndarray, "sentences d"], seen: Seen | None = None
) -> tuple[StsResult, PairDetails]:
    """All that is reported of one task; `vectors` are those of `pairs.sentences()`.

    Raises:
        NumericsError: vectors or a score undefined.
    """
    cosine = pair_cosines(pairs, vectors)
    together = _correlation(pairs.name, cosine, pairs.gold)
    subsets = {
        name: SubsetCorrelation(
            pairs=rows.stop - rows.start,
            **_correlation(f"{pairs.name} {name}", cosine[rows], pairs.gold[rows]).model_dump(),
        )
        for name, rows in pairs.subset_rows().items()
    }
    sizes = [subset.pairs for subset in subsets.values()]
    result = StsResult(
        split=pairs.split,
        aggregation="all",
        pairs=len(pairs.gold),
        spearman=together.spearman,
        pearson=together.pearson,
        interval=interval(spearman_draws(cosine[None], pairs.gold, name=pairs.name)[:, 0]),
        mean=_mean(list(subsets.values()), [1] * len(sizes)),
        weighted_mean=_mean(list(subsets.values()), sizes),
        subsets=subsets,
        without_overlap=_without(pairs, cosine, seen) if seen is not None else None,
    )
    details = PairDetails(
        gold=tuple(pairs.gold.tolist()),
        cosine=tuple(np.round(cosine, 6).tolist()),
        subset_sizes=pairs.subset_sizes,
        worst=_worst(pairs, cosine),
    )
    return result, details


def pair_cosines(pairs: ScoredPairs, vectors: Float[np.ndarray, "sentences d"]) -> Float64[np.ndarray, " pairs"]:
    require_usable(vectors, pairs.name)
    half = len(pairs.first)
    return cosines(vectors[:half], vectors[half:])


def _correlation(name: str, cosine: Float64[np.ndarray, " n"], gold: Float64[np.ndarray, " n"]) -> Correlation:
    values = 100 * spearman(cosine, gold), 100 * pearson(cosine, gold)
    if not np.isfinite(values).all():
        what = "all cosines or all gold scores are equal, so the correlation is undefined"
        raise NumericsError(Problem(where=name, what=what))
    return Correlation(spearman=values[0], pearson=values[1])


def _mean(subsets: list[SubsetCorrelation], weights: list[int]) -> Correlation:
    return Correlation(
        spearman=float(np.average([subset.spearman for subset in subsets], weights=weights)),
        pearson=float(np.average([subset.pearson for subset in subsets], weights=weights)),
    )


def _without(pairs: ScoredPairs, cosine: Float64[np.ndarray, " pairs"], seen: Seen) -> WithoutOverlap:
    keep = ~(seen.exact | seen.near)
    name = f"{pairs.name} without overlap"
    if keep.sum() < 2:
        what = f"{keep.sum()} pairs are left of {len(keep)}, so the correlation is undefined"
        raise NumericsError(Problem(where=name, what=what))
    score = _correlation(name, cosine[keep], pairs.gold[keep])
    return WithoutOverlap(
        spearman=score.spearman,
        pearson=score.pearson,
        pairs=int(keep.sum()),
        left_out_exact=int(seen.exact.sum()),
        left_out_near=int(seen.near.sum()),
        interval=interval(spearman_draws(cosine[None, keep], pairs.gold[keep], name=name)[:, 0]),
        subsets=_subsets_without(pairs, cosine, keep),
    )


def _subsets_without(
    pairs: ScoredPairs, cosine: Float64[np.ndarray, " pairs"], keep: Bool[np.ndarray, " pairs"]
) -> dict[str, SubsetCorrelation]:
    """What is left of each subset, where that has a correlation: nearly all of one may be captions."""
    found = {}
    for name, rows in pairs.subset_rows().items():
        kept = keep[rows]
        gold, scores = pairs.gold[rows][kept], cosine[rows][kept]
        if len(np.unique(gold)) > 1 and len(np.unique(scores)) > 1:
            score = _correlation(f"{pairs.name} {name} without overlap", scores, gold)
            found[name] = SubsetCorrelation(spearman=score.spearman, pearson=score.pearson, pairs=int(kept.sum()))
    return found


def _worst(pairs: ScoredPairs, cosine: Float64[np.ndarray, " pairs"]) -> tuple[WorstPair, ...]:
    from scipy.stats import rankdata

    error = (rankdata(cosine) - rankdata(pairs.gold)) / len(cosine)
    subset_of = [name for name, rows in pairs.subset_rows().items() for _ in range(rows.stop - rows.start)]
    return tuple(
        WorstPair(
            first=pairs.first[index],
            second=pairs.second[index],
            gold=float(pairs.gold[index]),
            cosine=float(cosine[index]),
            subset=subset_of[index],
            rank_error=float(error[index]),
        )
        for index in np.argsort(-np.abs(error), kind="stable")[:_WORST].tolist()
    )
