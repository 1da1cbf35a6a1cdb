"""Why does T7 run a teacher online? Its token states are too large to store: n × l × d per batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from dalr.errors import ConfigError, Problem
from dalr.losses.inputs import TeacherTokens
from dalr.models.config import TeacherConfig
from dalr.models.embedding import token_types
from dalr.models.loading import load_encoder
from dalr.models.prompts import excluded_tokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class TokenTeacher:
    """Last hidden states of one teacher; in eval mode, without gradient, no part of the trained module."""

    def __init__(self, config: TeacherConfig) -> None:
        self.encoder: SentenceTransformer = load_encoder(config.encoder()).requires_grad_(False)
        if self.encoder.transformers_model is None:
            what = f"teacher {config.model!r}: static embeddings have no token states, which global_to_local reads"
            raise ConfigError(Problem(where="objective.global_to_local", what=what))
        self.weight = config.weight

    def __call__(self, ids: Int[Tensor, "n l"], mask: Int[Tensor, "n l"]) -> TeacherTokens:
        """States of all tokens but the leading CLS (or a prompt that pooling leaves out); which are real."""
        if self.encoder.device != ids.device:
            self.encoder.to(ids.device)
        features = {"input_ids": ids, "attention_mask": mask}
        if (types := token_types(self.encoder, ids)) is not None:
            features["token_type_ids"] = types
        with torch.no_grad():
            states = self.encoder[0](features)["token_embeddings"]
        first = max(1, excluded_tokens(self.encoder))
        return TeacherTokens(states=states[:, first:].float(), mask=mask[:, first:].bool(), weight=self.weight)
