"""How do sentences become vectors? Each distinct one once, sorted by length, in batches of a token budget.

Padding is the cost to avoid: sorted by length, hardly any is left, and a token budget gives short sentences
large batches. On a CPU the budget is small, so that the activations of a layer stay in its caches. Rows come back
in the order that they were given, before any Normalize module, with the encoder's prompt before each sentence.
A model whose vectors depend on the padding beside them (FNet has no attention mask) gets batches without any.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from dalr.data.long_text import in_batches, within_tokens
from dalr.models.limits import longest_input
from dalr.models.prompts import excluded_tokens, prompt_of

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from torch import nn

OnProgress = Callable[[int, int], None]
"""Called with (sentences done, sentences in all)."""
Embed = Callable[[Sequence[str], OnProgress | None], Float32[np.ndarray, "n d"]]
"""Vectors of sentences, row i for sentence i."""

TOKENS_PER_BATCH = {"cpu": 2_048}
"""By kind of device; `_OTHER_TOKENS_PER_BATCH` elsewhere. Measured in docs/experiments."""
_OTHER_TOKENS_PER_BATCH = 8_192
ALONE_TOKENS_PER_BATCH = {"cpu": 512}
"""The same where batches are filled up: what is filled up costs less."""
_MAX_ROWS = 512
_PADDING_TOLERANCE = 1e-3
_TOKENISE_CHUNK = 10_000


def embed(
    encoder: SentenceTransformer,
    sentences: Sequence[str],
    *,
    max_tokens: int | None = None,
    tokens_per_batch: int | None = None,
    bf16: bool = False,
    progress: OnProgress | None = None,
    alone: bool = False,
) -> Float32[np.ndarray, "n d"]:
    """Vectors of `sentences`, row i for sentence i. The encoder's mode (train or eval) is restored.

    Args:
        bf16: compute in autocast to bf16; the vectors are fp32 in any case.
        alone: a vector depends on its sentence alone, to the last bit: the sentences of a length are encoded in
            batches of one shape, the last one filled up with copies, so that the others given beside it change
            nothing.
    """
    place = {sentence: index for index, sentence in enumerate(dict.fromkeys(sentences))}
    rows = token_ids(encoder, list(place), max_tokens)
    vectors = embed_token_ids(
        encoder, rows, tokens_per_batch=tokens_per_batch, bf16=bf16, progress=progress, alone=alone
    )
    return vectors[[place[sentence] for sentence in sentences]] if len(vectors) else vectors


def embed_token_ids(
    encoder: SentenceTransformer,
    rows: list[list[int]],
    *,
    tokens_per_batch: int | None = None,
    bf16: bool = False,
    progress: OnProgress | None = None,
    alone: bool = False,
) -> Float32[np.ndarray, "n d"]:
    """The same of sentences that are tokenised (`token_ids`)."""
    import torch

    budgets, other = (ALONE_TOKENS_PER_BATCH if alone else TOKENS_PER_BATCH), _OTHER_TOKENS_PER_BATCH
    budget = tokens_per_batch or budgets.get(encoder.device.type, other)
    compute = _static if is_static(encoder) else _padded
    equal = compute is _padded and (alone or reads_padding(encoder))
    was_training = encoder.training
    encoder.eval()
    out: np.ndarray | None = None
    done = 0
    try:
        with torch.inference_mode(), torch.autocast(encoder.device.type, torch.bfloat16, enabled=bf16):
            for batch in by_falling_length(rows, budget, equal=equal):
                given = [rows[index] for index in batch]
                if alone and compute is _padded:
                    given += given[:1] * (rows_per_batch(budget, len(given[0])) - len(given))
                vectors = compute(encoder, given)[: len(batch)].float().cpu().numpy()
                if out is None:
                    out = np.empty((len(rows), vectors.shape[1]), np.float32)
                out[batch] = vectors
                done += len(batch)
                if progress is not None:
                    progress(done, len(rows))
    finally:
        encoder.train(was_training)
    return out if out is not None else np.empty((0, encoder.get_embedding_dimension() or 0), np.float32)


def pooled(encoder: SentenceTransformer, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """h: the encoder's sentence vectors, (n, d), before any Normalize module."""
    features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
    if (types := token_types(encoder, input_ids)) is not None:
        features["token_type_ids"] = types
    if left_out := excluded_tokens(encoder):
        features["prompt_length"] = left_out
    for module in without_normalize(encoder):
        features = module(features)
    vectors: torch.Tensor = features["sentence_embedding"]
    return vectors


