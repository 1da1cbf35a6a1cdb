"""The map of an audit never saw the pair that it scores."""

from __future__ import annotations

import numpy as np
import pytest
from toy_pairs import toy_pairs

from dalr.audit.cross_fit import FEWEST, FOLDS, cross_fit, folds_of
from dalr.errors import DataError
from dalr.evaluation.metrics import unit_rows


def test_each_pair_is_scored_by_a_map_fitted_without_the_folds_of_both_images() -> None:
    toys = toy_pairs()
    owner, folds = toys.found.owner, folds_of(toys.found.names)
    fitted = cross_fit(toys.vectors, toys.images, owner, toys.found.names)
    found = fitted.block(np.arange(len(owner)))
    x, y = unit_rows(toys.vectors), unit_rows(toys.images)
    for caption in range(0, len(owner), 7):
        for image in range(0, len(y), 3):
            left_out = {folds[owner[caption]], folds[image]}
            rows = [row for row in range(len(owner)) if folds[owner[row]] not in left_out]
            a, b = x[rows], y[owner[rows]]
            centred = a - a.mean(axis=0)
            gram = centred.T @ centred
            gram += fitted.penalty * np.linalg.eigvalsh(gram).mean() * np.eye(len(gram))
            weights = np.linalg.solve(gram, centred.T @ (b - b.mean(axis=0)))
            mapped, shown = (x[caption] - a.mean(axis=0)) @ weights, y[image] - b.mean(axis=0)
            expected = mapped @ shown / np.linalg.norm(mapped) / np.linalg.norm(shown)
            assert found[caption, image] == pytest.approx(expected, abs=1e-5)


def test_the_maps_of_a_pair_stay_when_the_pair_becomes_another() -> None:
    toys = toy_pairs()
    owner, names = toys.found.owner, toys.found.names
    other = toys.images.copy()
    other[5] += 1
    before, after = (cross_fit(toys.vectors, each, owner, names) for each in (toys.images, other))
    assert before.penalty == after.penalty
    fold = int(before.image_fold[5])
    for pair, found in before.maps.items():
        assert np.array_equal(found.weights, after.maps[pair].weights) == (fold in pair)


def test_folds_are_balanced_and_belong_to_names_not_to_places() -> None:
    names = [f"{number}.jpg" for number in range(41)]
    folds = folds_of(names)
    assert max(np.bincount(folds)) - min(np.bincount(folds)) <= 1
    assert len(set(folds.tolist())) == FOLDS
    assert np.array_equal(folds_of(names[::-1]), folds[::-1])


def test_a_map_finds_most_images_of_linear_data_that_it_never_saw() -> None:
    toys = toy_pairs(80, noise=0.1)
    scores = cross_fit(toys.vectors, toys.images, toys.found.owner, toys.found.names).block(np.arange(240))
    assert float((scores.argmax(axis=1) == toys.found.owner).mean()) > 0.6


def test_too_few_images_are_refused_with_what_helps() -> None:
    toys = toy_pairs(FEWEST - 1)
    with pytest.raises(DataError, match=f"{FEWEST - 1} images are too few.*at least {FEWEST}.*--text"):
        cross_fit(toys.vectors, toys.images, toys.found.owner, toys.found.names)
