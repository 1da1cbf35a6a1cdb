"""A frozen teacher run online for its token states (T7), which are too large to store: n × l × d a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from dalr.models.config import TeacherConfig
from dalr.models.loading import load_encoder
from dalr.objectives.inputs import TeacherTokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class TokenTeacher:
    """Last hidden states of one teacher; in eval mode, without gradient, no part of the trained module."""

    def __init__(self, config: TeacherConfig) -> None:
        self.encoder: SentenceTransformer = load_encoder(config.encoder()).requires_grad_(False)
        self.weight = config.weight

    def __call__(self, ids: Int[Tensor, "n l"], mask: Int[Tensor, "n l"]) -> TeacherTokens:
        """States of all tokens but the leading CLS, and which of them are real."""
        if self.encoder.device != ids.device:
            self.encoder.to(ids.device)
        with torch.no_grad():
            states = self.encoder[0]({"input_ids": ids, "attention_mask": mask})["token_embeddings"]
        return TeacherTokens(states=states[:, 1:].float(), mask=mask[:, 1:].bool(), weight=self.weight)
