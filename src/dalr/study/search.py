"""Which settings are tried for a method? All of a grid, or distinct draws from lists and ranges.

Draws are a Latin hypercube: each range is cut into as many pieces as there are trials, and each piece is met once,
so that eight trials see a whole range. A draw depends on the seed, the key and its number, not on the method: two
methods that search the learning rate over one range try the same learning rates, and none is luckier.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from dalr.seed import generator
from dalr.study.config import MethodConfig, Range, SearchConfig

Setting = Mapping[str, Any]
"""Dotted key -> value of one trial."""

_ATTEMPTS = 100
"""Draws for each trial before a space counts as exhausted."""


def problems_of(search: SearchConfig, trials: int | None) -> list[tuple[str, str]]:
    """(key of the search section, what is wrong)."""
    found = []
    for key, values in search.space.items():
        match values:
            case Range() if search.kind == "grid":
                found.append((f"space.{key}", "a grid needs a list of values; a range is for kind: random"))
            case Range() if values.low >= values.high:
                found.append((f"space.{key}", f"low {values.low:g} is not below high {values.high:g}"))
            case Range() if values.log and values.low <= 0:
                found.append((f"space.{key}", f"a logarithmic range starts above 0, found {values.low:g}"))
            case tuple() if not values or len({_text(value) for value in values}) < len(values):
                found.append((f"space.{key}", "expected a list of different values"))
            case _:
                pass
    if not search.space:
        found.append(("space", "expected at least one key of the recipe"))
    if found:
        return found
    size = combinations(search)
    if search.kind == "random" and trials is None:
        found.append(("kind", "random needs to know how many trials: set trials, for all methods or for this one"))
    elif search.kind == "random" and trials is not None and size is not None and size < trials:
        found.append(("space", f"{trials} trials, but only {size} combinations; use kind: grid"))
    elif search.kind == "grid" and trials is not None and size != trials:
        found.append(("space", f"a grid of {size} combinations, but trials is {trials}"))
    return found


def trials_of(method: MethodConfig, trials: int | None, *, seed: int) -> list[Setting]:
    """The settings that a method tries, in order; none without a search. `trials` is the study's number."""
    search = method.search
    if search is None:
        return []
    if search.kind == "grid":
        lists = [values for values in search.space.values() if not isinstance(values, Range)]
        return [dict(zip(search.space, values, strict=True)) for values in itertools.product(*lists)]
    wanted = method.trials or trials
    assert wanted is not None
    found: dict[str, Setting] = {}
    for attempt in range(_ATTEMPTS * wanted):
        setting = {
            key: _value(values, _share(key, seed=seed, attempt=attempt, trials=wanted))
            for key, values in search.space.items()
        }
        found.setdefault(_text(setting), setting)
        if len(found) == wanted:
            break
    return list(found.values())


def _share(key: str, *, seed: int, attempt: int, trials: int) -> float:
    """Where in 0 to 1 a draw lies: the first `trials` each in a piece of their own, those after them anywhere."""
    within = float(generator(seed, "study search", key, attempt).random())
    if attempt >= trials:
        return within  # in place of a combination that was drawn before
    piece = int(generator(seed, "study pieces", key).permutation(trials)[attempt])
    return (piece + within) / trials


def _value(values: tuple[Any, ...] | Range, share: float) -> Any:
    if not isinstance(values, Range):
        return values[int(share * len(values))]
    low, high = values.low, values.high
    if values.integer:
        low, high = math.ceil(low), math.floor(high) + 1  # each whole number has a share, the last one too
    if values.log:
        number = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        number = low + share * (high - low)
    if values.integer:
        return min(math.floor(number), math.floor(values.high))
    rounded = float(f"{number:.4g}")  # a setting that can be read, typed and reported
    return min(max(rounded, low), high)


def combinations(search: SearchConfig) -> int | None:
    """How many settings there are; None where a range makes them practically endless."""
    sizes = [_size(values) for values in search.space.values()]
    finite = [size for size in sizes if size is not None]
    return math.prod(finite) if len(finite) == len(sizes) else None


def _size(values: tuple[Any, ...] | Range) -> int | None:
    if not isinstance(values, Range):
        return len(values)
    return math.floor(values.high) - math.ceil(values.low) + 1 if values.integer else None


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
