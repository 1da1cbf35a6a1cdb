"""What may methods and prepared runs be called? Folders carry their names; also `${prepared:NAME}`, `${seed}`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z")
_REFERENCE = re.compile(r"\$\{prepared:([^}]*)\}")


_SEED = "${seed}"


def check_name(name: str) -> str | None:
    """What is wrong with a name."""
    if _NAME.match(name):
        return None
    return "names are folders: expected up to 64 letters, digits and . _ + -, starting with a letter or digit"


def references(value: Any) -> Iterator[str]:
    """Names of prepared runs that a value mentions."""
    match value:
        case str():
            yield from _REFERENCE.findall(value)
        case dict():
            for item in value.values():
                yield from references(item)
        case list() | tuple():
            for item in value:
                yield from references(item)
        case _:
            pass


def mentions_seed(value: Any) -> bool:
    """Whether a value is another one under each seed."""
    return bool(with_seed(value, 0) != value)


def with_seed(value: Any, seed: int) -> Any:
    """The value with the seed of its run in the place of each `${seed}`."""
    match value:
        case str():
            return value.replace(_SEED, str(seed))
        case Mapping():
            return {key: with_seed(item, seed) for key, item in value.items()}
        case list() | tuple():
            return type(value)(with_seed(item, seed) for item in value)
        case _:
            return value


def with_models(value: Any, model_of: Callable[[str], str]) -> Any:
    """The value with each `${prepared:NAME}` replaced by the model of that run."""
    match value:
        case str():
            return _REFERENCE.sub(lambda found: model_of(found[1]), value)
        case dict():
            return {key: with_models(item, model_of) for key, item in value.items()}
        case list() | tuple():
            return [with_models(item, model_of) for item in value]
        case _:
            return value
