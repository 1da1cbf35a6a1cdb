"""How is one step computed? Forward and backward at once, or with gradient caching in mini-batches.

Gradient caching (Gao et al. 2021, *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*) keeps
the activations of one mini-batch at a time: sentence vectors of all rows first, without a graph; then the objective
on all of them, whose gradient with respect to the vectors is kept; then each mini-batch again, with a graph, from
its part of that gradient. The price is one more forward of the student. Heads and objective see the whole batch
once, so that their gradients are counted once. Dropout is drawn from (seed, step, rank, mini-batch), which is how
the second pass gets the views of the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dalr.losses import Losses
from dalr.seed import derive_seed
from dalr.training.averaging import GradientAverage
from dalr.training.batch import Batch, TokenBatch
from dalr.training.distributed import Ranks
from dalr.training.module import TrainingTask


@dataclass(frozen=True, kw_only=True)
class Step:
    """How the gradient of a batch is computed."""

    task: TrainingTask
    ranks: Ranks
    gather: bool
    """Sentence vectors of all ranks meet in the objective."""
    mini_batch_size: int | None
    """Rows of this rank that go through the student at a time; None takes all."""
    seed: int
    overlap: bool = True
    """Average gradients during the backward, where there is one; otherwise after it."""

    @cached_property
    def average(self) -> GradientAverage:
        """What makes means over the ranks of the gradients."""
        parameters = self.task.parameters()
        return GradientAverage(parameters, world=self.ranks.world, same_graph=self.gather, overlap=self.overlap)

    def gradients(self, batch: Batch, *, norms: bool = False) -> Losses:
        """Give every parameter its gradient of the loss of `batch`, averaged over the ranks; returns the losses.

        With `norms`, they have the gradient norm of each term.
        """
        tokens = batch.tokens
        whole = self.mini_batch_size is None or len(tokens.ids) <= self.mini_batch_size
        with self.average.over_ranks(batch.kind, one_backward=whole):
            return self._at_once(batch, norms) if whole else self._cached(batch, norms)

    def _at_once(self, batch: Batch, norms: bool) -> Losses:
        losses = self._losses(batch, *self._encode(batch, batch.tokens, 0), norms)
        _backward(losses.total)
        return losses

    def _cached(self, batch: Batch, norms: bool) -> Losses:
        assert self.mini_batch_size is not None
        parts = batch.tokens.split(self.mini_batch_size)
        with torch.no_grad():
            vectors = [self._encode(batch, part, number) for number, part in enumerate(parts)]
        h_a, h_b = (torch.cat(view).requires_grad_() for view in zip(*vectors, strict=True))
        losses = self._losses(batch, h_a, h_b, norms)
        _backward(losses.total)
        assert h_a.grad is not None
        assert h_b.grad is not None
        cached = zip(*(torch.split(each, self.mini_batch_size) for each in (h_a.grad, h_b.grad)), strict=True)
        for number, (part, gradients) in enumerate(zip(parts, cached, strict=True)):
            _backward(self._encode(batch, part, number), gradients)
        return losses

    def _encode(self, batch: Batch, tokens: TokenBatch, part: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(derive_seed(self.seed, "dropout", batch.step, self.ranks.rank, part))
        return self.task.two_passes(tokens)

    def _losses(self, batch: Batch, h_a: Tensor, h_b: Tensor, norms: bool) -> Losses:
        if self.gather:
            h_a, h_b = self.ranks.gather(h_a), self.ranks.gather(h_b)
        losses = self.task.losses(batch, h_a, h_b)
        if not norms:
            return losses
        return replace(losses, gradient_norms=self.task.objective.gradient_norms(losses, h_a, h_b))


def _backward(outputs: Tensor | tuple[Tensor, ...], gradients: tuple[Tensor, ...] | None = None) -> None:
    torch.autograd.backward(outputs, gradients)
