"""The product: an ordinary SentenceTransformer folder, with the pooling it was evaluated with and no heads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dalr.models.loading import quiet_libraries

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def save_encoder(encoder: SentenceTransformer, folder: Path) -> None:
    """Write `encoder` so that `SentenceTransformer(folder)` and `AutoModel(folder)` load it.

    Its `max_seq_length` is the encoder's own, not the shorter one of training. The library generates no model
    card, because its cards publish training rows.
    """
    with quiet_libraries():
        encoder.save(str(folder), create_model_card=False, safe_serialization=True)
