"""The Python interface: the same as the command line, as function calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from dalr.config import Recipe, conflicts
from dalr.console import Console
from dalr.errors import ConfigError, Problem
from dalr.recipe import load_recipe
from dalr.training.run import TrainResult, run

__all__ = ["Recipe", "TrainResult", "load_recipe", "train"]


def train(
    recipe: str | Path | Recipe,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    console: Console | None = None,
) -> TrainResult:
    """Train a recipe and return where its product is.

    Args:
        recipe: a shipped name, a path, or a recipe already loaded.
        overrides: `key.path=value`, as `-s` on the command line; not with a loaded recipe.
        out: the run folder, new or empty; None makes `runs/NAME-DATE-TIME`.
        console: where progress goes; None shows it on standard error.

    Raises:
        ConfigError, DataError, ModelFileError, NumericsError, StorageError: each says what to do.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(str(recipe), overrides)
    elif overrides:
        raise ValueError("overrides apply when a recipe is read; a loaded recipe is final")
    elif found := conflicts(recipe):
        raise ConfigError([Problem(where=".".join(map(str, each.path)), what=each.what) for each in found])
    folder = Path(out) if out is not None else default_run_folder(recipe.name)
    return run(recipe.job(), out=folder, recipe=recipe.model_dump(mode="json"), console=console or Console())


def default_run_folder(name: str) -> Path:
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
