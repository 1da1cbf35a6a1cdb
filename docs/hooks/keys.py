"""The reference of recipe keys: one table per section, from the same source as `dalr recipe show --explain`."""

from __future__ import annotations

from dalr.recipe.explain import Key, recipe_keys

_HEAD = """# Recipe keys

Every key that a recipe may have, with its type, its default and its meaning. `dalr recipe show --explain KEY` prints the
same on the command line, for your own [terms](../extending.md) as well, and `dalr recipe show NAME --resolved` prints a
recipe with every default filled in.
"""


def page() -> str:
    keys = recipe_keys()
    sections = [key for key in keys if key.section is not None]
    parts = [_HEAD, "## The top of a recipe\n", _table([key for key in keys if "." not in key.name], "")]
    for section in sections:
        if section.name == "objective":
            inside = "One section per term; see [the method](../method.md) for the formulas.\n"
        else:
            inside = _table(
                [key for key in keys if key.name.rpartition(".")[0] == section.name], f"{section.name}."
            )
        parts += [f"## `{section.name}`\n", _safe(section.meaning) + "\n", inside]
    return "\n".join(parts)


def _table(keys: list[Key], prefix: str) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        name = key.name.removeprefix(prefix)
        shown = f"[`{name}`](#{_anchor(key.name)})" if key.section is not None else f"`{name}`"
        cells = [
            shown,
            _safe(key.kind),
            f"`{key.default}`" if key.default.isascii() else key.default,
            _safe(key.meaning),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _anchor(name: str) -> str:
    """The anchor that the toc extension gives to the heading `name`."""
    return name.lower().replace(".", "")


def _safe(text: str) -> str:
    """No cell ends early and no letter of a formula is read as Markdown."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):
        parts[number] = parts[number].replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")
    return "`".join(parts).replace("|", "\\|")
