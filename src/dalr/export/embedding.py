"""Sentences to vectors by an exported graph, for its checks: the runner's tokenizer, batches of like lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from dalr.export.graph import SENTENCE

if TYPE_CHECKING:
    from dalr.export.parity import Runner

_ROWS = 64


def embed_with(
    run: Runner, tokenizer: Any, sentences: Sequence[str], *, prompt: str = "", output: str = SENTENCE
) -> Float32[np.ndarray, "n d"]:
    """Row i for sentence i, each distinct sentence once."""
    place = {sentence: index for index, sentence in enumerate(dict.fromkeys(sentences))}
    distinct = sorted(place, key=len)
    out: np.ndarray | None = None
    for start in range(0, len(distinct), _ROWS):
        batch = distinct[start : start + _ROWS]
        rows = tokenizer.encode_batch([prompt + sentence for sentence in batch])
        ids, mask = (np.array([getattr(row, name) for row in rows], np.int64) for name in ("ids", "attention_mask"))
        vectors = run({"input_ids": ids, "attention_mask": mask})[output]
        if out is None:
            out = np.empty((len(place), vectors.shape[1]), np.float32)
        out[[place[sentence] for sentence in batch]] = vectors
    assert out is not None
    return out[[place[sentence] for sentence in sentences]]
