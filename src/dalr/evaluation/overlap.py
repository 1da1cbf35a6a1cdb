"""Which training sentences occur in the evaluation sets, exactly or nearly?

A model that was trained on the captions it is scored on looks better than it is: nine of ten sentences of
STS15-images are Flickr30k captions. Two sentences are the same here if they are equal after `folded`, and nearly
the same if the Jaccard similarity of their sets of words reaches a threshold. That is computed exactly, not by
hashing: the index holds the few evaluation sentences, the training sentences stream past it, and prefix filtering
(Chaudhuri et al. 2006; Bayardo et al. 2007) leaves so few candidates that a million sentences take seconds.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from dalr.data.dataset import read_pairs, read_text
from dalr.data.formats import holds_pairs
from dalr.errors import ConfigError, DataError, Problem
from dalr.evaluation.sts import ScoredPairs
from dalr.evaluation.table import markdown
from dalr.io.strings import Strings

THRESHOLD = 0.8
EXAMPLES = 5
_REPORT_EVERY = 10_000
_SLACK = 1e-9
"""Keeps a bound that is a whole number from being rounded past it; candidates are compared without it."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """A training sentence that an evaluation sentence was found in."""

    evaluation: str
    training: str
    similarity: float
    """Jaccard similarity of the sets of words; 1 for an exact match too."""
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much of a set, or of a part of it, was seen in training."""

    pairs: int
    pairs_exact: int
    pairs_near: int
    """Pairs without an exact match that have a near one."""
    sentences: int
    """Distinct after folding."""
    sentences_exact: int
    sentences_near: int


@dataclass(frozen=True, kw_only=True)
class TaskOverlap:
    """One evaluation set; the masks have a row a pair, in the order of its pairs."""

    name: str
    exact: Bool[np.ndarray, " pairs"]
    """One of the two sentences occurs in the training sentences."""
    near: Bool[np.ndarray, " pairs"]
    """One of the two nearly occurs, and none exactly."""
    keys: tuple[tuple[str, str], ...]
    """Both sentences of each pair, folded."""
    matches: Mapping[str, Match]
    """Folded evaluation sentence -> where it was found."""
    subset_rows: Mapping[str, slice]
    """Subset -> its pairs."""

    @property
    def affected(self) -> Bool[np.ndarray, " pairs"]:
        """The pairs to leave out for a score without what was trained on."""
        affected: np.ndarray = self.exact | self.near
        return affected

    def counts(self, rows: slice = slice(None)) -> Counts:
        """Counts over all pairs, or over a part of them such as a subset."""
        distinct = {key for pair in self.keys[rows] for key in pair}
        found = [self.matches[key].exact for key in distinct if key in self.matches]
        return Counts(
            pairs=len(self.keys[rows]),
            pairs_exact=int(self.exact[rows].sum()),
            pairs_near=int(self.near[rows].sum()),
            sentences=len(distinct),
            sentences_exact=sum(found),
            sentences_near=len(found) - sum(found),
        )

    def examples(self, count: int = EXAMPLES) -> list[Match]:
        """Near matches, the least similar first: those that a person should judge."""
        near = [match for match in self.matches.values() if not match.exact]
        return sorted(near, key=lambda match: (match.similarity, match.evaluation))[:count]


@dataclass(frozen=True, kw_only=True)
class OverlapReport:
    """What an audit found, set by set."""

    training_sentences: int
    threshold: float
    tasks: Mapping[str, TaskOverlap]

    def table(self) -> str:
        """A Markdown table, a row a set, and one for each of its subsets that has a match."""
        rows = []
        for name, task in self.tasks.items():
            rows.append(_cells(name, task.counts()))
            for subset, where in task.subset_rows.items():
                if task.affected[where].any() and len(task.subset_rows) > 1:
                    rows.append(_cells(f"{name} {subset}", task.counts(where)))
        headers = ["set", "pairs", "exact", "near", "affected", "sentences", "found exactly", "found nearly"]
        return markdown(headers, rows)


