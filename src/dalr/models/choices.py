"""Which values may options have? Apart from their owners, so that `dalr --help` imports nothing heavy."""

from __future__ import annotations

from typing import Literal

PoolingMode = Literal["cls", "mean", "last", "avg_first_last"]
"""`last` is the last token's state, the one that has seen the whole sentence in a causal model. `avg_first_last` is
the mean over tokens of (h_0 + h_L) / 2, embeddings and last layer, as SimCSE scores its BERT baseline."""
HeadChoice = Literal["drop", "keep"]
"""What an import does with a trained sentence head."""
ImportMethod = Literal["simcse", "simcse-supervised", "rankcse", "diffcse", "mcse", "kdmcse", "dalr"]
"""Methods whose published checkpoints are imported."""
ComputePrecision = Literal["fp32", "bf16"]
"""What a frozen model computes in; its vectors are fp32 in any case."""
