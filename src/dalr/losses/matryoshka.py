"""How is an objective trained at several embedding dimensions, so that the first k numbers are a vector themselves?

Matryoshka representation learning (Kusupati et al. 2022, arXiv 2205.13147): the loss at every nested dimension,
weighted and averaged. What is truncated is h, the vector that is exported: at dimension k, h^a and h^b are 0 from
index k on, and whatever the heads make of h (z, s, the aligned text, the match logits) is computed again from that.
So every term at dimension k is a function of the first k numbers of h alone, there is one set of heads of one
shape, and a cosine of two such vectors is the cosine of their first k numbers. Teachers and image features are
never truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.losses.objective import Losses


@dataclass(frozen=True, kw_only=True)
class Matryoshka:
    """The dimensions that are trained, and their weights in the loss."""

    dims: tuple[int, ...]
    weights: tuple[float, ...]
    """One per dimension; they add up to 1."""

    def averaged(self, losses: Sequence[Losses]) -> Losses:
        """One loss of those at each dimension, in the order of `dims`: total and terms are weighted means."""
        from dalr.losses.objective import Losses

        return Losses(
            total=self._mean([each.total for each in losses]),
            terms={name: self._mean([each.terms[name] for each in losses]) for name in losses[0].terms},
        )

    def _mean(self, values: Sequence[Tensor]) -> Tensor:
        weighted = [weight * value for weight, value in zip(self.weights, values, strict=True)]
        return sum(weighted[1:], weighted[0])


def make_matryoshka(dims: Sequence[int], weights: Sequence[float] | None = None) -> Matryoshka | None:
    """Dimensions with weights relative to each other (None: all equal); None without dimensions.

    Raises:
        ValueError: not one weight per dimension.
    """
    if not dims:
        return None
    relative = tuple(weights) if weights is not None else (1.0,) * len(dims)
    if len(relative) != len(dims):
        raise ValueError(f"{len(relative)} weights for {len(dims)} dimensions")
    return Matryoshka(dims=tuple(dims), weights=tuple(weight / sum(relative) for weight in relative))


def leading(h: Tensor, dim: int) -> Tensor:
    """h with its numbers from index `dim` on set to 0: (n, d), the same tensor where nothing is truncated."""
    if dim == h.shape[1]:
        return h
    import torch

    return torch.nn.functional.pad(h[:, :dim], (0, h.shape[1] - dim))
