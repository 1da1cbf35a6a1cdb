"""How does a document become a typed `Recipe`, or every problem at once with file, line and key?

What YAML means, `extends` and `-s` are those of every document (`recipe/document.py`). A well-formed recipe is then
checked for sections that contradict each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dalr.data.config import DataConfig
from dalr.data.formats.arrow import HUB
from dalr.errors import ConfigError, DalrError, Problem
from dalr.io.paths import is_dir
from dalr.recipe.checks import conflicts
from dalr.recipe.document import (
    Change,
    Document,
    KeyPath,
    Shelf,
    apply_change,
    change_of,
    changes_of,
    dotted,
    scalar,
    validated,
    with_tuples,
)
from dalr.recipe.paths import from_file
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


_ROOT: KeyPath = ("data", "root")
_PATHS: tuple[KeyPath, ...] = (
    _ROOT,
    ("data", "pairs"),
    ("data", "text"),
    ("data", "holdout", "file"),
    ("features", "image"),
    ("features", "image_ids"),
    ("features", "clip_text"),
    ("features", "clip_text_ids"),
    ("validation", "data"),
)

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
    _start_at_files(document)
    if document.whole:
        recipe, found = validated(document, Recipe)
        problems.extend(found)
        if recipe is not None and not problems:
            found = [
                Problem(where=f"{document.place(conflict.path)}: {dotted(conflict.path)}", what=conflict.what)
                for conflict in conflicts(recipe)
            ]
            problems.extend(_blamed(found, reference, overrides, changes))
            if not problems:
                return recipe
    raise ConfigError(problems)


def _blamed(
    problems: Sequence[Problem], reference: Reference, overrides: Overrides, changes: Sequence[Change]
) -> list[Problem]:
    """The problems, of which those that the recipe has only with its `-s` are said of these."""
    if not problems or not overrides or isinstance(overrides, Mapping):
        return list(problems)
    try:
        load_recipe(reference, changes=changes)
        own: set[Problem] = set()
    except ConfigError as error:
        own = set(error.problems)
    given = [overrides] if isinstance(overrides, str) else overrides
    listed = " ".join(f"-s {override}" for override in given)
    return [
        each if each in own or each.where.startswith("-s ") else replace(each, where=f"{listed}: {each.where}")
        for each in problems
    ]


def load_data_section(reference: Reference, overrides: Overrides = ()) -> DataConfig | None:
    """The data section of a recipe that may be wrong elsewhere, or None if it cannot be read."""
    try:
        document = _document(reference)
        _apply_overrides(document, overrides)
        _start_at_files(document)
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


def _start_at_files(document: Document) -> None:
    """Write relative paths as they are seen from the current folder; below `data.root` they start there."""
    data = document.tree.get("data")
    rooted = isinstance(data, dict) and data.get("root") is not None
    teachers = document.tree.get("teachers")
    numbers = range(len(teachers)) if isinstance(teachers, list) else range(0)
    paths = [_ROOT] if rooted else [*_PATHS, *(("teachers", number, "features") for number in numbers)]
    for path in paths:
        _rewrite(document, path, from_file)
    for path in (("student", "model"), *(("teachers", number, "model") for number in numbers)):
        _rewrite(document, path, _model_beside)


def _rewrite(document: Document, path: KeyPath, change: Callable[[str, str], str]) -> None:
    *above, last = path
    section: Any = document.tree
    for part in above:
        inside = isinstance(part, int) or (isinstance(section, dict) and part in section)
        section = section[part] if inside else None
    file = document.file(path)
    value = section.get(last) if isinstance(section, dict) else None
    if isinstance(value, str) and file and not value.startswith(HUB):
        section[last] = change(value, file)


def _model_beside(reference: str, file: str) -> str:
    """A model that is a folder beside the file; any other is a name, or has a rule of its own."""
    found = from_file(reference, file)
    try:
        return found if is_dir(Path(found)) else reference
    except DalrError:  # a name that cannot be a path
        return reference


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
