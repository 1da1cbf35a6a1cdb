"""Captions that find the others of their image, against naive loops; and intervals over images."""

from __future__ import annotations

import numpy as np
import pytest

from dalr.evaluation.bootstrap import image_draws, interval
from dalr.evaluation.captions import captions_score
from dalr.evaluation.linear_map import Captioned, fit_linear_map
from dalr.evaluation.own_scores import scored_captions
from dalr.evaluation.results import Queries
from dalr.evaluation.retrieval import retrieval_score


def naive(vectors: np.ndarray, owner: np.ndarray) -> tuple[list[int], list[float]]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ranks, precisions = [], []
    for query in range(len(unit)):
        others = [row for row in range(len(unit)) if row != query]
        if not any(owner[row] == owner[query] for row in others):
            continue
        order = sorted(others, key=lambda row: (-float(unit[query] @ unit[row]), owner[row] == owner[query]))
        right = [owner[row] == owner[query] for row in order]
        ranks.append(right.index(True))
        hits = [(sum(right[: place + 1])) / (place + 1) for place, hit in enumerate(right) if hit]
        precisions.append(float(np.mean(hits)))
    return ranks, precisions


def test_ranks_and_precision_are_those_of_naive_loops() -> None:
    random = np.random.default_rng(0)
    owner = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4])
    vectors = random.normal(size=(11, 4))
    found = captions_score(vectors, owner)
    ranks, precisions = naive(vectors, owner)
    assert found.ranks.tolist() == ranks
    assert found.average_precision == pytest.approx(precisions, rel=1e-6)
    assert found.queries.tolist() == [row for row in range(11) if owner[row] not in (2, 4)]


def test_equal_vectors_score_as_badly_as_can_be() -> None:
    owner = np.repeat(np.arange(4), 2)
    found = captions_score(np.ones((8, 3)), owner)
    assert found.ranks.tolist() == [6] * 8


def test_captions_without_others_are_no_queries() -> None:
    result, _ = scored_captions(captions_score(np.eye(3), np.arange(3)), np.arange(3), split="test", items="abc")
    assert (result.queries, result.r1, dict(result.intervals)) == (0, 0.0, {})


def test_the_interval_is_over_images_and_wider_than_over_captions() -> None:
    random = np.random.default_rng(0)
    right = random.random(60) < 0.5
    image = np.repeat(np.arange(60), 5)
    values = 100 * right[image].astype(float)
    together = Queries(image=tuple(image.tolist()), values={"x": tuple(values.tolist())})
    apart = Queries(image=tuple(range(300)), values={"x": tuple(values.tolist())})
    low, high = interval(image_draws(together, "x", name="a"))
    narrow = interval(image_draws(apart, "x", name="a"))
    assert low < float(values.mean()) < high
    assert high - low > 1.5 * (narrow[1] - narrow[0])


def test_a_linear_map_is_found_where_there_is_one() -> None:
    random = np.random.default_rng(0)
    owner = np.repeat(np.arange(100), 3)
    images = random.normal(size=(100, 6))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    sentences = images[owner] @ np.linalg.qr(random.normal(size=(6, 6)))[0] + 0.01 * random.normal(size=(300, 6))
    part = [Captioned(sentences=sentences[owner < 60], images=images[:60], owner=owner[owner < 60])]
    part.append(Captioned(sentences=sentences[owner >= 60], images=images[60:], owner=owner[owner >= 60] - 60))
    linear = fit_linear_map(*part)
    mapped, shown = linear.project(part[1].sentences, part[1].images)
    assert retrieval_score(mapped, shown, part[1].owner).mean_r1 > 95
