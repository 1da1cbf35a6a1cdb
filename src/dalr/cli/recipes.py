"""Which recipes come with dalr? `dalr recipe list`, `show`."""

from __future__ import annotations

from typing import Annotated

import typer

from dalr.cli.options import Plugin, Recipe, Settings, use_plugins
from dalr.io.console import show


def list_recipes() -> None:
    """List the shipped recipes with a line on each.

    \b
    Example:
      dalr recipe list
    """
    from dalr.recipe.loading import recipe_description, shipped_recipes

    names = shipped_recipes()
    width = max(map(len, names))
    for name in names:
        show(f"{name:{width}}  {recipe_description(name)}")


def show_recipe(
    name: Recipe,
    settings: Settings = None,
    plugin: Plugin = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="With every default filled in.")] = False,
    explain: Annotated[
        str | None, typer.Option(metavar="KEY", help="Say what a key means: type, default, meaning.")
    ] = None,
) -> None:
    """Print a recipe, or explain one of its keys.

    \b
    Example:
      dalr recipe show dalr --resolved
      dalr recipe show dalr --explain objective.grounding.threshold_quantile
    """
    use_plugins(plugin)
    if explain is not None:
        from dalr.recipe.explain import explain as meaning_of

        show(meaning_of(explain))
        return
    from dalr.recipe.loading import load_recipe, recipe_source, resolved_yaml

    if resolved or settings:
        show(resolved_yaml(load_recipe(name, settings or [])), end="")
    else:
        show(recipe_source(name), end="")
