"""How long may an input of an encoder be?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

UNLIMITED = 10**9
"""A limit beyond this means that none is stated; transformers writes 1e30."""


def longest_input(encoder: SentenceTransformer, max_tokens: int | None = None) -> int | None:
    """The longest input in tokens, of the encoder's own limit and `max_tokens`; None where there is no limit."""
    tokenizer = getattr(encoder, "tokenizer", None)
    stated = (max_tokens, encoder.max_seq_length, getattr(tokenizer, "model_max_length", None))
    limits = [int(limit) for limit in stated if limit is not None and limit < UNLIMITED]
    return min(limits, default=None)
