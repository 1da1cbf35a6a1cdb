"""How are vectors of sentences stored? By a frozen encoder or CLIP's text tower, each distinct sentence once.

They are taken before any Normalize module: after one, cosines are the same, but a transfer classifier, or a head,
sees another geometry. A vector depends on its sentence alone, to the last bit, so a store that is updated with new
sentences has the bytes of one made at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dalr.data.rows import sentences_sha256
from dalr.features.kept import PROBES, require_same_vectors, rows_to_keep
from dalr.features.store import CONTENTS, FeatureStore, contents_file, open_store, text_digest, write_store
from dalr.io.cache import cache_folder, cached
from dalr.io.console import Console
from dalr.io.paths import is_dir
from dalr.models.choices import ComputePrecision
from dalr.models.config import EncoderConfig
from dalr.models.device import pick_device, require_bf16
from dalr.models.embedding import Embed, OnProgress, embed
from dalr.models.loading import encoder_sha256, load_encoder, prompt_text

if TYPE_CHECKING:
    from dalr.models.vision import VisionModel


@dataclass(frozen=True, kw_only=True)
class TextReport:
    """What writing a store of sentences came to."""

    rows: int
    computed: int
    """Distinct sentences that went through the model now."""
    kept: int = 0
    """Distinct sentences whose vectors the updated store had already."""
    dropped: int = 0
    """Rows of the updated store whose ids are no longer asked for."""


def write_text_store(
    out: Path,
    *,
    encoder: EncoderConfig,
    ids: Sequence[str],
    sentences: Sequence[str],
    progress: OnProgress | None = None,
    device: str = "cpu",
    precision: ComputePrecision = "fp32",
    update: bool = False,
    console: Console | None = None,
) -> TextReport:
    """Encode `sentences` and write them as a store under `ids`.

    With `update`, a store that is there keeps the vectors of sentences that it has; only the others are encoded.

    Raises:
        ConfigError: bf16 on a device that has none.
    """
    encode, origin = encoder_embedding(encoder, device, precision), f"vectors of {encoder.model}"
    return _write(out, ids, sentences, encode, text_source(encoder, precision), origin, progress, update, console)


def encoder_embedding(encoder: EncoderConfig, device: str = "cpu", precision: ComputePrecision = "fp32") -> Embed:
    """How an encoder gives sentences the vectors of a store, each of which depends on its sentence alone.

    Raises:
        ConfigError: bf16 on a device that has none.
    """
    model = load_encoder(encoder).to(pick_device(device))
    if bf16 := precision == "bf16":
        require_bf16(model.device, f"{encoder.model}: precision bf16")
    return lambda sentences, progress: embed(
        model, sentences, max_tokens=encoder.max_tokens, bf16=bf16, progress=progress, alone=True
    )


def _write(
    out: Path,
    ids: Sequence[str],
    sentences: Sequence[str],
    encode: Embed,
    source: Mapping[str, Any],
    origin: str,
    progress: OnProgress | None,
    update: bool,
    console: Console | None,
) -> TextReport:
    kept = rows_to_keep(out) if update else None
    contents = [text_digest(sentence) for sentence in sentences]
    of = dict(zip(contents, sentences, strict=True))
    known = {content: kept.row_of[content] for content in of if content in kept.row_of} if kept is not None else {}
    new = {content: number for number, content in enumerate(each for each in of if each not in known)}
    vectors = encode([of[content] for content in new], progress)
    if kept is not None and known:
        if new:
            probes = list(known)[:PROBES]
            again = encode([of[content] for content in probes], None)
            require_same_vectors(
                out, kept.read([known[content] for content in probes]), again, console or Console()
            )
        vectors = np.concatenate([vectors.reshape(len(new), kept.store.dim), kept.read(list(known.values()))])
    place = new | {content: len(new) + number for number, content in enumerate(known)}
    write_store(
        out,
        ids=ids,
        blocks=[vectors[[place[content] for content in contents]]],
        source=source,
        origin=origin,
        beside={CONTENTS: contents_file(contents)},
    )
    dropped = len(set(kept.store.ids) - set(ids)) if kept is not None else 0
    return TextReport(rows=len(ids), computed=len(new), kept=len(known), dropped=dropped)


def cached_text_store(
    *,
    encoder: EncoderConfig,
    ids: Sequence[str],
    sentences: Sequence[str],
    precision: ComputePrecision = "fp32",
    progress: OnProgress | None = None,
) -> FeatureStore:
    """The store of these sentences by this encoder, from the cache or made now."""

    def write(folder: Path) -> None:
        write_text_store(
            folder, encoder=encoder, ids=ids, sentences=sentences, precision=precision, progress=progress
        )

    return cached(_cache_place(encoder, ids, sentences, precision), read=open_store, write=write)


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
    update: bool = False,
    console: Console | None = None,
) -> TextReport:
    """The same by the text tower of a model of the CLIP kind, in the space of its image vectors (KDMCSE)."""
    encode, origin = tower_embedding(model), f"vectors of {model.reference}"
    return _write(out, ids, sentences, encode, tower_source(model), origin, progress, update, console)


def tower_embedding(model: VisionModel) -> Embed:
    """How a text tower gives sentences the vectors of a store."""
    return lambda sentences, progress: model.embed_texts(sentences, progress=progress, alone=True)


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
