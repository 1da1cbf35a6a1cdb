"""How does a program take part in a training? With callbacks, and with its own validation score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from dalr.losses import Losses


ValidationFunction = Callable[[Any], float]
"""A program's own score of the student, a SentenceTransformer, as it is now; higher is better."""


@runtime_checkable
class Callback(Protocol):
    """Is called after every optimizer step, on every rank."""

    def on_step(self, step: int, losses: Losses, metrics: Mapping[str, Any]) -> bool | None:
        """Look at a step; returning True ends the training here, as early stopping does.

        Args:
            step: optimizer steps made so far, from 1.
            losses: `losses.total` and `losses.terms` of the step, tensors on the device: `.item()` waits for it.
            metrics: what `metrics.jsonl` got in this step: means of the loss and its terms at logging steps, the
                validation score at scored steps, otherwise nothing.
        """
