"""Sentences to vectors: each distinct sentence once, sorted by length, in batches of a fixed token budget.

Padding is the cost to avoid: sorted by length, hardly any is left, and a token budget gives short sentences
large batches. On a CPU the budget is small, so that the activations of a layer stay in its caches. Rows come back
in the order that they were given, before any Normalize module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from dalr.data.long_text import in_batches, within_tokens

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from torch import nn

OnProgress = Callable[[int, int], None]
"""Called with (sentences done, sentences in all)."""

TOKENS_PER_BATCH = {"cpu": 2_048}
"""By kind of device; `_OTHER_TOKENS_PER_BATCH` elsewhere. Measured in docs/experiments.md."""
_OTHER_TOKENS_PER_BATCH = 8_192
_MAX_ROWS = 512
_TOKENISE_CHUNK = 10_000


def embed(
    encoder: SentenceTransformer,
    sentences: Sequence[str],
    *,
    max_tokens: int | None = None,
    tokens_per_batch: int | None = None,
    progress: OnProgress | None = None,
) -> Float32[np.ndarray, "n d"]:
    """Vectors of `sentences`, row i for sentence i. The encoder's mode (train or eval) is restored."""
    import torch

    place = {sentence: index for index, sentence in enumerate(dict.fromkeys(sentences))}
    distinct = list(place)
    rows = _token_ids(encoder, distinct, max_tokens)
    budget = tokens_per_batch or TOKENS_PER_BATCH.get(encoder.device.type, _OTHER_TOKENS_PER_BATCH)
    was_training = encoder.training
    encoder.eval()
    out: np.ndarray | None = None
    done = 0
    try:
        with torch.inference_mode():
            for batch in _batches(rows, budget):
                ids, mask = pad([rows[index] for index in batch], pad_id=pad_token_id(encoder))
                vectors = pooled(encoder, ids.to(encoder.device), mask.to(encoder.device)).float().cpu().numpy()
                if out is None:
                    out = np.empty((len(distinct), vectors.shape[1]), np.float32)
                out[batch] = vectors
                done += len(batch)
                if progress is not None:
                    progress(done, len(distinct))
    finally:
        encoder.train(was_training)
    if out is None:
        return np.empty((0, encoder.get_embedding_dimension() or 0), np.float32)
    return out[[place[sentence] for sentence in sentences]]


def pooled(encoder: SentenceTransformer, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """h: the encoder's sentence vectors, (n, d), before any Normalize module."""
    features: dict[str, torch.Tensor] = {"input_ids": input_ids, "attention_mask": attention_mask}
    for module in without_normalize(encoder):
        features = module(features)
    return features["sentence_embedding"]


def without_normalize(encoder: SentenceTransformer) -> list[nn.Module]:
    """The encoder's modules up to a trailing Normalize."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    modules = list(encoder)
    while isinstance(modules[-1], Normalize):
        modules.pop()
    return modules


def pad(rows: Sequence[Sequence[int]], *, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids padded on the right to the longest row, and the attention mask; both (n, l) int64."""
    import torch

    longest = max(len(row) for row in rows)
    ids = np.full((len(rows), longest), pad_id, np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def pad_token_id(encoder: SentenceTransformer) -> int:
    return int(encoder.tokenizer.pad_token_id or 0)


def _token_ids(encoder: SentenceTransformer, sentences: list[str], max_tokens: int | None) -> list[list[int]]:
    own = encoder.max_seq_length
    limit = min(value for value in (max_tokens, own, encoder.tokenizer.model_max_length) if value is not None)
    rows: list[list[int]] = []
    fitting = (within_tokens(sentence, encoder.tokenizer, limit) for sentence in sentences)
    for chunk in in_batches(fitting, _TOKENISE_CHUNK):
        rows.extend(encoder.tokenizer(chunk, truncation=True, max_length=limit)["input_ids"])
    return rows


def _batches(rows: list[list[int]], budget: int) -> Iterator[list[int]]:
    """Indices by falling length (the largest batch comes first, so too little memory shows at once)."""
    order = sorted(range(len(rows)), key=lambda index: (-len(rows[index]), index))
    start = 0
    while start < len(order):
        size = min(max(budget // len(rows[order[start]]), 1), _MAX_ROWS)
        yield order[start : start + size]
        start += size
