"""Training images under a control: the same images, vectors that say nothing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalr.features.controls import training_images
from dalr.features.store import FeatureStore, StoredVectors, open_store, write_store

ROWS, DIM = 400, 12


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    matrix = 5 + np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    write_store(tmp_path / "s", ids=[str(n) for n in range(ROWS)], blocks=[matrix], source={}, origin="m")
    return open_store(tmp_path / "s")


NAMES = [str(n) for n in range(100, 300)]
"""The images of training: the others are held out."""


def trained(store: FeatureStore, *, control: Any, seed: int) -> tuple[FeatureStore, np.ndarray]:
    own = StoredVectors(store=store, rows=store.rows_of(NAMES, what="image"))
    found = training_images(own, control=control, seed=seed)
    return found.store, found.rows


def test_without_a_control_an_image_has_its_own_vector(store: FeatureStore) -> None:
    same, rows = trained(store, control=None, seed=0)
    assert same is store
    assert rows.tolist() == list(range(100, 300))


def test_shuffling_moves_vectors_between_training_images_only(store: FeatureStore) -> None:
    same, rows = trained(store, control="shuffled", seed=0)
    assert same is store
    assert sorted(rows) == list(range(100, 300))
    assert np.mean(rows == np.arange(100, 300)) < 0.05
    _, again = trained(store, control="shuffled", seed=0)
    _, other = trained(store, control="shuffled", seed=1)
    assert rows.tolist() == again.tolist() != other.tolist()


def test_random_features_are_unit_gaussians_of_the_same_dim(store: FeatureStore) -> None:
    noise, rows = trained(store, control="random", seed=3)
    vectors = noise.read(rows)
    assert vectors.shape == (200, DIM)
    assert abs(vectors.mean()) < 0.1
    assert vectors.std() == pytest.approx(1, abs=0.05)
    assert len(np.unique(vectors, axis=0)) == 200
    again, _ = trained(store, control="random", seed=3)
    other, _ = trained(store, control="random", seed=4)
    assert np.array_equal(again.read(rows), vectors)
    assert not np.array_equal(other.read(rows), vectors)
