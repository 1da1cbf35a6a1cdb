"""What is a task once its files are read? An object that scores the vectors of its sentences.

A new kind of task is one class with these four members and one line in `LOADERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from dalr.errors import DataError
from dalr.evaluation.bootstrap import interval, share_draws
from dalr.evaluation.captions import captions_score
from dalr.evaluation.geometry import score_geometry
from dalr.evaluation.metrics import require_usable
from dalr.evaluation.official import check_task
from dalr.evaluation.overlap import OverlapReport, audit
from dalr.evaluation.own_scores import scored_captions, scored_retrieval
from dalr.evaluation.results import (
    PairDetails,
    Queries,
    TaskResult,
    TransferResult,
)
from dalr.evaluation.retrieval import retrieval_score
from dalr.evaluation.senteval.selection import CLASSIFIERS, Classifier
from dalr.evaluation.similarity import Seen, score_sts
from dalr.evaluation.sts import ScoredPairs, load_sts
from dalr.evaluation.tasks import CAPTIONS, GEOMETRY, RETRIEVAL, STS_DEV, STS_TASKS, TRANSFER_TASKS
from dalr.evaluation.transfer import TransferTask, load_transfer
from dalr.io.console import Console

Vectors = Float32[np.ndarray, "sentences dim"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The result of a task, and what images and tests between models are made of."""

    result: TaskResult
    pairs: PairDetails | None = None
    right: str | None = None
    queries: tuple[Queries, ...] = ()


@runtime_checkable  # beartype asks, in the tests
class LoadedTask(Protocol):
    """What `evaluate` asks of a task."""

    @property
    def name(self) -> str: ...
    @property
    def changed(self) -> tuple[str, ...]: ...
    def sentences(self) -> list[str]: ...
    def score(self, vectors: Vectors, console: Console) -> Scored: ...


@dataclass(frozen=True, kw_only=True)
class StsTask:
    pairs: ScoredPairs
    changed: tuple[str, ...] = ()
    """Official files that differ and are scored all the same."""
    seen: Seen | None = None

    @property
    def name(self) -> str:
        return self.pairs.name

    def sentences(self) -> list[str]:
        return self.pairs.sentences()

    def score(self, vectors: Vectors, console: Console) -> Scored:
        result, details = score_sts(self.pairs, vectors, self.seen)
        return Scored(result=result, pairs=details)


@dataclass(frozen=True, kw_only=True)
class ClassifierTask:
    task: TransferTask
    classifier: Classifier
    changed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.task.name

    def sentences(self) -> list[str]:
        return self.task.sentences()

    def score(self, vectors: Vectors, console: Console) -> Scored:
        with console.bar(self.name, self.task.fits(self.classifier), "fit") as bar:
            outcome = self.task.score(vectors, self.classifier, bar.update)
        result = TransferResult(
            split=self.task.split_name(self.classifier),
            classifier=self.classifier.name,
            acc=outcome.acc,
            devacc=outcome.devacc,
            examples=len(outcome.right),
            interval=interval(share_draws(outcome.right[None], name=self.name)[:, 0]),
        )
        return Scored(result=result, right="".join("1" if right else "0" for right in outcome.right))


@dataclass(frozen=True, kw_only=True)
class GeometryTask:
    pairs: ScoredPairs
    changed: tuple[str, ...] = ()
    name: str = GEOMETRY

    def sentences(self) -> list[str]:
        return self.pairs.sentences()

    def score(self, vectors: Vectors, console: Console) -> Scored:
        return Scored(result=score_geometry(self.pairs, vectors))


