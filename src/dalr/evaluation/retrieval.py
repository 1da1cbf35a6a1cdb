"""Image–text retrieval in the grounding space: cos(s, u) between sentences and images.

A caption finds its image; an image finds any of its captions. Needs the heads of a training run, which is why
they are saved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64


@dataclass(frozen=True, kw_only=True)
class RetrievalScore:
    """Recall × 100 at 1, 5 and 10 in both directions."""

    text_to_image: tuple[float, float, float]
    image_to_text: tuple[float, float, float]

    @property
    def mean_r1(self) -> float:
        return (self.text_to_image[0] + self.image_to_text[0]) / 2


_CUTS = (1, 5, 10)


def retrieval_score(
    sentences: Float[np.ndarray, "captions g"],
    images: Float[np.ndarray, "images g"],
    owner: Int64[np.ndarray, " captions"],
) -> RetrievalScore:
    """Score captions against images; caption i belongs to image `owner[i]`, every image has a caption.

    Ties count against the query, so that constant vectors score nothing.
    """
    similarity = _unit(sentences) @ _unit(images).T
    own = similarity[np.arange(len(owner)), owner]
    image_rank = (similarity >= own[:, None]).sum(axis=1) - 1
    best_own = np.full(len(images), -np.inf)
    np.maximum.at(best_own, owner, own)
    is_own = owner[:, None] == np.arange(len(images))[None]
    text_rank = ((similarity >= best_own[None]) & ~is_own).sum(axis=0)
    to_image = [100 * float((image_rank < cut).mean()) for cut in _CUTS]
    to_text = [100 * float((text_rank < cut).mean()) for cut in _CUTS]
    return RetrievalScore(
        text_to_image=(to_image[0], to_image[1], to_image[2]), image_to_text=(to_text[0], to_text[1], to_text[2])
    )


def _unit(x: Float[np.ndarray, "n g"]) -> Float[np.ndarray, "n g"]:
    norms = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    unit: np.ndarray = np.divide(x, norms, out=np.zeros(x.shape, np.float64), where=norms > 0)
    return unit
