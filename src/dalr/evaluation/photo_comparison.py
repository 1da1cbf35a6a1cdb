"""Is a run better than what could be taken off the shelf, on images that it has never seen? In words, with numbers.

All models are scored on the test images of the first run: the runs by their trained heads, every other encoder, and
the encoder that the run began as, by a linear map fitted on the run's training images, CLIP's own text tower by its
stored vectors. A difference counts where its 95 % interval over images leaves out 0; else it is "not better".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dalr.errors import ConfigError, DalrError, Problem
from dalr.evaluation.bootstrap import compare
from dalr.evaluation.loaded import LoadedTask, RetrievalTask
from dalr.evaluation.models import text_model
from dalr.evaluation.own_photos import OwnSet, RunPhotos
from dalr.evaluation.own_scores import CAPTIONS_MAP, IMAGE_TO_TEXT, TEXT_TO_IMAGE
from dalr.evaluation.request import Place, Request, locate
from dalr.evaluation.results import CaptionsResult, Comparison, Evaluation, Evaluations, Failed, RetrievalResult
from dalr.evaluation.retrieval_data import OwnData, captions_of, captions_task, text_retrieval
from dalr.evaluation.runs import recipe_of_run
from dalr.evaluation.score import EvaluatedModel, failure
from dalr.evaluation.score import evaluate as score
from dalr.features.source import open_features
from dalr.features.store import FeatureStore
from dalr.io.paths import is_file
from dalr.models.config import EncoderConfig, StudentConfig
from dalr.models.reference import run_around
from dalr.recipe.schema import Recipe

_TASKS = ("retrieval", "captions")
_LONGEST_CHAIN = 100
_QUESTIONS = {
    TEXT_TO_IMAGE: "finds the image first for {} % of captions",
    IMAGE_TO_TEXT: "ranks a correct caption first for {} % of images",
    CAPTIONS_MAP: "finds the other captions of an image with a mean average precision of {}",
}
"""What is decided on -> in words."""


@dataclass(frozen=True, kw_only=True)
class PhotoComparison:
    """The scores of all models on one set of images, and what they say of the run."""

    split: str
    images: int
    captions: int
    models: tuple[Evaluation, ...]
    """The run first, then what it is compared with."""
    comparisons: tuple[Comparison, ...]
    """The run against each other model, and its encoder against those that find images by a linear map too."""
    chance: dict[str, float]
    verdict: tuple[str, ...]
    """A sentence on the images, then one for each other model."""
    failed: tuple[Failed, ...] = ()
    """Models that could not be scored, and why."""

    def results(self) -> Evaluations:
        """As `dalr evaluate --json` writes it, with the verdict."""
        return Evaluations(
            models=self.models, comparisons=self.comparisons, failed=self.failed, verdict=self.verdict
        )


def compare_photos(
    run: str, models: Sequence[str], request: Request, *, clip_text: Path | None = None
) -> PhotoComparison:
    """Score a run, its baselines and further models on the run's test images.

    Args:
        run: a run folder with held-out images.
        models: further runs, model folders or hub ids.
        clip_text: a store of the text vectors of the captions by the model that made the image features; None takes
            the one that the recipe names, if any.

    Raises:
        ConfigError: not a run, no test images, another run that was trained on some of them, or a `clip_text` of
            another model than the image features.
        DataError: its data cannot be read, or captions have no vector in `clip_text`.
    """
    first = locate(run, request)
    if first.run is None:
        inside = run_around(run)
        advice = f"use {inside}" if inside is not None else "for a model alone use dalr evaluate"
        what = f"expected a run folder (with run.json), found {run!r}; {advice}"
        raise ConfigError(Problem(where="RUN", what=what))
    own = OwnData(request=request, common=first.run)
    photos = own.photos(first.run)
    test = photos.require_test()
    store = _text_store(photos, clip_text)
    if store is not None and clip_text is not None:
        _require_one_model(store, photos.features())
        store.rows_of(test.caption_ids, what="caption")
    others = [locate(model, request) for model in models]
    for place in others:
        _require_unseen(place, own, test)
    evaluations = [_scored(first, own, request)]
    mapped = replace(first, name=f"{first.name} (linear map)", heads=None) if first.heads is not None else None
    failed: list[Failed] = []
    attempts: list[tuple[str, Callable[[], Evaluation]]] = [
        (place.name, lambda place=place: _scored(place, own, request))  # type: ignore[misc]
        for place in (*((mapped,) if mapped is not None else ()), *_with_untouched(photos, others))
    ]
    if store is not None:
        attempts.append((_tower_name(store), lambda: _tower(store, photos, test, request)))
    for name, attempt in attempts:
        try:
            evaluations.append(attempt())
        except DalrError as error:
            failed.append(failure(name, error))
    like = [each for each in evaluations if mapped is not None and each.model == mapped.name]
    comparisons = [
        each for other in evaluations[1:] if other not in like for each in compare((evaluations[0], other))
    ]
    for same_way in like:  # encoders alone, with the same kind of map
        for other in evaluations[1:]:
            if other is not same_way and _way(other) == _way(same_way):
                comparisons += compare((same_way, other))
    return PhotoComparison(
        split=test.split,
        images=len(test.names),
        captions=len(test.captions),
        models=tuple(evaluations),
        comparisons=tuple(comparisons),
        chance=_chance(test),
        verdict=tuple(_verdict(test, evaluations, comparisons)),
        failed=tuple(failed),
    )


def _require_unseen(place: Place, own: OwnData, test: OwnSet) -> None:
    """Refuse a run that knows images of the test."""
    if place.run is None:
        return
    seen = own.photos(place.run).seen(test.names)
    if seen:
        what = (
            f"was trained on {len(seen)} of the {len(test.names)} test images of {test.where}, the first is "
            f"{seen[0]!r}, or they chose its weights; hold out by fractions or by the same file in both recipes"
        )
        raise ConfigError(Problem(where=place.name, what=what))


def _with_untouched(photos: RunPhotos, others: Sequence[Place]) -> list[Place]:
    """The encoder that the run began as, then the other models."""
    student = _first_student(photos.recipe)
    encoder = EncoderConfig(
        model=student.model,
        revision=student.revision,
        pooling=student.pooling,
        num_layers=student.num_layers,
        prompt=student.prompt,
    )
    untouched = Place(name=f"{student.model} (untouched)", encoder=encoder)
    return [untouched, *others]


def _first_student(recipe: Recipe) -> StudentConfig:
    """The encoder that a chain of runs, each begun with the one before, began as."""
    student = recipe.student
    for _ in range(_LONGEST_CHAIN):
        run = Path(student.model).parent
        if not is_file(run / "run.json"):
            break
        student = recipe_of_run(run).student
    return student


def _scored(place: Place, own: OwnData, request: Request) -> Evaluation:
    """The scores of a text encoder; one that has no way to find images is scored on captions alone."""
    tasks: list[LoadedTask] = []
    failed: list[Failed] = []
    if own.captions(place).has_images_of_several_captions:
        tasks.append(captions_task(place, own))
    try:
        tasks.insert(0, text_retrieval(place, own))
    except ConfigError as error:
        failed.append(failure(_TASKS[0], error))
    encoder = place.encoder
    of_place = replace(request, tasks=_TASKS, num_layers=encoder.num_layers, pooling=encoder.pooling)
    return score(text_model(place, of_place), tasks, failed=failed, map_method="none", console=request.console)


def _text_store(photos: RunPhotos, named: Path | None) -> FeatureStore | None:
    """The stored text vectors of the captions, where there are any."""
    if named is not None:
        return open_features(named, None)
    features, data = photos.recipe.features, photos.recipe.data
    if features.clip_text is None:
        return None
    ids = data.path(features.clip_text_ids) if features.clip_text_ids is not None else None
    return open_features(data.path(features.clip_text), ids)


def _tower_name(store: FeatureStore) -> str:
    return f"{store.source.get('model') or store.source.get('matrix') or store.folder.name} (its own text tower)"


def _tower(store: FeatureStore, photos: RunPhotos, test: OwnSet, request: Request) -> Evaluation:
    """The text tower of the model that made the image features, by its stored vectors of the captions.

    Raises:
        ConfigError: the two stores are of different models.
        DataError: captions without a vector.
    """
    images = photos.features()
    _require_one_model(store, images)
    captions = store.read(store.rows_of(test.caption_ids, what="caption"))
    row = {caption: number for number, caption in enumerate(test.captions)}
    shown = test.vectors(images)
    model = EvaluatedModel(
        name=_tower_name(store), embed=lambda sentences: captions[[row[sentence] for sentence in sentences]]
    )
    retrieval = RetrievalTask(
        captions=test.captions,
        owner=test.owner,
        space="model",
        project=lambda sentences: (sentences, shown),
        split=test.split,
        items=test.items,
    )
    others = [captions_of(test)] if test.has_images_of_several_captions else []
    return score(model, [retrieval, *others], map_method="none", console=request.console)


def _require_one_model(store: FeatureStore, images: FeatureStore) -> None:
    """Refuse text vectors that cannot be compared with the image features.

    Raises:
        ConfigError: another dimension, or another model where both are known.
    """
    made = [each.source.get("sha256") for each in (store, images)]
    if store.dim != images.dim or (None not in made and made[0] != made[1]):
        model = images.source.get("model") or "MODEL"
        what = (
            f"text vectors of {store.dim} dimensions {_by(store)}, image features of {images.dim} {_by(images)}; "
            f"expected both of one model: dalr features text --pairs PAIRS --model {model} --out STORE"
        )
        raise ConfigError(Problem(where=f"text vectors {store.folder}", what=what))


def _by(store: FeatureStore) -> str:
    """What made the vectors of a store, in words."""
    encoder = store.source.get("encoder")
    model = encoder.get("model") if isinstance(encoder, dict) else store.source.get("model")
    if model is not None:
        return f"by {model!r}"
    matrix = store.source.get("matrix")
    return f"imported from {matrix!r}, by an unknown model" if matrix is not None else "by an unknown model"


def _chance(test: OwnSet) -> dict[str, float]:
    """R@1 × 100 of answers at random."""
    captions, images = len(test.captions), len(test.names)
    own = np.bincount(test.owner, minlength=images)
    return {TEXT_TO_IMAGE: 100 / images, IMAGE_TO_TEXT: float(np.mean(100 * own / captions))}


def _verdict(test: OwnSet, models: Sequence[Evaluation], comparisons: Sequence[Comparison]) -> Iterator[str]:
    yield (
        f"On {len(test.names)} images never trained on ({len(test.captions)} captions; split: {test.split}), "
        f"{models[0].model} {_said(models[0])}."
    )
    run = models[0].model
    against = {each.b for each in comparisons if each.a == run}
    for other in models[1:]:
        if other.model not in against:
            continue
        found = [each for each in comparisons if each.b == other.model]
        alike = [each for each in found if each.a != run and each.metric in (TEXT_TO_IMAGE, IMAGE_TO_TEXT)]
        said = " ".join(_sentences(other, [each for each in found if each.a == run]))
        yield said + (f" Both with a linear map: {', '.join(map(_told, alike))}." if alike else "")


def _sentences(other: Evaluation, found: Sequence[Comparison]) -> Iterator[str]:
    decided = [each for each in found if each.metric in _QUESTIONS]
    sides = {
        "better": [each for each in decided if each.interval[0] > 0],
        "worse": [each for each in decided if each.interval[1] < 0],
        "not better": [each for each in decided if each.interval[0] <= 0 <= each.interval[1]],
    }
    parts = [f"{word} at {', '.join(map(_told, several))}" for word, several in sides.items() if several]
    if not parts:
        yield f"Against {other.model}: no score in common."
        return
    yield f"Against {other.model} ({_way(other)}), which {_said(other)}, it is {'; '.join(parts)}."
    if sides["better"] and not sides["worse"] and not sides["not better"]:
        yield "Verdict: better."
    elif not sides["better"]:
        yield "Verdict: worse." if sides["worse"] else "Verdict: not better."
    else:
        yield f"Verdict: better at some, {'worse' if sides['worse'] else 'not better'} at others."


def _told(each: Comparison) -> str:
    low, high = each.interval
    return f"{each.metric} {each.difference:+.1f} (95 % {low:+.1f} to {high:+.1f})"


def _said(evaluation: Evaluation) -> str:
    values: dict[str, float] = {}
    for result in evaluation.tasks.values():
        match result:
            case RetrievalResult():
                values |= {TEXT_TO_IMAGE: result.text_to_image.r1, IMAGE_TO_TEXT: result.image_to_text.r1}
            case CaptionsResult():
                values[CAPTIONS_MAP] = result.map
            case _:
                pass
    return ", ".join(words.format(f"{values[name]:.1f}") for name, words in _QUESTIONS.items() if name in values)


def _way(evaluation: Evaluation) -> str:
    """How it finds images."""
    found = [each.space for each in evaluation.tasks.values() if isinstance(each, RetrievalResult)]
    words = {"grounding": "trained heads", "linear map": "with a linear map", "model": "zero-shot"}
    return words.get(found[0], found[0]) if found else "captions alone"
