"""How certain is a score? Percentile bootstrap over the items of a task, paired between models.

Items are drawn with replacement. A resample is kept as how often each item was drawn, so that nothing is sorted
again: midranks under multiplicities are a cumulative sum over the levels of the original ranks, and Spearman is
Pearson's formula weighted by the multiplicities. All models see the same resamples. The interval is conditional on
the trained model (and classifier); it says nothing about other seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64, Int64

from dalr.evaluation.graded import mean_of_group_draws
from dalr.evaluation.results import Comparison, Evaluation, PairDetails, Queries, StsResult, TransferResult
from dalr.evaluation.sts import Aggregation
from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS
from dalr.seed import generator

DRAWS = 1_000
_LEVEL = 95


def spearman_draws(
    scores: Float64[np.ndarray, "models items"], gold: Float64[np.ndarray, " items"], *, name: str
) -> Float64[np.ndarray, "draws models"]:
    """Spearman × 100 of each model on the same resamples of the items; `name` names the random stream."""
    items = len(gold)
    random = generator(0, "bootstrap", name)
    levels = [_levels(row) for row in (gold, *scores)]
    draws = np.empty((DRAWS, len(scores)))
    for draw in range(DRAWS):
        counts = np.bincount(random.integers(items, size=items), minlength=items).astype(np.float64)
        gold_ranks, *ranks = (_centred_midranks(level, counts) for level in levels)
        weighted = counts * gold_ranks
        gold_power = weighted @ gold_ranks
        for model, each in enumerate(ranks):
            power = gold_power * (counts @ (each * each))
            draws[draw, model] = 100 * (weighted @ each) / np.sqrt(power) if power > 0 else np.nan
    return draws


def task_draws(
    cosine: Float64[np.ndarray, " items"],
    gold: Float64[np.ndarray, " items"],
    *,
    name: str,
    subset_sizes: Mapping[str, int],
    aggregation: Aggregation,
) -> Float64[np.ndarray, " draws"]:
    """A task's Spearman × 100 on resamples of its items; those of averaged files are resampled file by file."""
    if aggregation == "all":
        draws: np.ndarray = spearman_draws(cosine[None], gold, name=name)[:, 0]
        return draws
    ends = np.cumsum(list(subset_sizes.values())).tolist()
    rows = {each: slice(end - size, end) for (each, size), end in zip(subset_sizes.items(), ends, strict=True)}
    return mean_of_group_draws(
        {
            each: spearman_draws(cosine[None, where], gold[where], name=f"{name}/{each}")[:, 0]
            for each, where in rows.items()
        }
    )


def share_draws(right: Bool[np.ndarray, "models items"], *, name: str) -> Float64[np.ndarray, "draws models"]:
    """Accuracy × 100 of each model on the same resamples of the items.

    Items on which the models are right and wrong alike are interchangeable: what is drawn is how often each of the
    2^models patterns occurs.
    """
    patterns, counts = np.unique(right, axis=1, return_counts=True)
    items = right.shape[1]
    drawn = generator(0, "bootstrap", name).multinomial(items, counts / items, size=DRAWS)
    draws: np.ndarray = 100 * (drawn @ patterns.T.astype(np.float64)) / items
    return draws


def image_draws(found: Queries, measure: str, *, name: str) -> Float64[np.ndarray, " draws"]:
    """The mean of a measure × 100 over its queries, on resamples of the images that they are of.

    Captions of an image are not independent, so that all of its queries are drawn together. All models and both
    directions on the same set see the same resamples.
    """
    image, values = np.array(found.image), np.array(found.values[measure], np.float64)
    numbers, place = np.unique(image, return_inverse=True)
    sums = np.bincount(place, weights=values, minlength=len(numbers))
    queries = np.bincount(place, minlength=len(numbers)).astype(np.float64)
    random = generator(0, "bootstrap", name)
    draws = np.empty(DRAWS)
    for draw in range(DRAWS):
        counts = np.bincount(random.integers(len(numbers), size=len(numbers)), minlength=len(numbers))
        draws[draw] = (counts @ sums) / (counts @ queries)
    return draws


def interval(draws: Float64[np.ndarray, " draws"]) -> tuple[float, float]:
    """The middle 95 % of the draws."""
    tail = (100 - _LEVEL) / 2
    low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def compare(*pairs: tuple[Evaluation, Evaluation]) -> list[Comparison]:
    """a against b on every task that both have, and on the averages of complete groups.

    Several pairs are trainings of the same two methods under several seeds: what is compared is the mean of a − b
    over those that have the task, all on the same resamples of its items.
    """
    a, b = pairs[0]
    paired: dict[str, _Resampled] = {}
    own: list[tuple[str, _Resampled]] = []
    for task in a.tasks:
        having = [(one, other) for one, other in pairs if task in one.tasks and task in other.tasks]
        found = _resampled(having, task) if having else None
        if found is not None:
            paired[task] = found
        own += [(task, each) for each in _resampled_queries(having, task)]
    averages: Mapping[str, tuple[tuple[str, ...], str]] = {
        "STS avg": (STS_TASKS, "mean spearman"),
        "transfer avg": (TRANSFER_TASKS, "mean acc"),
    }
    for name, (tasks, metric) in averages.items():
        several = [paired[task] for task in tasks if task in paired]
        if len(several) == len(tasks) and len({each.pairs for each in several}) == 1:
            difference = sum(each.difference for each in several) / len(tasks)
            draws = np.mean([each.draws for each in several], axis=0)
            paired[name] = _Resampled(metric=metric, pairs=several[0].pairs, difference=difference, draws=draws)
    return [_comparison(name, each, a.model, b.model) for name, each in (*paired.items(), *own)]


