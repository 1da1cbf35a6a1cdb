"""How are vectors of sentences stored? By a frozen encoder or CLIP's text tower, each distinct sentence once.

They are taken before any Normalize module: after one, cosines are the same, but a transfer classifier, or a head,
sees another geometry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.data.rows import sentences_sha256
from dalr.features.blocks import BLOCK, Embed, embed_in_blocks
from dalr.features.store import FeatureStore, open_store, write_store
from dalr.io.cache import cache_folder, cached
from dalr.io.paths import is_dir
from dalr.models.config import EncoderConfig
from dalr.models.device import pick_device
from dalr.models.embedding import OnProgress, embed
from dalr.models.loading import encoder_sha256, load_encoder, prompt_text

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from dalr.models.vision import VisionModel


def write_text_store(
    out: Path,
    *,
    encoder: EncoderConfig,
    ids: Sequence[str],
    sentences: Sequence[str],
    progress: OnProgress | None = None,
    device: str = "cpu",
    block: int = BLOCK,
) -> None:
    """Encode `sentences` and write them as a store under `ids`."""
    model = load_encoder(encoder).to(pick_device(device))
    vectors = embed_in_blocks(embedding(model, encoder.max_tokens), sentences, progress, block)
    write_store(out, ids=ids, blocks=[vectors], source=text_source(encoder), origin=f"vectors of {encoder.model}")


def cached_text_store(
    *,
    encoder: EncoderConfig,
    ids: Sequence[str],
    sentences: Sequence[str],
    progress: OnProgress | None = None,
) -> FeatureStore:
    """The store of these sentences by this encoder, from the cache or made now."""
    return cached(
        _cache_place(encoder, ids, sentences),
        read=open_store,
        write=lambda folder: write_text_store(
            folder, encoder=encoder, ids=ids, sentences=sentences, progress=progress
        ),
    )


def is_cached(encoder: EncoderConfig, ids: Sequence[str], sentences: Sequence[str]) -> bool:
    """Whether `cached_text_store` would find these vectors."""
    return is_dir(_cache_place(encoder, ids, sentences))


def _cache_place(encoder: EncoderConfig, ids: Sequence[str], sentences: Sequence[str]) -> Path:
    parts = [encoder_sha256(encoder), str(encoder.max_tokens), sentences_sha256(sentences), sentences_sha256(ids)]
    return cache_folder("teachers") / hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]


def write_tower_store(
    out: Path,
    *,
    model: VisionModel,
    ids: Sequence[str],
    sentences: Sequence[str],
    progress: OnProgress | None = None,
) -> None:
    """The same by the text tower of a model of the CLIP kind, in the space of its image vectors (KDMCSE)."""
    vectors = embed_in_blocks(tower_embedding(model), sentences, progress)
    origin = f"vectors of {model.reference}"
    write_store(out, ids=ids, blocks=[vectors], source=tower_source(model), origin=origin)


def embedding(model: SentenceTransformer, max_tokens: int | None) -> Embed:
    """How a loaded encoder gives sentences their vectors."""
    return lambda sentences, progress: embed(model, sentences, max_tokens=max_tokens, progress=progress)


def tower_embedding(model: VisionModel) -> Embed:
    """The same for a text tower."""
    return lambda sentences, progress: model.embed_texts(sentences, progress=progress)


def text_source(encoder: EncoderConfig) -> dict[str, Any]:
    """How the vectors of `write_text_store` are made, as the manifest states it."""
    return {
        "kind": "text",
        "encoder": encoder.model_dump(mode="json"),
        "sha256": encoder_sha256(encoder),
        "normalized": False,
    } | ({"prompt": prompt} if (prompt := prompt_text(encoder)) else {})


def tower_source(model: VisionModel) -> dict[str, Any]:
    """How the vectors of `write_tower_store` are made, as the manifest states it."""
    stated = {key: value for key, value in model.source.items() if key != "processor"}
    return {"kind": "text", **stated, "max_tokens": model.max_tokens, "dim": model.dim}
