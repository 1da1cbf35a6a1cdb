"""What does a run read before a model is loaded? Captions, text, stored vectors, validation pairs.

Nothing here imports torch. Every problem of every input is reported at once, missing vectors of single rows
included, so that `dalr check` and the start of a training say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from dalr.data.dataset import Dataset, load_dataset
from dalr.data.rows import CaptionedImages, Kind, Sentences
from dalr.data.schedule import Plan, Stream, pair_interval
from dalr.errors import Attempts, ConfigError, DataError, Problem
from dalr.evaluation.graded import load_graded_pairs
from dalr.evaluation.sts import ScoredPairs, load_sts
from dalr.features.source import open_features
from dalr.features.store import FeatureStore, StoredVectors
from dalr.losses import Need
from dalr.models.agreement import require_files_agree
from dalr.models.prompts import stated_prompts
from dalr.models.reference import require_if_local
from dalr.recipe.schema import Recipe
from dalr.training.callbacks import Callback, ValidationFunction
from dalr.training.leakage import leakage_warnings, without_near_duplicates


@dataclass(frozen=True, kw_only=True)
class InMemory:
    """Data that a program passes in place of the files of its recipe."""

    pairs: CaptionedImages | None = None
    text: tuple[str, ...] | None = None
    images: FeatureStore | None = None


@dataclass(frozen=True, kw_only=True)
class FromProgram:
    """What a program passes beside a recipe, and a file cannot say."""

    data: InMemory = InMemory()
    validation: ValidationFunction | None = None
    callbacks: tuple[Callback, ...] = ()
    initial_heads: Path | None = None
    """Trained heads to begin with, of an earlier run."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The checked data of a run, and the stored vectors of its rows."""

    dataset: Dataset
    images: StoredVectors | None
    """Of the distinct images that are trained on, in the order of `dataset.pairs.image_numbers`."""
    validation_images: StoredVectors | None
    """Of the distinct validation images, where the validation metric asks for them."""
    clip_text: StoredVectors | None
    """Of the captions."""
    teachers: Mapping[Kind, tuple[StoredVectors | None, ...]]
    """Of the rows of each kind that asks its teachers, one per teacher; None where a model gives the vectors."""
    teacher_stores: tuple[FeatureStore | None, ...]
    validation_pairs: ScoredPairs | None
    plan: Plan
    warnings: tuple[str, ...] = ()
    """What is wrong with the data and yet no error."""


def load_training_data(
    recipe: Recipe, memory: InMemory | None = None, *, read_dataset: Callable[..., Dataset] = load_dataset
) -> TrainingData:
    """Read and check everything that `recipe` names.

    Args:
        memory: data in place of files.
        read_dataset: in place of `load_dataset`, for several trainings on the same data.

    Raises:
        DataError: with every problem of every input, whatever its kind.
        CorruptFileError: no data is wrong, but a feature store fails its verification.
        ConfigError: neither, but the schedule would never read the text.
        ModelFileError: none of these, but a model named by folder or package is not there.
    """
    memory = memory or InMemory()
    attempt = Attempts()
    given = {name: rows for name, rows in (("pairs", memory.pairs), ("text", memory.text)) if rows is not None}
    dataset = attempt(lambda: read_dataset(recipe.data, seed=recipe.seed, **given))
    stores = _Stores.open(recipe, memory, attempt)
    pairs = attempt(lambda: _validation_pairs(recipe))
    said: tuple[str, ...] = ()
    if dataset is not None:
        everything = dataset
        dataset, said = attempt(
            lambda: without_near_duplicates(everything, stores.images, recipe.data.holdout)
        ) or (
            dataset,
            (),
        )
    found = stores.looked_up(recipe, dataset, attempt) if dataset is not None else _Lookups()
    plan = make_plan(recipe, dataset) if dataset is not None else None
    if plan is not None:
        attempt(lambda: _require_batches(recipe, plan))
    for model in dict.fromkeys((recipe.student.model, *(teacher.model for teacher in recipe.teachers))):
        if model is not None:
            attempt(lambda model=model: _require_model(model))  # type: ignore[misc]
    attempt.require()
    assert dataset is not None
    assert plan is not None
    return TrainingData(
        dataset=dataset,
        images=found.images,
        validation_images=found.validation_images,
        clip_text=found.clip_text,
        teachers=found.teachers or {},
        teacher_stores=stores.teachers,
        validation_pairs=pairs,
        plan=plan,
        warnings=(*leakage_warnings(dataset, pairs, remedy=recipe.data.holdout is not None), *said),
    )


def make_plan(recipe: Recipe, dataset: Dataset) -> Plan:
    """Which rows meet in which batch."""
    apart = dataset.pairs is not None and not recipe.training.schedule.meets_images_again
    streams = [
        Stream(
            kind=each.kind,
            text_keys=each.keys,
            image_keys=dataset.pairs.image_of
            if dataset.pairs is not None and apart and each.kind == "pair"
            else None,
        )
        for each in dataset.streams
    ]
    return Plan(
        streams=tuple(streams),
        schedule=recipe.training.schedule,
        batch_size=recipe.training.batch_size,
        seed=recipe.seed,
    )


