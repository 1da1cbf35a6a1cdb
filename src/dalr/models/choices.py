"""Which values two options of the command line may have; apart, so that `dalr --help` imports nothing heavy."""

from __future__ import annotations

from typing import Literal

PoolingMode = Literal["cls", "mean"]
HeadChoice = Literal["drop", "keep"]
"""What an import does with a trained sentence head."""
