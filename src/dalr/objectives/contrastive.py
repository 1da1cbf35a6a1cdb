"""T1 `infonce` and T2 `grounding`: the two contrastive terms, with the angular margin on negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from dalr.objectives.similarity import MarginFields, sentence_cosines
from dalr.objectives.term import Need, SentenceTerm, Temperature, Term, nothing

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.objectives.views import Views


class InfoNCE(MarginFields, SentenceTerm):
    """T1: CE(A_m(cos(z^a_i, z^b_j)) / τ) on text and pair batches.

    SimCSE (Gao et al. 2021, eq. 1), m = 0; KDMCSE m = 0.15; DALR m = 0.2 (README; its scripts use 0.18).
    """

    temperature: Temperature = 0.05
    on_text: bool = True
    mask_same_image: bool = True
    """Rows that share an image are no negatives of each other."""

    def value(self, views: Views) -> Tensor:
        from dalr.objectives import functional

        if len(views.z_a) < 2:
            return nothing(views)
        logits = sentence_cosines(views, self) / self.temperature
        excluded = views.same_image if self.mask_same_image else None
        return functional.own_cross_entropy(logits, excluded=excluded)


class Grounding(MarginFields, Term):
    """T2: ½[CE(A(cos(s^a_i, u_j); Δ_ij)/τ) + the same with s^b], in the shared image–text space.

    MCSE (Zhang et al. 2022, eq. 4): no margin. KDMCSE (Nguyen et al. 2024): margin with Δ_ij = 1 − V_ij, a second
    branch against CLIP text features with Δ = max(0, 1 − cos(c_i, c_j)), and a filter of negatives by teacher
    similarity. DALR: the image branch. Rows that share an image are no negatives of each other (the released
    codes count them, although they are false negatives).
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

    def value(self, views: Views) -> Tensor:
        from dalr.objectives import functional

        assert views.image is not None
        if len(views.h_a) < 2:
            return nothing(views)
        total = self._among_candidates(views) if self.candidates is not None else self._in_batch(views)
        if self.clip_text_branch:
            assert views.clip_text is not None
            assert views.clip_text_grounded is not None
            distance = (1 - functional.cosine_matrix(views.clip_text, views.clip_text)).clamp_min(0)
            total = total + self._branch(views, views.clip_text_grounded, distance, self._excluded(views))
        return total

    def _in_batch(self, views: Views) -> Tensor:
        from dalr.objectives import functional

        assert views.image is not None
        assert views.image_grounded is not None
        distance = 1 - functional.cosine_matrix(views.image, views.image)
        return self._branch(views, views.image_grounded, distance, self._excluded(views))

    def _among_candidates(self, views: Views) -> Tensor:
        """Candidates are distinct images, so that none but its own is a caption's."""
        from dalr.objectives import functional

        assert views.image is not None
        assert views.candidates is not None
        assert views.candidates_grounded is not None
        assert views.own_candidate is not None
        distance = 1 - functional.cosine_matrix(views.image, views.candidates)
        excluded = self._too_similar(views, views.candidates) if self.threshold_quantile is not None else None
        return self._branch(views, views.candidates_grounded, distance, excluded, own=views.own_candidate)

    def _branch(
        self, views: Views, anchors: Tensor, distance: Tensor, excluded: Tensor | None, own: Tensor | None = None
    ) -> Tensor:
        from dalr.objectives import functional

        assert views.s_a is not None
        assert views.s_b is not None
        losses = []
        for grounded in (views.s_a, views.s_b):
            cosines = functional.angular_margin(
                functional.cosine_matrix(grounded, anchors),
                margin=self.margin,
                scale=distance if self.soft_margin else None,
                form=self.margin_form,
                own=own,
            )
            losses.append(functional.own_cross_entropy(cosines / self.temperature, own=own, excluded=excluded))
        return (losses[0] + losses[1]) / 2

    def _excluded(self, views: Views) -> Tensor | None:
        """Negatives of the batch that take no part: (n, n) bool or None."""
        excluded = views.same_image if self.mask_same_image else None
        if self.threshold_quantile is None:
            return excluded
        assert views.image is not None
        high = self._too_similar(views, views.image)
        return high if excluded is None else excluded | high

    def _too_similar(self, views: Views, images: Tensor) -> Tensor:
        """cos(c_i, v_j) above the quantile of the batch's pairs: (n, m) bool."""
        from dalr.objectives import functional

        assert self.threshold_quantile is not None
        assert views.clip_text is not None
        assert views.image is not None
        of_batch = functional.cosine_matrix(views.clip_text, views.image)
        level = functional.off_diagonal(of_batch).quantile(self.threshold_quantile)
        high: Tensor = functional.cosine_matrix(views.clip_text, images) > level
        return high
