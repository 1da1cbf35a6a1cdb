"""How are tasks of the mteb package scored? With our encoder; scores are kept in our cache.

mteb files the results of every model that is not on the hub under one name, so a retrained model would be given the
score of the one before. Its cache is therefore left out, and a score is kept under the content of the encoder's
files, with the data's revision and mteb's version. What is scored is the model as `SentenceTransformer` would give
it (with its Normalize module, and one prompt for all sentences), and every input is text, whatever it looks like.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32
from pydantic import ValidationError

from dalr.errors import ConfigError, DalrError, DataError, NumericsError, Problem, install
from dalr.evaluation.metrics import require_usable
from dalr.evaluation.results import Failed, MtebResult, Result
from dalr.evaluation.score import EvaluatedModel, failure
from dalr.evaluation.sts import Embed
from dalr.io.atomic import remedy, write_text
from dalr.io.cache import REMEDY, cache_folder
from dalr.io.console import Console
from dalr.io.paths import regular

if TYPE_CHECKING:
    import torch

PREFIX = "mteb:"
"""Before the names of mteb's tasks: its STS12 is not the one that papers report."""

_ASK = 256
"""Sentences that mteb's loader puts together; our own batches are formed by length afterwards."""


@dataclass(frozen=True, kw_only=True)
class MtebTask:
    """A task of mteb's that our encoders can do."""

    task: Any
    """An `mteb.AbsTask`."""

    @property
    def name(self) -> str:
        return PREFIX + str(self.task.metadata.name)

    def leaves(self) -> list[Any]:
        """The task itself, or those that it is the mean of."""
        parts = self.task.metadata.tasks if self.task.is_aggregate else None
        return [leaf for part in parts for leaf in MtebTask(task=part).leaves()] if parts else [self.task]

    def metric(self) -> str:
        """The main score's name, the split, and over what it is a mean."""
        parts = [self.task.metadata.main_score, "+".join(self.task.eval_splits)]
        several = {"tasks": len(self.leaves()), "subsets": len(self.task.hf_subsets or ())}
        parts += [f"mean of {number} {what}" for what, number in several.items() if number > 1]
        return ", ".join(parts)


class _Identity(Result):
    """All that a kept score depends on besides the encoder."""

    data: tuple[str, ...]
    splits: tuple[str, ...]
    subsets: tuple[str, ...]
    mteb: str


class _Kept(Result):
    """A cache entry."""

    identity: _Identity
    result: MtebResult


def find_mteb_tasks(names: Sequence[str]) -> list[MtebTask]:
    """mteb's tasks by name; their data is not read yet.

    Raises:
        ConfigError: the extra is not installed, unknown tasks, tasks on images or sound.
    """
    if not names:
        return []
    where = "--mteb"
    try:
        import mteb
    except ImportError as error:
        what = f"needs the package mteb ({error}); {install('mteb')}"
        raise ConfigError(Problem(where=where, what=what)) from None
    problems: list[Problem] = []
    tasks: list[MtebTask] = []
    for name in dict.fromkeys(names):
        try:
            with _heard(Console(quiet=True)):
                task = MtebTask(task=mteb.get_task(name))
        except KeyError as error:
            what = "unknown task " + str(error.args[0]).removeprefix("KeyError: ")
            problems.append(Problem(where=where, what=what))
            continue
        others = sorted({kind for leaf in task.leaves() for kind in leaf.modalities} - {"text"})
        if others:
            problems.append(Problem(where=where, what=f"{name} is about {', '.join(others)}; dalr encodes text"))
        tasks.append(task)
    if problems:
        raise ConfigError(problems)
    return tasks


def score_mteb_tasks(
    tasks: Sequence[MtebTask], model: EvaluatedModel, console: Console
) -> tuple[Mapping[str, MtebResult], list[Failed]]:
    """The main score × 100 of each task, and those that have none. What the cache has is not computed again."""
    results: dict[str, MtebResult] = {}
    failed: list[Failed] = []
    for task in tasks:
        try:
            results[task.name] = _kept_or_scored(task, model, console)
        except (DataError, NumericsError) as error:
            failed.append(failure(task.name, error))
    return results, failed


def _kept_or_scored(task: MtebTask, model: EvaluatedModel, console: Console) -> MtebResult:
    identity = _identity(task)
    path = cache_folder("mteb") / model.sha256 / f"{task.task.metadata.name}.json" if model.sha256 else None
    kept = _read(path) if path is not None else None
    if kept is not None and kept.identity == identity:
        console.detail(f"{task.name}: cached, {path}")
        return kept.result
    with _heard(console):
        result = _score(task, model, console)
    if path is not None:
        with remedy(REMEDY):
            write_text(path, _Kept(identity=identity, result=result).model_dump_json(indent=1) + "\n")
    return result


