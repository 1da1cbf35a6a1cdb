"""Where does a YAML document say what? Recipes and studies, with file and line of every key.

YAML is read as the 1.2 core schema: `1e-5` is a number and `no` is a string (YAML 1.1, and so `yaml.safe_load`,
has it the other way round); a key given twice is an error instead of silently the last one; there are no tags
and no aliases. A document may say `extends: NAME or PATH` and change single keys; null removes a section. Keys
keep the file and line that they came from through all of it, so that every problem can say where it is.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePath
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dalr.errors import ConfigError, Problem, did_you_mean
from dalr.io.paths import expanded, refusal, regular
from dalr.recipe.section import Section

KeyPath = tuple[str | int, ...]
S = TypeVar("S", bound=Section)

_INDEX = re.compile(r"[0-9]{1,4}\Z")
_DEEPEST = 5
"""Longest chain of `extends`."""
_LARGEST, _NESTING = 32 * 1024, 20
"""Bytes and levels of a document. The YAML parser's time grows with the square of the nesting."""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Documents of one kind that come with the package, found by name; any other reference is a path."""

    kind: str
    """`recipe` or `study`, for messages."""
    folder: str
    """Inside the package."""
    alias: re.Pattern[str] | None = None
    """Long names, whose group `name` is the short one."""

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(item.name[:-5] for item in self._place().iterdir() if item.name.endswith(".yaml"))

    def open(self, reference: str) -> tuple[str, str]:
        """(name for messages, text) of a document.

        Raises:
            ConfigError: there is none, or it is too large or not UTF-8.
        """
        alias = self.alias.match(reference) if self.alias is not None else None
        known = self.names()
        name = alias["name"] if alias and reference not in known else reference
        if name in known:
            return f"{name}.yaml", (self._place() / f"{name}.yaml").read_text(encoding="utf-8")
        try:
            with open(regular(expanded(reference, self.kind)), "rb") as file:
                content = file.read(_LARGEST + 1)
            if len(content) > _LARGEST:
                what = f"larger than {_LARGEST // 1024} kB, too large for a {self.kind}; expected keys and values"
                raise ConfigError(Problem(where=reference, what=what))
            return reference, content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(Problem(where=reference, what=f"byte {error.start + 1} is not UTF-8")) from None
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:
            raise refusal(Path(reference), error, ConfigError) from None
        hint = _near_file(reference) or did_you_mean(reference, known)
        what = f"no such file, and no shipped {self.kind} of that name; {hint}shipped: {', '.join(known)}"
        raise ConfigError(Problem(where=f"{self.kind} {reference!r}", what=what))

    def read(self, reference: str) -> Document:
        """A document with the ones that it extends merged in; problems inside it are kept in it.

        Raises:
            ConfigError: there is no such document.
        """
        return _read(self, reference, depth=0)

    def from_mapping(self, tree: Mapping[str, Any]) -> Document:
        """A document from a mapping in memory, with the one that it extends merged in."""
        document = Document(source=f"{self.kind} (a mapping)", tree=plain(tree))
        document.places = dict.fromkeys(_paths(document.tree), document.source)
        document.whole = bool(document.tree)
        return _extended(self, document, depth=0)

    def _place(self) -> Any:
        return resources.files("dalr") / self.folder


@dataclass(frozen=True, kw_only=True)
class Change:
    """One key of a document to be set to a value, and the place that says so."""

    where: str
    key: str
    """Dotted; parts that are numbers address list items."""
    value: Any
    file: str = ""
    """The file that says so, at which relative paths start; empty for the command line."""


