"""How is an STS task scored? Over all pairs and by subset, with intervals.

`all` puts the pairs of all subsets together, the aggregation of the SimCSE papers and the headline here. Mean and
weighted mean over subsets are what SentEval prints beside it; they differ by several points, so every number says
which it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64

from dalr.errors import NumericsError, Problem
from dalr.evaluation.bootstrap import interval, task_draws
from dalr.evaluation.graded import group_means, kept, pairs_sha256
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
    return _headline(pairs, pair_cosines(pairs, vectors)).spearman


def score_sts(
    pairs: ScoredPairs, vectors: Float[np.ndarray, "sentences d"], seen: Seen | None = None
) -> tuple[StsResult, PairDetails]:
    """All that is reported of one task; `vectors` are those of `pairs.sentences()`.

    Raises:
        NumericsError: vectors or a score undefined.
    """
    cosine = pair_cosines(pairs, vectors)
    together = _headline(pairs, cosine)
    subsets = {
        name: SubsetCorrelation(pairs=pairs.subset_sizes[name], **found.model_dump())
        for name, found in _by_subset(pairs, cosine).items()
    }
    sizes = [subset.pairs for subset in subsets.values()]
    result = StsResult(
        split=pairs.split,
        aggregation=pairs.aggregation,
        pairs=len(pairs.gold),
        spearman=together.spearman,
        pearson=together.pearson,
        interval=interval(_draws(pairs, cosine, pairs.name)),
        groups=_by_group(subsets) if pairs.aggregation == "groups" else {},
        pairs_sha256=pairs_sha256(pairs) if pairs.split == "own" else None,
        mean=_mean(list(subsets.values()), [1] * len(sizes)),
        weighted_mean=_mean(list(subsets.values()), sizes),
        subsets=subsets,
        without_overlap=_without(pairs, cosine, seen) if seen is not None else None,
    )
    details = PairDetails(
        gold=tuple(pairs.gold.tolist()),
        cosine=tuple(np.round(cosine, 6).tolist()),
        subset_sizes=pairs.subset_sizes,
        aggregation=pairs.aggregation,
        worst=worst_pairs(pairs, cosine),
    )
    return result, details


def pair_cosines(pairs: ScoredPairs, vectors: Float[np.ndarray, "sentences d"]) -> Float64[np.ndarray, " pairs"]:
    require_usable(vectors, pairs.name)
    half = len(pairs.first)
    return cosines(vectors[:half], vectors[half:])


def _headline(pairs: ScoredPairs, cosine: Float64[np.ndarray, " pairs"]) -> Correlation:
    """The correlation of a task, as its pairs are aggregated."""
    if pairs.aggregation == "all":
        return _correlation(pairs.name, cosine, pairs.gold)
    groups = list(_by_group(_by_subset(pairs, cosine)).values())
    return _mean(groups, [1] * len(groups))


def _by_subset(pairs: ScoredPairs, cosine: Float64[np.ndarray, " pairs"]) -> dict[str, Correlation]:
    return {
        name: _correlation(f"{pairs.name} {name}", cosine[rows], pairs.gold[rows])
        for name, rows in pairs.subset_rows().items()
    }


def _by_group(subsets: Mapping[str, Correlation]) -> dict[str, Correlation]:
    """Group of files -> the mean over them."""
    spearmans = group_means({name: each.spearman for name, each in subsets.items()})
    pearsons = group_means({name: each.pearson for name, each in subsets.items()})
    return {group: Correlation(spearman=spearmans[group], pearson=pearsons[group]) for group in spearmans}


def _draws(pairs: ScoredPairs, cosine: Float64[np.ndarray, " pairs"], name: str) -> Float64[np.ndarray, " draws"]:
    return task_draws(cosine, pairs.gold, name=name, subset_sizes=pairs.subset_sizes, aggregation=pairs.aggregation)


def _correlation(name: str, cosine: Float64[np.ndarray, " n"], gold: Float64[np.ndarray, " n"]) -> Correlation:
    values = 100 * spearman(cosine, gold), 100 * pearson(cosine, gold)
    if not np.isfinite(values).all():
        what = "all cosines or all gold scores are equal, so the correlation is undefined"
        raise NumericsError(Problem(where=name, what=what))
    return Correlation(spearman=values[0], pearson=values[1])


def _mean(subsets: Sequence[Correlation], weights: list[int]) -> Correlation:
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
    if pairs.aggregation == "groups":
        keep &= _usable(pairs, cosine, keep)
    left = replace(kept(pairs, keep), name=name)
    score = _headline(left, cosine[keep])
    return WithoutOverlap(
        spearman=score.spearman,
        pearson=score.pearson,
        pairs=int(keep.sum()),
        left_out_exact=int(seen.exact.sum()),
        left_out_near=int(seen.near.sum()),
        interval=interval(_draws(left, cosine[keep], name)),
        subsets=_subsets_without(pairs, cosine, keep),
    )


def _usable(
    pairs: ScoredPairs, cosine: Float64[np.ndarray, " pairs"], keep: Bool[np.ndarray, " pairs"]
) -> Bool[np.ndarray, " pairs"]:
    """Pairs of the files of which enough is kept for a correlation."""
    usable = np.zeros(len(keep), dtype=np.bool_)
    for name, rows in pairs.subset_rows().items():
        usable[rows] = name in _subsets_without(pairs, cosine, keep)
    return usable


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


def worst_pairs(
    pairs: ScoredPairs, cosine: Float64[np.ndarray, " pairs"], *, most: int = _WORST
) -> tuple[WorstPair, ...]:
    """The pairs whose place among the cosines is farthest from their place among the gold scores.

    Files of an own folder stand on different scales: there, a place is one among the pairs of the same file.
    """
    subsets = pairs.subset_rows()
    together = list(subsets.values()) if pairs.aggregation == "groups" else [slice(0, len(cosine))]
    error = np.concatenate([_rank_error(cosine[rows], pairs.gold[rows]) for rows in together])
    subset_of = [name for name, rows in subsets.items() for _ in range(rows.stop - rows.start)]
    return tuple(
        WorstPair(
            first=pairs.first[index],
            second=pairs.second[index],
            gold=float(pairs.gold[index]),
            cosine=float(cosine[index]),
            subset=subset_of[index],
            rank_error=float(error[index]),
        )
        for index in np.argsort(-np.abs(error), kind="stable")[:most].tolist()
    )


def _rank_error(cosine: Float64[np.ndarray, " n"], gold: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    from scipy.stats import rankdata

    difference: np.ndarray = (rankdata(cosine) - rankdata(gold)) / len(cosine)
    return difference