def _identity(task: MtebTask) -> _Identity:
    import mteb

    return _Identity(
        data=tuple(json.dumps(leaf.metadata.dataset, sort_keys=True) for leaf in task.leaves()),
        splits=tuple(task.task.eval_splits),
        subsets=tuple(task.task.hf_subsets or ()),
        mteb=mteb.__version__,
    )


def _read(path: Path) -> _Kept | None:
    """A cache entry; one that cannot be read is computed again."""
    try:
        return _Kept.model_validate_json(regular(path).read_bytes())
    except (OSError, ValidationError):
        return None


def _score(task: MtebTask, model: EvaluatedModel, console: Console) -> MtebResult:
    import mteb

    for leaf in task.leaves():
        _load_data(task.name, leaf)
    encoder = MtebEncoder(model, task.name)
    try:
        found = mteb.evaluate(
            encoder,
            task.task,
            cache=None,
            co2_tracker=False,
            show_progress_bar=False,
            encode_kwargs={"batch_size": _ASK, "show_progress_bar": False},
        )
        score = float(found.task_results[0].get_score())
    except DalrError:
        raise
    except Exception as error:
        reason = f"mteb {mteb.__version__} failed to score it ({type(error).__name__}: {_first_line(error)})"
        raise DataError(Problem(where=task.name, what=reason)) from error
    if not math.isfinite(score):
        raise NumericsError(Problem(where=task.name, what=f"the score is {score}, so it is undefined"))
    return MtebResult(main_score=100 * score, metric=task.metric(), mteb_version=mteb.__version__)


def _load_data(name: str, leaf: Any) -> None:
    """Read the data of a task from the cache, or from the hub where there is a connection."""
    if leaf.data_loaded:
        return
    try:
        leaf.load_data()
    except Exception as error:
        from datasets import config

        dataset = leaf.metadata.dataset
        what = (
            f"its data, {dataset.get('path')} at revision {dataset.get('revision')}, is not in the cache "
            f"{config.HF_DATASETS_CACHE} and cannot be fetched ({type(error).__name__}: {_first_line(error)}). Run "
            f"this once with a connection and without HF_HUB_OFFLINE, or point HF_HOME at a cache that has it"
        )
        raise DataError(Problem(where=name, what=what)) from error


class MtebEncoder:
    """Our encoder as mteb's `EncoderProtocol` wants one: cosine similarity, texts only."""

    def __init__(self, model: EvaluatedModel, task: str) -> None:
        import mteb.models
        from mteb.models.model_meta import ScoringFunction

        self._embed: Embed = _unit(model.embed) if model.normalized else model.embed
        self._task = task
        self.mteb_model_meta = mteb.models.ModelMeta.create_empty(
            {
                "name": f"dalr/{(model.sha256 or 'unnamed')[:16]}",
                "revision": model.sha256,
                "similarity_fn_name": ScoringFunction.COSINE,
            }
        )

    def encode(self, inputs: Any, **_: Any) -> Float32[np.ndarray, "n d"]:
        """Vectors of all texts of mteb's loader, in its order."""
        texts = [text for batch in inputs for text in batch["text"]]
        if stray := next((text for text in texts if not isinstance(text, str)), None):
            what = f"expected text, mteb gave a {type(stray).__name__}"
            raise DataError(Problem(where=self._task, what=what))
        vectors = self._embed(texts)
        different = len(set(texts)) > 1  # the same text again and again has constant vectors, rightly
        require_usable(vectors if different else vectors[:1], self._task)
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of every row of one with every row of the other."""
        from sentence_transformers.util import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Cosine of row i with row i."""
        from sentence_transformers.util import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


def _unit(embed: Embed) -> Embed:
    def embed_to_length_one(sentences: list[str]) -> np.ndarray:
        vectors = embed(sentences)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: np.ndarray = vectors / np.maximum(lengths, np.float32(1e-12))
        return unit

    return embed_to_length_one


@contextmanager
def _heard(console: Console) -> Iterator[None]:
    """mteb says everything twice, by its logger and as warnings; once is enough, through the console.

    Some of its bars and of those of datasets cannot be turned off; a quiet console hides them.
    """
    log = logging.getLogger("mteb")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with ExitStack() as stack:
            if console.quiet:
                stack.enter_context(redirect_stderr(StringIO()))
            caught = stack.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            yield
        for text in dict.fromkeys(str(each.message) for each in caught if each.category is UserWarning):
            console.say(f"mteb: {text}")
    finally:
        log.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).split("\n")[0]
