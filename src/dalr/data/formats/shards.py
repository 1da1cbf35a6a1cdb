"""How are WebDataset shards read? Captions where they are, images not at all.

A sample is the run of members that share a name up to the first dot of the file's name: `KEY.jpg`, `KEY.txt`,
`KEY.json`. Its id is SHARD/KEY, the shard by its name without `.tar`: it stays the same wherever the folder lies
and whatever other shards are read with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dalr.data.formats.collecting import Collector, Source
from dalr.errors import DataError, Problem, shown
from dalr.io.shards import Member, is_shards, members, place, read_member, shard_paths

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "ppm", "jp2")
MOST_TEXT_BYTES = 1 << 20
"""Of a .txt or .json member: a caption with everything that crawlers note beside it."""
_NAME = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<ending>[^/]+)\Z", re.DOTALL)


@dataclass(kw_only=True)
class Sample:
    """The members of one key."""

    shard: Path
    key: str
    images: list[Member] = field(default_factory=list)
    text: Member | None = None
    json: Member | None = None

    @property
    def id(self) -> str:
        return f"{self.shard.name.removesuffix('.tar')}/{self.key}"

    @property
    def where(self) -> str:
        first = next(each for each in (*self.images, self.text, self.json) if each is not None)
        return place(self.shard, self.key, first.offset)


def read_webdataset(source: Source, into: Collector) -> None:
    """Captions from `KEY.txt`, or from `caption` or `captions` in `KEY.json`.

    A caption column that is named is a key of the JSON; otherwise the text goes first, as it is the caption that
    people train on where a shard has both. The JSON may state the split.
    """
    for shard in shard_paths(source.path):
        try:
            for sample in samples(shard):
                _read(sample, source, into)
        except DataError as error:
            for problem in error.problems:
                into.problem(problem.where, problem.what)


def is_webdataset(source: Source) -> bool:
    return is_shards(source.path)


def samples(shard: Path) -> Iterator[Sample]:
    """The samples of a shard that have an image, a .txt or a .json, in its order.

    Raises:
        DataError: as `io.shards.members`; or a key that comes back after another one.
    """
    seen: set[str] = set()
    current: Sample | None = None
    for member in members(shard):
        match = _NAME.match(member.name)
        if match is None:
            continue
        key, ending = match["key"].removeprefix("./"), match["ending"].lower()
        if current is None or current.key != key:
            if current is not None and _holds_something(current):
                yield current
            if key in seen:
                what = "the key occurs twice; expected all members of a key one after the other"
                raise DataError(Problem(where=member.where, what=what))
            seen.add(key)
            current = Sample(shard=shard, key=key)
        _take(current, member, ending)
    if current is not None and _holds_something(current):
        yield current


def _holds_something(sample: Sample) -> bool:
    return bool(sample.images) or sample.text is not None or sample.json is not None


def _take(sample: Sample, member: Member, ending: str) -> None:
    if ending in IMAGE_ENDINGS:
        sample.images.append(member)
    elif ending == "txt":
        sample.text = member
    elif ending == "json":
        sample.json = member


def shard_images(pattern: Path) -> dict[str, Member]:
    """Image id -> the member that holds the image, of all shards.

    Raises:
        DataError: as `samples`.
    """
    return {
        sample.id: sample.images[0]
        for shard in shard_paths(pattern)
        for sample in samples(shard)
        if len(sample.images) == 1
    }


def _read(sample: Sample, source: Source, into: Collector) -> None:
    if len(sample.images) != 1:
        found = ", ".join(member.name for member in sample.images) or "none"
        into.problem(sample.where, f"expected one image ({', '.join(IMAGE_ENDINGS[:4])}, ...), found {found:.200}")
        return
    try:
        record = _json(sample.json) if sample.json is not None else {}
        split = record.get(source.columns.split)
        if split is not None and not isinstance(split, str):
            what = f"expected a string under {source.columns.split!r}, found {shown(split)}"
            into.problem(sample.where, what)
            return
        _captions(sample, record, split, source, into)
    except DataError as error:
        for problem in error.problems:
            into.problem(problem.where, problem.what)


def _captions(
    sample: Sample, record: dict[str, object], split: str | None, source: Source, into: Collector
) -> None:
    named = source.columns.caption
    if named is None and sample.text is not None:
        into.image(sample.id, [_text(sample.text).strip()], sample.text.where, split)
        return
    key = named if named is not None else ("captions" if "captions" in record else "caption")
    if key not in record:
        wanted = f"{key!r} in a .json" if named is not None else "a .txt, or a .json with 'caption' or 'captions'"
        into.problem(sample.where, f"no caption: expected {wanted}")
        return
    value = record[key]
    into.image(sample.id, value if isinstance(value, list) else [value], sample.where, split, key=key)


def _json(member: Member) -> dict[str, object]:
    try:
        found = json.loads(_text(member))
    except (ValueError, RecursionError) as error:
        raise DataError(Problem(where=member.where, what=f"not JSON: {error}")) from None
    if not isinstance(found, dict):
        raise DataError(Problem(where=member.where, what=f"expected a JSON object, found {shown(found)}"))
    return found


def _text(member: Member) -> str:
    try:
        return read_member(member, most=MOST_TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not UTF-8: byte {error.start + 1} is 0x{error.object[error.start]:02x}"
        raise DataError(Problem(where=member.where, what=what)) from None
