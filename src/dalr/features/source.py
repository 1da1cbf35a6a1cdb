"""What does a recipe name as features? A store to open, or a matrix with ids that is imported into the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dalr.errors import DataError, Problem
from dalr.features.importing import check_matrix, import_matrix, open_matrix
from dalr.features.store import FeatureStore, open_store, store_dim, write_store
from dalr.io.cache import cache_folder, cached
from dalr.io.paths import exists, is_file, refusal
from dalr.io.sealed import MANIFEST, file_sha256


def open_features(path: Path, ids_file: Path | None) -> FeatureStore:
    """The features at `path`: a store folder, or a matrix whose rows `ids_file` names.

    Raises:
        DataError: missing, a matrix without names, or bad rows.
        CorruptFileError: a store that is not whole.
    """
    if not is_matrix(path):
        _require_store(path)
        return open_store(path)
    if ids_file is None:
        raise DataError(Problem(where=str(path), what="a matrix needs the file that names its rows (…_ids)"))
    if not is_file(path) or not is_file(ids_file):
        check_matrix(path, ids_file)  # says all that is wrong, where hashing would stop at the first missing file
    try:
        key = hashlib.sha256(f"{file_sha256(path)} {file_sha256(ids_file)} {ids_file.suffix}".encode()).hexdigest()
    except OSError as error:
        raise refusal(Path(error.filename or path), error) from None
    return cached(
        cache_folder("features") / key[:32],
        read=open_store,
        write=lambda folder: import_matrix(path, ids_file, folder),
    )


def features_in_memory(vectors: np.ndarray, ids: Sequence[str]) -> FeatureStore:
    """A store of an array (rows, dimensions) whose rows `ids` names, kept in the cache by its content.

    An array of zeros alone is taken as what it says: images that tell nothing, the control of a training.

    Raises:
        DataError: not a matrix of floating-point numbers, counts that differ, duplicate ids, or bad rows.
    """
    array = np.asarray(vectors)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        what = f"expected floating-point numbers (images, dimensions), found {array.dtype} {array.shape}"
        raise DataError(Problem(where="image_features", what=what))
    if len(array) != len(ids):
        what = f"{len(array)} rows of features, but {len(ids)} image_ids"
        raise DataError(Problem(where="image_features", what=what))
    digest = hashlib.sha256(f"{array.shape} {array.dtype} {list(ids)!r}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return cached(
        cache_folder("features") / digest.hexdigest()[:32],
        read=open_store,
        write=lambda folder: write_store(
            folder,
            ids=ids,
            blocks=[array],
            source={"kind": "memory"},
            origin="image_features",
            all_zero=not array.any(),
        ),
    )


def features_dim(path: Path) -> int:
    """The dimension of a store or a matrix, without reading its rows."""
    if is_matrix(path):
        return int(open_matrix(path).shape[1])
    _require_store(path)
    return store_dim(path)


def is_matrix(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def as_matrix(store: FeatureStore) -> np.ndarray:
    """All rows of a store in memory, in its order."""
    return store.read(np.arange(len(store), dtype=np.int64))


def _require_store(path: Path) -> None:
    if not is_file(path / MANIFEST):
        found = "no such folder" if not exists(path) else f"no {MANIFEST} in it"
        what = f"expected a feature store ({found}); make one with dalr features, or name an .npy matrix"
        raise DataError(Problem(where=str(path), what=what))
