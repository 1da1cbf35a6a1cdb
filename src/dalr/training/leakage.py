"""Which validation sentences are trained on? Their score is too high, and it chooses the weights.

Sentences are compared as repetitions are counted, without case and white space. Data sets repeat captions, so this
is a warning and no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from dalr.data.dataset import Dataset
from dalr.data.rows import comparable
from dalr.evaluation.sts import ScoredPairs

_SHOWN, _LONGEST = 5, 60


def leakage_warnings(dataset: Dataset, scored: ScoredPairs | None) -> tuple[str, ...]:
    """One line for each validation set that holds sentences which are trained on."""
    sets: dict[str, Sequence[str]] = {}
    if dataset.held_out is not None:
        sets["captions held out for validation"] = dataset.held_out.captions
    if scored is not None:
        sets[f"sentences of {scored.name}"] = scored.sentences()
    if not sets:
        return ()
    keys = {name: [comparable(sentence) for sentence in sentences] for name, sentences in sets.items()}
    wanted = set(chain.from_iterable(keys.values()))
    pairs, text = dataset.pairs, dataset.text
    trained = chain(pairs.captions if pairs is not None else (), text.lines if text is not None else ())
    seen = {key for sentence in trained if (key := comparable(sentence)) in wanted}
    found = []
    for name, sentences in sets.items():
        both = [sentence for sentence, key in zip(sentences, keys[name], strict=True) if key in seen]
        if both:
            found.append(_warning(name, both, len(sentences)))
    return tuple(found)


def _warning(name: str, both: Sequence[str], count: int) -> str:
    distinct = list(dict.fromkeys(both))
    shown = ", ".join(_shown(sentence) for sentence in distinct[:_SHOWN])
    more = ", …" if len(distinct) > _SHOWN else ""
    return f"{len(both)} of {count} {name} are also trained on, so the validation score is too high: {shown}{more}"


def _shown(sentence: str) -> str:
    """A sentence as it may be shown on a terminal, shortened."""
    short = sentence if len(sentence) <= _LONGEST else f"{sentence[: _LONGEST - 1]}…"
    return repr(short)