@dataclass(kw_only=True)
class Document:
    """What a person wrote, as plain values with the place that each key came from."""

    source: str
    tree: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Place -> the file that it is in; what the command line says is in none."""
    problems: list[Problem] = field(default_factory=list)
    whole: bool = True
    """Whether all of it could be read; what a missing base would have said is not asked for."""

    def place(self, path: KeyPath) -> str:
        """file:line of a key, or of the nearest key above it."""
        while path:
            if path in self.places:
                return self.places[path]
            path = path[:-1]
        return self.source

    def file(self, path: KeyPath) -> str:
        """The file that says a key: relative paths in its value start there. Empty for the command line."""
        return self.files.get(self.place(path), "")


def _near_file(reference: str) -> str:
    """A hint at a document beside, where the name is nearly its own."""
    place = Path(reference)
    try:
        beside_it = sorted(each.name for each in place.parent.iterdir() if each.suffix in (".yaml", ".yml"))
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(place.name, beside_it, n=1, cutoff=0.8)
    return f"did you mean {place.with_name(close[0])}? " if close else ""


def _read(shelf: Shelf, reference: str, *, depth: int) -> Document:
    source, text = shelf.open(reference)
    document = Document(source=source)
    _parse(text, document)
    document.files = dict.fromkeys(document.places.values(), source)
    document.whole = bool(document.tree)
    return _extended(shelf, document, depth=depth)


def _extended(shelf: Shelf, document: Document, *, depth: int) -> Document:
    """The document over the one that it extends, if it says so."""
    source, base = document.source, document.tree.pop("extends", None)
    if base is None:
        return document
    where = document.places.pop(("extends",), source)
    if not isinstance(base, str) or depth >= _DEEPEST:
        what = f"expected the name or path of a {shelf.kind}, in a chain of at most {_DEEPEST}"
        document.problems.append(Problem(where=f"{where}: extends", what=what))
        document.whole = False
        return document
    try:
        parent = _read(shelf, beside(base, source), depth=depth + 1)
    except ConfigError as error:
        document.problems.extend(Problem(where=f"{where}: extends", what=p.what) for p in error.problems)
        document.whole = False
        return document
    return _merged(parent, document)


def _parse(text: str, document: Document) -> None:
    """Fill `document` from YAML; what is wrong goes to its problems."""
    source = document.source
    try:
        _refuse_aliases(text, source, document)
        if document.problems:
            return
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if isinstance(node, yaml.MappingNode):
            document.tree = _Loader(document).mapping(node, ())
        else:
            what = "expected keys and values, as `dalr recipe show dalr` has"
            document.problems.append(Problem(where=source, what=what))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        document.problems.append(Problem(where=where, what=f"not YAML: {getattr(error, 'problem', error)}"))
    except RecursionError:
        document.problems.append(Problem(where=source, what="nested too deeply to be a recipe"))


def beside(reference: str, source: str) -> str:
    """A relative path in a document starts at the file that says it; a name stays a name."""
    found = Path(source).parent / reference
    try:
        return str(found) if found.is_file() else reference
    except (OSError, ValueError):  # a name that cannot be a path
        return reference


class _Loader:
    """Turns YAML nodes into plain values and notes where each key stands."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(key_node.tag)
            here = (*path, key)
            place = f"{self.document.source}:{key_node.start_mark.line + 1}"
            if key in values:
                what = f"given twice (first at {self.document.places[here]}); keep one"
                self.document.problems.append(Problem(where=f"{place}: {dotted(here)}", what=what))
                continue
            self.document.places[here] = place
            values[key] = self.value(value_node, here)
        return values

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.document.places[(*path, index)] = f"{self.document.source}:{item.start_mark.line + 1}"
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        if node.style in ("'", '"', "|", ">"):
            return node.value
        return scalar(node.value)


_LONGEST_NUMBER = 64
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")


def scalar(text: str) -> str | int | float | bool | None:
    """A plain scalar by the YAML 1.2 core schema."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if len(text) <= _LONGEST_NUMBER and _INTEGER.match(text):
        return int(text)
    if len(text) <= _LONGEST_NUMBER and _FLOAT.match(text):
        return float(text)
    return text


def _refuse_aliases(text: str, source: str, document: Document) -> None:
    """Aliases and tags can make a small file huge or run code in other loaders, and depth costs time."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _NESTING:
            where = f"{source}:{event.start_mark.line + 1}" if event.start_mark else source
            document.problems.append(Problem(where=where, what="nested too deeply to be a recipe"))
            return
        tagged = getattr(event, "tag", None) is not None
        if (isinstance(event, yaml.AliasEvent) or tagged) and event.start_mark is not None:
            what = "tags (!) and aliases (*) are not part of a recipe; write the value out, or quote it"
            document.problems.append(Problem(where=f"{source}:{event.start_mark.line + 1}", what=what))


