"""Which method is ahead? In words, before any table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dalr.report.tables import formatted
from dalr.study.result import Difference, StudyResult
from dalr.study.scores import DEV, STS_AVG

_FEWEST_SEEDS = 3
_LAST_DIGIT = 0.01
_ROUNDING = 1e-6
_DECIDING = (STS_AVG, "t→i R@1", DEV)


@dataclass(frozen=True, kw_only=True)
class _Side:
    """A compared pair, seen from one of its methods."""

    model: str
    other: str
    mean: float
    sign: int | None
    """1 ahead, −1 behind, 0 where the interval holds zero, None where the seeds are too few to say."""


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
            sides = [_seen(each, result) for each in found]
            models = dict.fromkeys(each.model for each in sides)
            said = [_sentence(name, [each for each in sides if each.model == name]) for name in models]
            return [f"{score}, 95 % intervals over {most} seeds: {said[0]}", *said[1:]]
    return []


def settled(difference: Difference, result: StudyResult) -> bool:
    """Whether the seeds can say anything: three or more, which differ by more than the step of the score.

    Seeds that agree by chance have an interval of no width, which says nothing of further ones.
    """
    if difference.seeds.n < _FEWEST_SEEDS or difference.seeds.interval is None:
        return False
    low, high = difference.seeds.interval
    return high - low >= _step(difference.score, result)


def _step(score: str, result: StudyResult) -> float:
    """The least by which two values of a score can differ: the last digit shown, or one query of a recall."""
    if "R@" not in score:
        return _LAST_DIGIT
    seeds = [seed for each in result.methods.values() for seed in each.seeds]
    values = sorted({seed.scores[score] for seed in seeds if score in seed.scores})
    gaps = [above - below for below, above in pairwise(values) if above - below > _LAST_DIGIT / 2]
    return max(min(gaps, default=_LAST_DIGIT), _LAST_DIGIT) * (1 - _ROUNDING)


def _seen(each: Difference, result: StudyResult) -> _Side:
    """From the baseline's side, or from that of the first of the pair."""
    assert each.seeds.interval is not None
    low, high = each.seeds.interval
    turned = -1 if each.b == result.baseline else 1
    model, other = (each.b, each.a) if each.b == result.baseline else (each.a, each.b)
    sign = turned * (int(low > 0) - int(high < 0)) if settled(each, result) else None
    return _Side(model=model, other=other, mean=turned * each.seeds.mean, sign=sign)


def _sentence(model: str, sides: Sequence[_Side]) -> str:
    parts = [
        f"{words} {', '.join(named)}"
        for sign, words in (
            (1, "is ahead of"),
            (-1, "is behind"),
            (0, "is not distinguishable from"),
            (None, "has not enough seeds to compare with"),
        )
        if (named := list(_named(each for each in sides if each.sign == sign)))
    ]
    said = [parts[0], *(part.removeprefix("is ") if parts[0].startswith("is ") else part for part in parts[1:])]
    return f"{model} {'; '.join(said)}."


def _named(sides: Iterable[_Side]) -> Iterable[str]:
    for each in sides:
        yield f"{each.other} ({formatted(each.mean, signed=True)})"