def token_types(encoder: SentenceTransformer, input_ids: torch.Tensor) -> torch.Tensor | None:
    """The type of each token where the tokenizer gives types and the model reads them otherwise than as 0.

    A sentence alone has the type of its words and those of the special tokens around it: 2 for CLS in Funnel and
    XLNet. None where all are 0 and the model has a table of types, whose row 0 it then takes by itself.
    """
    tokenizer, backbone = encoder.tokenizer, encoder.transformers_model
    if backbone is None or "token_type_ids" not in getattr(tokenizer, "model_input_names", ()):
        return None
    given = tokenizer("a")
    types: list[int] = given.get("token_type_ids") or []
    if not any(types) and hasattr(backbone.config, "type_vocab_size"):
        return None
    if not types or "token_type_ids" not in inspect.signature(type(backbone).forward).parameters:
        return None
    import torch

    special = set(tokenizer.all_special_ids)
    ordinary = [kind for number, kind in zip(given["input_ids"], types, strict=True) if number not in special]
    found = torch.full_like(input_ids, ordinary[0] if ordinary else 0)
    for number, kind in zip(given["input_ids"], types, strict=True):
        if number in special:
            found[input_ids == number] = kind
    return found


def reads_padding(encoder: SentenceTransformer) -> bool:
    """Whether the vector of a row changes with the padding behind it, which no attention mask then hides."""
    import torch

    tokenizer = encoder.tokenizer
    special = set(tokenizer.all_special_ids)
    words = [number for number in range(min(len(tokenizer), 64)) if number not in special][:5] or [0]
    training = encoder.training
    ids, mask = pad([words, words * 3], pad_id=pad_token_id(encoder))
    ids, mask = ids.to(encoder.device), mask.to(encoder.device)
    encoder.eval()
    try:
        with torch.inference_mode():
            alone = pooled(encoder, ids[:1, : len(words)], mask[:1, : len(words)]).float()
            beside = pooled(encoder, ids, mask)[:1].float()
    finally:
        encoder.train(training)
    return bool((alone - beside).abs().max() > _PADDING_TOLERANCE * alone.abs().max())


def is_static(encoder: SentenceTransformer) -> bool:
    """Whether it is one vector per token and their mean, without a transformer (model2vec)."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    return isinstance(encoder[0], StaticEmbedding)


def _padded(encoder: SentenceTransformer, rows: list[list[int]]) -> torch.Tensor:
    ids, mask = pad(rows, pad_id=pad_token_id(encoder))
    return pooled(encoder, ids.to(encoder.device), mask.to(encoder.device))


def _static(encoder: SentenceTransformer, rows: list[list[int]]) -> torch.Tensor:
    """Rows end to end, and where each begins."""
    import torch

    offsets = np.cumsum([0] + [len(row) for row in rows[:-1]])
    features: dict[str, Any] = {
        "input_ids": torch.tensor([number for row in rows for number in row], dtype=torch.long).to(encoder.device),
        "offsets": torch.from_numpy(offsets).to(encoder.device),
    }
    for module in without_normalize(encoder):
        features = module(features)
    vectors: torch.Tensor = features["sentence_embedding"]
    return vectors


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


def token_ids(encoder: SentenceTransformer, sentences: list[str], max_tokens: int | None) -> list[list[int]]:
    limit, prompt = longest_input(encoder, max_tokens), prompt_of(encoder)
    cut: dict[str, Any] = {} if limit is None else {"truncation": True, "max_length": limit}
    rows: list[list[int]] = []
    prompted = (prompt + sentence for sentence in sentences)
    if is_static(encoder):
        for chunk in in_batches(prompted, _TOKENISE_CHUNK):
            encodings = encoder.tokenizer.encode_batch(chunk, add_special_tokens=False)
            rows.extend(encoding.ids[:limit] for encoding in encodings)
        return rows
    if limit is not None:
        prompted = (within_tokens(sentence, encoder.tokenizer, limit) for sentence in prompted)
    for chunk in in_batches(prompted, _TOKENISE_CHUNK):
        rows.extend(encoder.tokenizer(chunk, verbose=False, **cut)["input_ids"])
    return rows


def rows_per_batch(budget: int, length: int) -> int:
    """How many sentences of this many tokens are encoded at once."""
    return min(max(budget // max(length, 1), 1), _MAX_ROWS)


def by_falling_length(rows: list[list[int]], budget: int, *, equal: bool = False) -> Iterator[list[int]]:
    """Indices by falling length (the largest batch comes first, so too little memory shows at once).

    With `equal`, all rows of a batch have one length.
    """
    order = sorted(range(len(rows)), key=lambda index: (-len(rows[index]), index))
    start = 0
    while start < len(order):
        longest = len(rows[order[start]])
        size = rows_per_batch(budget, longest)
        batch = order[start : start + size]
        if equal:
            batch = [index for index in batch if len(rows[index]) == longest]
        yield batch
        start += len(batch)
