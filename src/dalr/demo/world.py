"""A small world with pictures, captions, text and graded pairs, made from descriptions of what is the case.

A picture shows a whole scene and a caption tells a part of it, so the data has by construction the two
problems that the method addresses: the picture holds more than the caption says, and the five captions of one
picture mean different things. What is written is a user's data set: PNG files in `images/`, `pairs.jsonl`,
`text.txt`, and two files of score, sentence, sentence.

Frozen teachers need an upbringing of their own, as CLIP and the encoders of the papers had: `draw_upbringing`
draws scenes, captions and paraphrases for them. No scene serves two parts of the world, and the teachers' scenes
are in no other part. What a world of this size costs: its numbers say that the path works and which term helps
here; they say nothing about photographs and natural language.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dalr.demo.grammar import (
    COLOURS,
    COUNTS,
    PLACES,
    RELATIONS,
    SIZES,
    SKIES,
    THINGS,
    Group,
    Scene,
    Thing,
    gold_score,
    say,
    say_plain,
    vocabulary,
)
from dalr.demo.picture import draw_image
from dalr.errors import ConfigError
from dalr.io.atomic import write_bytes, write_text
from dalr.io.console import Console
from dalr.seed import derive_seed

CAPTIONS = 5
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_BINS = 20  # equally filled bins of the gold score


@dataclass(frozen=True, kw_only=True)
class WorldSize:
    """How much of everything there is."""

    scenes: int = 700
    held_out: int = 100
    """The last of the scenes, kept for retrieval."""
    corpus: int = 4000
    dev_pairs: int = 500
    test_pairs: int = 1000
    upbringing: int = 3000
    """Scenes that only the teachers see."""

    def __post_init__(self) -> None:
        if not 2 <= self.held_out < self.scenes:
            what = f"held_out is {self.held_out}; it must be 2 or more, below scenes={self.scenes}"
            raise ConfigError(f"demo world: {what}")
        if min(self.corpus, self.dev_pairs, self.test_pairs, self.upbringing) < 1:
            raise ConfigError(f"demo world: every number must be at least 1, found {self}")


@dataclass(frozen=True, kw_only=True)
class Picture:
    image: str
    """File name in `images/`."""
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
    seed: int
    size: WorldSize
    pictures: list[Picture]
    text: list[str]
    dev: list[GradedPair]
    test: list[GradedPair]
    upbringing: list[Picture]

    def paraphrases(self) -> list[tuple[str, str]]:
        """Two sentences with the same facts, per scene of the upbringing: what a teacher of text learns from."""
        rng = random.Random(derive_seed(self.seed, "demo", "paraphrases"))
        told = [tell(picture.scene, rng) for picture in self.upbringing]
        return [(say(part, rng), say(part, rng)) for part in told]


@dataclass(frozen=True, kw_only=True)
class WorldFiles:
    """Where a world lies under one folder."""

    folder: Path

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def pairs(self) -> Path:
        return self.folder / "pairs.jsonl"

    @property
    def text(self) -> Path:
        return self.folder / "text.txt"

    @property
    def sts_dev(self) -> Path:
        return self.folder / "sts-dev.tsv"

    @property
    def sts_test(self) -> Path:
        return self.folder / "sts-test.tsv"

    @property
    def vocabulary(self) -> Path:
        return self.folder / "vocab.txt"


def draw_world(size: WorldSize, *, seed: int) -> World:
    """The content of a world. No scene serves two of its parts.

    The graded pairs are drawn first, so that a world of another size is judged on the same sentences.
    """
    taken: set[Scene] = set()
    test = _graded_pairs(size.test_pairs, random.Random(derive_seed(seed, "demo", "test")), taken)
    dev = _graded_pairs(size.dev_pairs, random.Random(derive_seed(seed, "demo", "dev")), taken)
    rng = random.Random(derive_seed(seed, "demo", "pictures"))
    pictures = [_picture(f"scene-{number:05d}.png", rng, taken) for number in range(1, size.scenes + 1)]
    rng = random.Random(derive_seed(seed, "demo", "text"))
    text = [_text_line(rng, taken) for _ in range(size.corpus)]
    rng = random.Random(derive_seed(seed, "demo", "upbringing"))
    upbringing = [_picture(f"upbringing-{number}", rng, taken) for number in range(1, size.upbringing + 1)]
    return World(seed=seed, size=size, pictures=pictures, text=text, dev=dev, test=test, upbringing=upbringing)


def write_world(world: World, folder: Path, *, console: Console) -> WorldFiles:
    """Write a world into `folder`; equal worlds give equal bytes. The upbringing is not written.

    Raises:
        StorageError: the folder cannot be written.
    """
    files = WorldFiles(folder=folder)
    with console.bar("draw pictures", len(world.pictures), "picture") as bar:
        for number, picture in enumerate(world.pictures, start=1):
            _write_image(picture, files.images / picture.image, seed=world.seed)
            bar.update(number)
    _write_lines(
        files.pairs, (json.dumps({"image": one.image, "captions": one.captions}) for one in world.pictures)
    )
    _write_lines(files.text, world.text)
    _write_lines(files.sts_dev, map(_tsv, world.dev))
    _write_lines(files.sts_test, map(_tsv, world.test))
    _write_lines(files.vocabulary, [*SPECIAL_TOKENS, *vocabulary()])
    return files


def image_rng(picture: Picture, *, seed: int) -> random.Random:
    """The generator that a picture is drawn with."""
    return random.Random(derive_seed(seed, "demo", "picture", picture.image))


def _write_image(picture: Picture, path: Path, *, seed: int) -> None:
    buffer = io.BytesIO()
    draw_image(picture.scene, image_rng(picture, seed=seed)).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_text(path, "".join(f"{line}\n" for line in lines))


def _tsv(pair: GradedPair) -> str:
    return "\t".join([f"{pair.score:.2f}", *pair.sentences])


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
    number = rng.choices((1, 2, 3), weights=(2, 9, 9))[0]
    concepts = rng.sample([name for names in THINGS.values() for name in names], number)
    things = [_draw_thing(concept, rng) for concept in concepts]
    groups = [Group(one=things[0])]
    if number > 1:
        groups = [Group(one=things[0], relation=rng.choice(list(RELATIONS)), other=things[1])]
    groups += [Group(one=thing) for thing in things[2:]]
    place = rng.choice([name for places in PLACES.values() for name in places])
    return Scene(groups=tuple(groups), place=place, sky=rng.choice(list(SKIES)))


def _draw_thing(concept: str, rng: random.Random) -> Thing:
    return Thing(
        concept=concept,
        count=rng.choices(list(COUNTS), weights=(6, 2, 2))[0],
        colour=rng.choice(list(COLOURS)),
        size=rng.choice(list(SIZES)),
    )


def tell(scene: Scene, rng: random.Random) -> Scene:
    """The part of `scene` that one caption tells: a thing, things and how they stand, all, and some details."""
    focus = rng.choices(("thing", "group", "all"), weights=(6, 9, 5))[0]
    groups = scene.groups
    if focus == "thing":
        groups = (Group(one=rng.choice(scene.things)),)
    elif focus == "group":
        groups = (rng.choice(scene.groups),)
    place = scene.place if rng.random() < (0.7 if focus == "thing" else 0.45) else None
    sky = scene.sky if rng.random() < 0.3 else None
    return Scene(groups=tuple(_tell_group(group, rng) for group in groups), place=place, sky=sky)


def _tell_group(group: Group, rng: random.Random) -> Group:
    relation = group.relation if rng.random() < 0.75 else None
    other = None if group.other is None else _tell_thing(group.other, rng)
    return Group(one=_tell_thing(group.one, rng), relation=relation, other=other)


def _tell_thing(thing: Thing, rng: random.Random) -> Thing:
    colour = thing.colour if rng.random() < 0.5 else None
    size = thing.size if rng.random() < 0.35 else None
    return replace(thing, colour=colour, size=size)


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
            groups=tuple(_vary_group(group, share, rng) for group in scene.groups),
            place=other.place if rng.random() < share else scene.place,
            sky=other.sky if rng.random() < share else scene.sky,
        )
        if _concepts_differ(variant):
            return variant


def _vary_group(group: Group, share: float, rng: random.Random) -> Group:
    if group.other is None:
        return Group(one=_vary_thing(group.one, share, rng))
    one, other = group.one, group.other
    if rng.random() < 0.3:
        one, other = other, one  # the same words, another meaning
    else:
        one, other = _vary_thing(one, share, rng), _vary_thing(other, share, rng)
    relation = rng.choice(list(RELATIONS)) if rng.random() < share else group.relation
    return Group(one=one, relation=relation, other=other)


def _vary_thing(thing: Thing, share: float, rng: random.Random) -> Thing:
    other = _draw_thing(rng.choice([name for names in THINGS.values() for name in names]), rng)
    if rng.random() < share:
        return other
    return replace(thing, colour=other.colour if rng.random() < share else thing.colour)


def _concepts_differ(scene: Scene) -> bool:
    concepts: Sequence[str] = [thing.concept for thing in scene.things]
    return len(set(concepts)) == len(concepts)
