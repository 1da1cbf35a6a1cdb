"""What is pulled together and pushed apart? T1 `infonce`, T2 `grounding`, with an angular margin on negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from dalr.losses.similarity import MarginFields, sentence_cosines
from dalr.losses.term import Need, SentenceTerm, Temperature, Term, given, nothing
from dalr.recipe.section import LEFT_OUT_IF_NONE

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.losses.inputs import Inputs


class InfoNCE(MarginFields, SentenceTerm):
    """T1: CE(A_m(cos(z^a_i, z^b_j)) / τ) on text and pair batches.

    SimCSE (Gao et al. 2021, eq. 1), m = 0; KDMCSE m = 0.15; DALR m = 0.2 (README; its scripts use 0.18). With
    `positives: same_image`, the mean of the cross-entropies to all captions of the image.
    """

    temperature: Temperature = 0.05
    """τ, which the cosines are divided by: the lower, the more the closest negatives count."""
    on_text: bool = True
    """Apply the term to text batches as well as to pair batches."""
    mask_same_image: bool = True
    """Mask out rows that share an image as negatives: their captions are false negatives of each other."""
    positives: Annotated[
        Literal["itself", "same_image"], Field(exclude_if=lambda positives: positives == "itself")
    ] = "itself"
    """What a sentence is pulled towards: `itself` under other dropout, as in SimCSE, or `same_image`, every caption
    of its image in the batch alike, itself among them, as the labels of supervised contrastive learning (Khosla et
    al. 2020, eq. 2). Batches need several captions of an image: `training.schedule.groups` or `repeat_images`."""

    @model_validator(mode="after")
    def _margin_on_negatives_alone(self) -> InfoNCE:
        if self.positives == "same_image" and self.margin > 0:
            what = "positives: same_image has no margin, which would push captions of one image apart"
            raise ValueError(f"{what}; found {self.margin:g}")
        return self

    def value(self, inputs: Inputs) -> Tensor:
        from dalr.losses import functional

        if len(inputs.z_a) < 2:
            return nothing(inputs)
        logits = sentence_cosines(inputs, self) / self.temperature
        if self.positives == "same_image" and inputs.same_image is not None:
            return functional.shared_cross_entropy(logits, positive=inputs.same_image)
        excluded = inputs.same_image if self.mask_same_image else None
        return functional.own_cross_entropy(logits, excluded=excluded)


class Grounding(MarginFields, Term):
    """T2: ½[CE(A(cos(s^a_i, u_j); Δ_ij)/τ) + the same with s^b], in the shared image–text space.

    MCSE (Zhang et al. 2022, eq. 4): no margin. KDMCSE (Nguyen et al. 2024): margin with Δ_ij = 1 − V_ij, a second
    branch against CLIP text features with Δ = max(0, 1 − cos(c_i, c_j)), and a filter of negatives by teacher
    similarity. DALR: the image branch. Rows that share an image are masked out as negatives (the released codes
    count them, although they are false negatives).
    """

    temperature: Temperature = 0.05
    """τ, which the cosines are divided by: the lower, the more the closest negatives count."""
    soft_margin: bool = True
    """Scale the margin by Δ_ij = 1 − (similarity of images i and j), so that similar images get a small one; false:
    the same margin for all negatives."""
    clip_text_branch: bool = False
    """KDMCSE's second branch: the sentence also finds its own CLIP text vector, t = tanh(W_t c + b_t)."""
    mask_same_image: bool = True
    """Mask out rows that share an image as negatives: they are false negatives."""
    candidates: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """How many images a caption is compared with: those of the batch, filled up with others of the training set
    that are drawn for each step. Their features are frozen, so no encoder runs for them. Null: the batch
    alone."""
    space: Annotated[Literal["clip"] | None, LEFT_OUT_IF_NONE] = None
    """`clip`: s = W h + b and u = v. Sentences are trained into the space of the image features, so that an
    existing index of those can be searched. Null: a space of its own, s = tanh(W h + b), u = tanh(W_v v + b_v)."""
    threshold_quantile: Annotated[float, Field(gt=0, lt=1)] | None = None
    """KDMCSE's filter of false negatives: negatives whose CLIP similarity cos(c_i, v_j) lies above this quantile of
    the batch are masked out. A quantile, because an absolute threshold depends on the scale of the model. Null: no
    filter."""

    @property
    def needs(self) -> frozenset[Need]:
        clip = {Need.CLIP_TEXT} if self.clip_text_branch or self.threshold_quantile is not None else set()
        branch = {Need.CLIP_TEXT_GROUNDING} if self.clip_text_branch else set()
        more = {Need.CANDIDATES} if self.candidates is not None else set()
        space = {Need.CLIP_SPACE} if self.space == "clip" else set()
        return frozenset({Need.IMAGE, Need.GROUNDING} | clip | branch | more | space)

    @property
    def candidate_images(self) -> int | None:
        return self.candidates

    def value(self, inputs: Inputs) -> Tensor:
        from dalr.losses import functional

        if len(inputs.h_a) < 2:
            return nothing(inputs)
        total = self._among_candidates(inputs) if self.candidates is not None else self._in_batch(inputs)
        if self.clip_text_branch:
            clip_text = given(inputs.clip_text)
            distance = (1 - functional.cosine_matrix(clip_text, clip_text)).clamp_min(0)
            total = total + self._branch(inputs, given(inputs.clip_text_grounded), distance, self._excluded(inputs))
        return total

    def _in_batch(self, inputs: Inputs) -> Tensor:
        from dalr.losses import functional

        image = given(inputs.image)
        distance = 1 - functional.cosine_matrix(image, image)
        return self._branch(inputs, given(inputs.image_grounded), distance, self._excluded(inputs))

    def _among_candidates(self, inputs: Inputs) -> Tensor:
        """Candidates are distinct images, so that none but its own is a caption's."""
        from dalr.losses import functional

        candidates, grounded = given(inputs.candidates), given(inputs.candidates_grounded)
        distance = 1 - functional.cosine_matrix(given(inputs.image), candidates)
        excluded = self._too_similar(inputs, candidates) if self.threshold_quantile is not None else None
        return self._branch(inputs, grounded, distance, excluded, own=given(inputs.own_candidate))

    def _branch(
        self, inputs: Inputs, anchors: Tensor, distance: Tensor, excluded: Tensor | None, own: Tensor | None = None
    ) -> Tensor:
        from dalr.losses import functional

        losses = []
        for grounded in (given(inputs.s_a), given(inputs.s_b)):
            cosines = functional.angular_margin(
                functional.cosine_matrix(grounded, anchors),
                margin=self.margin,
                scale=distance if self.soft_margin else None,
                form=self.margin_form,
                own=own,
            )
            losses.append(functional.own_cross_entropy(cosines / self.temperature, own=own, excluded=excluded))
        return (losses[0] + losses[1]) / 2

    def _excluded(self, inputs: Inputs) -> Tensor | None:
        """Negatives of the batch that take no part: (n, n) bool or None."""
        excluded = inputs.same_image if self.mask_same_image else None
        if self.threshold_quantile is None:
            return excluded
        high = self._too_similar(inputs, given(inputs.image))
        return high if excluded is None else excluded | high

    def _too_similar(self, inputs: Inputs, images: Tensor) -> Tensor:
        """cos(c_i, v_j) above the quantile of the batch's pairs: (n, m) bool."""
        from dalr.losses import functional

        clip_text = given(inputs.clip_text)
        of_batch = functional.cosine_matrix(clip_text, given(inputs.image))
        level = functional.off_diagonal(of_batch).quantile(given(self.threshold_quantile))
        high: Tensor = functional.cosine_matrix(clip_text, images) > level
        return high
