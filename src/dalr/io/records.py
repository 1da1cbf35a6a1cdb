"""How does dalr read its own JSON back? Records of runs, results, settings.

Python's parser takes `NaN`, `Infinity` and `1e400` for numbers, and a score that is infinite wins every comparison.
A record holds finite numbers; anything else is refused where it is read, with the text that stands there.
"""

from __future__ import annotations

import json
import math
from typing import Any


def parse_record(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: not JSON, nested too deeply, or a number that is not finite.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(text: str) -> Any:
    raise ValueError(f"expected finite numbers, found {text}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(f"{text:.40}")
    return value


def _whole(text: str) -> int:
    """A whole number that a float can hold."""
    if len(text) > 300:
        _refuse(f"{text[:20]}… with {len(text)} digits")
    return int(text)
