"""Where are frozen vectors kept? In feature stores: fp16 in safetensors shards, read by row id.

Frozen encoders give the same vector at every step, so it is computed once. Shards are plain safetensors files
(one tensor, `vectors`), of which a batch reads just its rows: resident memory does not grow with the store, and any
other tool can read it. fp16 keeps 11 bits of each number, which moves a cosine
by less than 1e-3; numbers beyond its range are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Int, Int64, Shaped

from dalr.errors import CorruptFileError, DataError, Problem, Problems, few
from dalr.features.shard import REMEDY, Shard, write_shard
from dalr.io.lfs import LFS_ADVICE, is_lfs_pointer
from dalr.io.sealed import MANIFEST, Manifest, file_sha256, read_manifest, verify_sealed, well_formed, write_sealed
from dalr.io.strings import Lookup, Strings, StringsWriter, keys_of, repeated_rows
from dalr.io.text import iter_lines

FORMAT, VERSION = "dalr-features", 1
CONTENTS = "contents.txt"
"""What each row was computed from: one digest per line, line i for row i, so that a store can be updated."""
_DIGITS = 32
SHARD_ROWS = 16_384
_FP16_MAX = 65_504.0
_MOST_SHARD_ROWS = 2**31
_BLOCK_BYTES, _MOST_BLOCK_ROWS = 32 << 20, 65_536


@dataclass(frozen=True, kw_only=True)
class FeatureStore:
    """An opened store. `rows_of` turns ids into row numbers once; `read` then gathers rows."""

    folder: Path
    ids: Strings
    dim: int
    source: Mapping[str, Any]
    """What the vectors were made from, as stated when the store was written."""
    files: tuple[Shard, ...]
    shard_rows: int

    @property
    def shards(self) -> tuple[Float16[np.ndarray, "_ dim"], ...]:
        """Every shard as a memory-mapped array."""
        return tuple(shard.array for shard in self.files)

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self, ids: Sequence[str], *, what: str) -> Int64[np.ndarray, " n"]:
        """Row numbers of `ids`.

        Raises:
            DataError: ids that the store does not have, naming `what` asks for them and the store.
        """
        found = self.find(ids)
        if (found < 0).any():
            of = f"no such id among the {len(self)} rows of {self._name()}"
            missing = dict.fromkeys(ids[number] for number in np.flatnonzero(found < 0).tolist())
            raise DataError(few(missing, lambda name: Problem(where=f"{what} {name!r}", what=of)))
        return found

    def find(self, ids: Sequence[str]) -> Int64[np.ndarray, " n"]:
        """Row numbers of `ids`; -1 for those that the store does not have."""
        return self._lookup.rows_of(ids)

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup(self.ids)

    def _name(self) -> str:
        """The store as its user knows it: a cached import by the files it was made from."""
        if self.source.get("kind") == "import":
            return f"{self.source.get('matrix')} named by {self.source.get('ids')} ({self.folder})"
        return str(self.folder)

    def read(self, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n dim"]:
        """The vectors of these rows in fp32.

        Raises:
            CorruptFileError: a shard that is read for the first time does not have its sealed bytes.
        """
        out = np.empty((len(rows), self.dim), np.float16)
        size = out.itemsize * self.dim
        buffer = out.reshape(-1).view(np.uint8).data
        shard_of, row_of = np.divmod(rows, self.shard_rows)
        for place, (shard, row) in enumerate(zip(shard_of.tolist(), row_of.tolist(), strict=True)):
            self.files[shard].read_row(row, buffer[place * size : (place + 1) * size])
        return out.astype(np.float32)

    def require_unchanged(self) -> None:
        """Look whether the shards are the files that were opened; a shard of another time is read again.

        Raises:
            CorruptFileError: naming the first shard whose bytes are not those that were sealed.
        """
        for shard in self.files:
            shard.require_unchanged()


@dataclass(frozen=True, kw_only=True)
class StoredVectors:
    """Rows of a store for the rows of something else: its row i has store row `rows[i]`."""

    store: FeatureStore
    rows: Int[np.ndarray, " rows"]

    def read(self, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n dim"]:
        """The vectors of these rows in fp32."""
        return self.store.read(self.rows[rows])

    def at(self, rows: Int[np.ndarray, " n"]) -> StoredVectors:
        """The same for a list of rows in place of all."""
        return StoredVectors(store=self.store, rows=self.rows[rows])


def open_store(folder: Path) -> FeatureStore:
    """Open a sealed store.

    Raises:
        CorruptFileError: not a finished store, or a file of another size than sealed.
    """
    _refuse_pointers(folder)
    manifest = read_manifest(folder, format=FORMAT, version=VERSION, remedy=REMEDY)
    metadata = manifest.metadata
    verify_sealed(folder, manifest, remedy=REMEDY, only="ids.jsonl")
    with well_formed(folder, remedy=REMEDY):
        dim, rows, shard_rows = (int(metadata[key]) for key in ("dim", "rows", "shard_rows"))
        ids = _read_ids(folder, manifest)
        if dim < 1 or not 1 <= shard_rows <= _MOST_SHARD_ROWS or len(ids) != rows:
            raise ValueError(f"{len(ids)} ids for {rows} rows of dimension {dim}, {shard_rows} per shard")
        shards = tuple(
            Shard(
                folder / _shard_name(number),
                rows=min(shard_rows, rows - start),
                dim=dim,
                sha256=manifest.files[_shard_name(number)][1],
            )
            for number, start in enumerate(range(0, rows, shard_rows))
        )
        source = dict(metadata["source"])
    return FeatureStore(folder=folder, ids=ids, dim=dim, source=source, files=shards, shard_rows=shard_rows)


def _refuse_pointers(folder: Path) -> None:
    """Files of a store that git-LFS has not fetched are not damaged."""
    for name in (MANIFEST, "ids.jsonl", _shard_name(0)):
        if is_lfs_pointer(folder / name):
            raise CorruptFileError(f"{folder / name}: {LFS_ADVICE}")


def _read_ids(folder: Path, manifest: Manifest) -> Strings:
    if "ids.jsonl" not in manifest.files:
        raise KeyError("ids.jsonl")
    ids = StringsWriter()
    for line in iter_lines(folder / "ids.jsonl"):
        name = json.loads(line)
        if not isinstance(name, str):
            raise TypeError("ids.jsonl holds values that are not strings")
        ids.append(name)
    return ids.finish()


def store_dim(folder: Path) -> int:
    """The dimension of a store, from its manifest alone."""
    manifest = read_manifest(folder, format=FORMAT, version=VERSION, remedy=REMEDY)
    with well_formed(folder, remedy=REMEDY):
        return int(manifest.metadata["dim"])


def verify_store(folder: Path) -> None:
    """Compare every byte of a store with what was sealed.

    Raises:
        CorruptFileError: naming the file that differs.
    """
    verify_sealed(folder, read_manifest(folder, format=FORMAT, version=VERSION, remedy=REMEDY), remedy=REMEDY)


def write_store(
    folder: Path,
    *,
    ids: Sequence[str],
    blocks: Iterable[Shaped[np.ndarray, "_ dim"]],
    source: Mapping[str, Any],
    origin: str,
    shard_rows: int = SHARD_ROWS,
    work: str | None = None,
    beside: Mapping[str, bytes] | None = None,
    all_zero: bool = False,
) -> None:
    """Write a sealed store of the rows that `blocks` yields, in the order of `ids`.

    With `all_zero` rows without a direction are taken: vectors that say nothing, as a control needs them.
    `work` is a folder of unfinished work inside `folder` (see `write_sealed`); `beside` are further files to seal.

    Raises:
        DataError: duplicate ids, rows that are not finite, all zero or beyond fp16, counts that differ; each
            named as a row (from 1) of `origin`. Nothing is left behind.
    """
    _refuse_duplicates(ids, origin)
    problems: list[Problem] = Problems()
    shape: dict[str, int] = {}

    def fill(temporary: Path) -> None:
        rows = 0
        for number, shard in enumerate(_regroup(blocks, shard_rows)):
            problems.extend(row_problems(shard, first=rows + 1, origin=origin, all_zero=all_zero))
            rows += len(shard)
            shape["dim"] = shard.shape[1]
            if not problems:
                write_shard(temporary / _shard_name(number), shard)
        if rows != len(ids):
            problems.append(Problem(where=origin, what=f"{rows} rows of features for {len(ids)} ids"))
        if problems:
            raise DataError(problems)
        with open(temporary / "ids.jsonl", "w", encoding="utf-8", newline="\n") as lines:
            lines.writelines(json.dumps(name, ensure_ascii=False) + "\n" for name in ids)
        for name, content in (beside or {}).items():
            (temporary / name).write_bytes(content)
        metadata.update(dim=shape["dim"], rows=rows, shard_rows=shard_rows, dtype="float16")

    metadata: dict[str, Any] = {"source": dict(source)}
    write_sealed(folder, format=FORMAT, version=VERSION, metadata=metadata, fill=fill, work=work)


def digest(content: bytes) -> str:
    """What a row was computed from, in 128 bits: the bytes of an image file, or a sentence in UTF-8."""
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def text_digest(sentence: str) -> str:
    """`digest` of a sentence."""
    return digest(sentence.encode("utf-8", "surrogatepass"))


def file_digest(path: Path) -> str:
    """`digest` of a file's bytes."""
    return file_sha256(path)[:_DIGITS]