@dataclass(frozen=True, kw_only=True)
class RetrievalTask:
    """Captions and images in one space. `project` takes sentence vectors there, beside the images."""

    captions: tuple[str, ...]
    owner: Int64[np.ndarray, " captions"]
    """Image of each caption: a row of what `project` gives for images."""
    space: str
    project: Callable[[Vectors], tuple[np.ndarray, np.ndarray]]
    """Sentence vectors (captions, width) to (captions, g) and images (images, g)."""
    split: str
    items: str
    """Fingerprint of images and captions."""
    also: tuple[str, ...] = ()
    """Further sentences, whose vectors `project` gets behind those of the captions."""
    changed: tuple[str, ...] = ()
    name: str = RETRIEVAL

    def sentences(self) -> list[str]:
        return [*self.captions, *self.also]

    def score(self, vectors: Vectors, console: Console) -> Scored:
        require_usable(vectors, self.name)
        sentences, images = self.project(vectors)
        found = retrieval_score(sentences, images, self.owner)
        result, queries = scored_retrieval(found, self.owner, split=self.split, items=self.items, space=self.space)
        return Scored(result=result, queries=queries)


@dataclass(frozen=True, kw_only=True)
class CaptionsTask:
    """Captions that are to find the other captions of their image."""

    captions: tuple[str, ...]
    owner: Int64[np.ndarray, " captions"]
    """Number of the image of each caption."""
    split: str
    items: str
    changed: tuple[str, ...] = ()
    name: str = CAPTIONS

    def sentences(self) -> list[str]:
        return list(self.captions)

    def score(self, vectors: Vectors, console: Console) -> Scored:
        require_usable(vectors, self.name)
        found = captions_score(vectors, self.owner)
        result, queries = scored_captions(found, self.owner, split=self.split, items=self.items)
        return Scored(result=result, queries=(queries,))


@dataclass(frozen=True, kw_only=True)
class Options:
    """How tasks are read and scored."""

    classifier: Classifier = CLASSIFIERS["senteval"]
    allow_changed_data: bool = False
    """Score files that differ from the official ones, and say so."""


def load_task(name: str, data: Path, options: Options) -> LoadedTask:
    """One of `TASKS` but for those on the user's own captions and images.

    Raises:
        DataError: files missing, different from the official ones, or with lines that are not theirs.
    """
    return LOADERS[name](name, data, options)


def without_overlap(
    tasks: Iterable[LoadedTask], training: Sequence[str], progress: Callable[[int], None]
) -> tuple[list[LoadedTask], OverlapReport]:
    """The tasks with the pairs marked that hold a training sentence, and what was found."""
    tasks = list(tasks)
    found = audit(training, [task.pairs for task in tasks if isinstance(task, StsTask)], progress=progress)
    marked: list[LoadedTask] = []
    for task in tasks:
        if isinstance(task, StsTask):
            overlap = found.tasks[task.name]
            marked.append(replace(task, seen=Seen(exact=overlap.exact, near=overlap.near)))
        else:
            marked.append(task)
    return marked, found


def _sts(name: str, data: Path, options: Options) -> LoadedTask:
    changed = _checked(name, data, options)
    return StsTask(pairs=load_sts(data, name), changed=changed)


def _transfer(name: str, data: Path, options: Options) -> LoadedTask:
    changed = _checked(name, data, options)
    return ClassifierTask(task=load_transfer(data, name), classifier=options.classifier, changed=changed)


def _geometry(name: str, data: Path, options: Options) -> LoadedTask:
    changed = _checked("STS-B", data, options)
    return GeometryTask(pairs=load_sts(data, "STS-B"), changed=changed)


LOADERS: Mapping[str, Callable[[str, Path, Options], LoadedTask]] = {
    **dict.fromkeys((*STS_TASKS, STS_DEV), _sts),
    **dict.fromkeys(TRANSFER_TASKS, _transfer),
    GEOMETRY: _geometry,
}


def _checked(task: str, data: Path, options: Options) -> tuple[str, ...]:
    """The official files of a task that differ, if that is allowed."""
    bad = [check for check in check_task(data, task) if not check.good]
    refused = [check for check in bad if not (check.changed and options.allow_changed_data)]
    if refused:
        raise DataError([check.problem() for check in refused])
    return tuple(check.official.path for check in bad)
