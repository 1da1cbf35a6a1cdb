"""How sure a score is: percentile bootstrap over the items of a task, paired between models.

Items are drawn with replacement. A resample is kept as how often each item was drawn, so that nothing is sorted
again: midranks under multiplicities are a cumulative sum over the levels of the original ranks, and Spearman is
Pearson's formula weighted by the multiplicities. All models see the same resamples. The interval is conditional on
the trained model (and classifier); it says nothing about other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float64, Int64

from dalr.evaluation.results import Comparison, Evaluation, StsResult, TransferResult
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


def interval(draws: Float64[np.ndarray, " draws"]) -> tuple[float, float]:
    """The middle 95 % of the draws."""
    tail = (100 - _LEVEL) / 2
    low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return float(low), float(high)


def compare(a: Evaluation, b: Evaluation) -> list[Comparison]:
    """a against b on every task that both have, and on the averages of complete groups."""
    differences: dict[str, Float64[np.ndarray, " draws"]] = {}
    found = []
    for task in a.tasks:
        metric, difference, draws = _paired(a, b, task)
        if draws is None:
            continue
        differences[task] = draws[:, 0] - draws[:, 1]
        found.append(_comparison(task, metric, a, b, difference, differences[task]))
    averages: Mapping[str, tuple[tuple[str, ...], Callable[[Evaluation], float | None]]] = {
        "STS avg": (STS_TASKS, lambda evaluation: evaluation.sts_avg),
        "transfer avg": (TRANSFER_TASKS, lambda evaluation: evaluation.transfer_avg),
    }
    for name, (tasks, average) in averages.items():
        first, second = average(a), average(b)
        if first is None or second is None or not set(tasks) <= set(differences):
            continue
        draws = np.mean([differences[task] for task in tasks], axis=0)
        metric = "mean spearman" if tasks is STS_TASKS else "mean acc"
        found.append(_comparison(name, metric, a, b, first - second, draws))
    return found


def _paired(a: Evaluation, b: Evaluation, task: str) -> tuple[str, float, Float64[np.ndarray, "draws 2"] | None]:
    first, second = a.tasks[task], b.tasks.get(task)
    if isinstance(first, StsResult) and isinstance(second, StsResult):
        one, other = a.details.sts[task], b.details.sts[task]
        if one.gold == other.gold:
            scores = np.array([one.cosine, other.cosine])
            draws = spearman_draws(scores, np.array(one.gold), name=task)
            return "spearman", first.spearman - second.spearman, draws
    if isinstance(first, TransferResult) and isinstance(second, TransferResult):
        marks = [a.details.transfer[task], b.details.transfer[task]]
        if len(marks[0]) == len(marks[1]):
            right = np.array([[mark == "1" for mark in row] for row in marks])
            return "acc", first.acc - second.acc, share_draws(right, name=task)
    return "", 0.0, None


def _comparison(
    task: str, metric: str, a: Evaluation, b: Evaluation, difference: float, draws: Float64[np.ndarray, " draws"]
) -> Comparison:
    draws = draws[np.isfinite(draws)]
    # the observed sample counts as one more draw, so that no p-value is 0
    sides = [(np.count_nonzero(side) + 1) / (len(draws) + 1) for side in (draws <= 0, draws >= 0)]
    return Comparison(
        task=task,
        metric=metric,
        a=a.model,
        b=b.model,
        difference=difference,
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