def _merged(parent: Document, child: Document) -> Document:
    """The parent with the keys of the child in place of its own; lists are replaced whole."""
    tree, places = dict(parent.tree), dict(parent.places)

    def put(target: dict[str, Any], values: Mapping[str, Any], path: KeyPath) -> None:
        for key, value in values.items():
            here = (*path, key)
            if isinstance(value, dict) and isinstance(target.get(key), dict):
                target[key] = dict(target[key])
                put(target[key], value, here)
            else:
                for known in [known for known in places if known[: len(here)] == here]:
                    del places[known]
                target[key] = value
            places[here] = child.places[here]
            places.update({known: at for known, at in child.places.items() if known[: len(here)] == here})

    put(tree, child.tree, ())
    return Document(
        source=child.source,
        tree=tree,
        places=places,
        files=parent.files | child.files,
        problems=[*parent.problems, *child.problems],
        whole=parent.whole and child.whole,
    )


def change_of(override: str) -> Change:
    """The change that `key.path=value` asks for; a value in brackets or braces is a list or a section.

    Raises:
        ConfigError: it has another form.
    """
    key, separator, text = override.partition("=")
    where = f"-s {override}"
    if not separator or not key.strip() or ":" in key:
        raise ConfigError(Problem(where=where, what=f"expected KEY=VALUE in one word: {_meant(override)}"))
    return Change(
        where=where,
        key=key.strip(),
        value=_collection(text, where) if text.startswith(("[", "{")) else scalar(text),
    )


def _meant(override: str) -> str:
    """What stands for `key value`, `key: value` or `key:value` on a command line."""
    text = override.strip()
    key = re.split(r"[\s:=]", text, maxsplit=1)[0]
    value = text.removeprefix(key).lstrip(" \t:=")
    if not key:
        return "-s training.batch_size=32"
    return f"-s {shlex.quote(f'{key}={value}') if value else f'{key}=VALUE'}"


def changes_of(overrides: Mapping[str, Any]) -> list[Change]:
    """The changes that a mapping asks for: dotted keys, nested mappings merged into the sections that are there."""
    return [
        Change(where=f"overrides[{key!r}]", key=key, value=value) for key, value in _leaves(plain(overrides), "")
    ]


def plain(value: Any) -> Any:
    """Python values as YAML would have them: sections as mappings, tuples as lists, paths as strings."""
    match value:
        case BaseModel():
            return {key: plain(getattr(value, key)) for key in value.model_fields_set}
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case PurePath():
            return str(value)
        case _:
            return value


def _leaves(tree: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, dict) and value:
            yield from _leaves(value, here)
        else:
            yield here, value


