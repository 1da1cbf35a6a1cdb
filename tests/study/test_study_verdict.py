"""What is said of who is ahead."""

from __future__ import annotations

from pretend import study_result

from dalr.study.result import Difference, MethodResult, SeedResult, StudyResult
from dalr.study.statistics import Summary
from dalr.study.verdict import verdict


def difference(a: str, b: str, mean: float, reach: float | None, score: str = "STS avg") -> Difference:
    interval = (mean - reach, mean + reach) if reach is not None else None
    return Difference(a=a, b=b, score=score, seeds=Summary(mean=mean, std=1.0, interval=interval, n=3), items=None)


def result(*differences: Difference, baseline: str | None = None) -> StudyResult:
    return study_result(baseline=baseline, differences=differences)


def test_a_baseline_is_seen_from_its_own_side() -> None:
    found = result(
        difference("simcse", "rankcse", -8.2, 0.2),
        difference("dalr", "rankcse", 0.15, 0.4),
        difference("dalr", "mcse", 2.9, 0.4),
        difference("better", "rankcse", 1.0, 0.5),
        baseline="rankcse",
    )
    assert verdict(found) == [
        "STS avg, 95 % intervals over 3 seeds: rankcse is ahead of simcse (+8.20); behind better (−1.00); "
        "not distinguishable from dalr (−0.15).",
        "dalr is ahead of mcse (+2.90).",
    ]


def test_a_validation_score_decides_where_nothing_was_tested() -> None:
    dev = difference("a", "b", 1.0, 0.5, score="dev")
    assert verdict(result(dev)) == ["dev, 95 % intervals over 3 seeds: a is ahead of b (+1.00)."]
    tested = difference("a", "b", -1.0, 2.0)
    assert verdict(result(dev, tested)) == [
        "STS avg, 95 % intervals over 3 seeds: a is not distinguishable from b (−1.00)."
    ]


def test_one_seed_says_nothing() -> None:
    assert verdict(result(difference("a", "b", 1.0, None))) == []


def test_two_seeds_or_seeds_that_agree_by_chance_have_no_winner() -> None:
    two = Difference(
        a="a", b="b", score="STS avg", seeds=Summary(mean=0.2, std=0.0, interval=(0.2, 0.2), n=2), items=None
    )
    assert verdict(result(two)) == ["STS avg: not enough seeds for a verdict (2; it takes 3 or more)."]
    assert verdict(result(difference("a", "b", 0.2, 0.0001))) == [
        "STS avg, 95 % intervals over 3 seeds: a has not enough seeds to compare with b (+0.20)."
    ]


def test_an_interval_narrower_than_one_query_of_a_recall_has_no_winner() -> None:
    """Of 100 queries a recall moves by 1: an interval from 0.8 to 1.2 is seeds that agree by chance."""

    def method(*recalls: float) -> MethodResult:
        seeds = tuple(
            SeedResult(
                run=f"r{seed}",
                seed=seed,
                scores={"t→i R@1": recall},
                steps=None,
                best_step=None,
                seconds=None,
                trained_parameters=None,
            )
            for seed, recall in enumerate(recalls)
        )
        return MethodResult(recipe="r", setting={}, trials=(), seeds=seeds, summary={})

    found = study_result(
        differences=(difference("a", "b", 1.0, 0.2, score="t→i R@1"),),
        methods={"a": method(31.0, 32.0), "b": method(30.0, 31.0)},
    )
    assert verdict(found) == [
        "t→i R@1, 95 % intervals over 3 seeds: a has not enough seeds to compare with b (+1.00)."
    ]
