"""Retrieval against a slow count, with ties against the query and without NaN turning into hits."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from dalr.errors import NumericsError
from dalr.evaluation.results import Recall
from dalr.evaluation.retrieval import retrieval_score


def by_hand(sentences: np.ndarray, images: np.ndarray, owner: np.ndarray) -> tuple[list[float], list[float]]:
    """Recall × 100 at 1, 5, 10 by sorting, for scores without ties."""
    cosine = np.array([[s @ u / np.linalg.norm(s) / np.linalg.norm(u) for u in images] for s in sentences])
    to_image, to_text = [], []
    for cut in (1, 5, 10):
        hits = [owner[row] in np.argsort(-cosine[row])[:cut] for row in range(len(sentences))]
        to_image.append(100 * float(np.mean(hits)))
        hits = [column in owner[np.argsort(-cosine[:, column])[:cut]] for column in range(len(images))]
        to_text.append(100 * float(np.mean(hits)))
    return to_image, to_text


def test_recall_is_that_of_sorting() -> None:
    random = np.random.default_rng(0)
    owner = np.repeat(np.arange(30), 3)
    images = random.normal(size=(30, 8)).astype(np.float32)
    sentences = (images[owner] + 1.5 * random.normal(size=(90, 8))).astype(np.float32)
    found = retrieval_score(sentences, images, owner)
    to_image, to_text = by_hand(sentences, images, owner)
    assert [found.text_to_image.r1, found.text_to_image.r5, found.text_to_image.r10] == pytest.approx(to_image)
    assert [found.image_to_text.r1, found.image_to_text.r5, found.image_to_text.r10] == pytest.approx(to_text)
    assert found.mean_r1 == pytest.approx((to_image[0] + to_text[0]) / 2)
    assert 0 < found.mean_r1 < 100


def test_equal_vectors_score_nothing() -> None:
    owner = np.repeat(np.arange(20), 2)
    found = retrieval_score(np.ones((40, 4)), np.ones((20, 4)), owner)
    assert (found.text_to_image.r10, found.image_to_text.r10) == (0, 0)
    assert (found.text_to_image.median_rank, found.image_to_text.median_rank) == (20, 39)


def test_perfect_vectors_score_everything() -> None:
    owner = np.repeat(np.arange(6), 2)
    found = retrieval_score(3 * np.eye(6)[owner], np.eye(6), owner)
    assert found.text_to_image == found.image_to_text == Recall(r1=100, r5=100, r10=100, median_rank=1)


def test_blocks_of_captions_give_what_all_captions_at_once_give() -> None:
    random = np.random.default_rng(1)
    owner = random.permutation(np.repeat(np.arange(40), 5))
    images = random.normal(size=(40, 8))
    sentences = images[owner] + 2 * random.normal(size=(200, 8))
    whole = retrieval_score(sentences, images, owner)
    assert retrieval_score(sentences, images, owner, block=7) == whole
    cosine = np.array([[s @ u / np.linalg.norm(s) / np.linalg.norm(u) for u in images] for s in sentences])
    ranks = [(row > row[own]).sum() + 1 for row, own in zip(cosine, owner, strict=True)]
    assert whole.text_to_image.median_rank == np.median(ranks)


def test_vectors_that_are_not_finite_are_no_hits() -> None:
    broken = np.full((20, 4), np.nan)
    with contextlib.suppress(NumericsError):
        assert retrieval_score(broken, broken, np.arange(20)).mean_r1 == 0
