"""Vectors of sentences by a frozen encoder, written as a feature store: each distinct sentence once, before any
Normalize module (vectors taken after one carry less: cosines are the same, but a transfer classifier, or a head,
sees another geometry)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dalr.data.rows import sentences_sha256
from dalr.features.store import FeatureStore, open_store, write_store
from dalr.io.cache import cache_folder, cached
from dalr.models.config import EncoderConfig
from dalr.models.embedding import OnProgress, embed
from dalr.models.loading import encoder_sha256, load_encoder


def write_text_store(
    out: Path,
    *,
    encoder: EncoderConfig,
    ids: Sequence[str],
    sentences: Sequence[str],
    progress: OnProgress | None = None,
) -> None:
    """Encode `sentences` and write them as a store under `ids`."""
    model = load_encoder(encoder)
    vectors = embed(model, sentences, max_tokens=encoder.max_tokens, progress=progress)
    write_store(out, ids=ids, blocks=[vectors], source=_source(encoder), origin=f"vectors of {encoder.model}")


def cached_text_store(
    *,
    encoder: EncoderConfig,
    ids: Sequence[str],
    sentences: Sequence[str],
    progress: OnProgress | None = None,
) -> FeatureStore:
    """The store of these sentences by this encoder, from the cache or made now."""
    parts = [
        encoder_sha256(encoder),
        str(encoder.max_tokens),
        sentences_sha256(sentences),
        sentences_sha256(ids),
    ]
    return cached(
        cache_folder("teachers") / hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32],
        read=open_store,
        write=lambda folder: write_text_store(
            folder, encoder=encoder, ids=ids, sentences=sentences, progress=progress
        ),
    )


def _source(encoder: EncoderConfig) -> dict[str, Any]:
    return {
        "kind": "text",
        "encoder": encoder.model_dump(mode="json"),
        "sha256": encoder_sha256(encoder),
        "normalized": False,
    }
