"""Where does a caption become token ids? Here, once: one flat memory-mapped array with row offsets.

Tokenising inside the data loader costs a processor core for the whole training and is done again by every run;
flat arrays cost 4 bytes a token on disk, once per (tokenizer, length, sentences), in the cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32, Int64

from dalr.data.long_text import in_batches, within_tokens
from dalr.data.rows import sentences_sha256
from dalr.io.cache import cache_folder, cached
from dalr.io.sealed import read_manifest, well_formed, write_sealed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORMAT, _VERSION = "dalr-tokens", 1
_CHUNK = 10_000


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


def tokenised(sentences: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int) -> TokenStream:
    """The stream of these sentences, from the cache or made now."""
    key = hashlib.sha256(
        f"{_tokenizer_sha256(tokenizer)} {max_tokens} {sentences_sha256(sentences)}".encode()
    ).hexdigest()[:32]
    return cached(
        cache_folder("tokens") / key,
        read=_read,
        write=lambda folder: _write(folder, sentences, tokenizer, max_tokens),
    )


def _read(folder: Path) -> TokenStream:
    remedy = "delete it; it is a cache entry"
    manifest = read_manifest(folder, format=_FORMAT, version=_VERSION, remedy=remedy)
    with well_formed(folder, remedy=remedy):
        tokens = np.load(folder / "tokens.npy", mmap_mode="r", allow_pickle=False)
        offsets = np.load(folder / "offsets.npy", allow_pickle=False)
        if (tokens.dtype, offsets.dtype) != (np.int32, np.int64) or offsets[[0, -1]].tolist() != [0, len(tokens)]:
            raise ValueError("the offsets are not those of the tokens")
        return TokenStream(tokens=tokens, offsets=offsets, truncated=int(manifest.metadata["truncated"]))


def _write(folder: Path, sentences: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
    lengths: list[int] = []
    parts: list[np.ndarray] = []
    truncated = 0
    fitting = (within_tokens(sentence, tokenizer, max_tokens) for sentence in sentences)
    place = 0
    for batch in in_batches(fitting, _CHUNK):
        # one token more than allowed tells which sentences are cut without tokenising twice
        whole = tokenizer(batch, truncation=True, max_length=max_tokens + 1, verbose=False)["input_ids"]
        cut = [index for index, ids in enumerate(whole) if len(ids) > max_tokens]
        if cut:
            texts = [batch[index] for index in cut]
            shorter = tokenizer(texts, truncation=True, max_length=max_tokens, verbose=False)["input_ids"]
            for index, ids in zip(cut, shorter, strict=True):
                whole[index] = ids
        before = [len(sentence) for sentence in sentences[place : place + len(batch)]]
        shortened = {index for index, text in enumerate(batch) if len(text) < before[index]}
        truncated += len(shortened.union(cut))
        place += len(batch)
        lengths.extend(len(ids) for ids in whole)
        parts.append(np.fromiter((token for ids in whole for token in ids), dtype=np.int32))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.concatenate(parts) if parts else np.empty(0, np.int32)

    def fill(temporary: Path) -> None:
        np.save(temporary / "tokens.npy", tokens, allow_pickle=False)
        np.save(temporary / "offsets.npy", offsets, allow_pickle=False)

    write_sealed(
        folder,
        format=_FORMAT,
        version=_VERSION,
        metadata={"truncated": truncated, "max_tokens": max_tokens},
        fill=fill,
    )


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
