"""All that a run reads before a model is loaded: captions, text, stored vectors, development pairs.

Nothing here imports torch. Every problem of every input is reported at once, missing vectors of single rows
included, so that `dalr check` and the start of a training say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from dalr.data.dataset import Dataset, load_dataset
from dalr.errors import CorruptFileError, DataError, Problem
from dalr.evaluation.sts import ScoredPairs, load_scored_tsv, load_sts
from dalr.features.source import open_features
from dalr.features.store import FeatureStore
from dalr.objectives import Need

if TYPE_CHECKING:
    from dalr.training.run import Job

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Checked inputs of a run."""

    dataset: Dataset
    images: FeatureStore | None
    clip_text: FeatureStore | None
    teacher_stores: tuple[FeatureStore | None, ...]
    """One per teacher; None where a model gives the vectors."""
    development_pairs: ScoredPairs | None


def load_inputs(job: Job) -> Inputs:
    """Read and check everything that `job` names.

    Raises:
        DataError: with every problem of every input.
        CorruptFileError: a feature store fails its verification, and nothing else is wrong.
    """
    problems: list[Problem] = []
    corrupt: list[CorruptFileError] = []

    def attempt(read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except DataError as error:
            problems.extend(error.problems)
        except CorruptFileError as error:
            corrupt.append(error)
        return None

    dataset = attempt(lambda: load_dataset(job.data, seed=job.seed))
    needs = job.objective.needs("pair") | job.objective.needs("text")
    held_out = job.development is not None and job.development.kind == "retrieval"
    images = clip_text = None
    if Need.IMAGE in needs or held_out:
        images = attempt(lambda: _open(job, job.features.image, job.features.image_ids))
    if Need.CLIP_TEXT in needs:
        clip_text = attempt(lambda: _open(job, job.features.clip_text, job.features.clip_text_ids))
    stores = tuple(
        attempt(lambda path=teacher.features: open_features(job.data.path(path), None))  # type: ignore[misc]
        if teacher.features is not None
        else None
        for teacher in job.teachers
    )
    pairs = attempt(lambda: _development_pairs(job))
    if dataset is not None:
        for store, ids, what in _lookups(job, dataset, images, clip_text, stores):
            attempt(lambda store=store, ids=ids, what=what: store.rows_of(ids, what=what))  # type: ignore[misc]
    if problems:
        raise DataError(problems)
    if corrupt:
        raise corrupt[0]
    assert dataset is not None
    return Inputs(
        dataset=dataset, images=images, clip_text=clip_text, teacher_stores=stores, development_pairs=pairs
    )


def image_names(dataset: Dataset) -> list[str]:
    """Images of the captions that are trained on."""
    assert dataset.pairs is not None
    return [dataset.pairs.images[number] for number in np.unique(dataset.pairs.image_of)]


def _lookups(
    job: Job,
    dataset: Dataset,
    images: FeatureStore | None,
    clip_text: FeatureStore | None,
    stores: tuple[FeatureStore | None, ...],
) -> list[tuple[FeatureStore, list[str], str]]:
    """Every (store, ids, what the ids are) that training will ask for."""
    found: list[tuple[FeatureStore, list[str], str]] = []
    pairs, text = dataset.pairs, dataset.text
    if pairs is not None and images is not None:
        found.append((images, image_names(dataset), "image"))
        if dataset.held_out is not None and job.development is not None and job.development.kind == "retrieval":
            names = [pairs.images[number] for number in np.unique(dataset.held_out.image_of)]
            found.append((images, names, "held-out image"))
    if pairs is not None and clip_text is not None:
        found.append((clip_text, list(pairs.caption_ids), "caption"))
    for store in stores:
        if store is not None and pairs is not None and Need.TEACHERS in job.objective.needs("pair"):
            found.append((store, list(pairs.caption_ids), "caption"))
        if store is not None and text is not None and Need.TEACHERS in job.objective.needs("text"):
            found.append((store, list(text.ids), "text line"))
    return found


def _open(job: Job, path: str | None, ids: str | None) -> FeatureStore:
    assert path is not None
    return open_features(job.data.path(path), job.data.path(ids) if ids is not None else None)


def _development_pairs(job: Job) -> ScoredPairs | None:
    config = job.development
    if config is None or config.kind == "retrieval":
        return None
    assert config.data is not None
    path = job.data.path(config.data)
    return load_sts(path, "sts-b-dev") if config.kind == "sts-b" else load_scored_tsv(path)
