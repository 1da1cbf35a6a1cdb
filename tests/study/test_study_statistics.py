"""Means, deviations and intervals against figures worked out by hand, and item tests over several seeds."""

from __future__ import annotations

import numpy as np
import pytest
from pretend import evaluation
from scipy.stats import ttest_rel

from dalr.evaluation.results import Evaluation, StsResult
from dalr.evaluation.tasks import STS_TASKS
from dalr.study.statistics import item_tests, paired_difference, summary


def test_mean_sample_deviation_and_interval_by_hand() -> None:
    """70, 72, 77: mean 73, squares 9 + 1 + 16 = 26, s = √13; t(2; 0.975) = 4.302653, reach t·s/√3 = 8.956686."""
    found = summary([70.0, 72.0, 77.0])
    assert found.n == 3
    assert found.mean == pytest.approx(73)
    assert found.std == pytest.approx(13**0.5)
    assert found.interval == pytest.approx((73 - 8.956686, 73 + 8.956686), abs=1e-5)


def test_two_seeds_have_the_widest_t() -> None:
    """1, 3: mean 2, s = √2, t(1; 0.975) = 12.706205, half-dimension t·√2/√2."""
    assert summary([1.0, 3.0]).interval == pytest.approx((2 - 12.706205, 2 + 12.706205), abs=1e-5)


def test_one_seed_has_no_deviation() -> None:
    found = summary([71.5])
    assert (found.mean, found.std, found.interval, found.n) == (71.5, None, None, 1)


def test_equal_scores_are_no_certainty() -> None:
    """A recall of 100 queries comes in steps of a hundredth: two seeds with 3 % each do not make an interval."""
    found = summary([3.0, 3.0])
    assert (found.mean, found.std, found.interval) == (3.0, 0.0, None)
    assert summary([0.0, 0.0]).interval == (0.0, 0.0)


def test_differences_pair_the_seeds_that_both_have() -> None:
    a, b = {0: 71.0, 1: 75.0, 2: 74.0, 9: 0.0}, {0: 70.0, 1: 72.0, 2: 73.5, 5: 100.0}
    found = paired_difference(a, b)
    assert found is not None
    assert found.n == 3
    assert found.mean == pytest.approx(1.5)
    low, high = ttest_rel([71, 75, 74], [70, 72, 73.5]).confidence_interval(0.95)
    assert found.interval == pytest.approx((low, high))
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_a_method_whose_seeds_scatter_is_not_taken_for_a_better_one() -> None:
    """Cosines averaged over seeds would be an ensemble, which is better than each of its members."""
    scattered = {seed: evaluation("scattered", 1.0, seed=seed) for seed in range(5)}
    steady = dict.fromkeys(range(5), scattered[0])
    for each in item_tests(scattered, steady):
        expected = np.mean([score_of(scattered[n], each.task) - score_of(steady[n], each.task) for n in range(5)])
        assert each.difference == pytest.approx(expected)
        assert each.interval[0] <= each.difference <= each.interval[1]


def score_of(one: Evaluation, task: str) -> float:
    result = one.tasks.get(task)
    found = result.spearman if isinstance(result, StsResult) else one.sts_avg
    assert found is not None
    return found


def test_a_better_method_is_told_from_a_worse_one_on_items() -> None:
    good = {seed: evaluation("good", 6.0, seed=seed) for seed in (0, 1)}
    poor = {seed: evaluation("poor", 0.8, seed=seed) for seed in (0, 1)}
    tests = {each.task: each for each in item_tests(good, poor)}
    assert set(tests) == {*STS_TASKS, "STS avg"}
    average = tests["STS avg"]
    assert average.difference > 5
    assert average.interval[0] > 0
    assert average.p_value < 0.01
    assert item_tests(good, {7: poor[0]}) == []


def test_a_method_is_no_better_than_itself() -> None:
    same = {seed: evaluation("same", 2.0, seed=seed) for seed in (0, 1)}
    for each in item_tests(same, same):
        assert each.difference == 0
        assert each.p_value == 1
