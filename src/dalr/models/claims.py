"""Does a `config.json` agree with the weights? Checked before a library builds the model.

A model is built from its configuration before its weights are looked at. One that claims 20,000 layers takes a
minute and a half and gigabytes until the first name is found missing; a few digits more and the machine is gone. A
checkpoint holds at least one tensor for everything that is built one by one, and no matrix is larger than all of
its numbers together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dalr.errors import ModelFileError, Problem
from dalr.io.paths import regular
from dalr.models.json_object import json_object

Shapes = Sequence[tuple[int, ...]]

_BUILT_ONE_BY_ONE = re.compile(r"(?:layers?|depths?|blocks|experts|groups|group_num|stages)\Z")
_SIDES = ("in_features", "out_features")
_CHEAP = 256
"""So many of anything cost little, and some keys that end so are no counts (`max_window_layers`)."""
_LABELS = "num_labels"
_MOST_LABELS = 100_000
_NESTING = 20


def require_plausible(folder: Path, *, shapes: Shapes, where: str) -> None:
    """Refuse a configuration that asks for more than weights of these shapes hold.

    Raises:
        ModelFileError: `config.json` is not a JSON object, or claims too much; every such key.
    """
    path = folder / "config.json"
    config = json_object(path, where)
    problems = [
        Problem(where=where, what=f"{path}: {claim}; it is damaged, or not the configuration of these weights")
        for claim in (*_too_many(config, len(shapes)), *_too_large(config, shapes))
    ]
    if problems:
        raise ModelFileError(problems)


def stored_shapes(folder: Path, where: str) -> Shapes:
    """Shapes of all tensors in the safetensors files of `folder`, by their headers.

    Raises:
        ModelFileError: a file that is not safetensors, by name.
    """
    from safetensors import SafetensorError, safe_open

    shapes: list[tuple[int, ...]] = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(regular(path), framework="numpy") as file:
                shapes += [tuple(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            what = f"{path} cannot be loaded: not whole safetensors ({error!s:.120}); fetch it again"
            raise ModelFileError(Problem(where=where, what=what)) from None
    return shapes


def _too_many(config: Mapping[str, Any], tensors: int, depth: int = 0) -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, dict) and depth < _NESTING:
            yield from _too_many(value, tensors, depth + 1)
        several = value if isinstance(value, list) else [value]
        numbers = [number for number in several if isinstance(number, int)] or [0]
        largest = max(numbers)
        if _BUILT_ONE_BY_ONE.search(key) and largest > max(tensors, _CHEAP):
            yield f"{key} is {largest}, but the weights are {tensors} tensors in all"
        if _BUILT_ONE_BY_ONE.search(key) and min(numbers) < 0:
            yield f"{key} is {min(numbers)}, expected a count"
        if key == _LABELS and largest > _MOST_LABELS:
            yield f"{key} is {largest}, expected {_MOST_LABELS} at most"


def _too_large(config: Mapping[str, Any], shapes: Shapes) -> Iterator[str]:
    """A dense module allocates its matrix before it has read one."""
    sides = [side for key in _SIDES if isinstance(side := config.get(key), int)]
    stored = sum(math.prod(shape) for shape in shapes)
    if len(sides) == 2 and math.prod(sides) > stored:
        yield f"{' and '.join(_SIDES)} are {sides[0]} and {sides[1]}, but the weights are {stored} numbers in all"