def contents_file(digests: Iterable[str]) -> bytes:
    """The content of `CONTENTS`."""
    return "".join(f"{each}\n" for each in digests).encode()


def block_rows(dim: int, dtype: np.dtype[Any]) -> int:
    """Rows of a matrix that are read at once: few megabytes, whatever the dimension."""
    return min(max(_BLOCK_BYTES // max(dim * dtype.itemsize, 1), 1), _MOST_BLOCK_ROWS)


def row_problems(
    matrix: Shaped[np.ndarray, "_ dim"], *, first: int, origin: str, all_zero: bool = False
) -> Iterator[Problem]:
    """Rows of a block that cannot be features: not finite, all zero (unless they may be), or beyond fp16."""
    finite = np.isfinite(matrix).all(axis=1)
    largest = np.abs(np.where(finite[:, None], matrix, 0)).max(axis=1, initial=0)
    with np.errstate(over="ignore", under="ignore"):
        vanishing = largest.astype(np.float16) == 0

    def not_finite(row: int) -> Problem:
        column = int(np.flatnonzero(~np.isfinite(matrix[row]))[0])
        what = f"value {column + 1} is {matrix[row, column]}, expected finite numbers"
        return Problem(where=f"{origin}: row {first + row}", what=what)

    def no_direction(row: int) -> Problem:
        small = f" in fp16 (its largest value is {largest[row]:.3g})" if largest[row] > 0 else ""
        return Problem(where=f"{origin}: row {first + row}", what=f"all zero{small}, so cosines are undefined")

    def too_large(row: int) -> Problem:
        what = f"largest value {largest[row]:.3g} is beyond fp16 (65504); scale or normalise the features"
        return Problem(where=f"{origin}: row {first + row}", what=what)

    yield from few(np.flatnonzero(~finite).tolist(), not_finite)
    if not all_zero:
        yield from few(np.flatnonzero(finite & vanishing).tolist(), no_direction)
    yield from few(np.flatnonzero(largest > _FP16_MAX).tolist(), too_large)


def _refuse_duplicates(ids: Sequence[str], origin: str) -> None:
    again = repeated_rows(ids, keys_of(ids))
    if again:
        raise DataError(
            few(
                again,
                lambda found: Problem(
                    where=f"{origin}: id {found[0] + 1}", what=f"{ids[found[0]]!r} was already id {found[1] + 1}"
                ),
            )
        )


def _regroup(blocks: Iterable[Shaped[np.ndarray, "_ dim"]], size: int) -> Iterator[Shaped[np.ndarray, "_ dim"]]:
    """The same rows in blocks of exactly `size`, the last one shorter."""
    kept: list[np.ndarray] = []
    held = 0
    for block in blocks:
        start = 0
        while held + len(block) - start >= size:
            end = start + size - held
            yield np.concatenate([*kept, block[start:end]])
            kept, held, start = [], 0, end
        kept.append(block[start:])
        held += len(block) - start
    if held:
        yield np.concatenate(kept)


def _shard_name(number: int) -> str:
    return f"vectors-{number:05d}.safetensors"
