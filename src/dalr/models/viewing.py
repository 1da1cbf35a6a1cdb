"""What the heads see: the views of a batch completed with all that is computed from h, image and CLIP text.

One function for every caller (our trainer, other trainers, other widths), so that the objective reads the same
tensors wherever it is used.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from dalr.models.heads import Heads
from dalr.objectives.views import Views
from dalr.objectives.widths import leading


def seen_through(heads: Heads, views: Views) -> Views:
    """`views`, of which h_a, h_b and the frozen vectors are read, with everything that `heads` give of them."""
    frozen = replace(
        views,
        image_grounded=_apply(heads.image_grounding, views.image),
        candidates_grounded=_apply(heads.image_grounding, views.candidates),
        clip_text_grounded=_apply(heads.clip_text_grounding, views.clip_text),
        image_aligned=_apply(heads.image_aligner, views.image),
        learned_temperatures=heads.temperatures(),
    )
    return _of_student(heads, frozen)


def at_width(heads: Heads, views: Views, width: int) -> Views:
    """Completed views as they are with the first `width` numbers of h alone (see `objectives/widths.py`)."""
    if width == views.h_a.shape[1]:
        return views
    return _of_student(heads, replace(views, h_a=leading(views.h_a, width), h_b=leading(views.h_b, width)))


def _of_student(heads: Heads, views: Views) -> Views:
    """The heads that read h; those that compare it with pictures only where there are any."""
    z_a, z_b = heads.sentence_vectors(views.h_a), heads.sentence_vectors(views.h_b)
    pictures = views.image is not None
    text_aligned = _apply(heads.text_aligner, z_a) if pictures else None
    return replace(
        views,
        z_a=z_a,
        z_b=z_b,
        s_a=_apply(heads.text_grounding, views.h_a) if pictures else None,
        s_b=_apply(heads.text_grounding, views.h_b) if pictures else None,
        text_aligned=text_aligned,
        match_logits=_match_logits(heads, text_aligned, views.image_aligned, views.unmatched),
    )


def _match_logits(
    heads: Heads, text: Tensor | None, image: Tensor | None, unmatched: Tensor | None
) -> Tensor | None:
    if heads.match_classifier is None or text is None or image is None or unmatched is None:
        return None
    return heads.match_logits(torch.cat([text, text]), torch.cat([image, image[unmatched]]))


def _apply(head: nn.Module | None, x: Tensor | None) -> Tensor | None:
    if head is None or x is None:
        return None
    result: Tensor = head(x)
    return result
