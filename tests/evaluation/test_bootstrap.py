"""Intervals and paired tests: the fast resampling is the slow one, and says what it should of known cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from dalr.evaluation.bootstrap import DRAWS, compare, interval, share_draws, spearman_draws
from dalr.evaluation.results import (
    Correlation,
    Details,
    Evaluation,
    PairDetails,
    StsResult,
    SubsetCorrelation,
    TransferResult,
)
from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS
from dalr.seed import generator


def test_each_draw_is_spearman_of_the_resampled_items() -> None:
    random = np.random.default_rng(0)
    gold = random.integers(0, 6, size=60) / 2
    scores = np.stack([gold + random.normal(size=60), np.round(random.normal(size=60), 1)])
    draws = spearman_draws(scores, gold, name="task")
    again = generator(0, "bootstrap", "task")
    for draw in range(20):
        items = again.integers(60, size=60)
        expected = [100 * spearmanr(row[items], gold[items]).statistic for row in scores]
        assert draws[draw] == pytest.approx(expected)


def test_a_draw_without_variation_is_not_a_number_and_not_a_zero() -> None:
    draws = spearman_draws(np.array([[0.0, 1.0]]), np.array([0.0, 1.0]), name="two")
    assert set(np.unique(draws[np.isfinite(draws)])) == {100.0}
    assert np.isnan(draws).any()
    assert interval(draws[:, 0]) == (100.0, 100.0)


def test_accuracy_is_resampled_over_examples() -> None:
    right = np.zeros((2, 400), bool)
    right[0, :300] = True
    right[1, :280] = True
    draws = share_draws(right, name="task")
    assert draws.shape == (DRAWS, 2)
    assert draws.mean(axis=0) == pytest.approx([75, 70], abs=0.5)
    assert draws[:, 0].std() == pytest.approx(100 * np.sqrt(0.75 * 0.25 / 400), rel=0.1)
    assert (draws[:, 0] >= draws[:, 1]).all(), "right wherever the other is: never worse on the same examples"


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(200):
        right = np.random.default_rng(trial).random(300) < 0.8
        low, high = interval(share_draws(right[None], name=str(trial))[:, 0])
        covered += low <= 80 <= high
    assert 180 <= covered <= 199


def evaluation(name: str, seed: int, *, noise: float, shift: float = 0.0) -> Evaluation:
    """All STS tasks with 80 pairs and all transfer tasks with 100 examples."""
    random = np.random.default_rng(seed)
    sts, transfer, tasks = {}, {}, {}
    for task in STS_TASKS:
        gold = np.random.default_rng(7).random(80)
        cosine = gold + noise * random.normal(size=80)
        value = 100 * float(spearmanr(cosine, gold).statistic)
        both = Correlation(spearman=value, pearson=value)
        tasks[task] = StsResult(
            split="test",
            aggregation="all",
            pairs=80,
            spearman=value,
            pearson=value,
            interval=(0, 1),
            mean=both,
            weighted_mean=both,
            subsets={task: SubsetCorrelation(pairs=80, spearman=value, pearson=value)},
        )
        sts[task] = PairDetails(
            gold=tuple(gold.tolist()), cosine=tuple(cosine.tolist()), subset_sizes={task: 80}, worst=()
        )
    for task in TRANSFER_TASKS:
        right = random.random(100) < 0.7 + shift
        acc = 100 * float(right.mean())
        tasks[task] = TransferResult(
            split="test", classifier="senteval", acc=acc, devacc=acc, examples=100, interval=(0, 1)
        )
        transfer[task] = "".join("1" if each else "0" for each in right)
    return Evaluation(
        model=name,
        created="now",
        dalr="0",
        tasks=tasks,
        sts_avg=float(np.mean([tasks[task].spearman for task in STS_TASKS])),
        transfer_avg=float(np.mean([tasks[task].acc for task in TRANSFER_TASKS])),
        transfer_devavg=None,
        details=Details(sts=sts, transfer=transfer),
    )


def of_one_task(whole: Evaluation) -> Evaluation:
    return whole.model_copy(
        update={"tasks": {"STS12": whole.tasks["STS12"]}, "sts_avg": None, "transfer_avg": None}
    )


class TestComparison:
    def test_a_better_model_is_better_on_every_task_and_on_average(self) -> None:
        a, b = evaluation("a", 1, noise=0.1, shift=0.25), evaluation("b", 2, noise=1.0)
        found = {each.task: each for each in compare((a, b))}
        assert set(found) == {*STS_TASKS, *TRANSFER_TASKS, "STS avg", "transfer avg"}
        for each in found.values():
            assert (each.a, each.b) == ("a", "b")
            assert each.interval[0] <= each.difference <= each.interval[1]
        assert found["STS avg"].difference == pytest.approx((a.sts_avg or 0) - (b.sts_avg or 0))
        assert found["STS avg"].p_value == pytest.approx(2 / (DRAWS + 1))
        assert found["STS avg"].interval[0] > 0
        assert found["transfer avg"].metric == "mean acc"

    def test_a_model_against_itself_is_no_difference(self) -> None:
        a = evaluation("a", 1, noise=0.5)
        for each in compare((a, a)):
            assert (each.difference, each.interval, each.p_value) == (0, (0, 0), 1)

    def test_the_other_way_round_is_the_same_with_the_other_sign(self) -> None:
        a, b = evaluation("a", 1, noise=0.4), evaluation("b", 2, noise=0.5)
        found = [
            (one, other)
            for one, other in zip(compare((a, b)), compare((b, a)), strict=True)
            if one.task in STS_TASKS
        ]
        assert len(found) == len(STS_TASKS)
        for one, other in found:
            assert one.difference == -other.difference
            assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))
            assert one.p_value == other.p_value

    def test_models_that_do_not_differ_are_seldom_told_apart(self) -> None:
        alike = [of_one_task(evaluation(str(n), n, noise=0.5)) for n in range(40)]
        found = [each for pair in zip(alike[::2], alike[1::2], strict=True) for each in compare(pair)]
        assert [each.task for each in found] == 20 * ["STS12"]
        assert sum(each.p_value < 0.05 for each in found) <= 4

    def test_only_what_both_have_is_compared(self) -> None:
        a, b = evaluation("a", 1, noise=0.4), evaluation("b", 2, noise=0.5)
        less = b.model_copy(update={"tasks": {"STS12": b.tasks["STS12"], "MR": b.tasks["MR"]}, "sts_avg": None})
        assert [each.task for each in compare((a, less))] == ["STS12", "MR"]

    def test_other_pairs_under_the_same_name_are_not_compared(self) -> None:
        a, b = evaluation("a", 1, noise=0.4), evaluation("b", 2, noise=0.5)
        other = b.details.sts["STS12"].model_copy(update={"gold": tuple(range(80))})
        b = b.model_copy(
            update={"details": b.details.model_copy(update={"sts": {**b.details.sts, "STS12": other}})}
        )
        assert "STS12" not in {each.task for each in compare((a, b))}
        assert "STS avg" not in {each.task for each in compare((a, b))}

    def test_several_seeds_are_compared_by_their_mean_difference_on_the_same_resamples(self) -> None:
        pairs = [(evaluation("a", n, noise=0.4), evaluation("b", 10 + n, noise=0.5)) for n in range(3)]
        single = [{each.task: each.difference for each in compare(pair)} for pair in pairs]
        found = {each.task: each for each in compare(*pairs)}
        for task, each in found.items():
            assert each.difference == pytest.approx(np.mean([one[task] for one in single]))
            assert each.interval[0] <= each.difference <= each.interval[1]
        gold = pairs[0][0].details.sts["STS13"].gold
        cosines = [each.details.sts["STS13"].cosine for pair in pairs for each in pair]
        draws = spearman_draws(np.array(cosines), np.array(gold), name="STS13")
        assert found["STS13"].interval == pytest.approx(interval((draws[:, ::2] - draws[:, 1::2]).mean(axis=1)))

    def test_a_task_that_one_seed_has_is_compared_there(self) -> None:
        pairs = [(evaluation("a", n, noise=0.4), evaluation("b", 10 + n, noise=0.5)) for n in range(2)]
        a, b = pairs[1]
        less = a.model_copy(update={"tasks": {task: a.tasks[task] for task in STS_TASKS}, "transfer_avg": None})
        found = {each.task: each for each in compare(pairs[0], (less, b))}
        assert found["MR"] == {each.task: each for each in compare(pairs[0])}["MR"]
        assert "transfer avg" in found

    def test_a_run_whose_items_are_not_kept_leaves_no_interval(self) -> None:
        pairs = [(evaluation("a", n, noise=0.4), evaluation("b", 10 + n, noise=0.5)) for n in range(2)]
        record = pairs[1][0].model_copy(update={"details": Details()})
        assert compare(pairs[0], (record, pairs[1][1])) == []
