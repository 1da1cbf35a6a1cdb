"""How is image–text retrieval measured? Captions find their image, an image finds any of its captions.

In the grounding space of a training run, cos(s, u), which needs the heads that were trained beside the student and
is why they are saved; or in the own space of a multimodal model, without any training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, Int64

from dalr.evaluation.metrics import unit_rows
from dalr.evaluation.results import Recall

_BLOCK = 2_048
"""Captions that are compared with all images at once."""


@dataclass(frozen=True, kw_only=True)
class RetrievalScore:
    """Recall of both directions."""

    text_to_image: Recall
    image_to_text: Recall
    text_ranks: Int64[np.ndarray, " captions"] = field(compare=False)
    """Of each caption, the number of images before its own; of each image, the captions before its first own."""
    image_ranks: Int64[np.ndarray, " images"] = field(compare=False)

    @property
    def mean_r1(self) -> float:
        """Mean of both directions' recall at 1, in %."""
        return (self.text_to_image.r1 + self.image_to_text.r1) / 2


def retrieval_score(
    sentences: Float[np.ndarray, "captions g"],
    images: Float[np.ndarray, "images g"],
    owner: Int[np.ndarray, " captions"],
    *,
    block: int = _BLOCK,
) -> RetrievalScore:
    """Score captions against images by cosine; caption i belongs to image `owner[i]`, every image has a caption.

    The rank of a query is how many wrong answers come before the right one: for an image, before the best of its
    captions, the others of which do not count. Ties count against the query: constant vectors score nothing.
    """
    best_own = np.full(len(images), -np.inf)
    text_to_image = np.empty(len(sentences), np.int64)
    for rows, similarity in _blocks(sentences, images, block):
        own = similarity[np.arange(len(similarity)), owner[rows]]
        np.maximum.at(best_own, owner[rows], own)
        text_to_image[rows] = (similarity >= own[:, None]).sum(axis=1) - 1
    image_to_text = np.zeros(len(images), np.int64)
    for rows, similarity in _blocks(sentences, images, block):
        is_own = owner[rows, None] == np.arange(len(images))[None]
        image_to_text += ((similarity >= best_own[None]) & ~is_own).sum(axis=0)
    return RetrievalScore(
        text_to_image=_recall(text_to_image),
        image_to_text=_recall(image_to_text),
        text_ranks=text_to_image,
        image_ranks=image_to_text,
    )


def _recall(ranks: Int64[np.ndarray, " queries"]) -> Recall:
    """Recall at 1, 5 and 10 in %, and the median rank counted from 1."""
    at = {cut: 100 * float((ranks < cut).mean()) for cut in (1, 5, 10)}
    return Recall(r1=at[1], r5=at[5], r10=at[10], median_rank=float(np.median(ranks)) + 1)


def _blocks(
    sentences: Float[np.ndarray, "captions g"], images: Float[np.ndarray, "images g"], size: int
) -> Iterator[tuple[slice, Float[np.ndarray, "block images"]]]:
    """Cosines of a block of captions with all images; the same block gives the same numbers every time."""
    captions, images = unit_rows(sentences), unit_rows(images)
    for start in range(0, len(captions), size):
        rows = slice(start, min(start + size, len(captions)))
        yield rows, captions[rows] @ images.T
