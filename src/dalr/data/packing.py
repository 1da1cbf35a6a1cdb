"""How do pairs and their image files become tar shards? `dalr data pack`, for storage that likes few large files.

Equal inputs give equal bytes. A shard holds whole samples, `KEY.jpg` and `KEY.json`, in the order of the data; the
key is the number of the image, so that no name from the data becomes a path when somebody unpacks a shard.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dalr.data.dataset import read_pairs
from dalr.data.formats import read_pairs_file
from dalr.data.formats.shards import IMAGE_ENDINGS
from dalr.data.reading import Reading
from dalr.data.rows import CaptionedImage, CaptionedImages
from dalr.errors import ConfigError, DataError, Problem, Problems
from dalr.features.decoding import ImageRefusedError, file_size, locate
from dalr.io.paths import refusal, regular, resolve
from dalr.io.sealed import write_sealed
from dalr.io.shards import write_shard

FORMAT, VERSION = "dalr-shards", 1
_SIZE = re.compile(r"(\d{1,12})\s*([kMG]?B)?\Z")
_UNITS = {None: None, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_HEADER = 512


@dataclass(frozen=True, kw_only=True)
class ShardSize:
    """How much goes into one shard: bytes, or images."""

    bytes: int | None = None
    images: int | None = None


@dataclass(frozen=True, kw_only=True)
class PackReport:
    images: int
    captions: int
    shards: int


@dataclass(frozen=True, kw_only=True)
class _Sample:
    key: str
    image: Path
    size: int
    """Bytes in a shard, about."""
    record: str

    def files(self) -> Iterator[tuple[str, bytes]]:
        try:
            data = regular(self.image).read_bytes()
        except OSError as error:
            raise refusal(self.image, error) from None
        yield f"{self.key}{self.image.suffix.lower()}", data
        yield f"{self.key}.json", self.record.encode("utf-8")


def shard_size(text: str) -> ShardSize:
    """What `--shard-size 500MB`, or `10000` images, says.

    Raises:
        ConfigError: neither.
    """
    match = _SIZE.match(text.strip())
    if match is None or int(match[1]) < 1:
        what = f"expected bytes such as 500MB or 1GB, or a number of images, found {text!r:.40}"
        raise ConfigError(Problem(where="--shard-size", what=what))
    unit = _UNITS[match[2]]
    return ShardSize(images=int(match[1])) if unit is None else ShardSize(bytes=int(match[1]) * unit)


def pack_shards(
    out: Path,
    rows: CaptionedImages,
    root: Path,
    size: ShardSize,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> PackReport:
    """Write `OUT/00000.tar`, ... of images below `root` and their captions.

    Raises:
        DataError: images that cannot be used, all of them at once, before anything is written.
        StorageError: `out` holds something else, or the disk refuses.
    """
    shards = list(_groups(_samples(rows, resolve(root)), size))
    done = 0

    def fill(folder: Path) -> None:
        nonlocal done
        for number, samples in enumerate(shards):
            write_shard(folder / f"{number:05d}.tar", (file for sample in samples for file in sample.files()))
            done += len(samples)
            progress(done)

    captions = len(rows.captions)
    metadata = {"images": len(rows), "captions": captions, "shards": len(shards)}
    write_sealed(out, format=FORMAT, version=VERSION, metadata=metadata, fill=fill)
    return PackReport(images=len(rows), captions=captions, shards=len(shards))


def _samples(rows: CaptionedImages, root: Path) -> list[_Sample]:
    problems = Problems()
    found: list[_Sample] = []
    for number, row in enumerate(rows):
        try:
            path = locate(root, row.image)
            image_size = file_size(path)
        except ImageRefusedError as error:
            problems.append(Problem(where=f"image {row.image!r}", what=str(error)))
            continue
        if path.suffix.lower().removeprefix(".") not in IMAGE_ENDINGS:
            what = f"expected a name that ends in one of {', '.join(IMAGE_ENDINGS)}, as readers of shards do"
            problems.append(Problem(where=f"image {row.image!r}", what=what))
            continue
        record = _record(row)
        found.append(
            _Sample(key=f"{number:09d}", image=path, size=image_size + len(record) + 3 * _HEADER, record=record)
        )
    if problems:
        raise DataError(problems)
    return found


def _record(row: CaptionedImage) -> str:
    stated: Mapping[str, object] = {"image": row.image, "captions": list(row.captions)}
    split = {} if row.split is None else {"split": row.split}
    return json.dumps({**stated, **split}, ensure_ascii=False)


def _groups(samples: Sequence[_Sample], size: ShardSize) -> Iterator[list[_Sample]]:
    """Whole samples; one that alone is larger than a shard has a shard of its own."""
    group: list[_Sample] = []
    filled = 0
    for sample in samples:
        full = len(group) == size.images or (size.bytes is not None and filled + sample.size > size.bytes)
        if group and full:
            yield group
            group, filled = [], 0
        group.append(sample)
        filled += sample.size
    if group:
        yield group


def rows_to_pack(pairs: Path, reading: Reading) -> CaptionedImages:
    """The checked images of a pairs file, with their splits.

    Raises:
        DataError: with every problem of the file.
    """
    problems: list[Problem] = []
    kept = set(read_pairs(pairs, problems, {}, reading=reading).images)
    if problems:
        raise DataError(problems)
    rows = read_pairs_file(pairs, problems, format=reading.format, columns=reading.columns)
    return rows.take(np.flatnonzero([name in kept for name in rows.names]))
