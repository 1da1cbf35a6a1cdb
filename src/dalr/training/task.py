"""`TrainingTask`: student, heads and objective in one module.

With everything that is trained in one place, clipping, autocast, DDP, saving and resume cover all of it by
construction. The student runs once over the batch repeated twice (two dropout views), over real tokens only and
in bf16 where that pays; heads and objective are fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dalr.models.dropout import use_bit_dropout
from dalr.models.heads import Heads
from dalr.models.packing import Layout, sentence_vectors
from dalr.models.token_teacher import TokenTeacher
from dalr.models.viewing import at_width, seen_through
from dalr.objectives import Losses, Objective
from dalr.objectives.views import Views
from dalr.objectives.widths import Widths
from dalr.training.batches import Batch, TokenBatch

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
        teacher_weights: tuple[float, ...],
        token_teachers: tuple[TokenTeacher, ...] = (),
        precision: Precision = "fp32",
        layout: Layout = "padded",
        widths: Widths | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.heads = heads
        self.objective = objective
        self.teacher_weights = teacher_weights
        self.token_teachers = token_teachers
        """A tuple, so that frozen teachers are no part of this module's state."""
        self.precision = precision
        self.layout = layout
        self.widths = widths
        use_bit_dropout(student)
        _freeze_pooler(student)

    def forward(self, batch: Batch) -> Losses:
        return self.losses(batch, *self.two_passes(batch.tokens))

    def losses(self, batch: Batch, h_a: Float[Tensor, "n d"], h_b: Float[Tensor, "n d"]) -> Losses:
        """The objective on the student's vectors of all rows of the batch."""
        views = self.views(batch, h_a, h_b)
        if self.widths is None:
            return self.objective(views, batch.kind)
        several = [at_width(self.heads, views, width) for width in self.widths.dimensions]
        return self.widths.averaged([self.objective(each, batch.kind) for each in several])

    def views(self, batch: Batch, h_a: Float[Tensor, "n d"], h_b: Float[Tensor, "n d"]) -> Views:
        """Run the heads that this batch's terms read."""
        views = Views(
            h_a=h_a,
            h_b=h_b,
            z_a=h_a,
            z_b=h_b,
            tie_order=batch.tie_order,
            image=batch.image,
            candidates=batch.candidates,
            own_candidate=batch.own_candidate,
            same_image=batch.same_image,
            clip_text=batch.clip_text,
            unmatched=batch.unmatched,
            teachers=batch.teachers,
            teacher_weights=self.teacher_weights if batch.teachers else (),
            teacher_tokens=tuple(
                teacher(tokens.ids, tokens.mask)
                for teacher, tokens in zip(self.token_teachers, batch.teacher_tokens, strict=False)
            ),
        )
        return seen_through(self.heads, views)

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
