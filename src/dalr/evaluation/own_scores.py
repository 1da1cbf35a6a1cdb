"""Results of the tasks on one's own images, with their intervals and how each query came out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from dalr.evaluation.bootstrap import image_draws, interval
from dalr.evaluation.captions import CaptionsScore
from dalr.evaluation.results import CaptionsResult, Queries, Recall, RetrievalResult
from dalr.evaluation.retrieval import RetrievalScore

TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text→image R@1", "image→text R@1"
CAPTIONS_R1, CAPTIONS_MAP = "captions R@1", "captions MAP"
_CUTS = (1, 5, 10)


def scored_retrieval(
    found: RetrievalScore, owner: Int64[np.ndarray, " captions"], *, split: str, items: str, space: str
) -> tuple[RetrievalResult, tuple[Queries, ...]]:
    """The result of retrieval in both directions, and how each query came out at rank 1."""
    images = np.arange(len(found.image_ranks))
    result = RetrievalResult(
        split=split,
        items=items,
        space=space,
        images=len(images),
        captions=len(owner),
        text_to_image=_with_intervals(found.text_to_image, owner, found.text_ranks, items),
        image_to_text=_with_intervals(found.image_to_text, images, found.image_ranks, items),
    )
    queries = (
        _queries(owner, {TEXT_TO_IMAGE: found.text_ranks < 1}),
        _queries(images, {IMAGE_TO_TEXT: found.image_ranks < 1}),
    )
    return result, queries


def scored_captions(
    found: CaptionsScore, owner: Int64[np.ndarray, " captions"], *, split: str, items: str
) -> tuple[CaptionsResult, Queries]:
    """The result of captions that find the others of their image, and how each query came out.

    Without a caption that has others, every score is 0.
    """
    image = owner[found.queries]
    values = {"R@1": found.ranks < 1, "R@10": found.ranks < 10, "MAP": found.average_precision}
    everything = _queries(image, values)
    means = {name: float(np.mean(each)) if each else 0.0 for name, each in everything.values.items()}
    intervals = {name: interval(image_draws(everything, name, name=items)) for name in values} if len(image) else {}
    result = CaptionsResult(
        split=split,
        items=items,
        images=len(np.unique(owner)),
        captions=len(owner),
        queries=len(image),
        r1=means["R@1"],
        r10=means["R@10"],
        map=means["MAP"],
        intervals=intervals,
    )
    kept = {CAPTIONS_R1: everything.values["R@1"], CAPTIONS_MAP: everything.values["MAP"]}
    return result, Queries(image=everything.image, values=kept)


def _with_intervals(
    recall: Recall, image: Int64[np.ndarray, " queries"], ranks: Int64[np.ndarray, " queries"], items: str
) -> Recall:
    queries = _queries(image, {f"R@{cut}": ranks < cut for cut in _CUTS})
    return recall.model_copy(
        update={"intervals": {name: interval(image_draws(queries, name, name=items)) for name in queries.values}}
    )


def _queries(image: Int64[np.ndarray, " queries"], values: dict[str, np.ndarray]) -> Queries:
    return Queries(
        image=tuple(image.tolist()),
        values={name: tuple(np.round(100 * each, 4).tolist()) for name, each in values.items()},
    )
