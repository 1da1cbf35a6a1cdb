"""Where do a hundred million sentences stay? In a file, read row by row; only few are kept in memory.

A Python string takes about 50 bytes beside its text, and a tuple of strings keeps all of it in memory for the whole
training. `Strings` is a sequence of strings like any other, but its rows stand in UTF-8 one after the other, in a
file in the cache folder that has no name and goes with the process. It is read by position, not through a memory
map, whose pages would count as memory of the process.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import SupportsIndex, TypeVar, overload

import numpy as np
from jaxtyping import Int, Int64

from dalr.errors import StorageError
from dalr.io.atomic import remedy, storage_errors
from dalr.io.cache import REMEDY, cache_root

_T = TypeVar("_T", covariant=True)
_IN_MEMORY = 4 << 20
"""Bytes of text up to which no file is made."""
_AT_ONCE = 4096
"""Rows that are read at once when all are."""
_BYTES_AT_ONCE = 8 << 20
"""Bytes that are read at once, but for a row that is longer."""
_CLOSE = 8
"""Rows may be so many times as far apart as rows that touch, to be read at once."""
_BORDER = _KEY = 8
"""Bytes of a border, the place in the file where a row ends, and of a key."""


class Rows(Sequence[_T], ABC):
    """A sequence that equals any other with the same items in the same order, as two lists do."""

    __hash__ = None  # type: ignore[assignment]

    @abstractmethod
    def take(self, rows: Int[np.ndarray, " n"]) -> Rows[_T]:
        """Some of these rows, in this order."""

    @abstractmethod
    def _row(self, place: int) -> _T:
        """The row at `place`, which is there."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> _T: ...
    @overload
    def __getitem__(self, index: slice) -> Rows[_T]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> _T | Rows[_T]:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self)), dtype=np.int64))
        number = int(index)
        place = number + len(self) if number < 0 else number
        if not 0 <= place < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        return self._row(place)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == its for mine, its in zip(self, other, strict=True))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, islice(self, 3)))
        return f"<{type(self).__name__} of {len(self)}: {shown}{', …' if len(self) > 3 else ''}>"


class Strings(Rows[str]):
    """Strings that are read from a file, or from memory where there are few."""

    def __init__(self, text: _Bytes, borders: _Bytes, rows: Int[np.ndarray, " n"] | None = None) -> None:
        """`borders` are n + 1 places in `text`; `rows` are those of them that this sequence has, None for all."""
        self._text, self._borders, self._rows = text, borders, rows

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        writer = StringsWriter()
        writer.extend(strings)
        return writer.finish()

    def __len__(self) -> int:
        return len(self._rows) if self._rows is not None else len(self._borders) // _BORDER - 1

    def __iter__(self) -> Iterator[str]:
        if self._rows is None:
            for start in range(0, len(self), _AT_ONCE):
                yield from self._read(start, min(_AT_ONCE, len(self) - start))
            return
        for start in range(0, len(self._rows), _AT_ONCE):
            yield from self._scattered(self._rows[start : start + _AT_ONCE])

    def take(self, rows: Int[np.ndarray, " n"]) -> Strings:
        return Strings(self._text, self._borders, rows if self._rows is None else self._rows[rows])

    def _row(self, place: int) -> str:
        [text] = self._read(int(self._rows[place]) if self._rows is not None else place, 1)
        return text

    def __reduce__(self) -> tuple[object, ...]:
        return Strings.of, (list(self),)

    def _scattered(self, rows: Int[np.ndarray, " n"]) -> Iterator[str]:
        """Few rows: at once where they stand close together, one by one otherwise."""
        first, last = int(rows.min()), int(rows.max())
        if last - first < _CLOSE * len(rows):
            borders = self._borders_of(first, last - first + 1)
            if borders[-1] - borders[0] <= _BYTES_AT_ONCE:
                text = self._text.read(borders[0], borders[-1] - borders[0])
                for row in (rows - first).tolist():
                    yield _decoded(text[borders[row] - borders[0] : borders[row + 1] - borders[0]])
                return
        for row in rows.tolist():
            yield from self._read(row, 1)

    def _read(self, start: int, count: int) -> Iterator[str]:
        """Rows that stand one after the other in the file."""
        borders = self._borders_of(start, count)
        row = 0
        while row < count:
            begin = borders[row]
            stop = max(bisect_right(borders, begin + _BYTES_AT_ONCE) - 1, row + 1)
            text = self._text.read(begin, borders[stop] - begin)
            for number in range(row, stop):
                yield _decoded(text[borders[number] - begin : borders[number + 1] - begin])
            row = stop

    def _borders_of(self, start: int, count: int) -> list[int]:
        found: list[int] = np.frombuffer(
            self._borders.read(start * _BORDER, (count + 1) * _BORDER), np.int64
        ).tolist()
        return found


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


