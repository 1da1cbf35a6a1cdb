"""How do similarity distributions serve as soft targets? T4 `cross_modal_alignment`, T6 `intra_modal_alignment`.

Temperatures decide whether these terms say anything. Fraction of the target on self, n = 64 real captions
(docs/method.md, T4): text 0.999 at τ 0.05, 0.98 at 0.1, 0.57 at 0.2, 0.09 at 0.5; images 0.93, 0.56, 0.14, 0.04.
Near 1 the term is InfoNCE again, near 1/n it is uniform; hence 0.2 for text and 0.1 for images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from dalr.losses.similarity import (
    StudentLogitFields,
    TeacherTarget,
    sentence_cosines,
    teacher_cosines,
)
from dalr.losses.term import Need, SentenceTerm, Share, Temperature, Term, given, nothing

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.losses.inputs import Inputs


class LearnableTemperature(Term):
    """A student temperature that may be trained, within bounds (CUSA: 0.45 in [0.10, 0.99])."""

    learn_temperature: bool = False
    """Train the student's temperature with the weights, as CUSA does."""
    temperature_bounds: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.02, 0.99)
    """Lowest and highest value of a trained temperature."""

    def scale(self, inputs: Inputs, fixed: float) -> Tensor | float:
        """The trained temperature of this term relative to where it started, times `fixed`."""
        if not self.learn_temperature:
            return fixed
        return given(inputs.learned_temperature) * (fixed / self.start)

    @model_validator(mode="after")
    def _start_is_inside(self) -> LearnableTemperature:
        low, high = self.temperature_bounds
        if self.learn_temperature and not low <= self.start <= high:
            raise ValueError(
                f"temperature_bounds {low:g} to {high:g} do not contain the temperature {self.start:g}"
            )
        return self

    @property
    def start(self) -> float:
        """The student temperature, where its training begins."""
        raise TypeError(f"{type(self).__name__} names no temperature to train")

    @property
    def learns_temperature(self) -> tuple[float, float, float] | None:
        return (self.start, *self.temperature_bounds) if self.learn_temperature else None


