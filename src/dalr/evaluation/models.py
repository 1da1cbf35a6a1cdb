"""How does a named model turn sentences into vectors? As a text encoder, or as a multimodal model's text tower."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from dalr.errors import ConfigError, Problem
from dalr.evaluation.request import Place, Request
from dalr.evaluation.results import Settings
from dalr.evaluation.score import EvaluatedModel
from dalr.evaluation.sts import Embed
from dalr.io.console import Console
from dalr.models.device import BF16, require_bf16

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from dalr.models.vision import VisionModel


def text_model(place: Place, request: Request) -> EvaluatedModel:
    """A text encoder. For mteb alone it is loaded with the first sentence: kept scores need none."""
    from dalr.models.device import pick_device
    from dalr.models.embedding import embed
    from dalr.models.loading import encoder_sha256, ends_in_normalize, load_encoder
    from dalr.models.prompts import prompt_of

    console = request.console
    device = pick_device(request.device)
    if bf16 := request.precision == "bf16":
        require_bf16(device, BF16)

    @cache
    def loaded() -> SentenceTransformer:
        encoder = load_encoder(place.encoder).to(device)
        dim, longest = encoder.get_embedding_dimension(), encoder.max_seq_length
        console.detail(f"{place.name}: dimension {dim}, at most {longest} tokens, on {encoder.device}")
        if prompt := prompt_of(encoder):
            console.detail(f"{place.name}: {prompt!r} is put before every sentence")
        return encoder

    if request.tasks:
        loaded()

    def embed_text(sentences: list[str], progress: Callable[[int, int], None]) -> np.ndarray:
        vectors: np.ndarray = embed(loaded(), sentences, bf16=bf16, progress=progress)
        return vectors

    return EvaluatedModel(
        name=place.name,
        embed=_with_bar(embed_text, console),
        sha256=encoder_sha256(place.encoder),
        normalized=ends_in_normalize(place.encoder),
        settings=settings_of(request),
    )


def model_in_memory(model: SentenceTransformer, request: Request) -> EvaluatedModel:
    """A model that a program holds, as it is: where it is, in its own precision, before any Normalize module.

    Raises:
        ConfigError: not a SentenceTransformer, or options that only apply to models that are loaded here.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize

    from dalr.models.embedding import embed

    if not isinstance(model, SentenceTransformer):
        what = f"expected a path, a name, or a SentenceTransformer, found {type(model).__name__}"
        raise ConfigError(Problem(where="model", what=what))
    if request.pooling is not None or request.num_layers is not None:
        what = "a model in memory has its own; remove pooling and num_layers"
        raise ConfigError(Problem(where="model", what=what))
    if bf16 := request.precision == "bf16":
        require_bf16(model.device, BF16)
    normalized = isinstance(list(model)[-1], Normalize)
    encoder = SentenceTransformer(modules=list(model)[:-1], device=str(model.device)) if normalized else model

    def embed_text(sentences: list[str], progress: Callable[[int, int], None]) -> np.ndarray:
        vectors: np.ndarray = embed(encoder, sentences, bf16=bf16, progress=progress)
        return vectors

    return EvaluatedModel(
        name="SentenceTransformer (in memory)",
        embed=_with_bar(embed_text, request.console),
        sha256=_weights_sha256(encoder),
        normalized=normalized,
        settings=settings_of(request),
    )


def _weights_sha256(model: SentenceTransformer) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def multimodal_model(place: Place, vision: VisionModel, request: Request) -> EvaluatedModel:
    """A model of the CLIP kind, by its text tower.

    Raises:
        ConfigError: a prompt, which text towers have none of, or bf16.
    """
    if request.precision == "bf16":
        what = f"{place.name} is a multimodal model, whose text tower computes in fp32; leave bf16 out"
        raise ConfigError(Problem(where=BF16, what=what))
    if request.prompt:
        what = f"{place.name} is a multimodal model, whose text tower has no prompts; remove it"
        raise ConfigError(Problem(where="--prompt", what=what))

    def embed_text(sentences: list[str], progress: Callable[[int, int], None]) -> np.ndarray:
        vectors: np.ndarray = vision.embed_texts(sentences, progress=progress)
        return vectors

    return EvaluatedModel(
        name=place.name,
        embed=_with_bar(embed_text, request.console),
        sha256=str(vision.source["sha256"]),
        normalized=bool(vision.source["normalized"]),
        settings=settings_of(request),
    )


def settings_of(request: Request) -> Settings:
    """What a request changes of a score."""
    return Settings(
        pooling=request.pooling,
        num_layers=request.num_layers,
        prompt=request.prompt,
        precision=request.precision,
        classifier=request.classifier,
        overlap_with=str(request.exclude_overlap) if request.exclude_overlap else None,
    )


def _with_bar(embed: Callable[[list[str], Callable[[int, int], None]], np.ndarray], console: Console) -> Embed:
    def embed_all(sentences: list[str]) -> np.ndarray:
        if not sentences:
            return np.empty((0, 0), np.float32)
        with console.bar("encode", len(sentences), "sentence") as bar:
            return embed(sentences, lambda done, _: bar.update(done))

    return embed_all
