"""What is `avg_first_last`? The mean of the first and the last layer's states in place of the last layer's.

Gao et al. (SimCSE, arXiv 2104.08821) report BERT with `avg_first_last`: with h_0 the embeddings that go into the
first layer and h_L the last layer's output, the mean over real tokens of (h_0 + h_L) / 2. The paper says "first
layer"; their code takes `hidden_states[0]`, and so do we. A pooling of the mean follows this module.
"""

from __future__ import annotations

from typing import Any

from torch import nn


class FirstAndLast(nn.Module):
    """(h_0 + h_L) / 2 as `token_embeddings`; the backbone must give all its hidden states."""

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        states = features.pop("all_layer_embeddings")
        features["token_embeddings"] = (states[0] + states[-1]) / 2
        return features
