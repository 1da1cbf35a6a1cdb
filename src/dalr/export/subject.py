"""What is exported: the encoder of a run or a model, as it was published, and the run's grounding heads if any.

An exported graph gives the vectors that `SentenceTransformer(folder).encode` gives, so a Normalize module that the
model ends in is part of it here, although everything else in dalr takes vectors before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dalr.errors import ConfigError, ModelFileError, Problem
from dalr.io.paths import is_file
from dalr.models.choices import PoolingMode
from dalr.models.config import EncoderConfig
from dalr.models.limits import longest_input
from dalr.models.reference import inside_run
from dalr.models.verification import HEADS
from dalr.recipe.paths import expand

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from dalr.models.heads import GroundingHeads

_LONGEST_WITHOUT_LIMIT = 512
"""Tokens of the longest input where the encoder states no limit."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A text encoder in eval mode on the CPU."""

    name: str
    encoder: SentenceTransformer
    """Ends in Normalize where the model as published does."""
    normalized: bool
    sha256: str
    longest: int
    """Tokens of the longest input."""
    heads: GroundingHeads | None


def load_subject(model: str, pooling: PoolingMode | None = None) -> Subject:
    """The encoder that `model` (a run, a checkpoint, a folder, a hub id) names.

    Raises:
        ConfigError, ModelFileError, CorruptFileError: as for every model, or of a kind that has no such graph.
    """
    from sentence_transformers.sentence_transformer.modules import Normalize

    from dalr.models.embedding import is_static, reads_padding
    from dalr.models.heads import read_grounding
    from dalr.models.loading import encoder_sha256, ends_in_normalize, load_encoder

    config = EncoderConfig(model=inside_run(model), pooling=pooling)
    encoder = load_encoder(config)
    where = f"model {model!r}"
    if is_static(encoder):
        what = "static embeddings are a table and a mean, without a transformer; load them with model2vec"
        raise ConfigError(Problem(where=where, what=what))
    if reads_padding(encoder):
        what = (
            "its vectors change with the padding beside a sentence (no attention mask), so no batch can be exported"
        )
        raise ModelFileError(Problem(where=where, what=what))
    normalized = ends_in_normalize(config)
    if normalized:
        encoder.append(Normalize())
    heads = expand(model) / HEADS if model.strip() else Path(HEADS)
    return Subject(
        name=model,
        encoder=encoder.eval().requires_grad_(False),
        normalized=normalized,
        sha256=encoder_sha256(config),
        longest=longest_input(encoder) or _LONGEST_WITHOUT_LIMIT,
        heads=read_grounding(heads) if is_file(heads, ModelFileError) else None,
    )
