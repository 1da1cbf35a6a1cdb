"""What language does the demo world speak? Meaning is a `Scene` of concepts; words are chosen last.

Every concept has several words and every sentence form several orders, so two sentences can agree in meaning
and share no content word, or share most words and differ in meaning: the two things a sentence encoder has to
tell apart. The gold score of two sentences compares the facts that they state, and never a model's opinion,
so no teacher can be flattered by it.

All inflected forms are written out and all sentence forms are data, so the vocabulary is read off the tables
and is complete by construction. The cost is stilted English and a closed vocabulary; a model trained on this
world knows nothing about any other.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

# category -> concept -> synonyms, separated by "|"; the forms of one synonym are separated by "/"
THINGS = {  # singular / plural
    "animal": {
        "cat": "cat/cats|kitten/kittens|kitty/kitties",
        "dog": "dog/dogs|puppy/puppies|hound/hounds",
        "rabbit": "rabbit/rabbits|bunny/bunnies|hare/hares",
    },
    "vehicle": {
        "car": "car/cars|automobile/automobiles|sedan/sedans",
        "truck": "truck/trucks|lorry/lorries",
        "bicycle": "bicycle/bicycles|bike/bikes",
    },
    "plant": {
        "tree": "tree/trees|oak/oaks",
        "flower": "flower/flowers|blossom/blossoms|tulip/tulips",
        "mushroom": "mushroom/mushrooms|toadstool/toadstools",
    },
    "building": {
        "house": "house/houses|cottage/cottages|hut/huts",
        "tower": "tower/towers|turret/turrets",
        "tent": "tent/tents|tepee/tepees",
    },
    "toy": {
        "ball": "ball/balls|football/footballs",
        "kite": "kite/kites|glider/gliders",
        "balloon": "balloon/balloons|blimp/blimps",
    },
}
RELATIONS = {  # the first thing to the second / the second to the first
    "left": "to the left of/to the right of|on the left side of/on the right side of",
    "above": "above/below|over/under|higher than/lower than",
}
PLACES = {
    "country": {
        "meadow": "in the meadow|in the field|on the pasture",
        "hills": "in the hills|in the mountains|among the peaks",
        "desert": "in the desert|among the dunes",
    },
    "water": {
        "beach": "on the beach|on the shore|by the sea",
        "lake": "on the lake|on the pond",
    },
    "town": {
        "street": "on the street|on the road|along the avenue",
        "square": "in the square|on the plaza",
    },
}
# These have no category: another colour, size, number or weather is simply another one.
COLOURS = {
    "red": "red|crimson|scarlet",
    "blue": "blue|azure",
    "green": "green|emerald",
    "yellow": "yellow|golden",
    "purple": "purple|violet",
    "black": "black|ebony",
    "white": "white|ivory",
}
SIZES = {"big": "big|large|huge", "small": "small|little|tiny"}
COUNTS = {"one": "a|the|one", "two": "two|a pair of|a couple of", "many": "three|several|a trio of"}
SKIES = {
    "rain": "in the rain|during a shower|on a wet day",
    "sun": "in the sunshine|under a clear sky|on a bright day",
    "snow": "in the snow|on a frosty day",
    "night": "at night|after dark|under the stars",
}

WEIGHTS = {"thing": 10, "relation": 6, "target": 4, "place": 6, "colour": 5, "sky": 4, "size": 3, "count": 3}
"""How much a fact of each slot counts in a gold score: first what is there, then how it stands."""
RELATED = 0.4
"""Credit for another concept of the same category: a cat for a dog."""
MISPLACED = 0.4
"""Credit for a fact that is told of something unrelated: a red car for a red dog."""

_RELATED_FORMS = (  # a relation can be told from either side
    "{one} {be} {where} {other}",
    "there {be} {one} {where} {other}",
    "{one} {where} {other}",
    "{where} {other} there {be} {one}",
    "we can see {one} {where} {other}",
)
_TOGETHER = (
    "{one} and {other}",
    "{one} with {other}",
    "there {be} {one} and {other}",
    "a photo of {one} and {other}",
)
_ALONE = ("{one}", "there {be} {one}", "we can see {one}", "a photo of {one}")
_JOINS = ("{first} and {second}", "{second} and {first}", "{first} , also {second}", "{second} while {first}")
_ORDERS = ("{told} {place} {sky}", "{told} {sky} {place}", "{place} , {told} {sky}", "{sky} , {told} {place}")
_BE = {False: "is", True: "are"}
_PLAIN = (
    "nobody saw the {thing} {place} yesterday",
    "most {things} are not {colour}",
    "where is the {thing} that was {place} ?",
    "she bought a {size} {colour} {thing} last week",
    "he sold his {thing} because it was too {size}",
    "i have never seen a {colour} {thing} {sky}",
    "why are there no {things} {place} ?",
    "some people prefer {things} to {others}",
    "my {thing} is {size} but yours is not",
    "every {thing} needs some care",
    "we should not stay {place} {sky}",
    "do you like {things} or {others} ?",
    "their {thing} used to be {colour}",
    "it is quiet {place} {sky}",
    "they never took the {thing} home {sky}",
    "a {thing} is not a {other}",
)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One to three equal objects."""

    concept: str
    count: str = "one"
    colour: str | None = None
    size: str | None = None