class StringsWriter:
    """Takes strings one by one, or many."""

    def __init__(self) -> None:
        self._text, self._borders = _Growing(), _Growing()
        self._held, self._ends = bytearray(), array("q", [0])
        self._end = 0

    def append(self, text: str) -> None:
        """Add one string; raises as `extend`."""
        self.extend((text,))

    def extend(self, strings: Iterable[str]) -> None:
        """Add strings.

        Raises:
            StorageError: the cache folder, where a large file is made, cannot be written or is full.
        """
        for text in strings:
            data = text.encode("utf-8", "surrogatepass")
            self._held += data
            self._end += len(data)
            self._ends.append(self._end)
            if len(self._held) >= _IN_MEMORY or len(self._ends) * _BORDER >= _IN_MEMORY:
                self._put()

    def finish(self) -> Strings:
        self._put()
        return Strings(self._text.finish(), self._borders.finish())

    def _put(self) -> None:
        self._text.add(self._held)
        self._borders.add(self._ends.tobytes())
        self._held, self._ends = bytearray(), array("q")


class _Growing:
    """Bytes that are being collected."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._file: _File | None = None

    def add(self, data: bytes | bytearray) -> None:
        self._kept += data
        if len(self._kept) >= _IN_MEMORY:
            self._put()

    def finish(self) -> _Bytes:
        if self._file is None:
            return _Bytes(bytes(self._kept))
        self._put()
        return _Bytes(self._file)

    def _put(self) -> None:
        with remedy(REMEDY), storage_errors(cache_root()):
            if self._file is None:
                self._file = _File()
            self._file.write(self._kept)
        self._kept.clear()


class _File:
    """A file without a name in the cache folder."""

    def __init__(self) -> None:
        cache_root().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache_root()) as file:
            self.descriptor = os.dup(file.fileno())
        self.size = 0

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def write(self, data: bytearray) -> None:
        """Add bytes at the end."""
        end = self.size + len(data)
        with memoryview(data) as left:
            while self.size < end:
                self.size += os.pwrite(self.descriptor, left[len(data) - (end - self.size) :], self.size)


class _Bytes:
    """Bytes that are read from any place: in memory, or in a file."""

    def __init__(self, held: bytes | _File) -> None:
        self._held = held

    def __len__(self) -> int:
        return len(self._held) if isinstance(self._held, bytes) else self._held.size

    def read(self, start: int, size: int) -> bytes:
        if isinstance(self._held, bytes):
            return self._held[start : start + size]
        found = os.pread(self._held.descriptor, size, start)
        while len(found) < size:  # one call reads 2 GiB at most
            more = os.pread(self._held.descriptor, size - len(found), start + len(found))
            if not more:
                raise StorageError(
                    f"{cache_root()}: a temporary file lost its end, at {start + len(found)}; {REMEDY}"
                )
            found += more
        return found


def key_of(text: str) -> int:
    """64 bits that tell a string from others: of a hundred million, two share a key with a chance of 1 in 3,700."""
    return int.from_bytes(_digest(text), "little", signed=True)


def keys_of(strings: Iterable[str]) -> Int64[np.ndarray, " n"]:
    """The key of each string, 8 bytes a row."""
    found = bytearray()
    for text in strings:
        found += _digest(text)
    return np.frombuffer(found, "<i8").astype(np.int64, copy=False)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY).digest()


def repeated_rows(strings: Sequence[str], keys: Int64[np.ndarray, " n"]) -> list[tuple[int, int]]:
    """(row, first row with the same string) of each string that occurs again, in the order of rows."""
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    if not same.any():
        return []
    found: list[tuple[int, int]] = []
    steps = np.diff(np.concatenate([[False], same, [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        first: dict[str, int] = {}  # strings with one key are nearly always one string
        for row in order[start : end + 1].tolist():
            known = first.setdefault(strings[row], row)
            if known != row:
                found.append((row, known))
    return sorted(found)


class Lookup:
    """Where does a string stand in a sequence? 16 bytes a row, in place of a dictionary's hundred and more."""

    def __init__(self, strings: Strings) -> None:
        self._strings = strings
        keys = keys_of(strings)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def rows_of(self, wanted: Sequence[str]) -> Int64[np.ndarray, " n"]:
        """The row of each string; -1 where there is none."""
        if not len(self._keys):
            return np.full(len(wanted), -1, np.int64)
        keys = keys_of(wanted)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found = self._order[places]
        for number, (text, there) in enumerate(zip(wanted, self._strings.take(found), strict=True)):
            if text != there:
                found[number] = self._another(int(places[number]), int(keys[number]), text)
        return found

    def _another(self, place: int, key: int, text: str) -> int:
        """The row of a string that shares its key with the string at `place`."""
        while place < len(self._keys) and self._keys[place] == key:
            row = int(self._order[place])
            if self._strings[row] == text:
                return row
            place += 1
        return -1
