"""What is the product? An ordinary SentenceTransformer folder with its pooling and without heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dalr.errors import ConfigError, Problem, StorageError
from dalr.io.paths import exists, is_file
from dalr.io.sealed import MANIFEST, remove_sealed, write_sealed
from dalr.models.loading import quiet_libraries
from dalr.models.lora import merged
from dalr.models.verification import PRODUCT, VERSION

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def save_encoder(encoder: SentenceTransformer, folder: Path) -> None:
    """Write `encoder` so that `SentenceTransformer(folder)` and `AutoModel(folder)` load it.

    Adapters are merged into the weights. Its `max_seq_length` is the encoder's own, not the shorter one of
    training. The library generates no model card, because its cards publish training rows.
    """
    with quiet_libraries():
        merged(encoder).save(str(folder), create_model_card=False, safe_serialization=True)


def save_model(encoder: SentenceTransformer, folder: Path) -> None:
    """Write a finished model as `save_encoder` does, sealed with the checksums of its files."""
    seal_model(folder, lambda temporary: save_encoder(encoder, temporary))


def seal_model(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a model's files, and seal them; a model that is there is replaced."""
    if exists(folder, StorageError) and not is_file(
        folder / MANIFEST, StorageError
    ):  # of dalr before it sealed models
        remove_sealed(folder)
    write_sealed(folder, format=PRODUCT, version=VERSION, metadata={}, fill=fill)


def record_matryoshka_dims(encoder: SentenceTransformer, dims: Sequence[int]) -> None:
    """Let the export state the dimensions that it was trained at, for `SentenceTransformer(…, truncate_dim=k)`.

    They go into `config.json` as `matryoshka_dimensions`, the name that published models of the kind use.

    Raises:
        ConfigError: a dimension beyond the encoder's own.
    """
    dim = encoder.get_embedding_dimension()
    assert dim is not None
    if max(dims) > dim:
        what = f"{max(dims)} exceeds the student's embedding dimension ({dim})"
        raise ConfigError(Problem(where="training.matryoshka_dims", what=what))
    if encoder.transformers_model is not None:
        encoder.transformers_model.config.matryoshka_dimensions = sorted(dims, reverse=True)
