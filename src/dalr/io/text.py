r"""Strict text: UTF-8 or a list of the places where it is not; lines end at \n or \r\n and nowhere else.

`str.splitlines` also splits at U+2028, VT and NEL, which shifts every caption after such a character against its
features. Bytes that are not UTF-8 are never replaced: a silently changed sentence is worse than a stop. A file
that begins as gzip does is unpacked, whatever its name.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from gzip import BadGzipFile, GzipFile
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from dalr.errors import DataError, Problem, few
from dalr.io.lfs import LFS_ADVICE, is_lfs_pointer
from dalr.io.paths import refusal, regular

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
_HEAD = 1 << 16
_FREE = 8 << 20
"""Bytes that any gzip file may unpack to; beyond them text does not shrink by more than `_RATIO`."""
_RATIO = 50


def read_lines(path: Path, *, else_latin_1: bool = False) -> list[str]:
    """The lines of a UTF-8 file without their ends; a byte-order mark at the start is skipped once.

    With `else_latin_1` a file that is not UTF-8 is latin-1, as TREC's official one is.

    Raises:
        DataError: the file is missing or not readable, damaged gzip, or some lines are not UTF-8
            (`file:line: byte n is 0x..`).
    """
    return split_lines(read_text(path, else_latin_1=else_latin_1))


def iter_lines(path: Path) -> Iterator[str]:
    """The lines that `read_lines` gives, read as they are asked for; memory holds a megabyte and the longest line.

    Raises:
        DataError: as `read_lines`; for bytes that are not UTF-8 with every such line from the first one on.
    """
    number = 0
    with open_data(path) as file:
        if isinstance(file, GzipFile):  # read to its end first: of a damaged one, or a bomb, no line is given out
            while file.read(_CHUNK):
                pass
    with open_data(path) as file:
        blocks = _whole_lines(file.read)
        for block in blocks:
            try:
                lines = split_lines(block.decode("utf-8"))
            except UnicodeDecodeError:
                raise DataError(_undecodable(path, chain([block], blocks), number)) from None
            number += len(lines)
            yield from lines


def _whole_lines(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """What is read, in pieces that end with a line; a byte-order mark is left out."""
    parts: list[bytes] = []
    first = True
    while data := read(_CHUNK):
        if first:
            data, first = data.removeprefix(_BOM), False
        border = data.rfind(b"\n") + 1
        if border:
            yield b"".join([*parts, data[:border]])
            parts = []
        parts.append(data[border:])
    if rest := b"".join(parts):
        yield rest


def read_text(path: Path, *, else_latin_1: bool = False) -> str:
    """The whole text of a UTF-8 file, unpacked if it is gzip; options and errors are those of `read_lines`."""
    data = read_data(path).removeprefix(_BOM)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        if else_latin_1:
            return data.decode("latin-1")
        raise DataError(_undecodable(path, [data])) from None


def split_lines(text: str) -> list[str]:
    r"""The lines of a text, ended by \n or \r\n."""
    lines = text.split("\n")
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
    if lines[-1] == "":
        lines.pop()
    return lines


def read_data(path: Path) -> bytes:
    """The bytes of a file, unpacked if it is gzip.

    Raises:
        DataError: missing, not readable, a git-LFS pointer, named .gz without being gzip, cut short, or unpacking
            to a size that no text has.
    """
    with open_data(path) as file:
        return b"".join(iter(lambda: file.read(_CHUNK), b"")) if isinstance(file, GzipFile) else file.read()


@contextmanager
def open_data(path: Path) -> Iterator[BinaryIO | GzipFile]:
    """A file open for reading in pieces, unpacked if it is gzip; errors while it is read are ours, as above."""
    try:
        with open(regular(path), "rb") as raw:
            if is_lfs_pointer(path):
                raise DataError(Problem(where=str(path), what=LFS_ADVICE))
            packed = raw.read(len(_GZIP)) == _GZIP
            raw.seek(0)
            if path.suffix.lower() == ".gz" and not packed:
                raise DataError(Problem(where=str(path), what="named .gz, but it is not gzip; unpack or rename it"))
            yield _Unpacked(raw, path) if packed else raw
    except FileNotFoundError:
        raise DataError(Problem(where=str(path), what="no such file")) from None
    except (BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(Problem(where=str(path), what=f"damaged gzip: {error}")) from None
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be a file's
        raise refusal(path, error) from None


class _Unpacked(GzipFile):
    """A gzip file that stops where it unpacks to more than text would."""

    def __init__(self, raw: BinaryIO, path: Path) -> None:
        super().__init__(fileobj=raw)
        self._path, self._packed, self._unpacked = path, raw.seek(0, os.SEEK_END), 0
        raw.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        part = super().read(size)
        self._unpacked += len(part)
        limit = max(_FREE, _RATIO * self._packed)
        if self._unpacked > limit:
            what = f"{self._packed} bytes of gzip unpack to more than {limit}, which is not plausible for text"
            raise DataError(Problem(where=str(self._path), what=what))
        return part


def first_line(path: Path) -> str:
    """The first line that is not blank, as far as it stands in the first 64 KiB, to tell what a file is.

    Bytes that are not UTF-8 are shown as U+FFFD here: whoever reads the file says where they are.

    Raises:
        DataError: missing, not readable or not gzip.
    """
    with open_data(path) as file:
        head = file.read(_HEAD)
    lines = split_lines(head.removeprefix(_BOM).decode("utf-8", "replace"))
    return next((line for line in lines if line.strip()), "")


def ending(path: Path) -> str:
    """The ending of a file's name in lower case, without `.gz`."""
    inner = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return inner.suffix.lower()


def _undecodable(path: Path, blocks: Iterable[bytes], before: int = 0) -> list[Problem]:
    """The lines that are not UTF-8 of blocks of whole lines, `before` of which were read."""

    def problem(place: tuple[int, int, int]) -> Problem:
        line, column, byte = place
        what = f"byte {column} is 0x{byte:02x}, not UTF-8; convert the file with iconv"
        return Problem(where=f"{path}:{line}", what=what)

    return few(_not_utf8(blocks, before), problem)


def _not_utf8(blocks: Iterable[bytes], before: int) -> Iterator[tuple[int, int, int]]:
    """(line, column, value) of the first byte of each line that is not UTF-8."""
    lines = (line for block in blocks for line in block.removesuffix(b"\n").split(b"\n"))
    for number, line in enumerate(lines, start=before + 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, error.start + 1, line[error.start]
