"""In which pieces are sentences encoded? Distinct ones, in the order of the data, so many at a time.

Which sentences share a batch then depends on their piece alone, and pieces may be computed anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32

from dalr.models.embedding import OnProgress

BLOCK = 16_384
"""Distinct sentences: enough that sorting by length leaves little padding."""

Embed = Callable[[Sequence[str], OnProgress], Float32[np.ndarray, "n d"]]
"""Vectors of sentences, row i for sentence i; told of its progress."""


def distinct_blocks(sentences: Sequence[str], size: int = BLOCK) -> list[list[str]]:
    """The distinct sentences in pieces."""
    distinct = list(dict.fromkeys(sentences))
    return [distinct[start : start + size] for start in range(0, len(distinct), size)]


def places_of(sentences: Sequence[str]) -> list[int]:
    """For each sentence its number among the distinct ones."""
    place = {sentence: index for index, sentence in enumerate(dict.fromkeys(sentences))}
    return [place[sentence] for sentence in sentences]


def embed_in_blocks(
    embed: Embed, sentences: Sequence[str], progress: OnProgress | None = None, size: int = BLOCK
) -> Float32[np.ndarray, "n d"]:
    """Vectors of `sentences`, row i for sentence i, each distinct one once."""
    blocks = distinct_blocks(sentences, size)
    if not blocks:
        return embed((), lambda done, total: None)
    total = sum(map(len, blocks))
    found: list[np.ndarray] = []
    for block in blocks:
        before = sum(map(len, found))
        found.append(embed(block, lambda done, _, before=before: _tell(progress, before + done, total)))  # type: ignore[misc]
    return np.concatenate(found)[places_of(sentences)]


def _tell(progress: OnProgress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
