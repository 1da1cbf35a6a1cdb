"""When does training stop early? After so many scores in a row without a gain."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dalr.training.config import ValidationConfig


@dataclass(kw_only=True)
class Patience:
    """Counts scores without a gain of more than `min_delta` over the last score that was one."""

    allowed: int | None
    """None: without end."""
    min_delta: float = 0.0
    reference: float | None = None
    without_gain: int = 0

    def see(self, score: float | None) -> None:
        """Take note of a score; one that is missing or not finite is no gain."""
        gained = score is not None and math.isfinite(score)
        if score is not None and gained and self.reference is not None:
            gained = score > self.reference + self.min_delta
        if gained:
            self.reference, self.without_gain = score, 0
        else:
            self.without_gain += 1

    @property
    def exhausted(self) -> bool:
        return self.allowed is not None and self.without_gain >= self.allowed


def make_patience(
    config: ValidationConfig | None, *, reference: float | None = None, without_gain: int = 0
) -> Patience:
    """The patience of a recipe, new or as it was left; endless without validation scores."""
    if config is None:
        return Patience(allowed=None)
    return Patience(
        allowed=config.patience, min_delta=config.min_delta, reference=reference, without_gain=without_gain
    )
