"""What is a term of the objective? Frozen hyper-parameters, what it needs, and a pure call on the inputs.

No parameters, no device calls, no `.item()`, no random numbers. The fields are the recipe keys. Weighting,
reduction over terms and logging happen once, around the terms (`objective.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field

from dalr.recipe.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.losses.inputs import Inputs

T = TypeVar("T")
BatchKind = Literal["text", "pair"]
Temperature = Annotated[float, Field(gt=0, le=10)]
Margin = Annotated[float, Field(ge=0, lt=3.15)]
Share = Annotated[float, Field(ge=0, le=1)]


class Need(StrEnum):
    """An input that a term reads beyond the two student views (`FIELDS`: where `Inputs` has it)."""

    IMAGE = "image features"
    CANDIDATES = "candidate images"
    CLIP_TEXT = "CLIP text features"
    GROUNDING = "grounding heads"
    CLIP_SPACE = "a text head into the image features' own space"
    CLIP_TEXT_GROUNDING = "CLIP text grounding head"
    ALIGNERS = "aligners"
    MATCH_CLASSIFIER = "match classifier"
    TEACHERS = "teachers"
    TEACHER_TOKENS = "teacher token states"


FIELDS: Mapping[Need, tuple[str, ...]] = {
    Need.IMAGE: ("image",),
    Need.CANDIDATES: ("candidates", "own_candidate", "candidates_grounded"),
    Need.CLIP_TEXT: ("clip_text",),
    Need.GROUNDING: ("s_a", "s_b", "image_grounded"),
    Need.CLIP_SPACE: (),  # which heads there are, and no field of its own
    Need.CLIP_TEXT_GROUNDING: ("clip_text_grounded",),
    Need.ALIGNERS: ("text_aligned", "image_aligned"),
    Need.MATCH_CLASSIFIER: (),  # no logits where a batch has no unmatched pairs
    Need.TEACHERS: ("teachers",),
    Need.TEACHER_TOKENS: ("teacher_tokens",),
}
"""The fields of `Inputs` in which a need is met."""


class Term(Section):
    """Base of all terms."""

    weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the term in the total loss; 0 switches the term off. Weights are absolute: nothing else multiplies
    them."""

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

    @property
    def candidate_images(self) -> int | None:
        """Distinct images that the captions of a batch are compared with; None: those of the batch."""
        return None

    def __call__(self, inputs: Inputs) -> Tensor:
        """The value of the term, a scalar tensor: in fp32 (or fp64) whatever the autocast around it.

        Raises:
            ValueError: the inputs lack what the term needs.
        """
        import torch

        for need in self.needs:
            if missing := [name for name in FIELDS[need] if _is_absent(getattr(inputs, name))]:
                what = f"{type(self).__name__} needs {need}, but these inputs have no {', '.join(missing)}"
                raise ValueError(what)
        with torch.autocast(inputs.h_a.device.type, enabled=False):
            return self.value(inputs.at_least_fp32())

    def value(self, inputs: Inputs) -> Tensor:
        """The arithmetic of the term. (`inputs` is flat: `inputs.h_a`, `inputs.image`, `inputs.teachers`, …)"""
        raise TypeError(f"{type(self).__name__} has no arithmetic")


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, tuple) and not value)


class SentenceTerm(Term):
    """A term that needs no image, so that a recipe may also apply it to text batches."""

    on_text: bool = False
    """Apply the term to text batches as well as to pair batches."""

    def applies_to(self, kind: BatchKind) -> bool:
        return kind == "pair" or self.on_text


def given(value: T | None) -> T:
    """An optional input that a term has declared as a need, so that it is there (`Term.__call__` has looked)."""
    if value is None:
        raise ValueError("a term reads an input that it does not declare in `needs`")
    return value


def nothing(inputs: Inputs) -> Tensor:
    """0 with zero gradient, for a term that has nothing to compare in this batch."""
    return (inputs.z_a * 0).sum()
