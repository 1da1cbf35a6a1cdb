"""What is pulled together and pushed apart? T1 `infonce`, T2 `grounding`, with an angular margin on negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from dalr.losses.similarity import MarginFields, sentence_cosines
from dalr.losses.term import Need, SentenceTerm, Temperature, Term, given, nothing

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.losses.inputs import Inputs


class InfoNCE(MarginFields, SentenceTerm):
    """T1: CE(A_m(cos(z^a_i, z^b_j)) / τ) on text and pair batches.

    SimCSE (Gao et al. 2021, eq. 1), m = 0; KDMCSE m = 0.15; DALR m = 0.2 (README; its scripts use 0.18).
    """

    temperature: Temperature = 0.05
    on_text: bool = True
    mask_same_image: bool = True
    """Rows that share an image are masked out as negatives."""

    def value(self, inputs: Inputs) -> Tensor:
        from dalr.losses import functional

        if len(inputs.z_a) < 2:
            return nothing(inputs)
        logits = sentence_cosines(inputs, self) / self.temperature
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
    soft_margin: bool = True
    """Δ_ij = 1 − (teacher similarity of i and j); false: Δ = 1."""
    clip_text_branch: bool = False
    """KDMCSE's second branch, against t = tanh(W_t c + b_t)."""
    mask_same_image: bool = True
    candidates: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """Images that a caption finds its own among: those of the batch, and others of the training set up to this
    number, drawn for each step. Frozen features make them free of an encoder: one product more. None: the batch."""
    threshold_quantile: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Drop negatives whose cos(c_i, v_j) lies above this quantile of the batch (KDMCSE's filter; its absolute
    threshold only means something on a known scale)."""

    @property
    def needs(self) -> frozenset[Need]:
        clip = {Need.CLIP_TEXT} if self.clip_text_branch or self.threshold_quantile is not None else set()
        branch = {Need.CLIP_TEXT_GROUNDING} if self.clip_text_branch else set()
        more = {Need.CANDIDATES} if self.candidates is not None else set()
        return frozenset({Need.IMAGE, Need.GROUNDING} | clip | branch | more)

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
