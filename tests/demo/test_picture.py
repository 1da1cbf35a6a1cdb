"""A picture shows everything that its scene holds: any change of the scene is a change that can be seen."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from dalr.demo import grammar
from dalr.demo.grammar import Group, Scene, Thing
from dalr.demo.picture import PIXELS, draw_image

CAT = Thing(concept="cat", colour="red", size="big")
CAR = Thing(concept="car", colour="blue", size="small")
BASE = Scene(groups=(Group(one=CAT, relation="left", other=CAR),), place="meadow", sky="sun")


def drawn(scene: Scene, seed: int = 1) -> np.ndarray:
    return np.asarray(draw_image(scene, Random(seed)), dtype=np.int64)


def changed_pixels(one: np.ndarray, other: np.ndarray) -> int:
    return int((np.abs(one - other).max(axis=2) > 40).sum())


def with_cat(**changes: str) -> Scene:
    return replace(BASE, groups=(Group(one=replace(CAT, **changes), relation="left", other=CAR),))


def test_a_picture_is_rgb_and_the_same_for_the_same_generator() -> None:
    assert drawn(BASE).shape == (PIXELS, PIXELS, 3)
    assert np.array_equal(drawn(BASE), drawn(BASE))
    assert not np.array_equal(drawn(BASE, 1), drawn(BASE, 2))


@pytest.mark.parametrize(
    "other",
    [
        *(
            with_cat(concept=name)
            for names in grammar.THINGS.values()
            for name in names
            if name not in ("cat", "car")
        ),
        *(with_cat(colour=name) for name in grammar.COLOURS if name != "red"),
        with_cat(size="small"),
        with_cat(count="two"),
        with_cat(count="many"),
        *(replace(BASE, sky=name) for name in grammar.SKIES if name != "sun"),
        *(replace(BASE, place=name) for names in grammar.PLACES.values() for name in names if name != "meadow"),
        replace(BASE, groups=(Group(one=CAT, relation="above", other=CAR),)),
        replace(BASE, groups=(Group(one=CAR, relation="left", other=CAT),)),
        replace(BASE, groups=(*BASE.groups, Group(one=Thing(concept="ball", colour="white", size="small")))),
    ],
)
def test_every_change_of_the_scene_can_be_seen(other: Scene) -> None:
    assert changed_pixels(drawn(BASE), drawn(other)) > 30


def red(picture: np.ndarray) -> np.ndarray:
    return (picture[..., 0] > 150) & (picture[..., 1] < 90) & (picture[..., 2] < 90)


def blue(picture: np.ndarray) -> np.ndarray:
    return (picture[..., 0] < 90) & (picture[..., 1] < 130) & (picture[..., 2] > 160)


@pytest.mark.parametrize("seed", range(5))
def test_things_stand_as_their_relation_says(seed: int) -> None:
    for relation, axis in (("left", 1), ("above", 0)):
        picture = drawn(replace(BASE, groups=(Group(one=CAT, relation=relation, other=CAR),)), seed)
        cat, car = (np.argwhere(found(picture))[:, axis].mean() for found in (red, blue))
        assert cat < car - 20


@pytest.mark.parametrize(
    "unfinished",
    [
        replace(BASE, sky=None),
        replace(BASE, place=None),
        replace(BASE, groups=(Group(one=replace(CAT, colour=None)),)),
    ],
)
def test_what_a_scene_leaves_open_cannot_be_drawn(unfinished: Scene) -> None:
    with pytest.raises(ValueError, match="leaves one open"):
        draw_image(unfinished, Random(0))
