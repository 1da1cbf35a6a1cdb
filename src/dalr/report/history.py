"""What does a run folder say about its training? `run.json` and `metrics.jsonl`, read into types.

Only what a report shows is read; keys that are not known here are left alone, so that a run of a later version can
still be looked at. A broken line is an error with its place: a curve with a silent hole looks like a result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dalr.errors import DataError, Problem
from dalr.io.paths import exists
from dalr.io.records import parse_record
from dalr.io.text import read_lines


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)


class Outcome(_Part):
    """How a finished run did."""

    best_step: int | None = None
    best_score: float | None = None
    untrained_score: float | None = None
    validation: str | None = None
    seconds: float | None = None


class RunRecord(_Part):
    """`run.json`."""

    name: str
    status: Literal["training", "stopped", "finished"] = "training"
    reason: str | None = None
    steps: int | None = None
    recipe: Mapping[str, Any] = {}
    versions: Mapping[str, str] = {}
    machine: Mapping[str, Any] = {}
    git_commit: str | None = None
    trained_parameters: int | None = None
    result: Outcome | None = None


class MetricsLine(_Part):
    """One line of `metrics.jsonl`: either losses or validation scores."""

    step: int
    loss: float | None = None
    learning_rate: float | None = None
    terms: Mapping[str, float] = {}
    validation: Mapping[str, float] = {}


class Curve(_Part):
    """One quantity over the steps of a training; values that are not finite are left out and counted."""

    name: str
    kind: Literal["loss", "term", "validation", "learning rate"]
    steps: tuple[int, ...]
    values: tuple[float, ...]
    not_finite: int = 0


class History(_Part):
    """A run folder as far as a report shows it."""

    folder: Path
    record: RunRecord
    curves: tuple[Curve, ...]


def read_history(folder: Path) -> History:
    """What `folder` tells about its training.

    Raises:
        DataError: `run.json` or a line of `metrics.jsonl` is not what dalr writes; all lines at once.
    """
    path = folder / "run.json"
    try:
        record = RunRecord.model_validate(parse_record("\n".join(read_lines(path))))
    except ValidationError as error:
        raise DataError(_problems(str(path), error)) from None
    except ValueError as error:
        raise DataError(Problem(where=str(path), what=f"cannot be read: {error}")) from None
    metrics = folder / "metrics.jsonl"
    return History(folder=folder, record=record, curves=_read_curves(metrics) if exists(metrics) else ())


def _read_curves(path: Path) -> tuple[Curve, ...]:
    points: dict[tuple[str, str], list[tuple[int, float]]] = {}
    problems: list[Problem] = []
    for number, text in enumerate(read_lines(path), start=1):
        try:
            line = MetricsLine.model_validate(json.loads(text))
        except ValidationError as error:
            problems += _problems(f"{path}:{number}", error)
            continue
        except (ValueError, RecursionError):
            what = "not JSON; if the run was killed while it wrote this line, delete the line"
            problems.append(Problem(where=f"{path}:{number}", what=what))
            continue
        for key, value in _values(line):
            points.setdefault(key, []).append((line.step, value))
    if problems:
        raise DataError(problems)
    return tuple(_curve(kind, name, pairs) for (kind, name), pairs in points.items())


def _values(line: MetricsLine) -> list[tuple[tuple[str, str], float]]:
    found = [(("validation", name), value) for name, value in line.validation.items()]
    if line.loss is not None:
        found.append((("loss", "loss"), line.loss))
    found += [(("term", name), value) for name, value in line.terms.items()]
    if line.learning_rate is not None:
        found.append((("learning rate", "learning rate"), line.learning_rate))
    return found


def _curve(kind: str, name: str, pairs: list[tuple[int, float]]) -> Curve:
    finite = [(step, value) for step, value in pairs if math.isfinite(value)]
    return Curve.model_validate(
        {
            "kind": kind,
            "name": name,
            "steps": tuple(step for step, _ in finite),
            "values": tuple(value for _, value in finite),
            "not_finite": len(pairs) - len(finite),
        }
    )


def _problems(where: str, error: ValidationError) -> list[Problem]:
    return [
        Problem(where=": ".join(filter(None, [where, ".".join(map(str, entry["loc"]))])), what=entry["msg"])
        for entry in error.errors()
    ]
