"""Does a file claim more than it holds? Kilobytes can stand for gigabytes; such files are refused.

Compression, repetition and headers make a small file large in memory. What is in proportion to its file is read,
however large; what is far out of proportion is no data that somebody wrote.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from dalr.errors import DataError, Problem

FREE = 64 << 20
"""Bytes in memory that any file may come to."""
RATIO = 100
"""Times its own size that a larger file may come to."""
DEEPEST = 64
"""Levels of nesting in JSON; feature files have four."""

_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_OTHER_BYTES = bytes(byte for byte in range(256) if byte not in b'[]{}"')


def room(stored: int) -> int:
    """Bytes in memory that a file of `stored` bytes may come to."""
    return max(FREE, RATIO * stored)


def megabytes(count: int) -> str:
    """A number of bytes for a message."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


@runtime_checkable
class Readable(Protocol):
    """A binary file, or what stands in for one."""

    def read(self, size: int = ..., /) -> bytes: ...


class NotTooDeep:
    """A JSON file on its way to a parser, which stops where it is nested without end.

    A parser that keeps the path to where it is needs memory with the square of the depth.
    """

    def __init__(self, file: Readable, path: Path) -> None:
        self._file, self._path = file, path
        self._depth, self._in_string, self._escape = 0, False, False

    def read(self, size: int = -1) -> bytes:
        """As the file's own.

        Raises:
            DataError: nested more than `DEEPEST` levels deep.
        """
        part = self._file.read(size)
        if part:
            self._look(part)
        return part

    def _look(self, part: bytes) -> None:
        if self._escape:
            part = part[1:]
        backslashes = len(part) - len(part.rstrip(b"\\"))
        self._escape = backslashes % 2 == 1
        marks = _ESCAPED.sub(b"", part).translate(None, _OTHER_BYTES)
        pieces = marks.split(b'"')
        outside = b"".join(pieces[int(self._in_string) :: 2])
        self._in_string ^= len(pieces) % 2 == 0
        if not outside:
            return
        values = np.frombuffer(outside, np.uint8)
        steps = np.where((values == ord("[")) | (values == ord("{")), np.int64(1), np.int64(-1))
        depths = self._depth + np.cumsum(steps)
        self._depth = int(depths[-1])
        if int(depths.max()) > DEEPEST:
            what = f"not JSON that is read here: nested more than {DEEPEST} levels deep"
            raise DataError(Problem(where=str(self._path), what=what))
