"""The Python interface: the same as the command line, as function calls."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, overload

from pydantic import ValidationError

from dalr.config import Recipe, conflicts
from dalr.console import Console
from dalr.errors import ConfigError, Problem
from dalr.evaluation.results import Evaluation
from dalr.models.config import PoolingMode
from dalr.recipe import load_recipe
from dalr.scoring import Request
from dalr.scoring import evaluate as evaluate_models
from dalr.training.dry_run import DryRun
from dalr.training.dry_run import dry_run as try_batches
from dalr.training.run import Resume, TrainResult, run

_FOLDER_NAME = re.compile(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]*")
_LONGEST_NAME = 200

__all__ = ["DryRun", "Evaluation", "Recipe", "TrainResult", "evaluate", "load_recipe", "train"]


@overload
def train(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = ...,
    out: str | Path | None = ...,
    resume: bool = ...,
    allow_changed: bool = ...,
    console: Console | None = ...,
    dry_run: Literal[False] = ...,
) -> TrainResult: ...
@overload
def train(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = ...,
    out: str | Path | None = ...,
    console: Console | None = ...,
    dry_run: Literal[True],
) -> DryRun: ...
def train(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    allow_changed: bool = False,
    console: Console | None = None,
    dry_run: bool = False,
) -> TrainResult | DryRun:
    """Train a recipe and return where its product is.

    Args:
        recipe: a shipped name, a path, or a recipe already loaded.
        overrides: `key.path=value`, as `-s` on the command line; not with a loaded recipe.
        out: the run folder, new or empty; None makes `runs/NAME-DATE-TIME`.
        resume: go on with the run in `out` from its newest whole checkpoint, or begin it where it has none.
        allow_changed: go on although recipe, data or versions differ, which `run.json` then says.
        console: where progress goes; None shows it on standard error.
        dry_run: only try a batch of each kind and return shapes, terms, memory, and the time that all would take;
            `out` is not touched.

    Raises:
        ConfigError, DataError, ModelFileError, NumericsError, StorageError: each says what to do.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(str(recipe), overrides)
    elif overrides:
        raise ValueError("overrides apply when a recipe is read; a loaded recipe is final")
    elif found := conflicts(recipe):
        raise ConfigError([Problem(where=".".join(map(str, each.path)), what=each.what) for each in found])
    if dry_run:
        return try_batches(recipe.job(), console=console or Console())
    if (resume or allow_changed) and out is None:
        raise ConfigError(Problem(where="--resume", what="which run? name its folder with --out"))
    if allow_changed and not resume:
        raise ConfigError(Problem(where="--allow-changed", what="goes with --resume"))
    return run(
        recipe.job(),
        out=Path(out) if out is not None else default_run_folder(recipe.name),
        recipe=recipe.model_dump(mode="json"),
        console=console or Console(),
        resume=Resume(read_recipe=_with_defaults_of_today, allow_changed=allow_changed) if resume else None,
    )


def evaluate(
    model: str | Path,
    *,
    data: str | Path | None = None,
    tasks: Sequence[str] = ("sts",),
    classifier: str = "senteval",
    pooling: PoolingMode | None = None,
    num_layers: int | None = None,
    prompt: str | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Score a model on tasks; `dalr.scoring.evaluate` has all options, and takes several models.

    Args:
        model: a model folder, a run, a checkpoint or a hub id.
        data: a folder in SentEval's `downstream` layout; not needed for retrieval of a run alone.
        tasks: names or groups, such as `sts`, `transfer`, `geometry`, `retrieval`, `STS12`.
        classifier: `senteval`, `senteval-fast` or `lbfgs`, for transfer tasks.
        console: where progress goes; None shows it on standard error.

    Raises:
        ConfigError, DataError, ModelFileError: nothing could be scored. A task that could not is in `failed`.
    """
    request = Request(
        data=Path(data) if data is not None else None,
        tasks=tasks,
        classifier=classifier,
        pooling=pooling,
        num_layers=num_layers,
        prompt=prompt,
        console=console or Console(),
    )
    return evaluate_models([str(model)], request).models[0]


def _with_defaults_of_today(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe of an earlier run as this dalr would write it; as it is, where this dalr does not know it."""
    with suppress(ValidationError):
        return Recipe.model_validate_json(json.dumps(recipe)).model_dump(mode="json")
    return recipe


def default_run_folder(name: str) -> Path:
    """A new folder under `runs/`, by the recipe's name and the time.

    Raises:
        ConfigError: the name cannot be a folder's: what a recipe says never leads out of `runs/`.
    """
    if not _FOLDER_NAME.fullmatch(name) or len(name.encode()) > _LONGEST_NAME:
        what = f"{name!r:.80} cannot be the name of a folder in runs/; say --out, or give the recipe another name"
        raise ConfigError(Problem(where="name", what=what))
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
