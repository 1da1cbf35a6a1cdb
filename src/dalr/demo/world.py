"""A small world with pictures, captions, text and graded pairs, made from descriptions of what is the case.

A picture shows a whole scene and a caption tells a part of it, so the data has by construction the two
problems that the method addresses: the picture holds more than the caption says, and the five captions of one
picture mean different things.

The pictures are not pictures: an image feature is a fixed random non-linear projection of everything in the
scene plus a little noise, a stand-in for a frozen CLIP that sees every detail and reads no word. It weighs
what can be seen and the gold score weighs what is said, so the likeness of pictures helps and is not the
answer. What this costs: numbers on this world say that the path works and which term helps here; they say
nothing about photographs and natural language.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dalr.demo.grammar import (
    CATEGORY,
    COLOURS,
    COUNTS,
    FREE,
    PLACES,
    SKIES,
    TARGETS,
    THINGS,
    Event,
    Scene,
    Thing,
    facts,
    gold_score,
    qualities_of,
    say,
    say_plain,
    vocabulary,
)
from dalr.errors import ConfigError
from dalr.io.atomic import write_bytes, write_text
from dalr.seed import derive_seed, generator

CAPTIONS = 5
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ACTORS = ("person", "animal")
_BINS = 20  # equally filled bins of the gold score
_HIDDEN = 256  # width of the stand-in encoder's hidden layer
_NOISE = 60  # bound of the uniform image noise; a hidden unit's own spread is about 200
_SALIENCE = {"thing": 10, "place": 10, "colour": 8, "sky": 8, "count": 5, "does": 5, "aim": 3, "quality": 3}
"""How much of a picture a fact fills: colours and weather are easier to see than who pushes whom."""


@dataclass(frozen=True, kw_only=True)
class WorldFiles:
    """Where `generate_world` wrote what; row i of `image_matrix` is line i of `image_ids` and of `pairs`."""

    pairs: Path
    text: Path
    image_matrix: Path
    image_ids: Path
    sts_dev: Path
    sts_test: Path
    vocabulary: Path


@dataclass(frozen=True, kw_only=True)
class Picture:
    image: str
    scene: Scene
    captions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GradedPair:
    score: float
    sentences: tuple[str, str]
    scenes: tuple[Scene, Scene]
    """The whole scenes, of which the sentences tell parts."""


@dataclass(frozen=True, kw_only=True)
class World:
    pictures: list[Picture]
    text: list[str]
    dev: list[GradedPair]
    test: list[GradedPair]


def generate_world(
    folder: Path,
    *,
    seed: int = 0,
    scenes: int = 700,
    held_out: int = 100,
    corpus: int = 4000,
    dev_pairs: int = 500,
    test_pairs: int = 1000,
    feature_width: int = 96,
) -> WorldFiles:
    """Write a world into `folder`; equal arguments give equal bytes on every machine.

    The last `held_out` of the `scenes` pictures are meant for retrieval. They are drawn like all others, so
    the number is only checked here.

    Raises:
        ConfigError: a number is out of range.
        StorageError: the folder cannot be written.
    """
    if not 0 <= held_out < scenes:
        raise ConfigError(f"demo world: held_out is {held_out}; it must be 0 or more, below scenes={scenes}")
    if min(corpus, dev_pairs, test_pairs, feature_width) < 1:
        raise ConfigError(
            "demo world: corpus, dev_pairs, test_pairs and feature_width must be at least 1, "
            f"not {corpus}, {dev_pairs}, {test_pairs} and {feature_width}"
        )
    world = draw_world(seed=seed, scenes=scenes, corpus=corpus, dev_pairs=dev_pairs, test_pairs=test_pairs)
    features = picture_features([picture.scene for picture in world.pictures], width=feature_width, seed=seed)
    files = WorldFiles(
        pairs=folder / "pairs.jsonl",
        text=folder / "text.txt",
        image_matrix=folder / "images.npy",
        image_ids=folder / "images.txt",
        sts_dev=folder / "sts-dev.tsv",
        sts_test=folder / "sts-test.tsv",
        vocabulary=folder / "vocab.txt",
    )
    _write_lines(
        files.pairs, (json.dumps({"image": one.image, "captions": one.captions}) for one in world.pictures)
    )
    _write_lines(files.text, world.text)
    _write_lines(files.image_ids, (picture.image for picture in world.pictures))
    _write_lines(files.sts_dev, map(_tsv, world.dev))
    _write_lines(files.sts_test, map(_tsv, world.test))
    _write_lines(files.vocabulary, [*SPECIAL_TOKENS, *vocabulary()])
    buffer = io.BytesIO()
    np.save(buffer, features)
    write_bytes(files.image_matrix, buffer.getvalue())
    return files


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_text(path, "".join(f"{line}\n" for line in lines))


def _tsv(pair: GradedPair) -> str:
    return "\t".join([f"{pair.score:.2f}", *pair.sentences])


def draw_world(*, seed: int, scenes: int, corpus: int, dev_pairs: int, test_pairs: int) -> World:
    """The content of the files. No scene serves two of the four parts.

    The graded pairs are drawn first, so that a world of another size is judged on the same sentences.
    """
    taken: set[Scene] = set()
    test = _graded_pairs(test_pairs, random.Random(derive_seed(seed, "demo", "test")), taken)
    dev = _graded_pairs(dev_pairs, random.Random(derive_seed(seed, "demo", "dev")), taken)
    rng = random.Random(derive_seed(seed, "demo", "pictures"))
    pictures = [_picture(f"scene-{number:05d}", rng, taken) for number in range(1, scenes + 1)]
    rng = random.Random(derive_seed(seed, "demo", "text"))
    text = [_text_line(rng, taken) for _ in range(corpus)]
    return World(pictures=pictures, text=text, dev=dev, test=test)


def _picture(image: str, rng: random.Random, taken: set[Scene]) -> Picture:
    scene = _untaken(lambda: draw_scene(rng), taken)
    captions: dict[str, None] = {}  # a dict and not a set: it keeps its order
    while len(captions) < CAPTIONS:
        captions.setdefault(say(tell(scene, rng), rng))
    return Picture(image=image, scene=scene, captions=tuple(captions))


def _text_line(rng: random.Random, taken: set[Scene]) -> str:
    if rng.random() < 0.25:
        return say_plain(rng)
    return say(tell(_untaken(lambda: draw_scene(rng), taken), rng), rng)


def _untaken(draw: Callable[[], Scene], taken: set[Scene]) -> Scene:
    scene = draw()
    while scene in taken:
        scene = draw()
    taken.add(scene)
    return scene


def draw_scene(rng: random.Random) -> Scene:
    """A whole scene of one to three things, no two of them the same concept."""
    while True:
        events = [_draw_event(rng, [*FREE, *TARGETS])]
        if rng.random() < 0.6:
            events.append(_draw_event(rng, FREE))
        place = rng.choice([name for places in PLACES.values() for name in places])
        scene = Scene(events=tuple(events), place=place, sky=rng.choice(list(SKIES)))
        if _concepts_differ(scene):
            return scene


def _draw_event(rng: random.Random, activities: Sequence[str]) -> Event:
    activity = rng.choice(activities)
    target = _draw_thing(rng, TARGETS[activity]) if activity in TARGETS else None
    return Event(actor=_draw_thing(rng, _ACTORS), activity=activity, target=target)


def _draw_thing(rng: random.Random, categories: Sequence[str]) -> Thing:
    concept = rng.choice([name for category in categories for name in THINGS[category]])
    return Thing(
        concept=concept,
        count=rng.choices(list(COUNTS), weights=(6, 2, 2))[0],
        colour=rng.choice(list(COLOURS)),
        quality=rng.choice(list(qualities_of(concept))),
    )


def _concepts_differ(scene: Scene) -> bool:
    concepts = [thing.concept for thing in scene.things]
    return len(set(concepts)) == len(concepts)


def tell(scene: Scene, rng: random.Random) -> Scene:
    """The part of `scene` that one caption tells: a thing, an event or all of them, and some details."""
    focus = rng.choices(("thing", "event", "all"), weights=(4, 11, 5))[0]
    events = scene.events
    if focus == "thing":
        events = (Event(actor=rng.choice(scene.things)),)
    elif focus == "event":
        events = (rng.choice(scene.events),)
    place = scene.place if rng.random() < (0.8 if focus == "thing" else 0.5) else None
    sky = scene.sky if rng.random() < 0.3 else None
    return Scene(events=tuple(_tell_event(event, rng) for event in events), place=place, sky=sky)


def _tell_event(event: Event, rng: random.Random) -> Event:
    actor = _tell_thing(event.actor, rng)
    target = None if event.target is None else _tell_thing(event.target, rng)
    return Event(actor=actor, activity=event.activity, target=target)


def _tell_thing(thing: Thing, rng: random.Random) -> Thing:
    colour = thing.colour if rng.random() < 0.45 else None
    quality = thing.quality if rng.random() < 0.35 else None
    return replace(thing, colour=colour, quality=quality)


def _graded_pairs(count: int, rng: random.Random, taken: set[Scene]) -> list[GradedPair]:
    """`count` pairs whose scores fill equal bins of 0 to 5 equally, in random order."""
    room = [count // _BINS + (number < count % _BINS) for number in range(_BINS)]
    pairs: list[GradedPair] = []
    while len(pairs) < count:
        pair = _candidate(rng, taken)
        bin_number = min(int(pair.score / 5 * _BINS), _BINS - 1)
        if room[bin_number] and pair.sentences[0] != pair.sentences[1]:
            room[bin_number] -= 1
            pairs.append(pair)
    rng.shuffle(pairs)
    return pairs


def _candidate(rng: random.Random, taken: set[Scene]) -> GradedPair:
    """A pair of some kinship, from the same facts in other words to two scenes without any relation."""
    scene = other = _untaken(lambda: draw_scene(rng), taken)
    told = retold = tell(scene, rng)
    kinship = rng.choice(("same facts", "same scene", "variant", "variant", "unrelated"))
    if kinship == "same scene":
        retold = tell(scene, rng)
    elif kinship == "unrelated":
        other = _untaken(lambda: draw_scene(rng), taken)
        retold = tell(other, rng)
    elif kinship == "variant":
        share = rng.uniform(0.05, 0.8)
        other = _untaken(lambda: _variant(scene, share, rng), taken)
        focus = rng.getrandbits(32)  # both told with the same focus, so that what differs is the world
        told, retold = tell(scene, random.Random(focus)), tell(other, random.Random(focus))
    return GradedPair(
        score=gold_score(told, retold), sentences=(say(told, rng), say(retold, rng)), scenes=(scene, other)
    )


def _variant(scene: Scene, share: float, rng: random.Random) -> Scene:
    """A scene like `scene` in which about `share` of the parts are redrawn."""
    while True:
        other = draw_scene(rng)
        variant = Scene(
            events=tuple(_vary_event(event, share, rng) for event in scene.events),
            place=other.place if rng.random() < share else scene.place,
            sky=other.sky if rng.random() < share else scene.sky,
        )
        if _concepts_differ(variant):
            return variant


def _vary_event(event: Event, share: float, rng: random.Random) -> Event:
    actor, target = event.actor, event.target
    if target is not None and CATEGORY[target.concept] in _ACTORS and rng.random() < 0.3:
        return replace(event, actor=target, target=actor)  # the same words, another meaning
    other = _draw_event(rng, FREE if target is None else list(TARGETS))
    actor = _vary_thing(actor, other.actor, share, rng)
    return replace(other if rng.random() < share else event, actor=actor)


def _vary_thing(thing: Thing, other: Thing, share: float, rng: random.Random) -> Thing:
    if rng.random() < share:
        return other
    return replace(thing, colour=other.colour if rng.random() < share else thing.colour)


def picture_features(scenes: Sequence[Scene], *, width: int, seed: int) -> NDArray[np.float32]:
    """Features of whole scenes, (scenes, width), rows of length 1, from the stand-in for a frozen encoder.

    Everything up to the normalisation is integers: BLAS and tanh differ in the last bit between processors,
    and then the same world would have other bytes elsewhere.
    """
    seen = np.stack([_sight(scene) for scene in scenes])
    seen += generator(seed, "demo", "image noise").integers(-_NOISE, _NOISE, size=seen.shape, endpoint=True)
    mixing = generator(0, "demo", "encoder").integers(-8, 8, size=(_HIDDEN, width), endpoint=True)
    outputs = np.maximum(seen, 0) @ mixing
    lengths = np.sqrt((outputs * outputs).sum(axis=1, keepdims=True))
    features: NDArray[np.float32] = (outputs / lengths).astype("<f4")
    return features


def _sight(scene: Scene) -> NDArray[np.int64]:
    """The facts of a scene as one sum: each by itself, by its category, and bound to what it is said of."""
    total = np.zeros(_HIDDEN, dtype=np.int64)
    for fact in facts(scene):
        for name in (fact.value, CATEGORY.get(fact.value, ""), f"{fact.value} of {fact.holder}"):
            total += _SALIENCE[fact.slot] * _direction(f"{fact.slot} {name}")
    return total


@cache
def _direction(name: str) -> NDArray[np.int64]:
    direction = generator(0, "demo", "encoder", name).integers(-8, 8, size=_HIDDEN, endpoint=True)
    direction.flags.writeable = False  # the cache hands the same array to every caller
    return direction
