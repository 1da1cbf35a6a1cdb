"""The language of the demo world: meaning is a `Scene` of concepts, and words are chosen last.

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
    "person": {
        "man": "man/men|guy/guys|gentleman/gentlemen",
        "woman": "woman/women|lady/ladies",
        "boy": "boy/boys|lad/lads",
        "girl": "girl/girls|lass/lasses",
        "baby": "baby/babies|infant/infants|toddler/toddlers",
    },
    "animal": {
        "dog": "dog/dogs|puppy/puppies|hound/hounds",
        "cat": "cat/cats|kitten/kittens|kitty/kitties",
        "horse": "horse/horses|pony/ponies|stallion/stallions",
        "rabbit": "rabbit/rabbits|bunny/bunnies|hare/hares",
    },
    "vehicle": {
        "car": "car/cars|automobile/automobiles|sedan/sedans",
        "bicycle": "bicycle/bicycles|bike/bikes",
        "truck": "truck/trucks|lorry/lorries",
    },
    "toy": {
        "ball": "ball/balls|football/footballs",
        "doll": "doll/dolls|puppet/puppets",
        "frisbee": "frisbee/frisbees|disc/discs",
    },
    "food": {
        "cake": "cake/cakes|pastry/pastries",
        "bread": "loaf/loaves|bun/buns",
        "fruit": "apple/apples|pear/pears",
    },
}
ACTIVITIES = {  # plural / singular / -ing / participle, the last only where there is a target
    "motion": {
        "run": "run/runs/running|dash/dashes/dashing|race/races/racing",
        "jump": "jump/jumps/jumping|leap/leaps/leaping|hop/hops/hopping",
    },
    "rest": {
        "sleep": "sleep/sleeps/sleeping|nap/naps/napping|doze/dozes/dozing",
        "sit": "sit/sits/sitting|relax/relaxes/relaxing",
    },
    "pursuit": {
        "chase": "chase/chases/chasing/chased|pursue/pursues/pursuing/pursued",
        "watch": "watch/watches/watching/watched|observe/observes/observing/observed",
    },
    "handling": {
        "carry": "carry/carries/carrying/carried|hold/holds/holding/held",
        "push": "push/pushes/pushing/pushed|shove/shoves/shoving/shoved",
        "eat": "eat/eats/eating/eaten|munch/munches/munching/munched|devour/devours/devouring/devoured",
    },
}
PLACES = {
    "town": {
        "street": "on the street|on the road|along the avenue",
        "school": "at the school|in front of the classroom",
        "station": "at the station|on the platform",
    },
    "nature": {
        "field": "in the field|in the meadow|on the pasture",
        "forest": "in the forest|in the woods|among the trees",
        "beach": "on the beach|on the shore|by the sea",
    },
    "home": {
        "kitchen": "in the kitchen|beside the stove",
        "garden": "in the garden|in the backyard|on the lawn",
        "lounge": "in the lounge|on the carpet|beside the sofa",
    },
}
# These have no category: another colour, size, mood, number or weather is simply another one.
COLOURS = {
    "red": "red|crimson|scarlet",
    "blue": "blue|azure",
    "green": "green|emerald",
    "yellow": "yellow|golden",
    "brown": "brown|tan",
    "black": "black|ebony",
    "white": "white|ivory",
}
SIZES = {"big": "big|large|huge", "small": "small|little|tiny"}
MOODS = {"happy": "happy|cheerful|smiling", "tired": "tired|weary|exhausted"}
COUNTS = {"one": "a|the", "two": "two|a pair of|a couple of", "many": "several|many|a group of"}
SKIES = {
    "rain": "in the rain|during a shower|on a wet day",
    "sun": "in the sunshine|under a clear sky|on a bright day",
    "snow": "in the snow|on a frosty day",
    "night": "at night|after dark|under the stars",
}
TARGETS = {
    "chase": ("animal", "toy"),
    "watch": ("person", "animal", "vehicle"),
    "carry": ("toy", "food"),
    "push": ("vehicle", "toy"),
    "eat": ("food",),
}
"""What an activity may be aimed at, by category; an activity that is not here has no target."""

WEIGHTS = {"thing": 10, "does": 10, "aim": 5, "place": 6, "colour": 4, "sky": 4, "quality": 3, "count": 3}
"""How much a fact of each slot counts in a gold score: first who does what."""
RELATED = 0.4
"""Credit for another concept of the same category: a cat for a dog."""
MISPLACED = 0.4
"""Credit for a fact that is told of something unrelated: a red car for a red dog."""

_ACTIVE = (
    "{actor} {finite} {target}",
    "{actor} {be} {ing} {target}",
    "there {be} {actor} {ing} {target}",
    "{actor} {ing} {target}",
)
_PASSIVE = ("{target} {target_be} {done} by {actor}", "{target} being {done} by {actor}")
_BARE = ("{actor}", "there {be} {actor}", "we can see {actor}", "a photo of {actor}")
_JOINS = ("{first} while {second}", "{first} and {second}", "{second} as {first}", "{second} and {first}")
_ORDERS = ("{told} {place} {sky}", "{told} {sky} {place}", "{place} , {told} {sky}", "{sky} , {told} {place}")
_BE = {False: "is", True: "are"}
_WEARING = ("in", "dressed in", "wearing")
_PLAIN = (
    "nobody saw the {animal} {place} yesterday",
    "every {person} likes {colour} {things}",
    "most {things} are not {colour}",
    "my {person} wants to {verb} {sky}",
    "can {animals} {verb} {place} ?",
    "the {mood} {person} will never {verb} again",
    "i think that {animals} like to {verb}",
    "it is easy to {verb} {place}",
    "why did the {animal} not {verb} {sky} ?",
    "she bought a {size} {colour} {thing} last week",
    "he sold his {thing} because it was too {size}",
    "{animals} and {people} live together",
    "their {animal} is {size} but very {mood}",
    "where is the {thing} that was {place} ?",
    "some {people} prefer {things} to {animals}",
    "we should not {verb} {place} {sky}",
)


@dataclass(frozen=True, kw_only=True)
class Thing:
    concept: str
    count: str = "one"
    colour: str | None = None
    quality: str | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """A target is never without an activity."""

    actor: Thing
    activity: str | None = None
    target: Thing | None = None

    @property
    def things(self) -> tuple[Thing, ...]:
        return (self.actor,) if self.target is None else (self.actor, self.target)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A state of affairs; None is what is left open. A picture shows a whole one, a sentence tells a part."""

    events: tuple[Event, ...]
    place: str | None = None
    sky: str | None = None

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(thing for event in self.events for thing in event.things)


