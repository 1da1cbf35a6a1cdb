"""What is trained? `TrainingTask`: student, heads and objective in one module.

With everything that is trained in one place, clipping, autocast, DDP, saving and resume cover all of it by
construction. The student runs once over the batch repeated twice (two dropout views), over real tokens only and
in bf16 where that pays; heads and objective are fp32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dalr.losses import Losses, Objective
from dalr.losses.inputs import Inputs
from dalr.losses.matryoshka import Matryoshka
from dalr.models.dropout import use_bit_dropout
from dalr.models.heads import Heads
from dalr.models.outputs import inputs_of, truncated_inputs
from dalr.models.packing import Layout, sentence_vectors
from dalr.models.token_teacher import TokenTeacher
from dalr.training.batch import Batch, TokenBatch

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Precision = Literal["fp32", "bf16"]


class TrainingTask(nn.Module):
    """A batch in, the losses of the objective out."""

    def __init__(
        self,
        *,
        student: SentenceTransformer,
        heads: Heads,
        objective: Objective,
        token_teachers: tuple[TokenTeacher, ...] = (),
        precision: Precision = "fp32",
        layout: Layout = "padded",
        matryoshka: Matryoshka | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.heads = heads
        self.objective = objective
        self.token_teachers = token_teachers
        """A tuple, so that frozen teachers are no part of this module's state."""
        self.precision = precision
        self.layout = layout
        self.matryoshka = matryoshka
        use_bit_dropout(student)
        _freeze_pooler(student)

    def forward(self, batch: Batch) -> Losses:
        return self.losses(batch, *self.two_passes(batch.tokens))

    def losses(self, batch: Batch, h_a: Float[Tensor, "n d"], h_b: Float[Tensor, "n d"]) -> Losses:
        """The objective on the student's vectors of all rows of the batch."""
        inputs = self.inputs(batch, h_a, h_b)
        if self.matryoshka is None:
            return self.objective(inputs, batch.kind)
        several = [truncated_inputs(self.heads, inputs, dim) for dim in self.matryoshka.dims]
        return self.matryoshka.averaged([self.objective(each, batch.kind) for each in several])

    def inputs(self, batch: Batch, h_a: Float[Tensor, "n d"], h_b: Float[Tensor, "n d"]) -> Inputs:
        """What the terms read of this batch: its targets, and what the heads make of the student's vectors."""
        targets = batch.targets
        if self.token_teachers and batch.teacher_tokens:
            states = [
                teacher(tokens.ids, tokens.mask)
                for teacher, tokens in zip(self.token_teachers, batch.teacher_tokens, strict=True)
            ]
            targets = replace(targets, teacher_tokens=tuple(states))
        return inputs_of(self.heads, h_a, h_b, targets)

    def two_passes(self, tokens: TokenBatch) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """h^a and h^b from one forward over the tokens repeated twice, in fp32."""
        ids, mask, lengths = tokens.ids.repeat(2, 1), tokens.mask.repeat(2, 1), tokens.lengths * 2
        half = torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")
        with half:
            vectors = sentence_vectors(self.student, ids, mask, lengths=lengths, layout=self.layout)
        first, second = vectors.to(self.dtype).chunk(2)
        return first, second

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters, in which heads and objective are computed."""
        return next(self.student.parameters()).dtype


def _freeze_pooler(student: SentenceTransformer) -> None:
    """BERT's own pooler is loaded with the encoder but read by nobody: no gradient, no optimizer state."""
    pooler = getattr(student.transformers_model, "pooler", None)
    if isinstance(pooler, nn.Module):
        pooler.requires_grad_(False)
