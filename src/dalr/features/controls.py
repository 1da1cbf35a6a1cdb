"""What are images worth? Measured by a control: the same images, with vectors that say nothing about them.

`shuffled` keeps the distribution of vectors and assigns them to other images; `random` keeps only the dimension. A
control affects training only: held-out images keep their true vectors, so that scores say what was learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float16

from dalr.features.config import ImageControl
from dalr.features.store import FeatureStore, StoredVectors, open_store, write_store
from dalr.io.cache import cache_folder, cached
from dalr.seed import derive_seed, generator

_BLOCK_ROWS = 16_384


def training_images(images: StoredVectors, *, control: ImageControl | None, seed: int) -> StoredVectors:
    """The vectors that distinct images train with: their own, or those of a control."""
    match control:
        case None:
            return images
        case "shuffled":
            return replace(images, rows=generator(seed, "image_control").permutation(images.rows))
        case "random":
            count = len(images.rows)
            noise = _noise(count, images.store.dim, seed)
            return StoredVectors(store=noise, rows=np.arange(count, dtype=np.int64))


def _noise(rows: int, dim: int, seed: int) -> FeatureStore:
    """Independent unit Gaussians, in the cache as vectors of a model would be."""
    key = hashlib.sha256(f"{rows} {dim} {derive_seed(seed, 'image_control')}".encode()).hexdigest()[:32]

    def blocks() -> Iterator[Float16[np.ndarray, "_ dim"]]:
        random = generator(seed, "image_control")
        for start in range(0, rows, _BLOCK_ROWS):
            yield random.standard_normal((min(_BLOCK_ROWS, rows - start), dim)).astype(np.float16)

    return cached(
        cache_folder("features") / key,
        read=open_store,
        write=lambda folder: write_store(
            folder,
            ids=[str(row) for row in range(rows)],
            blocks=blocks(),
            source={"kind": "noise", "seed": seed},
            origin="random image features",
        ),
    )
