"""Where does a caption become token ids? Here, once: one flat memory-mapped array with row offsets.

Tokenising inside the data loader costs a processor core for the whole training and is done again by every run;
flat arrays cost 4 bytes per token on disk, once per (tokenizer, length, sentences), in the cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32, Int64

from dalr.data.long_text import in_batches, within_tokens
from dalr.data.rows import sentences_sha256
from dalr.io.array_file import ArrayFile
from dalr.io.cache import cache_folder, cached
from dalr.io.sealed import read_manifest, well_formed, write_sealed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORMAT, _VERSION = "dalr-tokens", 1
_CHUNK = 10_000
_ARRAYS = ("tokens", "offsets")


@dataclass(frozen=True, kw_only=True)
class TokenStream:
    """Token ids of a list of sentences, with special tokens, cut at `max_tokens`."""

    tokens: Int32[np.ndarray, " total"]
    offsets: Int64[np.ndarray, " rows_plus_one"]
    truncated: int
    """Sentences that were cut."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, index: int) -> Int32[np.ndarray, " length"]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def tokenised(
    sentences: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int,
    prompt: str = "",
    at_once: int = _CHUNK,
) -> TokenStream:
    """The stream of these sentences, each behind the prompt, from the cache or made now."""
    digest = sentences_sha256(prompt + sentence for sentence in sentences)
    key = hashlib.sha256(f"{_tokenizer_sha256(tokenizer)} {max_tokens} {digest}".encode()).hexdigest()[:32]
    return cached(
        cache_folder("tokens") / key,
        read=_read,
        write=lambda folder: _write(
            folder, (prompt + sentence for sentence in sentences), tokenizer, max_tokens, at_once
        ),
    )


def _read(folder: Path) -> TokenStream:
    remedy = "delete this cache entry"
    manifest = read_manifest(folder, format=_FORMAT, version=_VERSION, remedy=remedy)
    with well_formed(folder, remedy=remedy):
        tokens, offsets = (np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS)
        if (tokens.dtype, offsets.dtype) != (np.int32, np.int64) or offsets[[0, -1]].tolist() != [0, len(tokens)]:
            raise ValueError("the offsets do not match the tokens")
        return TokenStream(tokens=tokens, offsets=offsets, truncated=int(manifest.metadata["truncated"]))


def _write(
    folder: Path, sentences: Iterable[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int, at_once: int
) -> None:
    metadata = {"truncated": 0, "max_tokens": max_tokens}

    def fill(temporary: Path) -> None:
        first, second = (temporary / f"{name}.npy" for name in _ARRAYS)
        with ArrayFile(first, np.int32) as tokens, ArrayFile(second, np.int64) as offsets:
            offsets.append(np.zeros(1, np.int64))
            for rows, cut in _rows(sentences, tokenizer, max_tokens, at_once):
                offsets.append(tokens.length + np.cumsum([len(ids) for ids in rows]))
                tokens.append(np.fromiter(chain.from_iterable(rows), np.int32))
                metadata["truncated"] += cut

    write_sealed(folder, format=_FORMAT, version=_VERSION, metadata=metadata, fill=fill)


def _rows(
    sentences: Iterable[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int, at_once: int
) -> Iterator[tuple[list[list[int]], int]]:
    """Token ids of the sentences, many at a time, and how many of these were cut."""
    for batch in in_batches(sentences, at_once):
        fitting = [within_tokens(sentence, tokenizer, max_tokens) for sentence in batch]
        # one token more than allowed shows which sentences are cut without tokenising twice
        rows = tokenizer(fitting, truncation=True, max_length=max_tokens + 1, verbose=False)["input_ids"]
        cut = [index for index, ids in enumerate(rows) if len(ids) > max_tokens]
        if cut:
            texts = [fitting[index] for index in cut]
            shorter = tokenizer(texts, truncation=True, max_length=max_tokens, verbose=False)["input_ids"]
            for index, ids in zip(cut, shorter, strict=True):
                rows[index] = ids
        shortened = {
            index for index, (kept, whole) in enumerate(zip(fitting, batch, strict=True)) if len(kept) < len(whole)
        }
        yield rows, len(shortened.union(cut))


def _tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Content key of a tokenizer: its whole pipeline where it is a fast one, its vocabulary otherwise.

    Truncation and padding are left out: they are what the last call happened to ask for.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        content = repr(sorted(tokenizer.get_vocab().items()))
    else:
        pipeline = json.loads(backend.to_str())
        content = json.dumps(pipeline | {"truncation": None, "padding": None}, sort_keys=True)
    return hashlib.sha256(f"{type(tokenizer).__name__} {content}".encode()).hexdigest()
