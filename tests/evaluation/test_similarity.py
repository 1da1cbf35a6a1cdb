"""An STS task by every aggregation, without what was trained on, and its worst pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from dalr.errors import NumericsError
from dalr.evaluation.similarity import Seen, score_sts
from dalr.evaluation.sts import ScoredPairs

SIZES = {"news": 12, "forum": 30}


def pairs() -> tuple[ScoredPairs, np.ndarray, np.ndarray]:
    """Two subsets, vectors whose cosine is near the gold score, and those cosines."""
    random = np.random.default_rng(0)
    count = sum(SIZES.values())
    gold = random.random(count) * 5
    angle = (5 - gold) / 5 + 0.4 * random.normal(size=count)
    first = np.tile(np.array([[1.0, 0.0]], np.float32), (count, 1))
    second = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    task = ScoredPairs(
        name="STS",
        split="test",
        first=tuple(f"first {n}" for n in range(count)),
        second=tuple(f"second {n}" for n in range(count)),
        gold=gold,
        subset_sizes=SIZES,
    )
    return task, np.concatenate([first, second]), np.cos(angle)


def test_every_aggregation_is_that_of_scipy() -> None:
    task, vectors, cosine = pairs()
    result, details = score_sts(task, vectors)
    by_subset = {}
    start = 0
    for name, size in SIZES.items():
        rows = slice(start, start + size)
        by_subset[name] = [
            100 * measure(cosine[rows], task.gold[rows]).statistic for measure in (spearmanr, pearsonr)
        ]
        found = result.subsets[name]
        assert (found.pairs, found.spearman, found.pearson) == pytest.approx((size, *by_subset[name]))
        start += size
    assert (result.split, result.aggregation, result.pairs) == ("test", "all", 42)
    assert result.spearman == pytest.approx(100 * spearmanr(cosine, task.gold).statistic)
    assert result.pearson == pytest.approx(100 * pearsonr(cosine, task.gold).statistic)
    assert result.mean.spearman == pytest.approx(np.mean([value[0] for value in by_subset.values()]))
    weighted = np.average([value[1] for value in by_subset.values()], weights=list(SIZES.values()))
    assert result.weighted_mean.pearson == pytest.approx(weighted)
    assert result.interval[0] < result.spearman < result.interval[1]
    assert result.without_overlap is None
    assert details.gold == tuple(task.gold.tolist())
    assert details.cosine == pytest.approx(cosine, abs=1e-6)
    assert details.subset_sizes == SIZES


def test_pairs_that_were_seen_are_left_out_beside_the_whole_score() -> None:
    task, vectors, cosine = pairs()
    exact, near = np.zeros(42, bool), np.zeros(42, bool)
    exact[:5], near[5:12] = True, True
    result, _ = score_sts(task, vectors, Seen(exact=exact, near=near))
    whole, _ = score_sts(task, vectors)
    clean = result.without_overlap
    assert clean is not None
    assert result.spearman == whole.spearman
    assert (clean.pairs, clean.left_out_exact, clean.left_out_near) == (30, 5, 7)
    assert clean.spearman == pytest.approx(100 * spearmanr(cosine[12:], task.gold[12:]).statistic)
    assert clean.subsets == {"forum": whole.subsets["forum"]}, "nothing is left of the other"


def test_what_is_left_of_each_subset_has_a_score_of_its_own() -> None:
    task, vectors, cosine = pairs()
    result, _ = score_sts(task, vectors, Seen(exact=np.arange(42) < 4, near=np.arange(42) > 40))
    clean = result.without_overlap
    assert clean is not None
    for name, rows in (("news", slice(4, 12)), ("forum", slice(12, 41))):
        assert clean.subsets[name].pairs == rows.stop - rows.start
        expected = 100 * spearmanr(cosine[rows], task.gold[rows]).statistic
        assert clean.subsets[name].spearman == pytest.approx(expected)


def test_a_subset_of_which_nothing_is_left_has_no_score_without_overlap() -> None:
    task, vectors, _ = pairs()
    exact = np.arange(42) < 11  # one pair has no correlation
    result, _ = score_sts(task, vectors, Seen(exact=exact, near=np.zeros(42, bool)))
    assert result.without_overlap is not None
    assert list(result.without_overlap.subsets) == ["forum"]


def test_nothing_left_without_overlap_is_an_error_that_says_so() -> None:
    task, vectors, _ = pairs()
    everything = np.ones(42, bool)
    with pytest.raises(NumericsError, match="STS without overlap: 0 pairs"):
        score_sts(task, vectors, Seen(exact=everything, near=~everything))


def test_the_worst_pairs_are_those_farthest_from_their_place() -> None:
    task, vectors, _ = pairs()
    highest, lowest = int(task.gold.argmax()), int(task.gold.argmin())
    vectors[42 + highest] = [-1, 0]
    vectors[42 + lowest] = [1, 0]
    worst = score_sts(task, vectors)[1].worst
    assert {worst[0].first, worst[1].first} == {f"first {highest}", f"first {lowest}"}
    under = next(each for each in worst if each.first == f"first {highest}")
    assert (under.second, under.subset) == (f"second {highest}", "news" if highest < 12 else "forum")
    assert under.rank_error == pytest.approx(-41 / 42)
    assert under.cosine == pytest.approx(-1)
