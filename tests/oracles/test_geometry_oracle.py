"""Alignment and uniformity equal naive loops over pairs, also where no stored values are at hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from dalr.evaluation.geometry import alignment, uniformity


def rows(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 5))


def distance(x: np.ndarray, y: np.ndarray) -> float:
    unit_x, unit_y = ([value / math.hypot(*row) for value in row] for row in (x.tolist(), y.tolist()))
    return math.dist(unit_x, unit_y)


@pytest.mark.parametrize("alpha", [1, 2, 3.5])
def test_alignment_is_the_mean_distance_of_pairs(alpha: float) -> None:
    x, y = rows(7, 0), rows(7, 1)
    expected = sum(distance(a, b) ** alpha for a, b in zip(x, y, strict=True)) / 7
    assert alignment(x, y, alpha=alpha) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("block", [1, 3, 7, 100])
@pytest.mark.parametrize("t", [0.5, 2])
def test_uniformity_is_the_log_mean_potential_of_all_pairs_in_any_blocks(t: float, block: int) -> None:
    x = rows(7, 0)
    potentials = [math.exp(-t * distance(a, b) ** 2) for a, b in itertools.combinations(x, 2)]
    assert uniformity(x, t=t, block_rows=block) == pytest.approx(
        math.log(sum(potentials) / len(potentials)), rel=1e-12
    )


def test_constant_vectors_are_perfectly_aligned_and_not_uniform_at_all() -> None:
    x = np.ones((6, 4), np.float32)
    assert alignment(x, 3 * x) == pytest.approx(0)
    assert uniformity(x) == pytest.approx(0)


def test_opposite_vectors_are_as_far_apart_as_vectors_can_be() -> None:
    x = rows(6, 0)
    assert alignment(x, -x) == pytest.approx(4)
    assert uniformity(np.stack([x[0], -x[0]])) == pytest.approx(-8)


def test_a_mean_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 pair, found 0"):
        alignment(rows(0, 0), rows(0, 0))
    with pytest.raises(ValueError, match="at least 2 rows, found 1"):
        uniformity(rows(1, 0))
