"""Score an encoder on tasks: each distinct sentence of all tasks is encoded once.

The seven STS tasks hold 33,000 sentences of which 27,000 are distinct; encoding them together, sorted by length,
costs less than task by task. A task that cannot be scored is listed under `failed`, and no average is formed
over an incomplete group.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dalr.errors import DalrError, DataError, NumericsError
from dalr.evaluation.sts import Embed, ScoredPairs, load_sts, score_pairs
from dalr.evaluation.tasks import STS_TASKS


@dataclass(frozen=True, kw_only=True)
class Failure:
    task: str
    reason: str
    exit_code: int


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """Spearman × 100 of one task, all its subsets together."""

    spearman: float
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """The scores of one model."""

    model: str
    tasks: Mapping[str, TaskScore]
    failed: Sequence[Failure]

    @property
    def sts_avg(self) -> float | None:
        """Mean of the seven STS tasks; None unless all are there."""
        if any(task not in self.tasks for task in STS_TASKS):
            return None
        return float(np.mean([self.tasks[task].spearman for task in STS_TASKS]))

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "tasks": {
                name: {
                    "spearman": score.spearman,
                    "pairs": score.pairs,
                    "aggregation": "all subsets concatenated",
                    "split": "dev" if name == "sts-b-dev" else "test",
                }
                for name, score in self.tasks.items()
            },
            "sts_avg": self.sts_avg,
            "transfer_avg": None,
            "failed": [{"task": failure.task, "reason": failure.reason} for failure in self.failed],
        }


def evaluate(model: str, embed: Embed, *, data: Path, tasks: Sequence[str]) -> Report:
    """Score `embed` on `tasks` with the files under `data` (SentEval's `downstream` layout)."""
    failed: list[Failure] = []
    loaded: list[ScoredPairs] = []
    for task in tasks:
        try:
            loaded.append(load_sts(data, task))
        except DataError as error:
            failed.append(_failure(task, error))
    vectors = embed([sentence for pairs in loaded for sentence in pairs.sentences()])
    scores: dict[str, TaskScore] = {}
    start = 0
    for pairs in loaded:
        count = 2 * len(pairs.gold)
        try:
            value = score_pairs(pairs, vectors[start : start + count])
            scores[pairs.name] = TaskScore(spearman=value, pairs=len(pairs.gold))
        except NumericsError as error:
            failed.append(_failure(pairs.name, error))
        start += count
    return Report(model=model, tasks=scores, failed=failed)


def report_json(report: Report) -> str:
    return json.dumps(report.as_json(), indent=2) + "\n"


def _failure(task: str, error: DalrError) -> Failure:
    return Failure(task=task, reason=str(error), exit_code=error.exit_code)