@dataclass(frozen=True, kw_only=True)
class Group:
    """One thing, or two with or without what holds between them; a relation is never without a second thing."""

    one: Thing
    relation: str | None = None
    other: Thing | None = None

    @property
    def things(self) -> tuple[Thing, ...]:
        return (self.one,) if self.other is None else (self.one, self.other)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A state of affairs; None is what is left open. A picture shows a whole one, a sentence tells a part."""

    groups: tuple[Group, ...]
    place: str | None = None
    sky: str | None = None

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(thing for group in self.groups for thing in group.things)


class Fact(NamedTuple):
    slot: str
    value: str
    holder: str = ""


_GROUPED = (THINGS, PLACES)
_SINGLE = (RELATIONS, COLOURS, SIZES, COUNTS, SKIES)

CATEGORY = {concept: category for table in _GROUPED for category, concepts in table.items() for concept in concepts}
_WORDS = {
    concept: [tuple(synonym.split("/")) for synonym in synonyms.split("|")]
    for table in [*_SINGLE, *(concepts for table in _GROUPED for concepts in table.values())]
    for concept, synonyms in table.items()
}


def facts(scene: Scene) -> list[Fact]:
    """What `scene` states, fact by fact. One thing alone is the unmarked case and states no number."""
    found = []
    for thing in scene.things:
        number = None if thing.count == "one" else thing.count
        details = {"colour": thing.colour, "size": thing.size, "count": number}
        found.append(Fact("thing", thing.concept))
        found += [Fact(slot, value, thing.concept) for slot, value in details.items() if value is not None]
    for group in scene.groups:
        if group.relation is not None:
            found.append(Fact("relation", group.relation, group.one.concept))
            found += [Fact("target", thing.concept, group.relation) for thing in group.things[1:]]
    around = {"place": scene.place, "sky": scene.sky}
    return found + [Fact(slot, value) for slot, value in around.items() if value is not None]


def gold_score(first: Scene, second: Scene) -> float:
    """0 to 5: the share of the facts stated on either side that the other side states too, weighted."""
    sides = facts(first), facts(second)
    stated = sum(WEIGHTS[fact.slot] for side in sides for fact in side)
    shared = math.fsum(  # not sum: Python 3.12 changed its last bit, and with it the drawn pairs
        WEIGHTS[fact.slot] * max(_agreement(fact, candidate) for candidate in other)
        for side, other in (sides, sides[::-1])
        for fact in side
    )
    return 5 * shared / stated


def _agreement(one: Fact, other: Fact) -> float:
    if one.slot != other.slot:
        return 0.0
    about = MISPLACED + (1 - MISPLACED) * _closeness(one.holder, other.holder)
    return about * _closeness(one.value, other.value)


def _closeness(one: str, other: str) -> float:
    if one == other:
        return 1.0
    return RELATED if one in CATEGORY and CATEGORY[one] == CATEGORY.get(other) else 0.0


def vocabulary() -> list[str]:
    """Every word and punctuation mark that the grammar can produce, lower case, sorted."""
    forms = [form for synonyms in _WORDS.values() for synonym in synonyms for form in synonym]
    templates = [*_RELATED_FORMS, *_TOGETHER, *_ALONE, *_JOINS, *_ORDERS, *_PLAIN, *_BE.values()]
    literal = [re.sub(r"{\w+}", " ", template) for template in templates]
    return sorted({".", "an", *(word for text in [*forms, *literal] for word in text.split())})


def say(scene: Scene, rng: random.Random) -> str:
    """One of the many sentences that state exactly what `scene` holds."""
    clauses = [_clause(group, rng) for group in scene.groups]
    told = clauses[0]
    if len(clauses) == 2:
        told = rng.choice(_JOINS).format(first=clauses[0], second=clauses[1])
    place, sky = ("" if concept is None else _word(concept, rng)[0] for concept in (scene.place, scene.sky))
    return _finish(rng.choice(_ORDERS).format(told=told, place=place, sky=sky))


def say_plain(rng: random.Random) -> str:
    """A sentence of the wider grammar: questions, negations, habits; it describes no scene."""
    thing, other = (_any(THINGS[_any_key(THINGS, rng)], rng) for _ in range(2))
    return _finish(
        rng.choice(_PLAIN).format(
            thing=thing[0],
            things=thing[1],
            other=other[0],
            others=other[1],
            colour=_any(COLOURS, rng)[0],
            size=_any(SIZES, rng)[0],
            sky=_any(SKIES, rng)[0],
            place=_any(PLACES[_any_key(PLACES, rng)], rng)[0],
        )
    )


def _clause(group: Group, rng: random.Random) -> str:
    one, other, side = group.one, group.other, 0
    if other is not None and rng.random() < 0.5:
        one, other, side = other, one, 1
    words = {"one": _noun_phrase(one, rng), "be": _BE[one.count != "one"]}
    if other is None:
        return rng.choice(_ALONE).format(**words)
    words["other"] = _noun_phrase(other, rng)
    if group.relation is None:
        return rng.choice(_TOGETHER).format(**words)
    return rng.choice(_RELATED_FORMS).format(**words, where=_word(group.relation, rng)[side])


def _noun_phrase(thing: Thing, rng: random.Random) -> str:
    noun = _word(thing.concept, rng)[thing.count != "one"]
    colour = "" if thing.colour is None else _word(thing.colour, rng)[0]
    size = "" if thing.size is None else _word(thing.size, rng)[0]
    return f"{_word(thing.count, rng)[0]} {size} {colour} {noun}"


def _finish(text: str) -> str:
    """Close the gaps of empty slots, choose between a and an, add the capital and the full stop."""
    text = " ".join(text.split()).strip(" ,").replace(" ,", ",").replace(" ?", "?")
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def _word(concept: str, rng: random.Random) -> tuple[str, ...]:
    return rng.choice(_WORDS[concept])


def _any(concepts: Iterable[str], rng: random.Random) -> tuple[str, ...]:
    return _word(_any_key(concepts, rng), rng)


def _any_key(names: Iterable[str], rng: random.Random) -> str:
    return rng.choice(list(names))
