"""Anisotropy and hubness against loops, and all of them on known clouds."""

from __future__ import annotations

import numpy as np
import pytest

from dalr.errors import DataError, NumericsError
from dalr.evaluation.geometry import alignment, anisotropy, neighbour_occurrences, score_geometry, uniformity
from dalr.evaluation.sts import ScoredPairs


def pairs_of(count: int, gold: list[float]) -> ScoredPairs:
    return ScoredPairs(
        name="STS-B",
        split="dev",
        first=tuple(f"first {n}" for n in range(count)),
        second=tuple(f"second {n}" for n in range(count)),
        gold=np.asarray(gold, np.float64),
        subset_sizes={"STS-B": count},
    )


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_mean_cosine_is_over_all_pairs_of_different_rows() -> None:
    x = np.random.default_rng(0).normal(size=(30, 5)) + 0.5
    rows = unit(x)
    cosines = [rows[i] @ rows[j] for i in range(30) for j in range(30) if i != j]
    assert anisotropy(x)[0] == pytest.approx(np.mean(cosines))


def test_variance_and_effective_rank_are_those_of_the_covariance() -> None:
    x = np.random.default_rng(1).normal(size=(200, 6)) * [5, 3, 1, 1, 0.5, 0.1]
    variance = np.linalg.eigvalsh(np.cov(unit(x).T))
    shares = variance / variance.sum()
    _, top, rank = anisotropy(x)
    assert top == pytest.approx(shares.max())
    assert rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_known_clouds() -> None:
    spread = np.random.default_rng(2).normal(size=(4000, 8))
    mean_cosine, top, rank = anisotropy(spread)
    assert (mean_cosine, top, rank) == pytest.approx((0, 1 / 8, 8), abs=0.02)
    narrow = anisotropy(spread * 0.01 + 1)
    assert narrow[0] > 0.99
    assert anisotropy(np.outer(np.random.default_rng(3).normal(size=50), np.ones(4)))[2] == pytest.approx(1)


def test_neighbours_are_counted_as_by_sorting() -> None:
    x = np.random.default_rng(4).normal(size=(40, 3))
    similarity = unit(x) @ unit(x).T
    np.fill_diagonal(similarity, -np.inf)
    expected = np.bincount(np.argsort(-similarity, axis=1)[:, :5].ravel(), minlength=40)
    assert neighbour_occurrences(x, 5, block_rows=7).tolist() == expected.tolist()
    assert neighbour_occurrences(x, 5).sum() == 40 * 5


class TestScore:
    def test_each_number_is_that_of_its_function(self) -> None:
        random = np.random.default_rng(5)
        gold = random.random(60) * 5
        pairs = pairs_of(60, gold.tolist())
        vectors = random.normal(size=(120, 16)).astype(np.float32)
        found = score_geometry(pairs, vectors)
        positive = gold > 4
        assert found.source == "STS-B dev"
        assert found.sentences == 120
        assert found.alignment == pytest.approx(alignment(vectors[:60][positive], vectors[60:][positive]))
        assert found.uniformity == pytest.approx(uniformity(vectors))
        assert found.mean_cosine == pytest.approx(anisotropy(vectors)[0])
        counts = neighbour_occurrences(vectors, 10)
        assert (found.largest_hub, found.antihubs) == (counts.max(), (counts == 0).mean())
        assert found.hubness == pytest.approx(((counts - counts.mean()) ** 3).mean() / counts.std() ** 3)

    def test_without_positives_there_is_no_alignment_and_no_nan(self) -> None:
        vectors = np.random.default_rng(6).normal(size=(40, 8)).astype(np.float32)
        assert score_geometry(pairs_of(20, [1.0] * 20), vectors).alignment is None

    def test_a_sentence_that_occurs_twice_is_not_its_own_neighbour(self) -> None:
        pairs = pairs_of(20, [1.0] * 20)
        pairs = ScoredPairs(**{**pairs.__dict__, "second": pairs.first})
        one = np.random.default_rng(7).normal(size=(20, 8)).astype(np.float32)
        assert score_geometry(pairs, np.concatenate([one, one])).sentences == 20

    def test_vectors_without_a_geometry_are_refused(self) -> None:
        with pytest.raises(NumericsError, match="geometry: constant embeddings"):
            score_geometry(pairs_of(20, [1.0] * 20), np.ones((40, 8), np.float32))
        few = np.random.default_rng(8).normal(size=(10, 8)).astype(np.float32)
        with pytest.raises(DataError, match="expected more than 10 distinct sentences, found 10"):
            score_geometry(pairs_of(5, [1.0] * 5), few)
