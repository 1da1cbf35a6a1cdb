"""`Views`: every tensor that a term of the objective may read, with its shape.

Terms are pure functions of this one value. What is random in them (the derangement of the match task, the order
among ties) is a field, drawn from (seed, step) and equal on all ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class TeacherTokens:
    """Last hidden states of one online teacher for the batch."""

    states: Float[Tensor, "n l d"]
    mask: Bool[Tensor, "n l"]
    """Real tokens (padding and the leading CLS are not)."""
    weight: float


@dataclass(frozen=True, kw_only=True)
class Views:
    """One batch as the objective sees it. Absent inputs are None or empty; `method.md` names the symbols."""

    h_a: Float[Tensor, "n d"]
    """Pooled student output of the first dropout pass."""
    h_b: Float[Tensor, "n d"]
    """The same of the second pass."""
    z_a: Float[Tensor, "n z"]
    """Sentence head of h_a (h_a itself without a head)."""
    z_b: Float[Tensor, "n z"]
    tie_order: Int[Tensor, " n"]
    """A random permutation of the rows: the order among ties."""

    s_a: Float[Tensor, "n g"] | None = None
    """Text grounding head of h_a."""
    s_b: Float[Tensor, "n g"] | None = None
    image: Float[Tensor, "n w"] | None = None
    """v: frozen image feature of the paired image."""
    image_grounded: Float[Tensor, "n g"] | None = None
    """u: image grounding head of v."""
    candidates: Float[Tensor, "k w"] | None = None
    """Frozen features of distinct images, those of the batch among them."""
    candidates_grounded: Float[Tensor, "k g"] | None = None
    """Image grounding head of `candidates`."""
    own_candidate: Int[Tensor, " n"] | None = None
    """The candidate that is the image of a row."""
    same_image: Bool[Tensor, "n n"] | None = None
    """Rows that share an image; the diagonal is true."""
    clip_text: Float[Tensor, "n c"] | None = None
    """c: frozen CLIP text feature of the caption."""
    clip_text_grounded: Float[Tensor, "n g"] | None = None
    """t: CLIP-text grounding head of c."""
    text_aligned: Float[Tensor, "n a"] | None = None
    """Text aligner of z_a."""
    image_aligned: Float[Tensor, "n a"] | None = None
    """Image aligner of v."""
    unmatched: Int[Tensor, " n"] | None = None
    """π: a derangement that avoids the same image; None where none exists."""
    match_logits: Float[Tensor, "m 2"] | None = None
    """Match classifier on the matched pairs, then on the unmatched ones (column 1: match)."""
    teachers: tuple[Float[Tensor, "n _"], ...] = ()
    """e^(k): sentence vectors of the frozen teachers."""
    teacher_weights: tuple[float, ...] = ()
    """α_k."""
    teacher_tokens: tuple[TeacherTokens, ...] = ()
    learned_temperatures: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Student temperatures that are trained, by term."""

    def at_least_fp32(self) -> Views:
        """These views with tensors of half precision in fp32; the same object where there are none."""
        halves = {item.name: _widened(getattr(self, item.name)) for item in fields(self)}
        changed = {name: value for name, value in halves.items() if value is not getattr(self, name)}
        return replace(self, **changed) if changed else self


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALVES else value
    if isinstance(value, TeacherTokens):
        return replace(value, states=value.states.float()) if value.states.dtype in _HALVES else value
    if isinstance(value, tuple):
        wide = tuple(_widened(item) for item in value)
        return wide if any(new is not old for new, old in zip(wide, value, strict=True)) else value
    return value