@dataclass(frozen=True, kw_only=True)
class _Resampled:
    """A difference, and the same on resamples."""

    metric: str
    pairs: int
    difference: float
    draws: Float64[np.ndarray, " draws"]


def _resampled(pairs: Sequence[tuple[Evaluation, Evaluation]], task: str) -> _Resampled | None:
    """The mean difference of a task; None where items are not those of all, or are not kept."""
    runs = [run for pair in pairs for run in pair]
    scores: list[float] = []
    match [run.tasks[task] for run in runs]:
        case [StsResult(), *_] as results:
            kept = [run.details.sts[task] for run in runs if task in run.details.sts]
            if len(kept) < len(runs) or any(_items(each) != _items(kept[0]) for each in kept):
                return None
            scores += [each.spearman for each in results if isinstance(each, StsResult)]
            draws = np.stack([_sts_draws(each, task) for each in kept])
            metric = "spearman"
        case [TransferResult(), *_] as results:
            marks = [run.details.transfer.get(task, "") for run in runs]
            if not marks[0] or any(len(each) != len(marks[0]) for each in marks):
                return None
            scores += [each.acc for each in results if isinstance(each, TransferResult)]
            draws = share_draws(np.array([[mark == "1" for mark in row] for row in marks]), name=task).T
            metric = "acc"
        case _:
            return None
    signs = np.array([1, -1] * len(pairs)) / len(pairs)
    difference = float(signs @ np.array(scores))
    return _Resampled(metric=metric, pairs=len(pairs), difference=difference, draws=signs @ draws)


def _resampled_queries(pairs: Sequence[tuple[Evaluation, Evaluation]], task: str) -> Iterator[_Resampled]:
    """The mean differences of a task on one's own images; none where the images are not the same for all."""
    runs = [run for pair in pairs for run in pair]
    kept = [run.details.queries[task] for run in runs if task in run.details.queries]
    items = {getattr(run.tasks[task], "items", "") for run in runs}
    if len(kept) < len(runs) or not runs or len(items) != 1 or not all(items):
        return
    signs = np.array([1, -1] * len(pairs)) / len(pairs)
    for direction, first in enumerate(kept[0]):
        for measure in first.values:
            several = [each[direction] for each in kept]
            scores = np.array([np.mean(each.values[measure]) for each in several])
            draws = np.stack([image_draws(each, measure, name=min(items)) for each in several])
            yield _Resampled(
                metric=measure, pairs=len(pairs), difference=float(signs @ scores), draws=signs @ draws
            )


def _items(details: PairDetails) -> tuple[object, ...]:
    """What must be the same of two runs whose items are resampled together."""
    sizes = details.subset_sizes if details.aggregation == "groups" else {}
    return details.gold, details.aggregation, tuple(sizes.items())


def _sts_draws(details: PairDetails, task: str) -> Float64[np.ndarray, " draws"]:
    sizes = tuple(details.subset_sizes.items())
    return _kept_draws(details.cosine, details.gold, task, sizes, details.aggregation)


@lru_cache(maxsize=512)
def _kept_draws(
    cosine: tuple[float, ...],
    gold: tuple[float, ...],
    task: str,
    sizes: tuple[tuple[str, int], ...],
    aggregation: Aggregation,
) -> Float64[np.ndarray, " draws"]:
    """Resampled scores of one model, once for all that it is compared with."""
    return task_draws(
        np.array(cosine), np.array(gold), name=task, subset_sizes=dict(sizes), aggregation=aggregation
    )


def _comparison(task: str, found: _Resampled, a: str, b: str) -> Comparison:
    draws = found.draws[np.isfinite(found.draws)]
    # the observed sample counts as one more draw, so that no p-value is 0
    sides = [(np.count_nonzero(side) + 1) / (len(draws) + 1) for side in (draws <= 0, draws >= 0)]
    return Comparison(
        task=task,
        metric=found.metric,
        a=a,
        b=b,
        difference=found.difference,
        interval=interval(draws),
        p_value=float(min(1.0, 2 * min(sides))),
    )


def _levels(values: Float64[np.ndarray, " items"]) -> Int64[np.ndarray, " items"]:
    """0 for the smallest value, 1 for the next larger one, and so on."""
    levels: np.ndarray = np.unique(values, return_inverse=True)[1]
    return levels


def _centred_midranks(
    levels: Int64[np.ndarray, " items"], counts: Float64[np.ndarray, " items"]
) -> Float64[np.ndarray, " items"]:
    """Midranks of items that occur `counts` times, minus their mean, (n − 1) / 2 counted from 0."""
    at_level = np.bincount(levels, weights=counts)
    midranks = np.cumsum(at_level) - (at_level + 1) / 2
    ranks: np.ndarray = midranks[levels] - (counts.sum() - 1) / 2
    return ranks
