"""What is a store made of while it is being made? Parts: distinct rows that are computed and sealed together.

Which rows form a part depends on the input alone, and a vector on its content alone, so it does not matter which
process computes a part, or when: the store put together from them has the same bytes. A part lies in
`STORE/.partial` and says what it was computed from, so one whose input has changed is computed again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Int64

from dalr.errors import ConfigError, CorruptFileError, Problem, StorageError
from dalr.features.kept import Kept
from dalr.features.making import USUAL_LIMIT, limit_of, refuse_other_making, stated_limit
from dalr.features.shard import map_shard, write_shard
from dalr.features.store import SHARD_ROWS
from dalr.io.atomic import storage_errors
from dalr.io.console import Console
from dalr.io.paths import exists, is_file
from dalr.io.sealed import read_manifest, verify_sealed, well_formed, write_sealed

WORK = ".partial"
MAKING = "making.json"
"""In `WORK`: how the parts are made."""
PART_VERSION = 3
UPDATE_IN_PARTS = Problem(
    where="--part, --update",
    what="a store is updated by one process: leave --part out, or compute a new store in parts at another --out",
)
_FORMAT = "dalr-features-part"
_VECTORS = "vectors.safetensors"
_KEPT, _NOWHERE = -1, -2


@dataclass(frozen=True, kw_only=True)
class Part:
    """Distinct rows that are computed and sealed together."""

    number: int
    rows: tuple[int, ...]
    """Their numbers among the distinct rows."""
    stamp: str
    """Changes when the content of one of them does, or which rows they are."""

    def folder(self, out: Path) -> Path:
        return out / WORK / f"part-{self.number:05d}"


@dataclass(frozen=True, kw_only=True)
class SealedPart:
    """A part that is done."""

    folder: Path
    stamp: str
    dim: int
    contents: tuple[str, ...]
    """Digest of what each vector was computed from."""
    bad: Mapping[int, str]
    """Place of a row in the part -> why it has no vector."""
    max_megapixels: int

    def vectors(self) -> Float16[np.ndarray, "rows dim"]:
        """Mapped when asked for: a mapping holds a file open, and a large store has thousands of parts."""
        return map_shard(self.folder / _VECTORS, rows=len(self.contents), dim=self.dim)

    def allows(self, max_megapixels: int) -> bool:
        """Whether a run with this limit would have come to the same."""
        most = self.max_megapixels
        return most == max_megapixels or (most < max_megapixels and not self.bad)


def require_no_parts(out: Path, making: Mapping[str, Any]) -> None:
    """Refuse to write a store of sentences at once where it was made otherwise, or where parts of it wait.

    Raises:
        ConfigError: naming what is there. StorageError: a folder of something else.
    """
    started = out / WORK / MAKING
    if not is_file(started):
        refuse_other_making(out, making)
        return
    refuse_other_making(out, making, unfinished=started, resume=True)
    what = (
        f"unfinished work of --part; compute the parts that are missing and put all together with dalr features "
        f"merge {out}, or delete {out / WORK} to start again"
    )
    raise ConfigError(Problem(where=f"--out {out}", what=what))


def seal_part(
    out: Path,
    part: Part,
    vectors: Float32[np.ndarray, "good dim"] | Float16[np.ndarray, "good dim"],
    contents: Sequence[str],
    *,
    bad: Mapping[int, str] | None = None,
    max_megapixels: int = USUAL_LIMIT,
) -> None:
    """Seal the vectors of a part; `bad` says by their numbers why rows have none."""
    reasons = bad or {}
    metadata = stated_limit(max_megapixels) | {
        "stamp": part.stamp,
        "dim": int(vectors.shape[1]),
        "contents": list(contents),
        "bad": [[place, reasons[row]] for place, row in enumerate(part.rows) if row in reasons],
    }
    write_sealed(
        part.folder(out),
        format=_FORMAT,
        version=PART_VERSION,
        metadata=metadata,
        fill=lambda folder: write_shard(folder / _VECTORS, vectors),
    )


def open_part(folder: Path, *, remedy: str) -> SealedPart:
    """A sealed part.

    Raises:
        CorruptFileError: it is not there, or damaged.
    """
    manifest = read_manifest(folder, format=_FORMAT, version=PART_VERSION, remedy=remedy)
    verify_sealed(folder, manifest, remedy=remedy)
    metadata = manifest.metadata
    with well_formed(folder, remedy=remedy):
        return SealedPart(
            folder=folder,
            stamp=str(metadata["stamp"]),
            dim=int(metadata["dim"]),
            contents=tuple(metadata["contents"]),
            bad={int(place): str(reason) for place, reason in metadata["bad"]},
            max_megapixels=limit_of(metadata),
        )


def sealed_earlier(
    out: Path, part: Part, *, of: str, console: Console, max_megapixels: int = USUAL_LIMIT
) -> SealedPart | None:
    """A part that an earlier run sealed, if it is intact and its content (`of`) the same; deleted otherwise."""
    folder = part.folder(out)
    if not exists(folder, StorageError):
        return None
    try:
        found = open_part(folder, remedy="it is computed again")
        if found.stamp != part.stamp:
            console.say(f"{folder.name}: its {of} have changed; it is computed again")
        elif not found.allows(max_megapixels):
            console.say(f"{folder.name}: made with --max-megapixels {found.max_megapixels}; it is computed again")
        else:
            return found
    except CorruptFileError as error:
        console.say(str(error))
    with storage_errors(folder):
        shutil.rmtree(folder)
    return None


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Where the vector of each distinct row lies: in a part, or in the store that is updated."""

    parts: Sequence[SealedPart]
    kept: Kept | None
    part_of: Int64[np.ndarray, " distinct"]
    """Place in `parts`; `_KEPT` for a row of the updated store, `_NOWHERE` for one without a vector."""
    row_of: Int64[np.ndarray, " distinct"]
    contents: Mapping[int, str]
    bad: Mapping[int, str]

    @classmethod
    def of(
        cls,
        distinct: int,
        rows: Sequence[Sequence[int]],
        parts: Sequence[SealedPart],
        *,
        kept: Kept | None = None,
        known: Mapping[int, int] | None = None,
    ) -> Gathered:
        """Gather rows of which number i of the parts has `rows[i]`, and the store `kept` those that are `known`."""
        part_of, row_of = np.full(distinct, _NOWHERE), np.zeros(distinct, np.int64)
        contents: dict[int, str] = {}
        bad: dict[int, str] = {}
        for number, row in (known or {}).items():
            assert kept is not None
            part_of[number], row_of[number], contents[number] = _KEPT, row, kept.contents[row]
        for index, (numbers, part) in enumerate(zip(rows, parts, strict=True)):
            bad |= {numbers[place]: reason for place, reason in part.bad.items()}
            good = [number for place, number in enumerate(numbers) if place not in part.bad]
            part_of[good], row_of[good] = index, np.arange(len(good))
            contents |= dict(zip(good, part.contents, strict=True))
        return cls(parts=parts, kept=kept, part_of=part_of, row_of=row_of, contents=contents, bad=bad)

    @property
    def from_kept(self) -> int:
        """How many distinct rows the updated store had already."""
        return int((self.part_of == _KEPT).sum())

    def blocks(self, numbers: Sequence[int]) -> Iterator[Float16[np.ndarray, "_ dim"]]:
        """The vectors of these distinct rows, in blocks."""
        for start in range(0, len(numbers), SHARD_ROWS):
            block = np.asarray(numbers[start : start + SHARD_ROWS], np.int64)
            parts, rows = self.part_of[block], self.row_of[block]
            pieces = {int(part): self._read(int(part), rows[parts == part]) for part in np.unique(parts)}
            out = np.empty((len(block), next(iter(pieces.values())).shape[1]), np.float16)
            for part, vectors in pieces.items():
                out[parts == part] = vectors
            yield out

    def _read(self, part: int, rows: Int64[np.ndarray, " n"]) -> Float16[np.ndarray, "n dim"]:
        if part != _KEPT:
            return np.asarray(self.parts[part].vectors()[rows])
        assert self.kept is not None
        return self.kept.read(rows)
