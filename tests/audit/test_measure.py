"""What an audit counts, against loops."""

from __future__ import annotations

import numpy as np
import pytest
from toy_pairs import ToyPairs, toy_pairs

from dalr.audit.match import Match, OtherCaptions, SharedSpace, match
from dalr.audit.measure import measure, nearest
from dalr.audit.result import Audit
from dalr.evaluation.metrics import unit_rows


def scored(toys: ToyPairs) -> Match:
    unit, owner = unit_rows(toys.vectors), toys.found.owner
    images = np.stack([unit[owner == image].mean(axis=0) for image in range(len(toys.found.names))])
    captions = OtherCaptions.of(toys.vectors, owner, len(toys.found.names))
    return match(SharedSpace(captions=unit, images=unit_rows(images)), captions, "toys")


def audited(toys: ToyPairs, neighbours: int = 5) -> Audit:
    return measure(toys.found, toys.images, scored(toys), neighbours=neighbours, source={})


def test_every_count_is_that_of_a_loop() -> None:
    toys = toy_pairs(noise=1.0)
    owner = toys.found.owner
    scores = scored(toys).block(np.arange(len(owner)))
    unit = unit_rows(toys.images)
    cosines = unit_rows(unit - unit.mean(axis=0)) @ unit_rows(unit - unit.mean(axis=0)).T
    found = audited(toys)
    for row, each in enumerate(found.captions):
        own = int(owner[row])
        others = [image for image in range(40) if image != own]
        fits = {image for image in others if scores[row, image] >= scores[row, own]}
        near = sorted(others, key=lambda image: -cosines[own, image])[:5]
        assert each.score == pytest.approx(scores[row, own])
        assert each.other == toys.found.names[max(others, key=lambda image: scores[row, image])]
        assert (each.better, each.near) == (len(fits), len(fits & set(near)))
        assert each.typical == len({image for image in fits if scores[row, image] >= 1})
    for image, summed in enumerate(found.images):
        of_image = [each for each in found.captions if each.image == summed.id]
        assert (summed.captions, summed.near) == (3, sum(each.near > 0 for each in of_image))
        assert summed.id == toys.found.names[image]


def test_images_that_mean_the_same_are_what_each_others_captions_fit_best() -> None:
    found = audited(toy_pairs(noise=0.05, twins=True))
    assert {each.other for each in found.captions if each.image == "000.jpg"} == {"001.jpg"}
    assert {each.other for each in found.captions if each.image == "001.jpg"} == {"000.jpg"}
    nearest_score = sorted(found.captions, key=lambda each: -each.other_score)[:6]
    assert {each.image for each in nearest_score} == {"000.jpg", "001.jpg"}


def test_captions_that_are_all_the_same_tell_nothing() -> None:
    toys = toy_pairs(captions=1)
    images = unit_rows(toys.images)

    class Constant:
        def block(self, rows: np.ndarray) -> np.ndarray:
            return np.ones((len(rows), 40))

    captions = OtherCaptions.of(toys.vectors, toys.found.owner, 40)
    same = Match(
        evidence=Constant(),
        captions=captions,
        image_scale=scored(toys).image_scale,
        caption_scale=scored(toys).caption_scale,
        weight=1.0,
        typical=1.0,
        typical_alone=1.0,
    )
    found = measure(toys.found, images, same, neighbours=5, source={})
    assert (found.not_told, found.fits_another) == (100, 100)


def test_the_nearest_images_are_those_of_a_sort_and_never_the_image_itself() -> None:
    images = np.random.default_rng(0).normal(size=(30, 7))
    unit = unit_rows(unit_rows(images) - unit_rows(images).mean(axis=0))
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    for row, found in enumerate(nearest(images, 4).tolist()):
        assert set(found) == set(np.argsort(-cosines[row])[:4].tolist())


def test_more_neighbours_than_there_are_images_are_all_others() -> None:
    assert audited(toy_pairs(8), neighbours=50).neighbours == 7


def test_the_verdict_says_the_number_and_what_chance_would_be() -> None:
    found = audited(toy_pairs(noise=1.0), neighbours=10)
    first = found.verdict()[0]
    assert first.startswith(f"{found.not_told:.0f} % of the captions do not tell their image from its neighbours")
    assert "91 %" in first
