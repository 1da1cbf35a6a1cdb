"""What a term of the objective is: frozen hyper-parameters, what it needs, and a call on the views.

No parameters, no device calls, no `.item()`, no random numbers. The fields are the recipe keys. Weighting,
reduction over terms and logging happen once, around the terms (`objective.py`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dalr.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.objectives.views import Views

BatchKind = Literal["text", "pair"]
Temperature = Annotated[float, Field(gt=0, le=10)]
Margin = Annotated[float, Field(ge=0, lt=3.15)]
Share = Annotated[float, Field(ge=0, le=1)]


class Need(StrEnum):
    """An input that a term reads beyond the two student views."""

    IMAGE = "image features"
    CANDIDATES = "candidate images"
    CLIP_TEXT = "CLIP text features"
    GROUNDING = "grounding heads"
    CLIP_TEXT_GROUNDING = "CLIP text grounding head"
    ALIGNERS = "aligners"
    MATCH_CLASSIFIER = "match classifier"
    TEACHERS = "teachers"
    TEACHER_TOKENS = "teacher token states"


class Term(Section):
    """Base of all terms."""

    weight: Annotated[float, Field(ge=0)] = 1.0
    """Absolute weight in the sum; 0 switches the term off."""

    def applies_to(self, kind: BatchKind) -> bool:
        """Whether batches of this kind have the term; every term applies to pair batches."""
        return kind == "pair"

    @property
    def needs(self) -> frozenset[Need]:
        """What the term reads beyond the two student views."""
        return frozenset()

    @property
    def learns_temperature(self) -> tuple[float, float, float] | None:
        """(start, lowest, highest) of a trained student temperature, or None."""
        return None

    def __call__(self, views: Views) -> Tensor:
        """The value of the term, a scalar tensor: in fp32 (or fp64) whatever the autocast around it."""
        import torch

        with torch.autocast(views.h_a.device.type, enabled=False):
            return self.value(views.at_least_fp32())

    def value(self, views: Views) -> Tensor:
        """The arithmetic of the term."""
        raise TypeError(f"{type(self).__name__} has no arithmetic")


class SentenceTerm(Term):
    """A term that needs no image, so that a recipe may also apply it to text batches."""

    on_text: bool = False

    def applies_to(self, kind: BatchKind) -> bool:
        return kind == "pair" or self.on_text


def nothing(views: Views) -> Tensor:
    """0 with zero gradient, for a term that has nothing to compare in this batch."""
    return (views.z_a * 0).sum()
