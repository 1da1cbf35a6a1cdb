"""An objective at several widths of the sentence vector, so that its first k numbers are a vector themselves.

Matryoshka representation learning (Kusupati et al. 2022, arXiv 2205.13147): the loss of every nested width,
weighted and averaged. What is cut is h, the vector that is exported: at width k, h^a and h^b are 0 from place k on,
and whatever the heads make of h (z, s, the aligned text, the match logits) is made anew from that. So every term
at width k is a function of the first k numbers of h alone, the heads stay one set with one shape, and a cosine of
two such vectors is the cosine of their first k numbers. Teachers and image features are never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.losses.objective import Losses


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Widths that are trained, and their shares of the loss."""

    dimensions: tuple[int, ...]
    weights: tuple[float, ...]
    """One a width; they add up to 1."""

    def averaged(self, losses: Sequence[Losses]) -> Losses:
        """One loss of those of the widths, in the order of `dimensions`: total and terms are weighted means."""
        from dalr.losses.objective import Losses

        return Losses(
            total=self._mean([each.total for each in losses]),
            terms={name: self._mean([each.terms[name] for each in losses]) for name in losses[0].terms},
        )

    def _mean(self, values: Sequence[Tensor]) -> Tensor:
        weighted = [weight * value for weight, value in zip(self.weights, values, strict=True)]
        return sum(weighted[1:], weighted[0])


def make_widths(dimensions: Sequence[int], weights: Sequence[float] | None = None) -> Widths | None:
    """Widths with weights relative to each other (None: all equal); None without dimensions.

    Raises:
        ValueError: not one weight a width.
    """
    if not dimensions:
        return None
    relative = tuple(weights) if weights is not None else (1.0,) * len(dimensions)
    if len(relative) != len(dimensions):
        raise ValueError(f"{len(relative)} weights for {len(dimensions)} dimensions")
    return Widths(dimensions=tuple(dimensions), weights=tuple(weight / sum(relative) for weight in relative))


def leading(h: Tensor, width: int) -> Tensor:
    """h with its numbers from place `width` on set to 0: (n, d), the same tensor where nothing is cut."""
    if width == h.shape[1]:
        return h
    import torch

    return torch.nn.functional.pad(h[:, :width], (0, h.shape[1] - width))
