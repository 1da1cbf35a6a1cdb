"""What do the heads make of a batch? The student's side of `Inputs`: all that is computed from h, image, CLIP text.

One function for every caller (our trainer, other trainers, nested dimensions), so that the objective reads the same
tensors wherever it is used.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dalr.losses.inputs import Inputs, Targets
from dalr.losses.matryoshka import leading
from dalr.models.heads import Heads


def inputs_of(heads: Heads, h_a: Tensor, h_b: Tensor, targets: Targets) -> Inputs:
    """The inputs of the objective: targets, and what `heads` make of h (n, d) of both passes."""
    image_aligned = _apply(heads.image_aligner, targets.image)
    return Inputs(
        h_a,
        h_b,
        **targets.as_fields(),
        **_of_student(heads, h_a, h_b, targets, image_aligned),
        image_grounded=_apply(heads.image_grounding, targets.image),
        candidates_grounded=_apply(heads.image_grounding, targets.candidates),
        clip_text_grounded=_apply(heads.clip_text_grounding, targets.clip_text),
        image_aligned=image_aligned,
        learned_temperatures=heads.temperatures(),
    )


def truncated_inputs(heads: Heads, inputs: Inputs, dim: int) -> Inputs:
    """Inputs as they are with the first `dim` numbers of h alone (see `losses/matryoshka.py`)."""
    if dim == inputs.h_a.shape[1]:
        return inputs
    h_a, h_b = leading(inputs.h_a, dim), leading(inputs.h_b, dim)
    return replace(inputs, h_a=h_a, h_b=h_b, **_of_student(heads, h_a, h_b, inputs, inputs.image_aligned))


def _of_student(
    heads: Heads, h_a: Tensor, h_b: Tensor, targets: Targets, image_aligned: Tensor | None
) -> dict[str, Any]:
    """The heads that read h, by field; those that compare it with images only where there are any."""
    z_a, z_b = heads.sentence_vectors(h_a), heads.sentence_vectors(h_b)
    images = targets.image is not None
    text_aligned = _apply(heads.text_aligner, z_a) if images else None
    return {
        "z_a": z_a,
        "z_b": z_b,
        "s_a": _apply(heads.text_grounding, h_a) if images else None,
        "s_b": _apply(heads.text_grounding, h_b) if images else None,
        "text_aligned": text_aligned,
        "match_logits": _match_logits(heads, text_aligned, image_aligned, targets.unmatched),
    }


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