class Fact(NamedTuple):
    slot: str
    value: str
    holder: str = ""


_GROUPED = (THINGS, ACTIVITIES, PLACES)
_SINGLE = (COLOURS, SIZES, MOODS, COUNTS, SKIES)

CATEGORY = {concept: category for table in _GROUPED for category, concepts in table.items() for concept in concepts}
FREE = [concept for concepts in ACTIVITIES.values() for concept in concepts if concept not in TARGETS]
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
        details = {"colour": thing.colour, "quality": thing.quality, "count": number}
        found.append(Fact("thing", thing.concept))
        found += [Fact(slot, value, thing.concept) for slot, value in details.items() if value is not None]
    for event in scene.events:
        if event.activity is not None:
            found.append(Fact("does", event.activity, event.actor.concept))
            found += [Fact("aim", thing.concept, event.activity) for thing in event.things[1:]]
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


def qualities_of(concept: str) -> dict[str, str]:
    """People have moods, everything else has a size."""
    return MOODS if CATEGORY[concept] == "person" else SIZES


def vocabulary() -> list[str]:
    """Every word and punctuation mark that the grammar can produce, lower case, sorted."""
    forms = [form for synonyms in _WORDS.values() for synonym in synonyms for form in synonym]
    templates = [*_ACTIVE, *_PASSIVE, *_BARE, *_JOINS, *_ORDERS, *_PLAIN, *_BE.values(), *_WEARING]
    literal = [re.sub(r"{\w+}", " ", template) for template in templates]
    return sorted({".", "an", *(word for text in [*forms, *literal] for word in text.split())})


def say(scene: Scene, rng: random.Random) -> str:
    """One of the many sentences that state exactly what `scene` holds."""
    clauses = [_clause(event, rng) for event in scene.events]
    told = clauses[0]
    if len(clauses) == 2:
        told = rng.choice(_JOINS).format(first=clauses[0], second=clauses[1])
    place, sky = ("" if concept is None else _word(concept, rng)[0] for concept in (scene.place, scene.sky))
    return _finish(rng.choice(_ORDERS).format(told=told, place=place, sky=sky))


def say_plain(rng: random.Random) -> str:
    """A sentence of the wider grammar: questions, negations, habits; it describes no scene."""
    person, animal, thing = (_any(THINGS[kind], rng) for kind in ("person", "animal", _any_key(THINGS, rng)))
    return _finish(
        rng.choice(_PLAIN).format(
            person=person[0],
            people=person[1],
            animal=animal[0],
            animals=animal[1],
            thing=thing[0],
            things=thing[1],
            colour=_any(COLOURS, rng)[0],
            size=_any(SIZES, rng)[0],
            mood=_any(MOODS, rng)[0],
            sky=_any(SKIES, rng)[0],
            place=_any(PLACES[_any_key(PLACES, rng)], rng)[0],
            verb=_any(FREE, rng)[0],
        )
    )


def _clause(event: Event, rng: random.Random) -> str:
    plural = event.actor.count != "one"
    actor = _noun_phrase(event.actor, rng)
    if event.activity is None:
        return rng.choice(_BARE).format(actor=actor, be=_BE[plural])
    verb = _word(event.activity, rng)
    templates: tuple[str, ...] = _ACTIVE
    target, target_be = "", ""
    if event.target is not None:
        templates = _ACTIVE + _PASSIVE
        target, target_be = _noun_phrase(event.target, rng), _BE[event.target.count != "one"]
    return rng.choice(templates).format(
        actor=actor,
        target=target,
        be=_BE[plural],
        target_be=target_be,
        finite=verb[not plural],
        ing=verb[2],
        done=verb[-1],
    )


def _noun_phrase(thing: Thing, rng: random.Random) -> str:
    noun = _word(thing.concept, rng)[thing.count != "one"]
    colour = "" if thing.colour is None else _word(thing.colour, rng)[0]
    quality = "" if thing.quality is None else _word(thing.quality, rng)[0]
    count = _word(thing.count, rng)[0]
    if CATEGORY[thing.concept] == "person" and colour:  # a green man is news, a man in green is not
        return f"{count} {quality} {noun} {rng.choice(_WEARING)} {colour}"
    return f"{count} {quality} {colour} {noun}"


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
