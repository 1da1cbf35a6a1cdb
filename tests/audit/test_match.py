"""The score of match: 0 by chance, 1 for a typical own pair, and a caption never supports itself."""

from __future__ import annotations

import numpy as np
import pytest
from toy_pairs import ToyPairs, toy_pairs

from dalr.audit.match import OtherCaptions, SharedSpace, match
from dalr.errors import DataError
from dalr.evaluation.metrics import unit_rows


def captions_of(toys: ToyPairs) -> OtherCaptions:
    return OtherCaptions.of(toys.vectors, toys.found.owner, len(toys.found.names))


def shared(toys: ToyPairs) -> SharedSpace:
    """A dual encoder that knows each image as the mean of its captions."""
    unit, owner = unit_rows(toys.vectors), toys.found.owner
    images = np.stack([unit[owner == image].mean(axis=0) for image in range(len(toys.found.names))])
    return SharedSpace(captions=unit, images=unit_rows(images))


def test_a_caption_is_compared_with_the_other_captions_of_an_image() -> None:
    toys = toy_pairs(6)
    unit, owner = unit_rows(toys.vectors), toys.found.owner
    found = captions_of(toys).block(np.arange(len(owner)))
    for caption in range(len(owner)):
        for image in range(6):
            others = [row for row in range(len(owner)) if owner[row] == image and row != caption]
            expected = np.mean([unit[caption] @ unit[row] for row in others])
            assert found[caption, image] == pytest.approx(expected, rel=1e-9)


def test_disagreement_is_that_of_pairs_of_captions_over_that_of_any_two() -> None:
    toys = toy_pairs(5)
    unit, owner = unit_rows(toys.vectors), toys.found.owner
    cosines = unit @ unit.T
    off = ~np.eye(len(owner), dtype=bool)
    anywhere = 1 - cosines[off].mean()
    for image, found in enumerate(captions_of(toys).disagreement().tolist()):
        own = np.flatnonzero(owner == image)
        within = 1 - np.mean([cosines[a, b] for a in own for b in own if a != b])
        assert found == pytest.approx(within / anywhere, rel=1e-9)
    assert np.isnan(captions_of(toy_pairs(5, 1)).disagreement()).all()


def test_chance_is_0_and_a_typical_own_pair_1() -> None:
    toys = toy_pairs()
    owner = toys.found.owner
    scores = match(shared(toys), captions_of(toys), "toys").block(np.arange(len(owner)))
    own = np.zeros(scores.shape, bool)
    own[np.arange(len(owner)), owner] = True
    assert scores[~own].mean() == pytest.approx(0, abs=1e-9)
    assert np.median(scores[own]) == pytest.approx(1, rel=1e-9)


def test_the_weight_is_that_which_finds_own_images_best() -> None:
    toys = toy_pairs(noise=1.0)
    random = np.random.default_rng(1)
    blind = SharedSpace(captions=unit_rows(toys.vectors), images=unit_rows(random.normal(size=(40, 8))))
    weights = [match(each, captions_of(toys), "toys").weight for each in (blind, shared(toys))]
    assert weights[0] <= 0.1 < weights[1]


def test_single_captions_are_scored_by_the_image_alone() -> None:
    toys = toy_pairs(captions=1)
    evidence = shared(toys)
    found = match(evidence, captions_of(toys), "toys").block(np.arange(40))
    image = evidence.block(np.arange(40))
    off = image[~np.eye(40, dtype=bool)]
    expected = image - off.mean()
    assert np.allclose(found, expected / np.median(expected.diagonal()))


def test_one_image_with_several_captions_among_single_ones_is_scored_too() -> None:
    toys = toy_pairs(captions=2)
    keep = np.array([row for row, image in enumerate(toys.found.owner.tolist()) if image < 3 or row % 2 == 0])
    owner = toys.found.owner[keep]
    captions = OtherCaptions.of(toys.vectors[keep], owner, 40)
    evidence = SharedSpace(captions=unit_rows(toys.vectors[keep]), images=shared(toys).images)
    scores = match(evidence, captions, "toys").block(np.arange(len(keep)))
    assert np.isfinite(scores).all()


def test_vectors_that_do_not_belong_together_are_refused() -> None:
    toys = toy_pairs(captions=1)
    evidence = shared(toys)
    with pytest.raises(DataError, match="toys: captions fit their own images no better than any others"):
        match(SharedSpace(captions=evidence.captions, images=-evidence.images), captions_of(toys), "toys")