class CrossModalAlignment(StudentLogitFields, LearnableTemperature):
    """T4: ½[KL(softmax(T/τ_q) ‖ softmax(P/τ_p)) + KL(softmax(V/τ_q) ‖ softmax(Pᵀ/τ_p))].

    DALR, cross-modal alignment: P = cos(s_i, u_j), averaged over the two views, between projected features (the
    paper's figure). The release compares the sentence vector itself with the raw CLIP vector, view a only
    (`space: raw`, `views: first`), on margin-modified logits divided twice (`logit_temperature`). With
    `soft_label_mix` ρ, the consistency task's detached similarity M enters the targets:
    Q = (1 − ρ)·softmax(T/τ_q) + ρ·softmax(M/τ_q), and Mᵀ likewise in the image-to-text direction. As the targets do
    not depend on the student, the gradient is that of ListNet on the same lists.
    """

    space: Literal["grounding", "raw"] = "grounding"
    """Where sentences and images are compared: in the shared space of the grounding heads, or `raw`, as in the
    released code, the sentence vector with the image feature itself, whose dimensions must agree."""
    views: Literal["both", "first"] = "both"
    """Average the similarities of both dropout views, or take the first alone, as in the released code."""
    target: Annotated[
        Literal["within_modality", "clip"], Field(exclude_if=lambda target: target == "within_modality")
    ] = "within_modality"
    """What says how alike a sentence and the image of another are: `within_modality`, as in the paper, sentences by
    the teachers (T) and images by their features (V); `clip`, the dual encoder's own similarity of sentence and
    image, cos(c_i, v_j) and its transpose, which needs CLIP text features. CLIP's own temperature is 0.01."""
    text_target_temperature: Temperature = 0.2
    """τ_q of the target of the text-to-image direction, T: the lower, the more of the target lies on the sentence
    itself."""
    image_target_temperature: Temperature = 0.1
    """τ_q of the target of the image-to-text direction, V."""
    text_temperature: Temperature | None = None
    """τ_p, the student's temperature against the text target; null: that of the target."""
    image_temperature: Temperature | None = None
    """τ_p, the student's temperature against the image target; null: that of the target."""
    soft_label_mix: Share = 0.0
    """ρ, the fraction of each target that comes from the similarity that `consistency` learns; needs that term."""
    teacher_target: TeacherTarget = "cosines"
    """How several teachers become one target: average their `cosines`, or take the cosines of their `mean_vector`,
    as in the released code, which needs equal dimensions."""

    @property
    def start(self) -> float:
        """τ_p against the text target, which the other direction follows in proportion."""
        return self.text_temperature or self.text_target_temperature

    @property
    def needs(self) -> frozenset[Need]:
        heads = {Need.GROUNDING} if self.space == "grounding" else set()
        mix = {Need.ALIGNERS} if self.soft_label_mix > 0 else set()
        known = Need.TEACHERS if self.target == "within_modality" else Need.CLIP_TEXT
        return frozenset({Need.IMAGE, known} | heads | mix)

    def value(self, inputs: Inputs) -> Tensor:
        from dalr.losses import functional

        if len(inputs.h_a) < 2:
            return nothing(inputs)
        logits = self._logits(inputs)
        sentences, images = self._targets(inputs)
        text_target = (sentences / self.text_target_temperature).log_softmax(1)
        image_target = (images / self.image_target_temperature).log_softmax(1)
        if self.soft_label_mix > 0:
            match = self._match_similarity(inputs)
            softer_text = (match / self.text_target_temperature).log_softmax(1)
            softer_image = (match.T / self.image_target_temperature).log_softmax(1)
            text_target = functional.mix_distributions(text_target, softer_text, share=self.soft_label_mix)
            image_target = functional.mix_distributions(image_target, softer_image, share=self.soft_label_mix)
        text_scale = self.scale(inputs, self.start)
        image_scale = self.scale(inputs, self.image_temperature or self.image_target_temperature)
        to_image = functional.distribution_divergence(text_target, (logits / text_scale).log_softmax(1))
        to_text = functional.distribution_divergence(image_target, (logits.T / image_scale).log_softmax(1))
        return (to_image + to_text) / 2

    def _targets(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """T and V, or C and its transpose: what is known of each sentence beside each image, and the reverse."""
        from dalr.losses import functional

        images = given(inputs.image)
        if self.target == "clip":
            across = functional.cosine_matrix(given(inputs.clip_text), images)
            return across, across.T
        return teacher_cosines(inputs, self.teacher_target), functional.cosine_matrix(images, images)

    def _logits(self, inputs: Inputs) -> Tensor:
        """P: (n, n), text rows by image columns."""
        from dalr.losses import functional

        if self.space == "raw":
            texts, images = (inputs.z_a, inputs.z_b), given(inputs.image)
        else:
            texts, images = (given(inputs.s_a), given(inputs.s_b)), given(inputs.image_grounded)
        chosen = texts if self.views == "both" else texts[:1]
        cosines = [
            functional.angular_margin(
                functional.cosine_matrix(text, images), margin=self.margin, form=self.margin_form
            )
            for text in chosen
        ]
        return sum(cosines[1:], cosines[0]) / len(cosines) / (self.logit_temperature or 1.0)

    def _match_similarity(self, inputs: Inputs) -> Tensor:
        """M_ij = cos(text_aligner(z^a_i), image_aligner(v_j)), detached."""
        from dalr.losses import functional

        return functional.cosine_matrix(given(inputs.text_aligned), given(inputs.image_aligned)).detach()


class IntraModalAlignment(StudentLogitFields, LearnableTemperature, SentenceTerm):
    """T6: KL(softmax(T/τ_q) ‖ softmax(cos(z^a_i, z^b_j)/τ_p)) (DALR, global intra-modal alignment)."""

    target_temperature: Temperature = 0.2
    """τ_q of the text-to-text target T: the lower, the more of the target lies on the sentence itself."""
    temperature: Temperature | None = None
    """τ_p, the student's temperature; null: that of the target."""
    teacher_target: TeacherTarget = "cosines"
    """How several teachers become one target: average their `cosines`, or take the cosines of their `mean_vector`,
    as in the released code, which needs equal dimensions."""

    @property
    def start(self) -> float:
        """τ_p."""
        return self.temperature or self.target_temperature

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.TEACHERS})

    def value(self, inputs: Inputs) -> Tensor:
        from dalr.losses import functional

        if len(inputs.z_a) < 2:
            return nothing(inputs)
        target = (teacher_cosines(inputs, self.teacher_target) / self.target_temperature).log_softmax(1)
        logits = sentence_cosines(inputs, self) / (self.logit_temperature or 1.0)
        scale = self.scale(inputs, self.start)
        return functional.distribution_divergence(target, (logits / scale).log_softmax(1))
