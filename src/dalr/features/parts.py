"""How do n machines make one store? Each seals every n-th part in `STORE/.partial`, and `merge` joins them.

The parts are those of a run on one machine, so the merged store has its bytes, and any part may be computed again
alone. Each machine also seals what it took the input for (ids, distinct rows, a fingerprint of each part): parts
of different inputs are never joined.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dalr.data.rows import sentences_sha256
from dalr.errors import ConfigError, CorruptFileError, DataError, Problem, StorageError, few
from dalr.features.blocks import BLOCK, Embed, distinct_blocks, places_of
from dalr.features.image_files import ImageFile, ImagePlan
from dalr.features.images import (
    PART_FORMAT,
    PART_VERSION,
    VECTORS,
    WORK,
    ImageReport,
    SealedPart,
    gathered,
    join_images,
)
from dalr.features.making import PLACES, stated
from dalr.features.plan import common_plan, keep_plan
from dalr.features.shard import write_shard
from dalr.features.store import row_problems, write_store
from dalr.io.atomic import storage_errors, write_json
from dalr.io.console import Bar
from dalr.io.paths import entries, exists, is_dir
from dalr.io.sealed import read_manifest, verify_sealed, write_sealed
from dalr.io.share import Share

MAKING = "making.json"


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """What one of several processes did."""

    done: int
    """Parts of its share that are sealed now."""
    of: int
    """Parts of the whole."""


def holds_own_parts(out: Path, share: Share) -> bool:
    """Whether parts of this share are sealed already."""
    numbers = (path.name.removeprefix("part-") for path in entries(out / WORK) if path.name.startswith("part-"))
    return any(number.isdigit() and share.has(int(number)) for number in numbers)


def write_text_part(
    out: Path,
    share: Share,
    *,
    ids: Sequence[str],
    sentences: Sequence[str],
    making: Mapping[str, Any],
    embed: Embed,
    bar: Bar,
    block: int = BLOCK,
) -> PartReport:
    """Encode the distinct sentences of a share's parts and seal each part.

    Raises:
        DataError: a vector that cannot be stored, with its sentence.
        StorageError: the disk refuses.
    """
    with storage_errors(out):
        (out / WORK).mkdir(parents=True, exist_ok=True)
    write_json(out / WORK / MAKING, dict(making))
    blocks = distinct_blocks(sentences, block)
    content = {key: value for key, value in making.items() if key not in PLACES}
    stamps = [_stamp(content, each) for each in blocks]
    done = 0
    for number, several in enumerate(blocks):
        if not share.has(number):
            continue
        if not _is_sealed(out, number, stamps[number]):
            vectors = embed(several, lambda each, _, before=done: bar.update(before + each))  # type: ignore[misc]
            _require_storable(vectors, several)
            _seal(out, number, stamps[number], vectors)
        done += len(several)
        bar.update(done)
    keep_plan(out / WORK, share, ids=ids, places=places_of(sentences), stamps=stamps)
    return PartReport(done=sum(map(share.has, range(len(blocks)))), of=len(blocks))


def _stamp(content: Mapping[str, Any], block: Sequence[str]) -> str:
    told = json.dumps([content, sentences_sha256(block)], sort_keys=True)
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def _is_sealed(out: Path, number: int, stamp: str) -> bool:
    folder = _folder(out, number)
    if not exists(folder, StorageError):
        return False
    try:
        manifest = read_manifest(folder, format=PART_FORMAT, version=PART_VERSION, remedy="it is computed again")
        verify_sealed(folder, manifest, remedy="it is computed again")
        if manifest.metadata.get("stamp") == stamp:
            return True
    except CorruptFileError:
        pass
    with storage_errors(folder):
        shutil.rmtree(folder)
    return False


def _require_storable(vectors: np.ndarray, block: Sequence[str]) -> None:
    wrong = [
        (block[row], problem.what)
        for row in range(len(vectors))
        for problem in row_problems(vectors[row : row + 1], first=1, origin="")
    ]
    if wrong:
        raise DataError(few(wrong, lambda each: Problem(where=f"sentence {each[0]!r:.100}", what=each[1])))


def _seal(out: Path, number: int, stamp: str, vectors: np.ndarray) -> None:
    metadata = {"stamp": stamp, "rows": len(vectors), "bad": [], "dim": int(vectors.shape[1])}
    write_sealed(
        _folder(out, number),
        format=PART_FORMAT,
        version=PART_VERSION,
        metadata=metadata,
        fill=lambda folder: write_shard(folder / VECTORS, vectors),
    )


def merge(out: Path, *, max_bad_images: int = 0) -> ImageReport:
    """Join the parts that `--part i/n` left in `OUT/.partial` to a store.

    Raises:
        ConfigError: there are none, or some are missing, with the shares that would make them.
        DataError: they were made of different inputs, or more images are unusable than allowed.
        CorruptFileError: one is damaged.
    """
    making = stated(out / WORK / MAKING) if is_dir(out / WORK) else None
    if making is None:
        what = f"no parts in {out / WORK}; make them with dalr features images or text, and --part i/n"
        raise ConfigError(Problem(where=f"merge {out}", what=what))
    plan = common_plan(out / WORK)
    missing = [number for number in range(len(plan.stamps)) if not is_dir(_folder(out, number))]
    if missing:
        shares = sorted({number % plan.of + 1 for number in missing})
        named = ", ".join(f"{number}/{plan.of}" for number in shares[:10])
        what = f"{len(missing)} of {len(plan.stamps)} parts are missing: run --part {named} again with --resume"
        raise ConfigError(Problem(where=f"merge {out}", what=what))
    results = [_read_part(out, number, stamp, plan.of, making) for number, stamp in enumerate(plan.stamps)]
    if making.get("kind") == "images":
        distinct = tuple(dict.fromkeys(plan.places))
        first = {place: row for row, place in reversed(list(enumerate(plan.places)))}
        files = tuple(ImageFile(id=name, path=None, refused=None, stamp="", size=-1) for name in plan.ids)
        found = ImagePlan(files=files, distinct=tuple(first[place] for place in distinct), file_of=plan.places)
        return join_images(out, found, results, making, max_bad_images=max_bad_images)
    write_store(
        out,
        ids=plan.ids,
        blocks=gathered(results, {}, plan.places),
        source=making,
        origin=f"vectors in {out / WORK}",
        work=WORK,
    )
    distinct_rows = sum(part.rows for part in results)
    return ImageReport(rows=len(plan.ids), distinct=distinct_rows, computed=0, bad=0, dim=results[0].dim)


def _read_part(out: Path, number: int, stamp: str, of: int, making: Mapping[str, Any]) -> SealedPart:
    folder = _folder(out, number)
    remedy = f"run --part {number % of + 1}/{of} again with --resume"
    manifest = read_manifest(folder, format=PART_FORMAT, version=PART_VERSION, remedy=remedy)
    verify_sealed(folder, manifest, remedy=remedy)
    metadata = manifest.metadata
    if metadata.get("stamp") != stamp:
        raise CorruptFileError(f"{folder}: made of another input than the rest; {remedy}")
    bad = {int(index): str(reason) for index, reason in metadata["bad"]}
    dim = int(metadata.get("dim", making.get("dim", 0)))
    return SealedPart(folder=folder, rows=int(metadata["rows"]), dim=dim, bad=bad)


def _folder(out: Path, number: int) -> Path:
    return out / WORK / f"part-{number:05d}"