def audit(
    training: Iterable[str],
    pairs: Sequence[ScoredPairs],
    *,
    threshold: float = THRESHOLD,
    progress: Callable[[int], None] = lambda done: None,
) -> OverlapReport:
    """Find the sentences of `pairs` among the `training` sentences, which are read once and not kept.

    Args:
        threshold: smallest Jaccard similarity of a near match, in (0, 1].
        progress: called now and then with the number of training sentences that were looked at.

    Raises:
        ConfigError: the threshold is out of its range.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"overlap threshold: expected more than 0 and at most 1, found {threshold}")
    index = _Index([sentence for each in pairs for sentence in (*each.first, *each.second)], threshold)
    done = 0
    for sentence in training:
        index.meet(sentence)
        done += 1
        if done % _REPORT_EVERY == 0:
            progress(done)
    progress(done)
    tasks = {each.name: _task_overlap(each, index.matches) for each in pairs}
    return OverlapReport(training_sentences=done, threshold=threshold, tasks=tasks)


def training_sentences(path: Path) -> Strings:
    """All captions of a pairs file, or all lines of a text file; its ending and its content say which it is.

    Raises:
        DataError: with every problem in it. Empty lines are none here.
    """
    problems: list[Problem] = []
    if holds_pairs(path):
        sentences = read_pairs(path, problems, {}, on_empty="drop").captions
    else:
        sentences = read_text(path, problems, {}, on_empty="drop").lines
    if problems:
        raise DataError(problems)
    return sentences


_NOT_LATIN = re.compile(r"[^a-z0-9\s]")
_NOT_LETTERS = re.compile(r"[^\w\s]|_")
_ASCII_TABLE = {code: None for code in range(128) if not (chr(code).isalnum() or chr(code).isspace())}


def folded(sentence: str) -> str:
    """The form in which two sentences are the same sentence: letters and digits, case and white space folded.

    SentEval's sentences are tokenised and lower-cased ("a t-shirt , folded ."), captions are not, so punctuation is
    taken out without leaving a gap. A word that tokenising cut in two ("man 's") stays two: that is a near match.
    Letters outside ASCII go the same way, because in the STS files they are as
    often broken encoding as accents; unless they are the greater part, then the sentence is of another script.
    """
    if sentence.isascii():
        return " ".join(sentence.lower().translate(_ASCII_TABLE).split())
    text = unicodedata.normalize("NFKC", sentence).casefold()
    letters = _NOT_LETTERS.sub("", text)
    latin = _NOT_LATIN.sub("", text)
    other_script = 2 * len("".join(latin.split())) < len("".join(letters.split()))
    return " ".join((letters if other_script else latin).split())


class _Index:
    """The evaluation sentences by their rare words, and what was found of them so far."""

    def __init__(self, sentences: Iterable[str], threshold: float) -> None:
        self.threshold = threshold
        self.original: dict[str, str] = {}
        for sentence in sentences:
            self.original.setdefault(folded(sentence), sentence)
        self.original.pop("", None)
        self.matches: dict[str, Match] = {}
        self.words = {key: frozenset(key.split()) for key in self.original}
        frequency = Counter(word for words in self.words.values() for word in words)
        by_rarity = sorted(frequency, key=lambda word: (frequency[word], word))
        self.rank = {word: rank for rank, word in enumerate(by_rarity)}
        self.having: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        """Word -> size of a set of words -> folded sentences of that size with that word in their prefix."""
        for key, words in self.words.items():
            for word in self._prefix(words):
                self.having[word][len(words)].append(key)

    def meet(self, sentence: str) -> None:
        """Note which evaluation sentences a training sentence is, or nearly is."""
        key = folded(sentence)
        if key in self.original:
            found = self.matches.get(key)
            if found is None or not found.exact:
                self._note(key, sentence, 1.0, exact=True)
        words = frozenset(key.split())
        for candidate in self._candidates(words):
            if candidate in self.matches:
                continue
            common = len(words & self.words[candidate])
            similarity = common / (len(words) + len(self.words[candidate]) - common)
            if similarity >= self.threshold:
                self._note(candidate, sentence, similarity, exact=False)

    def _candidates(self, words: frozenset[str]) -> set[str]:
        """Sentences with a rare word in common, and with so many words that they can be similar enough."""
        fewest, most = self._least(len(words)), math.floor(len(words) / self.threshold + _SLACK)
        return {
            key
            for word in self._prefix(words)
            if word in self.having
            for size, keys in self.having[word].items()
            if fewest <= size <= most
            for key in keys
        }

    def _least(self, size: int) -> int:
        """How many common words a sentence of `size` words needs at least."""
        return math.ceil(self.threshold * size - _SLACK)

    def _prefix(self, words: frozenset[str]) -> list[str]:
        """The rarest words of a sentence, so many that any sentence similar enough has one of them in its own.

        Similarity t needs at least t·|words| common words, so two sentences whose first
        |words| − ⌈t·|words|⌉ + 1 words in a common order are disjoint cannot reach it. Words that no evaluation
        sentence has are the rarest of all: they fill places, and often all of them.
        """
        length = len(words) - self._least(len(words)) + 1
        known = [word for word in words if word in self.rank]
        length -= len(words) - len(known)
        return sorted(known, key=self.rank.__getitem__)[:length] if length > 0 else []

    def _note(self, key: str, sentence: str, similarity: float, *, exact: bool) -> None:
        self.matches[key] = Match(
            evaluation=self.original[key], training=sentence, similarity=similarity, exact=exact
        )


def _task_overlap(pairs: ScoredPairs, matches: Mapping[str, Match]) -> TaskOverlap:
    keys = tuple((folded(a), folded(b)) for a, b in zip(pairs.first, pairs.second, strict=True))
    exact = np.array([any(key in matches and matches[key].exact for key in both) for both in keys], dtype=bool)
    found = np.array([any(key in matches for key in both) for both in keys], dtype=bool)
    own = {key: matches[key] for both in keys for key in both if key in matches}
    return TaskOverlap(
        name=pairs.name,
        exact=exact,
        near=found & ~exact,
        keys=keys,
        matches=own,
        subset_rows=pairs.subset_rows(),
    )


def _cells(name: str, counts: Counts) -> list[str]:
    share = (counts.pairs_exact + counts.pairs_near) / counts.pairs if counts.pairs else 0.0
    numbers = (counts.pairs, counts.pairs_exact, counts.pairs_near)
    distinct = (counts.sentences, counts.sentences_exact, counts.sentences_near)
    return [name, *map(str, numbers), f"{100 * share:.1f} %", *map(str, distinct)]
