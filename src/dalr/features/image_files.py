"""Which files do image ids refer to, and which of them are identical?

Files of one content are computed once. Only files of equal size can be equal, and of those only the ones with equal
last bytes are read as a whole: most folders cost a look at their directory entries.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dalr.errors import DataError
from dalr.features.decoding import MAX_PIXELS, ImageRefusedError, checked_size, locate, max_bytes, stat_of
from dalr.features.store import digest, file_digest
from dalr.io.paths import regular
from dalr.io.shards import Member, read_member

_TAIL = 4096


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """What an image's id means on this disk, before it is opened."""

    id: str
    path: Path | Member | None
    """A file, or a member of a shard. None where nothing may be opened; `refused` then says why."""
    refused: str | None
    stamp: str
    """Changes when the file does: its size and time."""
    size: int
    other_form: bool = False
    """Whether the file's name is the id in another Unicode form."""


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """Every id, and the distinct images among them."""

    files: tuple[ImageFile, ...]
    """One per id, in order."""
    distinct: tuple[int, ...]
    """Indices into `files` of the images to compute, rising."""
    file_of: tuple[int, ...]
    """For each id, its place in `distinct`."""


def plan_images(
    ids: Sequence[str],
    root: Path,
    on_progress: Callable[[int], None],
    *,
    follow: Path | None = None,
    max_pixels: int = MAX_PIXELS,
    members: Mapping[str, Member] | None = None,
) -> ImagePlan:
    """Look every id up below `root`, the resolved image folder; `on_progress` gets the ids looked up so far.

    Links may lead into `follow`, another resolved folder. With `members` the images are in shards instead.
    """
    files: list[ImageFile] = []
    for name in ids:
        if members is not None:
            files.append(_in_shard(name, members.get(name), max_pixels))
        else:
            files.append(_look_up(root, name, follow, max_pixels))
        on_progress(len(files))
    first = list(range(len(files)))
    for group in _equal(files):
        for index in group:
            first[index] = group[0]
    distinct = tuple(sorted(set(first)))
    place = {index: number for number, index in enumerate(distinct)}
    return ImagePlan(files=tuple(files), distinct=distinct, file_of=tuple(place[index] for index in first))


def content_digest(path: Path | Member) -> str:
    """`digest` of the bytes of an image.

    Raises:
        OSError, DataError: it cannot be read.
    """
    return digest(read_member(path, most=path.size)) if isinstance(path, Member) else file_digest(path)


def _look_up(root: Path, name: str, follow: Path | None, max_pixels: int) -> ImageFile:
    try:
        path = locate(root, name, follow)
        status = stat_of(path)
        stamp = f"{status.st_size} {status.st_mtime_ns}"
        size = checked_size(status, max_pixels=max_pixels)
    except ImageRefusedError as refused:
        return ImageFile(id=name, path=None, refused=str(refused), stamp=f"refused {refused}", size=-1)
    other_form = not name.isascii() and not os.path.lexists(root / name)
    return ImageFile(id=name, path=path, refused=None, stamp=stamp, size=size, other_form=other_form)


def _in_shard(name: str, member: Member | None, max_pixels: int) -> ImageFile:
    if member is None:
        return ImageFile(id=name, path=None, refused="no image in the shards", stamp="refused absent", size=-1)
    if not 0 < member.size <= (most := max_bytes(max_pixels)):
        refused = (
            "empty file" if not member.size else f"{member.size} bytes, more than the {most} allowed; not opened"
        )
        return ImageFile(id=name, path=None, refused=refused, stamp=f"refused {refused}", size=-1)
    status = stat_of(member.shard)
    stamp = f"{member.size} at {member.offset} of {status.st_size} {status.st_mtime_ns}"
    return ImageFile(id=name, path=member, refused=None, stamp=stamp, size=member.size)


def _equal(files: Sequence[ImageFile]) -> list[list[int]]:
    """Groups of two or more indices whose files have the same content, each in rising order."""
    openable = [index for index, file in enumerate(files) if file.path is not None]
    by_size = _groups(openable, lambda index: files[index].size)
    by_tail = [group for same in by_size for group in _groups(same, lambda index: _tail(files[index]))]
    return [group for same in by_tail for group in _groups(same, lambda index: _content(files[index]))]


def _groups(indices: Sequence[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index in indices:
        found[key(index)].append(index)
    return [group for group in found.values() if len(group) > 1]


def _tail(file: ImageFile) -> Hashable:
    assert file.path is not None
    try:
        if isinstance(file.path, Member):
            return hashlib.sha256(read_member(file.path, most=file.size)[-_TAIL:]).digest()
        with open(regular(file.path), "rb") as stream:
            stream.seek(max(file.size - _TAIL, 0))
            return hashlib.sha256(stream.read(_TAIL)).digest()
    except (OSError, DataError):
        return file.id  # unreadable, which the pass will say; equal to no other


def _content(file: ImageFile) -> Hashable:
    assert file.path is not None
    try:
        return content_digest(file.path)
    except (OSError, DataError):
        return file.id
