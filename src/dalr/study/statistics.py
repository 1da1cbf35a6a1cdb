"""How certain is a difference between methods? Paired by seed, with Student's t, as seeds are few.

A standard deviation is that of the sample (n − 1). An interval speaks of further seeds of the same training on the
same items; further items are the business of the paired bootstrap, which stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from dalr.evaluation.bootstrap import compare
from dalr.evaluation.results import Comparison, Evaluation

_LEVEL = 0.95


class Summary(BaseModel):
    """Some numbers in short."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    mean: float
    std: float | None
    """Of the sample; None for a single number."""
    interval: tuple[float, float] | None
    """95 % of the mean, by Student's t; None for a single number and for equal ones."""
    n: int


def summary(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and interval of at least one number.

    Scores that come in steps may all be the same; that is no certainty, so there is no interval then.
    """
    numbers = np.asarray(values, dtype=np.float64)
    n, mean = len(numbers), float(numbers.mean())
    if n < 2:
        return Summary(mean=mean, std=None, interval=None, n=n)
    std = float(numbers.std(ddof=1))
    if std == 0 and mean != 0:
        return Summary(mean=mean, std=std, interval=None, n=n)
    reach = _student(n - 1) * std / math.sqrt(n)
    return Summary(mean=mean, std=std, interval=(mean - reach, mean + reach), n=n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Summary | None:
    """a − b over the seeds that both have; None where there is none."""
    seeds = sorted(set(a) & set(b))
    return summary([a[seed] - b[seed] for seed in seeds]) if seeds else None


def item_tests(a: Mapping[int, Evaluation], b: Mapping[int, Evaluation]) -> list[Comparison]:
    """The paired bootstrap over items, of the mean difference over the seeds that both have."""
    seeds = sorted(set(a) & set(b))
    return compare(*((a[seed], b[seed]) for seed in seeds)) if seeds else []


def _student(freedom: int) -> float:
    """The quantile that leaves 2.5 % above it."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + _LEVEL) / 2))
