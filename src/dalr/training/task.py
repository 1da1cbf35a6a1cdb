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
from dalr.objectives import Losses, Objective
from dalr.objectives.views import Views
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
        use_bit_dropout(student)
        _freeze_pooler(student)

    def forward(self, batch: Batch) -> Losses:
        return self.losses(batch, *self.two_passes(batch.tokens))

    def losses(self, batch: Batch, h_a: Float[Tensor, "n d"], h_b: Float[Tensor, "n d"]) -> Losses:
        """The objective on the student's vectors of all rows of the batch."""
        return self.objective(self.views(batch, h_a, h_b), batch.kind)

    def views(self, batch: Batch, h_a: Float[Tensor, "n d"], h_b: Float[Tensor, "n d"]) -> Views:
        """Run the heads that this batch's terms read."""
        heads = self.heads
        z_a, z_b = heads.sentence_vectors(h_a), heads.sentence_vectors(h_b)
        image, clip_text = batch.image, batch.clip_text
        pair = batch.kind == "pair"
        text_aligned = _apply(heads.text_aligner, z_a) if pair else None
        image_aligned = _apply(heads.image_aligner, image)
        return Views(
            h_a=h_a,
            h_b=h_b,
            z_a=z_a,
            z_b=z_b,
            tie_order=batch.tie_order,
            s_a=_apply(heads.text_grounding, h_a) if pair else None,
            s_b=_apply(heads.text_grounding, h_b) if pair else None,
            image=image,
            image_grounded=_apply(heads.image_grounding, image),
            same_image=batch.same_image,
            clip_text=clip_text,
            clip_text_grounded=_apply(heads.clip_text_grounding, clip_text),
            text_aligned=text_aligned,
            image_aligned=image_aligned,
            unmatched=batch.unmatched,
            match_logits=self._match_logits(text_aligned, image_aligned, batch.unmatched),
            teachers=batch.teachers,
            teacher_weights=self.teacher_weights if batch.teachers else (),
            teacher_tokens=tuple(
                teacher(tokens.ids, tokens.mask)
                for teacher, tokens in zip(self.token_teachers, batch.teacher_tokens, strict=False)
            ),
            learned_temperatures=heads.temperatures(),
        )

    def two_passes(self, tokens: TokenBatch) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """h^a and h^b from one forward over the tokens repeated twice, in fp32."""
        ids, mask, lengths = tokens.ids.repeat(2, 1), tokens.mask.repeat(2, 1), tokens.lengths * 2
        with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            vectors = sentence_vectors(self.student, ids, mask, lengths=lengths, layout=self.layout)
        first, second = vectors.to(self.dtype).chunk(2)
        return first, second

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters, in which heads and objective are computed."""
        return next(self.student.parameters()).dtype

    def _match_logits(self, text: Tensor | None, image: Tensor | None, unmatched: Tensor | None) -> Tensor | None:
        if self.heads.match_classifier is None or text is None or image is None or unmatched is None:
            return None
        return self.heads.match_logits(torch.cat([text, text]), torch.cat([image, image[unmatched]]))


def _apply(head: nn.Module | None, x: Tensor | None) -> Tensor | None:
    if head is None or x is None:
        return None
    result: Tensor = head(x)
    return result


def _freeze_pooler(student: SentenceTransformer) -> None:
    """BERT's own pooler is loaded with the encoder but read by nobody: no gradient, no optimizer state."""
    pooler = getattr(student.transformers_model, "pooler", None)
    if isinstance(pooler, nn.Module):
        pooler.requires_grad_(False)
