"""How does a document become a typed `Recipe`, or every problem at once with file, line and key?

What YAML means, `extends` and `-s` are those of every document (`recipe/document.py`). A well-formed recipe is then
checked for sections that contradict each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dalr.data.config import DataConfig
from dalr.errors import ConfigError, Problem
from dalr.recipe.checks import conflicts
from dalr.recipe.document import (
    Change,
    Document,
    Shelf,
    apply_change,
    change_of,
    changes_of,
    dotted,
    scalar,
    validated,
    with_tuples,
)
from dalr.recipe.schema import Recipe

__all__ = [
    "load_data_section",
    "load_recipe",
    "recipe_description",
    "recipe_source",
    "resolved_yaml",
    "scalar",
    "shipped_recipes",
]

RECIPES = Shelf(kind="recipe", folder="recipe/shipped", alias=re.compile(r"^(?P<name>[\w-]+?)-flickr-bert$"))


Reference = str | Path | Mapping[str, Any]
"""A shipped recipe's name, the path of a file, or what such a file says as a mapping."""
Overrides = Sequence[str] | Mapping[str, Any]
"""Changes to a recipe: `key.path=value` as on the command line, or a mapping of dotted keys and nested sections."""


def load_recipe(reference: Reference, overrides: Overrides = (), *, changes: Sequence[Change] = ()) -> Recipe:
    """The recipe that a reference and overrides describe, checked.

    ```
    dalr.load_recipe("mcse", {"student": {"model": FOLDER, "pooling": "mean"}, "training.max_steps": 20})
    ```

    Args:
        reference: a shipped name, a path, or a mapping (which may say `extends`).
        overrides: single keys to change; nested mappings merge into the sections that are there, lists replace.

    Raises:
        ConfigError: with every problem found.
    """
    document = _document(reference)
    problems = document.problems
    for change in changes:
        problems.extend(apply_change(document, change))
    problems.extend(_apply_overrides(document, overrides))
    if document.whole:
        recipe, found = validated(document, Recipe)
        problems.extend(found)
        if recipe is not None and not problems:
            problems.extend(
                Problem(where=f"{document.place(conflict.path)}: {dotted(conflict.path)}", what=conflict.what)
                for conflict in conflicts(recipe)
            )
            if not problems:
                return recipe
    raise ConfigError(problems)


def load_data_section(reference: Reference, overrides: Overrides = ()) -> DataConfig | None:
    """The data section of a recipe that may be wrong elsewhere, or None if it cannot be had."""
    try:
        document = _document(reference)
        _apply_overrides(document, overrides)
        return DataConfig.model_validate(with_tuples(document.tree.get("data")))
    except (ConfigError, ValidationError):
        return None


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return RECIPES.names()


def recipe_description(name: str) -> str:
    """One line on a shipped recipe."""
    return str(RECIPES.read(name).tree.get("description", ""))


def recipe_source(name: str) -> str:
    """The text of a shipped recipe or of a file."""
    return RECIPES.open(name)[1]


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe with every default filled in."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _document(reference: Reference) -> Document:
    return RECIPES.from_mapping(reference) if isinstance(reference, Mapping) else RECIPES.read(str(reference))


def _apply_overrides(document: Document, overrides: Overrides) -> list[Problem]:
    problems: list[Problem] = []
    if isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(overrides, Mapping):
        for change in changes_of(overrides):
            problems.extend(apply_change(document, change))
        return problems
    for override in overrides:
        try:
            problems.extend(apply_change(document, change_of(override)))
        except ConfigError as error:
            problems.extend(error.problems)
    return problems
