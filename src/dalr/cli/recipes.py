"""Which recipes come with dalr? `dalr recipe list`, `show`."""

from __future__ import annotations

from typing import Annotated

import typer

from dalr.cli.options import Plugin, Settings, use_plugins
from dalr.io.console import show


def list_recipes() -> None:
    """Names and one line on each shipped recipe."""
    from dalr.recipe.loading import recipe_description, shipped_recipes

    names = shipped_recipes()
    width = max(map(len, names))
    for name in names:
        show(f"{name:{width}}  {recipe_description(name)}")


def show_recipe(
    name: str,
    settings: Settings = None,
    plugin: Plugin = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="With every default filled in.")] = False,
) -> None:
    """Print a recipe as it is written, or resolved."""
    use_plugins(plugin)
    from dalr.recipe.loading import load_recipe, recipe_source, resolved_yaml

    if resolved or settings:
        show(resolved_yaml(load_recipe(name, settings or [])), end="")
    else:
        show(recipe_source(name), end="")
