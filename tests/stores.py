"""What is in a feature store, at once."""

from __future__ import annotations

import numpy as np

from dalr.features.store import FeatureStore


def as_matrix(store: FeatureStore) -> np.ndarray:
    """All rows in memory, in the store's order."""
    return store.read(np.arange(len(store), dtype=np.int64))
