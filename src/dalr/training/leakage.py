"""What is held out and trained on all the same: its scores are too high, and they choose the weights.

Sentences are compared as repetitions are counted, without case and white space; images by their features, from a
cosine on. Data sets repeat both, so this is a warning and no error, and `data.holdout.drop_leaking` takes them out
of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from dalr.data.dataset import Dataset
from dalr.data.holdout import NEAR_DUPLICATES, HoldoutConfig
from dalr.data.rows import comparable
from dalr.errors import DataError, Problem
from dalr.evaluation.sts import ScoredPairs
from dalr.features.near_duplicates import NearDuplicate, near_duplicates
from dalr.features.store import FeatureStore
from dalr.io.strings import keys_of

_SHOWN, _LONGEST = 5, 60
_REMEDY = "; data.holdout.drop_leaking: true takes them out of training"


def leakage_warnings(dataset: Dataset, scored: ScoredPairs | None, *, remedy: bool = False) -> tuple[str, ...]:
    """One line for each held-out set with sentences that are trained on; `remedy` says what a recipe may change."""
    sets: dict[str, tuple[Sequence[str], Int64[np.ndarray, " n"]]] = {}
    if dataset.validation is not None:
        sets["captions held out for validation"] = dataset.validation.captions, dataset.validation.keys
    if dataset.test is not None and dataset.test is not dataset.validation:
        sets["captions held out for the test"] = dataset.test.captions, dataset.test.keys
    own = set(sets)
    if scored is not None:
        scored_ones = scored.sentences()
        keys_of_scored = keys_of(map(comparable, scored_ones))
        sets[f"sentences of {scored.name}"] = scored_ones, keys_of_scored
    found = []
    for name, (sentences, keys) in sets.items():
        trained = [np.isin(keys, each.keys) for each in (dataset.pairs, dataset.text) if each is not None]
        both = [sentences[row] for row in np.flatnonzero(np.any(trained, axis=0)).tolist()] if trained else []
        if both:
            said = _warning(name, both, len(sentences))
            found.append(said + _REMEDY if remedy and name in own else said)
    return tuple(found)


def without_near_duplicates(
    dataset: Dataset, store: FeatureStore | None, config: HoldoutConfig | None
) -> tuple[Dataset, tuple[str, ...]]:
    """The dataset, without near-duplicates of held-out images where the recipe says so, and a line on them.

    Raises:
        DataError: nothing is left to train on.
    """
    pairs, held_out = dataset.pairs, dataset.held_out
    if store is None or config is None or pairs is None or held_out is None:
        return dataset, ()
    threshold = config.near_duplicates if config.near_duplicates is not None else NEAR_DUPLICATES
    found = near_duplicates(store, pairs.image_names, held_out.image_names, threshold=threshold)
    if found is None:
        count = f"{len(pairs.image_numbers):,} training and {len(held_out.image_numbers):,} held-out images"
        said = f"{count} are too many to look for near-duplicates among them; hold out fewer images"
        return _reporting(dataset, {"images_near_duplicate": "not compared"}), (said,)
    report: dict[str, int | str] = {"images_near_duplicate": len(found)}
    if not found:
        return _reporting(dataset, report), ()
    said = _images_warning(found, threshold)
    if not config.drop_leaking:
        return _reporting(dataset, report), (said + _REMEDY,)
    leaking = {each.training for each in found}
    named = np.fromiter((name in leaking for name in pairs.image_names), bool, len(pairs.image_numbers))
    kept = np.flatnonzero(~np.isin(pairs.image_of, pairs.image_numbers[named]))
    if not len(kept):
        what = "data.holdout.drop_leaking leaves no image: each is a near-duplicate of a held-out one"
        raise DataError(Problem(where=str(dataset.report.get("pairs_file", "")), what=what))
    report |= {"images_dropped_leaking": len(found), "captions_trained_on": len(kept)}
    dataset = replace(dataset, pairs=pairs.subset(kept))
    return _reporting(dataset, report), (f"{said}: taken out of training",)


def _reporting(dataset: Dataset, more: dict[str, int | str]) -> Dataset:
    return replace(dataset, report=dataset.report | more)


def _images_warning(found: Sequence[NearDuplicate], threshold: float) -> str:
    shown = ", ".join(
        f"{_shown(each.training)} of {_shown(each.held_out)} ({each.cosine:.3f})" for each in found[:_SHOWN]
    )
    more = ", …" if len(found) > _SHOWN else ""
    images = (
        "1 training image is a near-duplicate"
        if len(found) == 1
        else f"{len(found)} training images are near-duplicates"
    )
    return f"{images} of held-out images (cosine of features {threshold:g} or more): {shown}{more}"


def _warning(name: str, both: Sequence[str], count: int) -> str:
    distinct = list(dict.fromkeys(both))
    shown = ", ".join(_shown(sentence) for sentence in distinct[:_SHOWN])
    more = ", …" if len(distinct) > _SHOWN else ""
    score = "test" if name.endswith("test") else "validation"
    return f"{len(both)} of {count} {name} are also trained on, so the {score} score is too high: {shown}{more}"


def _shown(sentence: str) -> str:
    """A sentence as it may be shown on a terminal, shortened."""
    short = sentence if len(sentence) <= _LONGEST else f"{sentence[: _LONGEST - 1]}…"
    return repr(short)
