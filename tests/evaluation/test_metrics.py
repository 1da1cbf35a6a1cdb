"""Figures of merit against their definitions; what has no score is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dalr.errors import NumericsError
from dalr.evaluation.metrics import cosines, pearson, require_usable, spearman


@given(
    values=st.lists(
        st.tuples(st.integers(0, 5), st.one_of(st.integers(0, 5), st.floats(-1e3, 1e3))), min_size=2, max_size=40
    )
)
def test_spearman_is_that_of_scipy_with_ties_at_their_mean_rank(values: list[tuple[float, float]]) -> None:
    x, y = np.asarray(values, np.float64).T.copy()
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(spearman(x, y))
    else:
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_spearman_by_hand() -> None:
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 15.0])) == pytest.approx(0.5)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(np.sqrt(3) / 2)


def test_pearson_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 50))
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert pearson(1e8 + x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-6)


def test_cosines_are_row_by_row_in_float64() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 20, 5)).astype(np.float32)
    expected = [float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(x, y, strict=True)]
    assert cosines(x, y) == pytest.approx(expected, abs=1e-6)
    assert cosines(x, y).dtype == np.float64
    assert cosines(x, 3 * x) == pytest.approx(np.ones(20), abs=1e-12)


def test_the_cosine_with_a_zero_vector_is_zero() -> None:
    assert cosines(np.zeros((1, 3)), np.ones((1, 3))).tolist() == [0.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_with_their_number(value: float) -> None:
    vectors = np.random.default_rng(0).normal(size=(10, 4))
    vectors[[2, 7], 1] = value
    with pytest.raises(NumericsError, match="STS12: 2 of 10 embeddings are not finite") as caught:
        require_usable(vectors, "STS12")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("spread", [0.0, 1e-8])
def test_constant_vectors_are_refused_by_that_name(spread: float) -> None:
    vectors = 3.0 + spread * np.random.default_rng(0).normal(size=(10, 4))
    with pytest.raises(NumericsError, match=r"STS12: constant embeddings \(std < 1e-06 over 10 sentences\)"):
        require_usable(vectors, "STS12")


def test_usable_vectors_pass() -> None:
    vectors = np.ones((10, 4))
    vectors[3, 2] = 1.1
    require_usable(vectors, "STS12")
    require_usable(vectors[:1], "STS12")
