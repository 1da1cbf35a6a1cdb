"""How are tar shards read and written? Member by member, in place: nothing is unpacked.

A member is a shard, an offset and a size, so a million images are a million small records, and reading one is one
seek. Only headers are read to list a shard, with the standard library's `tarfile`, which neither knows nor runs
anything but tar. What no honest shard holds (links, devices, sparse files, sizes that lead backwards) is an
error that names the shard, the member and its offset; so is a shard that ends early, which `tarfile` alone would
take for its end.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import IO, Any

from dalr.errors import DataError, Problem
from dalr.io.lfs import LFS_ADVICE, is_lfs_pointer
from dalr.io.paths import refusal, regular, size_of

ENDING = ".tar"
MOST_SHARDS = 1_000_000
_MOST_AT_ONCE = 1 << 20
"""Of a header."""
_BLOCK = 512
_GZIP = b"\x1f\x8b"
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A file inside a shard."""

    shard: Path
    name: str
    offset: int
    """Of its first byte in the shard."""
    size: int

    @property
    def where(self) -> str:
        return place(self.shard, self.name, self.offset)

    def __str__(self) -> str:
        return self.where


def place(shard: Path, name: str, offset: int) -> str:
    """What a message calls a member."""
    return f"{shard}: member {name!r:.200} at byte {offset}"


def is_shards(path: Path) -> bool:
    """Whether a path names tar shards, or a pattern of them."""
    return path.name.lower().endswith(ENDING)


def shard_paths(pattern: Path) -> list[Path]:
    """The shards that a pattern such as `shards/{000..099}.tar` or `{a,b}.tar` names, in its order.

    Raises:
        DataError: braces that are none, too many shards, or one twice.
    """
    parts: list[list[str]] = []
    position, text = 0, str(pattern)
    for found in _BRACES.finditer(text):
        parts += [[text[position : found.start()]], _alternatives(found[1], pattern)]
        position = found.end()
    parts.append([text[position:]])
    if any(mark in each for fixed in parts[::2] for each in fixed for mark in "{}"):
        raise _refused(pattern, "braces that do not pair; expected {000..099} or {a,b}")
    count = 1
    for part in parts:
        count *= len(part)
    if count > MOST_SHARDS:
        raise _refused(pattern, f"{count} shards, at most {MOST_SHARDS} allowed")
    paths = [Path("".join(each)) for each in product(*parts)]
    if len(set(paths)) != len(paths):
        raise _refused(pattern, "names a shard twice")
    return paths


def _alternatives(inside: str, pattern: Path) -> list[str]:
    match = _RANGE.match(inside)
    if match is None:
        if "," not in inside or ".." in inside:
            raise _refused(pattern, f"expected {{000..099}} or {{a,b}}, found {{{inside:.40}}}")
        return inside.split(",")
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < MOST_SHARDS:
        what = f"expected a rising range of at most {MOST_SHARDS} numbers, found {{{inside}}}"
        raise _refused(pattern, what)
    width = len(match[1])
    return [f"{number:0{width}d}" for number in range(first, last + 1)]


def members(shard: Path) -> Iterator[Member]:
    """The regular files of a shard, in order; folders are passed over.

    Raises:
        DataError: not a readable tar file, or one that holds what none should, at the place where it does.
    """
    if is_lfs_pointer(shard):
        raise _refused(shard, LFS_ADVICE)
    try:
        with open(regular(shard), "rb") as file:
            if file.read(2) == _GZIP:
                raise _refused(shard, "compressed, so that nothing in it can be read in place; run gunzip on it")
            file.seek(0)
            yield from _members(shard, file)
    except OSError as error:
        raise refusal(shard, error) from None


def _members(shard: Path, file: IO[bytes]) -> Iterator[Member]:
    size = size_of(shard)
    after = 0
    try:
        with tarfile.open(fileobj=_Headers(file), mode="r:") as tar:  # type: ignore[call-overload]
            while (info := tar.next()) is not None:
                tar.members.clear()  # tarfile keeps all of them
                _require_honest(shard, info, size, after)
                after = info.offset_data
                if info.isreg():
                    yield Member(shard=shard, name=info.name, offset=info.offset_data, size=info.size)
            end = tar.offset
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise _refused(shard, f"damaged or no tar file after byte {after} ({error}); get it again") from None
    _require_end(shard, file, end)


def _require_honest(shard: Path, info: tarfile.TarInfo, size: int, after: int) -> None:
    where = place(shard, info.name, info.offset)
    if not (info.isreg() or info.isdir()) or info.issparse():
        what = "expected a regular file, found a link, a device or another special one"
        raise DataError(Problem(where=where, what=what))
    if info.size < 0 or info.offset_data < after or info.offset_data <= info.offset:
        raise DataError(Problem(where=where, what="a size that no file has; the shard is damaged or forged"))
    if info.offset_data + info.size > size:
        what = f"{info.size} bytes, of which the shard holds {max(size - info.offset_data, 0)}; get it again"
        raise DataError(Problem(where=where, what=what))


def _require_end(shard: Path, file: IO[bytes], end: int) -> None:
    """`tarfile` takes a damaged header for the end, and a file that was cut between two members for a whole one."""
    file.seek(end)
    block = file.read(_BLOCK)
    if block.strip(b"\0"):
        raise _refused(shard, f"damaged: no header of a member at byte {end}, and not the end; get it again")
    if len(block) < _BLOCK:
        raise _refused(shard, f"ends at byte {end} without the mark of its end: it was cut; get it again")


class _Headers:
    """A file for `tarfile` to read headers of; none is larger than a megabyte."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise ValueError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()


def read_member(member: Member, *, most: int) -> bytes:
    """The bytes of a member.

    Raises:
        DataError: more than `most` of them, or a shard that has changed or cannot be read.
    """
    if member.size > most:
        what = f"{member.size} bytes, more than the {most} allowed; not read"
        raise DataError(Problem(where=member.where, what=what))
    try:
        with open(regular(member.shard), "rb") as file:
            file.seek(member.offset)
            data = file.read(member.size)
    except OSError as error:
        raise refusal(member.shard, error) from None
    if len(data) != member.size:
        what = f"expected {member.size} bytes, found {len(data)}: the shard has changed meanwhile"
        raise DataError(Problem(where=member.where, what=what))
    return data


def write_shard(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files as a tar shard; equal files give equal bytes: no time, owner or permission is taken over."""
    with open(path, "xb") as out:
        tar: Any
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, data in files:
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o444
                tar.addfile(info, io.BytesIO(data))


def _refused(where: Path, what: str) -> DataError:
    return DataError(Problem(where=str(where), what=what))