def few_rows(recipe: Recipe, data: TrainingData, rows: Mapping[Kind, Int64[np.ndarray, " n"]]) -> TrainingData:
    """The data with no rows but these of each kind, in this order."""
    text, pairs, images = data.dataset.text, data.dataset.pairs, data.images
    if text is not None and "text" in rows:
        text = text.subset(rows["text"])
    if pairs is not None and "pair" in rows:
        numbers = pairs.image_numbers
        pairs = pairs.subset(rows["pair"])
        images = images.at(np.searchsorted(numbers, pairs.image_numbers)) if images is not None else None
    dataset = replace(data.dataset, text=text, pairs=pairs)
    return replace(
        data,
        dataset=dataset,
        images=images,
        clip_text=data.clip_text.at(rows["pair"]) if data.clip_text is not None and "pair" in rows else None,
        teachers={
            kind: tuple(each.at(rows[kind]) if each is not None else None for each in vectors)
            for kind, vectors in data.teachers.items()
            if kind in rows
        },
        plan=make_plan(recipe, dataset),
    )


@dataclass(frozen=True, kw_only=True)
class _Lookups:
    images: StoredVectors | None = None
    validation_images: StoredVectors | None = None
    clip_text: StoredVectors | None = None
    teachers: Mapping[Kind, tuple[StoredVectors | None, ...]] | None = None


@dataclass(frozen=True, kw_only=True)
class _Stores:
    """The opened stores of a recipe; None for those that it has no use for, or that cannot be opened."""

    images: FeatureStore | None
    clip_text: FeatureStore | None
    teachers: tuple[FeatureStore | None, ...]

    @classmethod
    def open(cls, recipe: Recipe, memory: InMemory, attempt: Attempts) -> _Stores:
        needs = recipe.objective.all_needs()
        groups = recipe.training.schedule.groups
        by_images = groups is not None and groups.images is not None
        images = clip_text = None
        if Need.IMAGE in needs or _scores_retrieval(recipe) or by_images:
            images = memory.images
            if images is None:
                images = attempt(lambda: _open(recipe, recipe.features.image, recipe.features.image_ids))
        if Need.CLIP_TEXT in needs:
            clip_text = attempt(lambda: _open(recipe, recipe.features.clip_text, recipe.features.clip_text_ids))
        teachers = tuple(
            attempt(lambda path=teacher.features: _open(recipe, path, None))  # type: ignore[misc]
            if teacher.features is not None
            else None
            for teacher in recipe.teachers
        )
        return cls(images=images, clip_text=clip_text, teachers=teachers)

    def looked_up(self, recipe: Recipe, dataset: Dataset, attempt: Attempts) -> _Lookups:
        """The vectors of every row that training will ask for."""
        pairs = dataset.pairs
        validation = dataset.validation if _scores_retrieval(recipe) else None

        def find(store: FeatureStore | None, ids: Sequence[str], what: str) -> StoredVectors | None:
            if store is None:
                return None
            return attempt(lambda: StoredVectors(store=store, rows=store.rows_of(ids, what=what)))

        def of_teachers(each: Sentences) -> tuple[StoredVectors | None, ...]:
            what = "caption" if each.kind == "pair" else "text line"
            return tuple(find(store, each.ids, what) for store in self.teachers)

        return _Lookups(
            images=find(self.images, pairs.image_names, "image") if pairs is not None else None,
            validation_images=find(self.images, validation.image_names, "held-out image")
            if validation is not None
            else None,
            clip_text=find(self.clip_text, pairs.caption_ids, "caption") if pairs is not None else None,
            teachers={
                each.kind: of_teachers(each)
                for each in dataset.streams
                if Need.TEACHERS in recipe.objective.needs(each.kind)
            },
        )


def _scores_retrieval(recipe: Recipe) -> bool:
    return recipe.validation is not None and recipe.validation.kind == "retrieval"


def _require_model(reference: str) -> None:
    """Everything about a model on this machine that its files tell without loading it."""
    folder = require_if_local(reference)
    if folder is not None:
        where = f"model {reference!r}"
        require_files_agree(folder, where)
        stated_prompts(folder, where)


def _require_batches(recipe: Recipe, plan: Plan) -> None:
    _require_full_batches(plan)
    _require_pair_interval(recipe, plan)


def _require_pair_interval(recipe: Recipe, plan: Plan) -> None:
    """The release's rule reads no text at all when there are about as many pair batches as text batches."""
    schedule = recipe.training.schedule
    if schedule.kind != "every_k" or schedule.k is not None:
        return
    size = recipe.training.batch_size
    batches = {stream.kind: (len(stream) - plan.left_over()[stream.kind]) // size for stream in plan.streams}
    if pair_interval(batches.get("text", 0), batches.get("pair", 0)) < 2:
        what = (
            f"every_k needs at least twice as many text batches as pair batches, found {batches}: "
            "text would never be read. Set training.schedule.k, or use kind: spread"
        )
        raise ConfigError(Problem(where="training.schedule", what=what))


def _require_full_batches(plan: Plan) -> None:
    left_over = plan.left_over()
    problems = [
        Problem(
            where=f"{stream.kind} stream",
            what=f"{len(stream)} rows give no full batch of {plan.batch_size} without a repeated sentence"
            f"{' or image' if stream.image_keys is not None else ''}; lower training.batch_size",
        )
        for stream in plan.streams
        if left_over[stream.kind] == len(stream)
    ]
    if problems:
        raise DataError(problems)


def _open(recipe: Recipe, path: str | None, ids: str | None) -> FeatureStore:
    assert path is not None
    return open_features(recipe.data.path(path), recipe.data.path(ids) if ids is not None else None)


def _validation_pairs(recipe: Recipe) -> ScoredPairs | None:
    config = recipe.validation
    if config is None or config.data is None or config.kind not in ("sts-b", "tsv"):
        return None
    path = recipe.data.path(config.data)
    return load_sts(path, "sts-b-dev") if config.kind == "sts-b" else load_graded_pairs(path)
