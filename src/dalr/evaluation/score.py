"""How is one encoder scored on tasks? Each distinct sentence of all tasks is encoded once.

The seven STS tasks hold 37,700 sentences of which 26,289 are distinct; encoding them together, sorted by length,
costs less than task by task. A task that cannot be scored is listed under `failed`, and no average is formed
over an incomplete group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dalr.errors import DalrError, DataError, NumericsError
from dalr.evaluation.loaded import LoadedTask, Options, Scored, load_task
from dalr.evaluation.projection import embedding_map
from dalr.evaluation.results import (
    Details,
    Evaluation,
    Failed,
    Settings,
    TaskResult,
    sts_average,
    transfer_average,
)
from dalr.evaluation.sts import Embed
from dalr.evaluation.tasks import MapMethod
from dalr.io.console import Console
from dalr.version import VERSION


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """What is evaluated."""

    name: str
    embed: Embed
    sha256: str | None = None
    normalized: bool = False
    """Whether the model as published scales its vectors to length 1, which `embed` does not."""
    settings: Settings = field(default_factory=Settings)


def load_tasks(
    names: Sequence[str], data: Path, options: Options | None = None
) -> tuple[list[LoadedTask], list[Failed]]:
    """The tasks under `data` (SentEval's `downstream` layout), and those that could not be read."""
    loaded: list[LoadedTask] = []
    failed: list[Failed] = []
    for name in names:
        try:
            loaded.append(load_task(name, data, options or Options()))
        except DataError as error:
            failed.append(failure(name, error))
    return loaded, failed


def evaluate(
    model: EvaluatedModel,
    tasks: Sequence[LoadedTask],
    *,
    failed: Sequence[Failed] = (),
    map_method: MapMethod = "pca",
    console: Console | None = None,
) -> Evaluation:
    """Score `model` on loaded tasks; `failed` are those that could not be loaded."""
    console = console or Console(quiet=True)
    vectors = SentenceVectors(model.embed, [sentence for task in tasks for sentence in task.sentences()])
    scored: dict[str, Scored] = {}
    all_failed = list(failed)
    for task in tasks:
        try:
            scored[task.name] = task.score(vectors.of(task.sentences()), console)
        except (DataError, NumericsError) as error:
            all_failed.append(failure(task.name, error))
    results: Mapping[str, TaskResult] = {name: each.result for name, each in scored.items()}
    changed = {path for task in tasks if task.name in scored for path in task.changed}
    return Evaluation(
        model=model.name,
        model_sha256=model.sha256,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dalr=VERSION,
        settings=model.settings.model_copy(update={"data_changed": tuple(sorted(changed))}),
        tasks=results,
        sts_avg=sts_average(results),
        transfer_avg=transfer_average(results, "acc"),
        transfer_devavg=transfer_average(results, "devacc"),
        failed=tuple(all_failed),
        details=Details(
            sts={name: each.pairs for name, each in scored.items() if each.pairs is not None},
            queries={name: each.queries for name, each in scored.items() if each.queries},
            transfer={name: each.right for name, each in scored.items() if each.right is not None},
            map=embedding_map(
                {task.name: task.sentences() for task in tasks if task.name in scored}, vectors.of, map_method
            ),
        ),
    )


class SentenceVectors:
    """Vectors of distinct sentences, looked up by sentence."""

    def __init__(self, embed: Embed, sentences: Sequence[str]) -> None:
        self._row = {sentence: row for row, sentence in enumerate(dict.fromkeys(sentences))}
        self._vectors: Float32[np.ndarray, "distinct dim"] = embed(list(self._row))

    def of(self, sentences: Sequence[str]) -> Float32[np.ndarray, "sentences dim"]:
        return self._vectors[[self._row[sentence] for sentence in sentences]]


def failure(task: str, error: DalrError) -> Failed:
    """What kept a task from a score; the task is not named again in the reason."""
    own = [replace(problem, where="") if problem.where == task else problem for problem in error.problems]
    reason = str(DalrError(own, total=error.total)) if own else str(error)
    return Failed(task=task, reason=reason, exit_code=error.exit_code)
