"""How a vector is stored: 4 bytes a number, one byte, or one bit.

int8 divides the range of each dimension into 256 steps. The ranges are measured once, on the first rows, and
kept: vectors that are compared must have the same. A number outside its range takes the nearest end instead of
wrapping around. binary keeps the signs, eight dimensions in a byte, as `numpy.packbits` orders them. bf16 says how
the vectors are computed; they are stored as fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int8, Shaped, UInt8

Precision = Literal["fp32", "bf16", "int8", "binary"]
DTYPES: Mapping[str, type[np.generic]] = {
    "fp32": np.float32,
    "bf16": np.float32,
    "int8": np.int8,
    "binary": np.uint8,
}
"""What numbers a file of each precision holds."""
_STEPS = 255


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Lowest and highest number of each dimension."""

    low: Float32[np.ndarray, " d"]
    high: Float32[np.ndarray, " d"]

    @classmethod
    def of(cls, vectors: Float32[np.ndarray, "n d"]) -> Ranges:
        """Those of some vectors."""
        return cls(low=vectors.min(axis=0), high=vectors.max(axis=0))

    def as_json(self) -> dict[str, list[float]]:
        return {"low": self.low.tolist(), "high": self.high.tolist()}

    @classmethod
    def from_json(cls, stated: Any) -> Ranges:
        """What `as_json` gave.

        Raises:
            ValueError, KeyError, TypeError: something else.
        """
        low, high = (np.asarray(stated[key], np.float32) for key in ("low", "high"))
        if low.ndim != 1 or low.shape != high.shape or not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError("expected two lists of numbers, low and high")
        return cls(low=low, high=high)


def shortened(vectors: Float32[np.ndarray, "n d"], *, dim: int | None, unit: bool) -> Float32[np.ndarray, "n e"]:
    """The first `dim` numbers of each vector (all for None), at length 1 if `unit`."""
    kept = vectors if dim is None else np.ascontiguousarray(vectors[:, :dim])
    if not unit:
        return kept
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    scaled: np.ndarray = (kept / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return scaled


def stored(
    vectors: Float32[np.ndarray, "n d"], precision: Precision, ranges: Ranges | None
) -> Shaped[np.ndarray, "n e"]:
    """The vectors as a file of this precision holds them."""
    if precision == "int8":
        assert ranges is not None
        return quantized(vectors, ranges)
    return signs(vectors) if precision == "binary" else vectors


def quantized(vectors: Float32[np.ndarray, "n d"], ranges: Ranges) -> Int8[np.ndarray, "n d"]:
    """One byte a number: -128 at the low end of a dimension's range, 127 at the high end."""
    span = np.maximum(ranges.high - ranges.low, np.finfo(np.float32).tiny)
    steps = np.rint((vectors - ranges.low) / span * _STEPS)
    bytes_: np.ndarray = (np.clip(steps, 0, _STEPS) - 128).astype(np.int8)
    return bytes_


def restored(vectors: Int8[np.ndarray, "n d"], ranges: Ranges) -> Float32[np.ndarray, "n d"]:
    """What `quantized` was made of, to half a step."""
    span = ranges.high - ranges.low
    numbers: np.ndarray = ((vectors.astype(np.float32) + 128) / _STEPS * span + ranges.low).astype(np.float32)
    return numbers


def signs(vectors: Float32[np.ndarray, "n d"]) -> UInt8[np.ndarray, "n e"]:
    """One bit a number: whether it is above 0."""
    return np.packbits(vectors > 0, axis=1)
