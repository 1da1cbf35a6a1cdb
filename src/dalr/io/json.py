"""How are the records of runs and studies read? As JSON whose every number is finite: no NaN, no 1e400."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


class NotFiniteError(ValueError):
    """A number in a record that is none."""


def loads_finite(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        NotFiniteError: a number that is not finite.
        ValueError: not JSON.
        RecursionError: nested too deeply.
    """
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def read_finite(path: Path) -> Any:
    """The value of a JSON file; raises OSError as well."""
    return loads_finite(path.read_bytes())


def _refuse(constant: str) -> float:
    raise NotFiniteError(f"expected finite numbers, found {constant}")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise NotFiniteError(f"expected finite numbers, found {number:.40}")
    return value
