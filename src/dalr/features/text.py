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
from dalr.features.store import FeatureStore, open_store, write_store
from dalr.io.cache import cache_folder, cached
from dalr.io.paths import is_dir
from dalr.models.choices import ComputePrecision
from dalr.models.config import EncoderConfig
from dalr.models.device import pick_device, require_bf16
from dalr.models.embedding import OnProgress, embed
from dalr.models.loading import encoder_sha256, load_encoder, prompt_text

if TYPE_CHECKING:
    from dalr.models.vision import VisionModel


def write_text_store(
    out: Path,
    *,
    encoder: EncoderConfig,
    ids: Sequence[str],
    sentences: Sequence[str],
    progress: OnProgress | None = None,
    device: str = "cpu",
    precision: ComputePrecision = "fp32",
) -> None:
    """Encode `sentences` and write them as a store under `ids`.

    Raises:
        ConfigError: bf16 on a device that has none.
    """
    model = load_encoder(encoder).to(pick_device(device))
    if bf16 := precision == "bf16":
        require_bf16(model.device, f"{encoder.model}: precision bf16")
    vectors = embed(model, sentences, max_tokens=encoder.max_tokens, bf16=bf16, progress=progress)
    write_store(
        out, ids=ids, blocks=[vectors], source=text_source(encoder, precision), origin=f"vectors of {encoder.model}"
    )


def cached_text_store(
    *,
    encoder: EncoderConfig,
    ids: Sequence[str],
    sentences: Sequence[str],
    precision: ComputePrecision = "fp32",
    progress: OnProgress | None = None,
) -> FeatureStore:
    """The store of these sentences by this encoder, from the cache or made now."""
    return cached(
        _cache_place(encoder, ids, sentences, precision),
        read=open_store,
        write=lambda folder: write_text_store(
            folder, encoder=encoder, ids=ids, sentences=sentences, precision=precision, progress=progress
        ),
    )


def is_cached(
    encoder: EncoderConfig, ids: Sequence[str], sentences: Sequence[str], precision: ComputePrecision = "fp32"
) -> bool:
    """Whether `cached_text_store` would find these vectors."""
    return is_dir(_cache_place(encoder, ids, sentences, precision))


def _cache_place(
    encoder: EncoderConfig, ids: Sequence[str], sentences: Sequence[str], precision: ComputePrecision
) -> Path:
    parts = [encoder_sha256(encoder), str(encoder.max_tokens), sentences_sha256(sentences), sentences_sha256(ids)]
    parts += [precision] if precision != "fp32" else []
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
    vectors = model.embed_texts(sentences, progress=progress)
    origin = f"vectors of {model.reference}"
    write_store(out, ids=ids, blocks=[vectors], source=tower_source(model), origin=origin)


def text_source(encoder: EncoderConfig, precision: ComputePrecision = "fp32") -> dict[str, Any]:
    """How the vectors of `write_text_store` are made, as the manifest states it."""
    unusual = ({"prompt": prompt} if (prompt := prompt_text(encoder)) else {}) | (
        {"precision": precision} if precision != "fp32" else {}
    )
    return {
        "kind": "text",
        "encoder": encoder.model_dump(mode="json"),
        "sha256": encoder_sha256(encoder),
        "normalized": False,
    } | unusual


def tower_source(model: VisionModel) -> dict[str, Any]:
    """How the vectors of `write_tower_store` are made, as the manifest states it."""
    stated = {key: value for key, value in model.source.items() if key != "processor"}
    return {"kind": "text", **stated, "max_tokens": model.max_tokens, "dim": model.dim}
