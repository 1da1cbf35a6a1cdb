"""What did a study find? Typed and unrounded: the source of all tables, pages and `study.json`.

It holds no time and no path but those of runs inside the study's folder, so that the same runs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dalr.study.statistics import Summary

FORMAT, VERSION = "dalr-study", 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class TrialResult(_Part):
    """One setting that was tried."""

    run: str
    setting: Mapping[str, Any]
    validation: float | None
    """None if it failed."""
    chosen: bool


class SeedResult(_Part):
    """A final run."""

    run: str
    """Its folder, inside the study's."""
    seed: int
    scores: Mapping[str, float]
    """By name in the tables; what it lacks is not there."""
    steps: int | None
    best_step: int | None
    seconds: float | None
    trained_parameters: int | None


class MethodResult(_Part):
    """A method with its chosen setting, over its seeds."""

    recipe: str
    like: str | None = None
    """The method whose recipe and setting it has."""
    setting: Mapping[str, Any]
    """What the trials chose, its own or those of the method it is like; empty where nothing was searched."""
    untrained: float | None = None
    """The validation score of the student before training."""
    trials: tuple[TrialResult, ...]
    seeds: tuple[SeedResult, ...]
    summary: Mapping[str, Summary]
    """Score name -> over the seeds that have it."""


class ItemTest(_Part):
    """The paired bootstrap over items, of the mean difference over seeds."""

    difference: float
    interval: tuple[float, float]
    p_value: float


class Difference(_Part):
    """Method a minus method b, paired by seed."""

    a: str
    b: str
    score: str
    seeds: Summary
    items: ItemTest | None
    """None where a score has no items to resample."""


class FailedRun(_Part):
    """A run, or its evaluation, that is missing from the tables."""

    run: str
    phase: Literal["prepare", "trial", "train", "evaluate"]
    reason: str
    exit_code: int


class Origin(_Part):
    """What runs were made with; one for each distinct case."""

    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    git_commit: str | None
    runs: int


class StudyResult(_Part):
    """A whole study."""

    format: Literal["dalr-study"] = "dalr-study"
    version: int = VERSION
    name: str
    description: str
    dalr: str
    seeds: tuple[int, ...]
    tune_seed: int
    select_by: str
    unequal_trials: str | None
    baseline: str | None
    graded: Annotated[tuple[str, ...], Field(exclude_if=lambda names: not names)] = ()
    """Tasks of graded pairs; the first of them is what the study is about."""
    methods: Mapping[str, MethodResult]
    differences: tuple[Difference, ...]
    failures: tuple[FailedRun, ...]
    origins: tuple[Origin, ...]
