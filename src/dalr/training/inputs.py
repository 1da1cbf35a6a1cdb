"""All that a run reads before a model is loaded: captions, text, stored vectors, development pairs.

Nothing here imports torch. Every problem of every input is reported at once, missing vectors of single rows
included, so that `dalr check` and the start of a training say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dalr.data.dataset import Dataset, load_dataset
from dalr.data.rows import comparable
from dalr.data.schedule import Kind, Plan, Stream, numbered, pair_interval
from dalr.errors import Attempts, ConfigError, DataError, Problem
from dalr.evaluation.sts import ScoredPairs, load_scored_tsv, load_sts
from dalr.features.source import open_features
from dalr.features.store import FeatureStore
from dalr.models.agreement import require_files_agree
from dalr.models.prompts import stated_prompts
from dalr.models.reference import require_if_local
from dalr.objectives import Need

if TYPE_CHECKING:
    from dalr.training.run import Job


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Checked inputs of a run."""

    dataset: Dataset
    images: FeatureStore | None
    clip_text: FeatureStore | None
    teacher_stores: tuple[FeatureStore | None, ...]
    """One per teacher; None where a model gives the vectors."""
    development_pairs: ScoredPairs | None
    plan: Plan


def load_inputs(job: Job, *, read_dataset: Callable[..., Dataset] = load_dataset) -> Inputs:
    """Read and check everything that `job` names.

    Args:
        read_dataset: in place of `load_dataset`, for several jobs on the same data.

    Raises:
        DataError: with every problem of every input, whatever its kind.
        CorruptFileError: no data is wrong, but a feature store fails its verification.
        ConfigError: neither, but the schedule would never read the text.
        ModelFileError: none of these, but a model named by folder or package is not there.
    """
    attempt = Attempts()
    dataset = attempt(lambda: read_dataset(job.data, seed=job.seed))
    needs = job.objective.needs("pair") | job.objective.needs("text")
    held_out = job.development is not None and job.development.kind == "retrieval"
    images = clip_text = None
    groups = job.training.schedule.groups
    if Need.IMAGE in needs or held_out or (groups is not None and groups.images is not None):
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
    plan = make_plan(job, dataset) if dataset is not None else None
    if plan is not None:
        attempt(lambda: _require_batches(job, plan))
    for model in dict.fromkeys((job.student.model, *(teacher.model for teacher in job.teachers))):
        if model is not None:
            attempt(lambda model=model: _require_model(model))  # type: ignore[misc]
    attempt.require()
    assert dataset is not None
    assert plan is not None
    return Inputs(
        dataset=dataset,
        images=images,
        clip_text=clip_text,
        teacher_stores=stores,
        development_pairs=pairs,
        plan=plan,
    )


def sentences_by_kind(dataset: Dataset) -> list[tuple[Kind, Sequence[str], Sequence[str]]]:
    """(kind, row ids, sentences) of each stream."""
    found: list[tuple[Kind, Sequence[str], Sequence[str]]] = []
    if dataset.text is not None:
        found.append(("text", dataset.text.ids, dataset.text.lines))
    if dataset.pairs is not None:
        found.append(("pair", dataset.pairs.caption_ids, dataset.pairs.captions))
    return found


def make_plan(job: Job, dataset: Dataset) -> Plan:
    """Which rows meet in which batch."""
    streams = []
    for kind, _, sentences in sentences_by_kind(dataset):
        pairs = dataset.pairs if kind == "pair" and not job.training.schedule.meets_images_again else None
        streams.append(
            Stream(
                kind=kind,
                text_keys=numbered([comparable(sentence) for sentence in sentences]),
                image_keys=pairs.image_of if pairs is not None else None,
            )
        )
    return Plan(
        streams=tuple(streams),
        schedule=job.training.schedule,
        batch_size=job.training.batch_size,
        seed=job.seed,
    )


def _require_model(reference: str) -> None:
    """Everything about a model on this machine that its files tell without loading it."""
    folder = require_if_local(reference)
    if folder is not None:
        where = f"model {reference!r}"
        require_files_agree(folder, where)
        stated_prompts(folder, where)


def _require_batches(job: Job, plan: Plan) -> None:
    _require_full_batches(plan)
    _require_pair_interval(job, plan)


def _require_pair_interval(job: Job, plan: Plan) -> None:
    """The release's rule reads no text at all when there are about as many pair batches as text batches."""
    schedule = job.training.schedule
    if schedule.kind != "every_k" or schedule.k is not None:
        return
    size = job.training.batch_size
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
