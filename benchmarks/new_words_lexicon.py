"""Invented words in the place of frequent ones: which words, what they become, and how a sentence is rewritten.

A word is replaced wherever it occurs, by its lemma: "dog", "dogs" and "dog's" become an invented word and its
forms. A form is turned into its lemma without looking at the sentence, so that one spelling is always one word.
Plural, -ing, -ed and comparatives keep their endings: new words have the grammar of old ones.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import simplemma

WORDS = 400
"""How many lemmas become invented words."""

_WORD = re.compile(r"[^\W\d_]+")
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_SHAPE = (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS, _CONSONANTS)
_ENDINGS = ("", "s", "ing", "ed", "er", "est")

_CLOSED_CLASSES = """
a an the this that these those each every either neither both all any some no none not another other such same
own many much more most few several less least enough half i me my mine myself you your yours yourself he him
his himself she her hers herself it its itself we us our ours ourselves they them their theirs themselves one
ones who whom whose which what whatever whoever someone somebody something anyone anybody anything everyone
everybody everything nobody nothing be am is are was were been being have has had having do does did done doing
can could may might must shall should will would ought get gets got getting let lets of in on at by for with
without within about above across after against along alongside amid among amongst around as atop before behind
below beneath beside besides between beyond despite down during except from inside into like near nearby next
off onto out outside over past per since through throughout till to together toward towards under underneath
until up upon via away back and or but nor so yet if because although though unless while whilst whereas than
then when whenever where wherever why how whether there here just only also too very quite rather almost again
ever never always now still even zero two three four five six seven eight nine ten eleven twelve first second
third don isn aren wasn weren doesn didn hasn haven hadn won couldn wouldn shouldn ll ve re
"""
FUNCTION_WORDS = frozenset(_CLOSED_CLASSES.split())
"""Words of the closed classes: determiners, pronouns, auxiliaries, prepositions, conjunctions, numerals, and the
adverbs that go with them."""

_LEMMAS = {
    "playing": "play",
    "playes": "play",
    "played": "play",
    "sitting": "sit",
    "swinging": "swing",
    "hanging": "hang",
    "fishing": "fish",
    "smoking": "smoke",
    "writing": "write",
    "crossing": "cross",
    "skies": "sky",
    "bathing": "bathe",
}
"""Frequent forms that simplemma 2.0.0 leaves alone or turns into something that is no word."""

_SPELLINGS = {"grey": "gray", "blonde": "blond"}
"""Two spellings of one word."""


@cache
def lemma_of(form: str) -> str:
    """The lemma of a word in small letters."""
    known = _LEMMAS.get(form) or _SPELLINGS.get(form)
    return known or simplemma.lemmatize(form, lang="en").lower()


def words_of(sentence: str) -> list[str]:
    """The words of a sentence, in small letters."""
    return [word.lower() for word in _WORD.findall(sentence)]


def is_content(form: str) -> bool:
    """Whether a word says something by itself; single letters (an `s` after an apostrophe) do not."""
    return len(form) > 1 and form not in FUNCTION_WORDS and lemma_of(form) not in FUNCTION_WORDS


def frequent_lemmas(sentences: Iterable[str], count: int = WORDS) -> dict[str, int]:
    """The most frequent content lemmas with how often they occur; of equally frequent ones the first by alphabet.

    Raises:
        ValueError: the sentences have fewer.
    """
    forms = Counter(word for sentence in sentences for word in words_of(sentence))
    lemmas: Counter[str] = Counter()
    for form, times in forms.items():
        if is_content(form):
            lemmas[lemma_of(form)] += times
    if len(lemmas) < count:
        raise ValueError(f"expected at least {count} different content words, found {len(lemmas)}")
    ranked = sorted(lemmas.items(), key=lambda item: (-item[1], item[0]))
    return dict(ranked[:count])


def invent(lemmas: Sequence[str], *, seed: int, taken: Collection[str]) -> dict[str, str]:
    """An invented word for each lemma: consonant, vowel, consonant, vowel, consonant.

    None of them, nor any of their forms, is in `taken`, a word of English as simplemma knows it, or another one's.
    """
    draw = random.Random(f"new words {seed}")
    found: dict[str, str] = {}
    used = set(taken)
    for lemma in lemmas:
        while True:
            word = "".join(letters[int(draw.random() * len(letters))] for letters in _SHAPE)
            forms = [word + ending for ending in _ENDINGS]
            if used.isdisjoint(forms) and not any(simplemma.is_known(form, lang="en") for form in forms):
                break
        used.update(forms)
        found[lemma] = word
    return found


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Lemmas and what they become."""

    words: Mapping[str, str]

    def rewrite(self, sentence: str) -> str:
        """The sentence in new words; everything else stays as it is."""
        return _WORD.sub(lambda found: self._form(found[0]), sentence)

    def count(self, sentence: str) -> tuple[int, int]:
        """(words that are replaced, all words)."""
        words = words_of(sentence)
        return sum(self._stem(word) is not None for word in words), len(words)

    def _stem(self, form: str) -> str | None:
        return self.words.get(lemma_of(form)) if is_content(form) else None

    def _form(self, written: str) -> str:
        stem = self._stem(written.lower())
        if stem is None:
            return written
        return _cased(written)(stem + ending_of(written.lower(), lemma_of(written.lower())))


def ending_of(form: str, lemma: str) -> str:
    """What is kept of a form: the ending that a regular word would have there."""
    if form == lemma or form in _SPELLINGS:
        return ""
    if form.endswith("ing"):
        return "ing"
    if form.endswith("est") and not lemma.endswith("est"):
        return "est"
    if form.endswith("er") and not lemma.endswith("er"):
        return "er"
    if form.endswith("s") or _is_irregular_plural(form, lemma):
        return "s"
    return "ed"


def _is_irregular_plural(form: str, lemma: str) -> bool:
    pairs = (("men", "man"), ("children", "child"), ("feet", "foot"), ("teeth", "tooth"), ("geese", "goose"))
    return any(form.endswith(plural) and lemma.endswith(single) for plural, single in (*pairs, ("mice", "mouse")))


def _cased(written: str) -> Callable[[str], str]:
    if len(written) > 1 and written.isupper():
        return str.upper
    return str.capitalize if written[0].isupper() else str
