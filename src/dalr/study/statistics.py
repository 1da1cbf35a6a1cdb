"""Means over seeds and differences paired by seed, with Student's t because there are few seeds.

A standard deviation is that of the sample (n − 1). An interval speaks of further seeds of the same training on the
same items; further items are the business of the paired bootstrap, which stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from dalr.evaluation.bootstrap import compare
from dalr.evaluation.metrics import spearman
from dalr.evaluation.results import (
    Comparison,
    Details,
    Evaluation,
    PairDetails,
    StsResult,
    sts_average,
)

_LEVEL = 0.95


class Summary(BaseModel):
    """Some numbers in short."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    mean: float
    std: float | None
    """Of the sample; None for a single number."""
    interval: tuple[float, float] | None
    """95 % of the mean, by Student's t; None for a single number."""
    n: int


def summary(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and interval of at least one number."""
    numbers = np.asarray(values, dtype=np.float64)
    n, mean = len(numbers), float(numbers.mean())
    if n < 2:
        return Summary(mean=mean, std=None, interval=None, n=n)
    std = float(numbers.std(ddof=1))
    reach = _student(n - 1) * std / math.sqrt(n)
    return Summary(mean=mean, std=std, interval=(mean - reach, mean + reach), n=n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Summary | None:
    """a − b over the seeds that both have; None where there is none."""
    seeds = sorted(set(a) & set(b))
    return summary([a[seed] - b[seed] for seed in seeds]) if seeds else None


def item_tests(a: Mapping[int, Evaluation], b: Mapping[int, Evaluation]) -> list[Comparison]:
    """The paired bootstrap over items, with the similarity of each pair averaged over the seeds that both have.

    Transfer has no similarity to average: it is compared where one seed was scored.
    """
    return compare(over_seeds(a, set(a) & set(b)), over_seeds(b, set(a) & set(b))) if set(a) & set(b) else []


def over_seeds(evaluations: Mapping[int, Evaluation], seeds: set[int]) -> Evaluation:
    """One evaluation whose cosines are the means over `seeds`: of the tasks that all of these have."""
    several = [evaluations[seed] for seed in sorted(seeds)]
    tasks: dict[str, StsResult] = {}
    details: dict[str, PairDetails] = {}
    for name, first in several[0].details.sts.items():
        results = [each.tasks.get(name) for each in several]
        pairs = [each.details.sts[name] for each in several if name in each.details.sts]
        if len(pairs) < len(several) or any(each.gold != first.gold for each in pairs):
            continue
        result = results[0]
        if not isinstance(result, StsResult):
            continue
        cosines = np.mean([each.cosine for each in pairs], axis=0)
        score = 100 * spearman(cosines, np.asarray(first.gold))
        tasks[name] = result.model_copy(update={"spearman": score})
        details[name] = first.model_copy(update={"cosine": tuple(cosines.tolist())})
    with_transfer = [each for each in several if each.details.transfer]
    single = with_transfer[0] if len(with_transfer) == 1 else None
    marks = single.details.transfer if single is not None else {}
    transfer = {name: single.tasks[name] for name in marks} if single is not None else {}
    return several[0].model_copy(
        update={
            "tasks": {**tasks, **transfer},
            "sts_avg": sts_average(tasks),
            "transfer_avg": single.transfer_avg if single is not None else None,
            "details": Details(sts=details, transfer=marks),
        }
    )


def _student(freedom: int) -> float:
    """The quantile that leaves 2.5 % above it."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + _LEVEL) / 2))
