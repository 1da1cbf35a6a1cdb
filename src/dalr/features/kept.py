"""Which vectors stay when a store is updated? Those computed from the same content, by the same model and settings.

A store says what each of its rows was computed from (`contents.txt`), so a file that was renamed keeps its vector
and one that was changed does not. Kept and new rows have the bytes that one pass over all of them would give,
because a vector depends on its content alone: batches have fixed shapes. Another machine or library version
may still compute other last bits, so a few kept rows are computed again and compared before anything is mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Float32

from dalr.errors import ConfigError, CorruptFileError, Problem
from dalr.features.shard import REMEDY
from dalr.features.store import CONTENTS, FeatureStore, open_store, verify_store
from dalr.io.console import Console
from dalr.io.paths import is_file
from dalr.io.sealed import MANIFEST
from dalr.io.text import read_lines

PROBES = 8
"""Kept rows that are computed again."""
_SAME_MODEL = 0.999
"""Cosine above which two vectors of one content are taken for the same model's on another machine."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The rows of a store by what they were computed from."""

    store: FeatureStore
    row_of: Mapping[str, int]
    """Digest of a content -> a row that was computed from it."""
    contents: tuple[str, ...]
    """Digest of each row."""

    def read(self, rows: Sequence[int] | np.ndarray) -> Float16[np.ndarray, "n dim"]:
        """These rows as they are stored."""
        return self.store.read(np.asarray(rows, np.int64)).astype(np.float16)


def rows_to_keep(out: Path) -> Kept | None:
    """What the store at `out` holds; None where there is no store yet.

    Raises:
        CorruptFileError: the store is damaged, or does not say what its rows were computed from.
    """
    if not is_file(out / MANIFEST):
        return None
    verify_store(out)
    store = open_store(out)
    if not is_file(out / CONTENTS):
        what = f"no {CONTENTS} in it, so nobody can say which of its rows are still right"
        raise CorruptFileError(f"{out}: {what}; delete it and {REMEDY}")
    contents = tuple(read_lines(out / CONTENTS))
    if len(contents) != len(store):
        raise CorruptFileError(f"{out / CONTENTS}: {len(contents)} lines for {len(store)} rows; {REMEDY}")
    row_of: dict[str, int] = {}
    for row, content in enumerate(contents):
        row_of.setdefault(content, row)
    return Kept(store=store, row_of=row_of, contents=contents)


def require_same_vectors(
    out: Path,
    kept: Float16[np.ndarray, "n dim"],
    now: Float32[np.ndarray, "n dim"] | Float16[np.ndarray, "n dim"],
    console: Console,
) -> None:
    """Compare rows of a store with the vectors that the model gives for the same content now.

    Raises:
        ConfigError: they are not of one model.
    """
    if np.array_equal(kept, now.astype(np.float16)):
        return
    one, other = kept.astype(np.float64), now.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    lowest = float((np.einsum("nd,nd->n", one, other) / norms).min())
    if not lowest >= _SAME_MODEL:
        what = (
            f"the model gives other vectors now than those in the store (lowest cosine {lowest:.4f} for the same "
            "content); nothing was changed: choose another --out, or delete that one to compute it anew"
        )
        raise ConfigError(Problem(where=f"--out {out}", what=what))
    console.say(
        f"note: kept vectors differ from those computed now in their last bits (lowest cosine {lowest:.6f}): "
        "another machine, device or library version. They are kept"
    )
