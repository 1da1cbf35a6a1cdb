"""What does a key of a recipe mean? Type, default and meaning of each, read from the schema.

The meaning of a key is the docstring below its field, so that the source, `dalr recipe show --explain KEY` and the
reference of the documentation say the same. Docstrings are read from the source when they are asked for: loading a
recipe does not pay for them.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dalr.errors import ConfigError, Problem, did_you_mean
from dalr.losses import Objective
from dalr.losses.registry import known_terms, term_class
from dalr.recipe.schema import Recipe
from dalr.recipe.section import Section

_WORDS: Mapping[type, str] = {bool: "true or false", int: "integer", float: "number", str: "text"}
_PLAIN = re.compile(r"[\w-]+")
_LARGEST_SHOWN = 1_000
"""Upper limits above this only catch typing mistakes."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a recipe."""

    name: str
    """Dotted, from the top of the recipe."""
    kind: str
    """Type of the value, in words."""
    default: str
    """As YAML; `required` where there is none."""
    meaning: str
    section: type[Section] | None = None
    """The class of the value, where that is a section with keys of its own."""

    def text(self) -> str:
        """A paragraph for the terminal."""
        head = f"{self.name}\n  type: {self.kind}\n  default: {self.default}\n"
        return head + textwrap.fill(self.meaning, 88, initial_indent="  ", subsequent_indent="  ")


def recipe_keys() -> list[Key]:
    """Every key of a recipe, sections before the keys that they hold, in the order of the schema."""
    return list(_keys(Recipe, ""))


def explain(name: str) -> str:
    """The meaning of a key, or of all keys that end in `name`; a section lists its keys as well.

    Raises:
        ConfigError: no key has this name.
    """
    keys = recipe_keys()
    wanted = name.replace("[]", "").strip(".")
    found = [key for key in keys if key.name == wanted] or [
        key for key in keys if key.name.endswith(f".{wanted}") and wanted
    ]
    if not found:
        hint = did_you_mean(wanted, [*(key.name for key in keys), *(key.name.rsplit(".")[-1] for key in keys)])
        what = f"no key of a recipe is called {name!r:.80}; {hint}the sections are {', '.join(Recipe.model_fields)}"
        raise ConfigError(Problem(where="--explain", what=what))
    return "\n\n".join(_with_keys(alike, keys) for alike in _alike(found))


def _alike(keys: Sequence[Key]) -> list[Key]:
    """Keys that differ in nothing but their name, as one."""
    names: dict[Key, list[str]] = {}
    for key in keys:
        names.setdefault(replace(key, name=""), []).append(key.name)
    return [replace(key, name="\n".join(found)) for key, found in names.items()]


def _with_keys(key: Key, keys: Sequence[Key]) -> str:
    inside = [each for each in keys if each.name.startswith(f"{key.name}.") and "." not in _rest(each, key)]
    if not inside:
        return key.text()
    width = max(len(_rest(each, key)) for each in inside)
    lines = [f"    {_rest(each, key):{width}}  {each.kind}" for each in inside]
    return "\n".join([key.text(), "  keys:", *lines])


def _rest(key: Key, section: Key) -> str:
    return key.name.removeprefix(f"{section.name}.")


def _keys(section: type[Section], prefix: str) -> Iterator[Key]:
    if issubclass(section, Objective):
        for name in known_terms():
            term = term_class(name)
            if term is not None:
                key = f"{prefix}{name}"
                yield Key(name=key, kind="section or null", default="null", meaning=_doc(term), section=term)
                yield from _keys(term, f"{key}.")
        return
    meanings = _meanings(section)
    for name, field in section.model_fields.items():
        inner = _section_in(field.annotation)
        key = f"{prefix}{name}"
        yield Key(
            name=key,
            kind=_type(field.annotation, _limits(field)),
            default=_default(field),
            meaning=meanings.get(name) or (_doc(inner) if inner is not None else ""),
            section=inner,
        )
        if inner is not None:
            yield from _keys(inner, f"{key}.")


@cache
def _meanings(section: type[Section]) -> dict[str, str]:
    """Field -> the docstring below it, a subclass's in place of its parents'."""
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if issubclass(kind, Section) and kind is not Section:
            found |= _docstrings(kind)
    return found


def _docstrings(kind: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):  # a class without a source has no docstrings to read
        return {}
    [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef)] or [[]]
    found = {}
    for field, below in pairwise(body):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            found[field.target.id] = " ".join(str(below.value.value).split())  # type: ignore[attr-defined]
    return found


def _doc(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").split())


def _section_in(annotation: Any) -> type[Section] | None:
    """The section that a value is, may be, or is a list of."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    inner = (_section_in(each) for each in get_args(annotation))
    return next((each for each in inner if each is not None), None)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined or isinstance(value, Section):
        return "the defaults of its keys"
    return json.dumps(value, ensure_ascii=False)


def _limits(field: FieldInfo) -> tuple[Any, ...]:
    return tuple(field.metadata)


def _type(annotation: Any, limits: Sequence[Any] = ()) -> str:
    """A type in the words of a recipe's reader."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [each for said in arguments[1:] for each in (said.metadata if isinstance(said, FieldInfo) else ())]
        return _type(arguments[0], [*limits, *inner])
    if origin in (Union, types.UnionType):
        members = [each for each in arguments if each is not type(None)]
        names = [_type(each, limits) for each in members]
        return " or ".join([*names, *(["null"] if len(members) < len(arguments) else [])])
    if origin is Literal:
        return " | ".join(str(each) if _PLAIN.fullmatch(each) else repr(each) for each in arguments)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"list of {_type(arguments[0])}"
        return f"list of {len(arguments)} values"
    if annotation in _WORDS:
        return _WORDS[annotation] + _bounds(limits)
    return "section" if _section_in(annotation) is not None else str(getattr(annotation, "__name__", annotation))


def _bounds(limits: Sequence[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    said = [
        f"{sign} {getattr(limit, name):g}"
        for limit in limits
        for name, sign in signs.items()
        if getattr(limit, name, None) is not None and getattr(limit, name) <= _LARGEST_SHOWN
    ]
    return f" {' and '.join(said)}" if said else ""
