"""Which similarity matrices do several terms share? Student to student, teacher to teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dalr.losses.term import Margin
from dalr.recipe.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.losses.inputs import Inputs

TeacherTarget = Literal["cosines", "mean_vector"]


class MarginFields(Section):
    """The angular margin on negatives, as the recipe states it."""

    margin: Margin = 0.0
    """m; 0 is no margin."""
    margin_form: Literal["continuous", "jump"] = "continuous"
    """`jump` is the released form, discontinuous at θ = m (method.md, T1)."""


class StudentLogitFields(MarginFields):
    """How a ranking or alignment term turns student cosines into logits, before its own temperature."""

    logit_temperature: Annotated[float, Field(gt=0)] | None = None
    """The release divides by 0.05 before it divides by the term's temperature; None divides once."""


def sentence_cosines(inputs: Inputs, fields: MarginFields) -> Tensor:
    """A_m(cos(z^a_i, z^b_j)): (n, n)."""
    from dalr.losses import functional

    cosines = functional.cosine_matrix(inputs.z_a, inputs.z_b)
    return functional.angular_margin(cosines, margin=fields.margin, form=fields.margin_form)


def teacher_cosines(inputs: Inputs, target: TeacherTarget = "cosines") -> Tensor:
    """T = Σ_k α_k cos(e^(k)_i, e^(k)_j): (n, n). Cosines are averaged, because the spaces have nothing in common.

    `mean_vector` is the release: the cosine matrix of Σ_k α_k e^(k), which needs equal dimensions.
    """
    from dalr.losses import functional

    weighted = list(zip(inputs.teacher_weights, inputs.teachers, strict=True))
    if target == "mean_vector":
        mean = sum((weight * vectors for weight, vectors in weighted[1:]), weighted[0][0] * weighted[0][1])
        return functional.cosine_matrix(mean, mean)
    matrices = [weight * functional.cosine_matrix(vectors, vectors) for weight, vectors in weighted]
    return sum(matrices[1:], matrices[0])
