"""The computation that is exported: token ids and mask in, sentence vector and token states out.

The modules are the encoder's own, so whatever pooling it has is in the graph. Token types are looked up in a table,
because the graph cannot ask a tokenizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalr.models.embedding import token_types, without_normalize
from dalr.models.prompts import excluded_tokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from dalr.models.heads import GroundingHeads

INPUTS = ("input_ids", "attention_mask")
SENTENCE, TOKENS, GROUNDING = "sentence_embedding", "last_hidden_state", "grounding_embedding"
"""Names of outputs; the first two are those that text-embeddings-inference and transformers.js read."""


class SentenceGraph(nn.Module):
    """(ids, mask) -> (sentence vectors, last hidden states)."""

    outputs = (SENTENCE, TOKENS)

    def __init__(self, encoder: SentenceTransformer, *, normalize: bool = True) -> None:
        super().__init__()
        self.parts = nn.ModuleList(list(encoder) if normalize else without_normalize(encoder))
        self.excluded = excluded_tokens(encoder)
        self.types = token_types(encoder, torch.arange(len(encoder.tokenizer)))

    def forward(
        self, input_ids: Int[Tensor, "n l"], attention_mask: Int[Tensor, "n l"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n l w"]]:
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.types is not None:
            features["token_type_ids"] = self.types[input_ids]
        if self.excluded:
            features["prompt_length"] = self.excluded
        features = self.parts[0](features)
        states = features["token_embeddings"]
        for part in self.parts[1:]:
            features = part(features)
        return features["sentence_embedding"], states


class GroundingGraph(nn.Module):
    """(ids, mask) -> the sentence in the space of the images, by the text grounding head of h."""

    outputs = (GROUNDING,)

    def __init__(self, encoder: SentenceTransformer, heads: GroundingHeads) -> None:
        super().__init__()
        self.sentences = SentenceGraph(encoder, normalize=False)
        self.weight, self.bias = (
            nn.Buffer(torch.from_numpy(each)) for each in (heads.text.weight, heads.text.bias)
        )
        self.tanh = heads.text.tanh

    def forward(
        self, input_ids: Int[Tensor, "n l"], attention_mask: Int[Tensor, "n l"]
    ) -> tuple[Float[Tensor, "n g"]]:
        h, _ = self.sentences(input_ids, attention_mask)
        grounded = nn.functional.linear(h, self.weight, self.bias)
        return (grounded.tanh() if self.tanh else grounded,)