def _paths(tree: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def _collection(text: str, where: str) -> Any:
    """A list or a section in one line of YAML, as a file has them.

    Raises:
        ConfigError: it is not YAML.
    """
    document = Document(source=where)
    _parse(f"value: {text}", document)
    if document.problems or document.tree.keys() != {"value"}:
        found = [problem.what for problem in document.problems] or ["expected one list or section in one line"]
        raise ConfigError([Problem(where=where, what=what) for what in found])
    return document.tree["value"]


def apply_change(document: Document, change: Change) -> list[Problem]:
    """Set one key; sections on the way to it are made where they are missing."""
    where, value = change.where, change.value
    parts: list[str | int] = [int(part) if _INDEX.match(part) else part for part in change.key.split(".")]
    target: Any = document.tree
    for index, part in enumerate(parts[:-1]):
        following = _child(target, part)
        if following is None and isinstance(target, dict):
            following = target[part] = {}
            document.places[tuple(parts[: index + 1])] = where  # what is wrong with it, this change has said
        if not isinstance(following, dict | list):
            return [Problem(where=where, what=f"{dotted(tuple(parts[: index + 1]))} has no keys below it")]
        if isinstance(following, dict) and isinstance(target, dict):
            following = target[part] = dict(following)
        target = following
    last = parts[-1]
    if value == {} and isinstance(target, dict) and isinstance(target.get(str(last)), dict):
        return []  # an empty section changes no key of the one that is there
    if isinstance(target, list) and isinstance(last, int) and last < len(target):
        target[last] = value
    elif isinstance(target, dict):
        target[str(last)] = value
    else:
        return [Problem(where=where, what=f"no item {last} in {dotted(tuple(parts[:-1]))}")]
    for known in [known for known in document.places if known[: len(parts)] == tuple(parts)]:
        del document.places[known]
    document.places[tuple(parts)] = where
    if change.file:
        document.files[where] = change.file
    return []


def _child(target: Any, part: str | int) -> Any:
    if isinstance(target, dict):
        return target.get(part)
    if isinstance(target, list) and isinstance(part, int) and part < len(target):
        return target[part]
    return None


def validated(document: Document, kind: type[S]) -> tuple[S | None, list[Problem]]:
    """The document as a typed section, or everything that keeps it from being one."""
    try:
        return kind.model_validate(with_tuples(document.tree)), []
    except ValidationError as error:
        return None, [_as_problem(detail, document, kind) for detail in error.errors()]


def with_tuples(value: Any) -> Any:
    """Plain values with tuples in place of lists: sections are frozen."""
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(with_tuples(item) for item in value)
    return value


def _as_problem(detail: ErrorDetails, document: Document, kind: type[Section]) -> Problem:
    path = _real_path(detail["loc"], document.tree)
    where = f"{document.place(path)}: {dotted(path)}"
    found = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            return Problem(where=where, what=_unknown_key(path, kind))
        case "unknown_term":
            return Problem(where=where, what=detail["msg"])
        case "missing":
            return Problem(where=where, what="is required and not given")
        case _:
            shown = "null" if found is None else f"{found!r:.60}"
            return Problem(where=where, what=f"{_expectation(detail['msg'])}, found {shown}")


def _expectation(message: str) -> str:
    """pydantic's sentence in the form "expected …"."""
    message = message.removeprefix("Input should be ").removeprefix("a valid ").replace("a valid ", "")
    message = "a list" if message == "tuple" else message
    return f"expected {message}"


def _real_path(location: tuple[int | str, ...], tree: Any) -> KeyPath:
    """The key path of an error, without the names of union members that pydantic adds at the end."""
    path: list[str | int] = []
    for part in location:
        inside = isinstance(tree, dict) and part in tree
        item = isinstance(tree, list | tuple) and isinstance(part, int) and part < len(tree)
        if inside or item:
            path.append(part)
            tree = tree[part]
        elif isinstance(tree, dict) and part is location[-1]:
            path.append(part)
    return tuple(path)


def _unknown_key(path: KeyPath, kind: type[Section]) -> str:
    known = _keys_of(path[:-1], kind)
    hint = did_you_mean(str(path[-1]), known)
    return f"unknown key; {hint}expected one of {', '.join(known)}"


def _keys_of(path: KeyPath, kind: type[Section]) -> list[str]:
    """The keys that the section at `path` may have."""
    annotation: Any = kind
    for part in path:
        if get_origin(annotation) is Mapping:
            annotation = get_args(annotation)[1]
            continue
        section = _section_in(annotation)
        if section is None:
            return []
        if not isinstance(part, int):
            annotation = section.annotation_of(part)
    section = None if get_origin(annotation) is Mapping else _section_in(annotation)
    return section.keys() if section else []


def _section_in(annotation: Any) -> Any:
    """The section class inside an optional, union or tuple annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple):
        return next((found for item in get_args(annotation) if (found := _section_in(item))), None)
    return None


def dotted(path: KeyPath) -> str:
    """A key path as a person writes it."""
    return ".".join(map(str, path)) or "recipe"
