"""Which method is ahead? In words, before any table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dalr.report.tables import formatted
from dalr.study.result import Difference, StudyResult
from dalr.study.scores import DEV, STS_AVG

_FEWEST_SEEDS = 3
_DECIDING = (STS_AVG, "t→i R@1", DEV)


@dataclass(frozen=True, kw_only=True)
class _Side:
    """A compared pair, seen from one of its methods."""

    model: str
    other: str
    mean: float
    sign: int
    """1 ahead, −1 behind, 0 where the interval holds zero."""


def verdict(result: StudyResult) -> list[str]:
    """A sentence for each method that others are compared with, on the first deciding score that has intervals.

    A validation score decides only where nothing was tested. Empty with a single seed.
    """
    for score in (*result.graded, *_DECIDING):
        found = [each for each in result.differences if each.score == score and each.seeds.interval is not None]
        if found:
            most = max(each.seeds.n for each in found)
            if most < _FEWEST_SEEDS:
                return [f"{score}: not enough seeds for a verdict ({most}; it takes {_FEWEST_SEEDS} or more)."]
            sides = [_seen(each, result.baseline) for each in found]
            models = dict.fromkeys(each.model for each in sides)
            said = [_sentence(name, [each for each in sides if each.model == name]) for name in models]
            seeds = max(each.seeds.n for each in found)
            return [f"{score}, 95 % intervals over {seeds} seeds: {said[0]}", *said[1:]]
    return []


def _seen(each: Difference, baseline: str | None) -> _Side:
    """From the baseline's side, or from that of the first of the pair."""
    assert each.seeds.interval is not None
    low, high = each.seeds.interval
    sign = int(low > 0) - int(high < 0)
    if each.seeds.n < _FEWEST_SEEDS or formatted(low) == formatted(high):
        sign = 0  # two seeds, or seeds that agree to the last digit shown, say nothing of further ones
    turned = -1 if each.b == baseline else 1
    model, other = (each.b, each.a) if each.b == baseline else (each.a, each.b)
    return _Side(model=model, other=other, mean=turned * each.seeds.mean, sign=turned * sign)


def _sentence(model: str, sides: Sequence[_Side]) -> str:
    parts = [
        f"{words} {', '.join(named)}"
        for sign, words in ((1, "ahead of"), (-1, "behind"), (0, "not distinguishable from"))
        if (named := list(_named(each for each in sides if each.sign == sign)))
    ]
    return f"{model} is {'; '.join(parts)}."


def _named(sides: Iterable[_Side]) -> Iterable[str]:
    for each in sides:
        yield f"{each.other} ({formatted(each.mean, signed=True)})"
