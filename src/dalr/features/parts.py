"""How do n machines make one store? Each seals every n-th part in `STORE/.partial`, and `merge` joins them.

The parts are those of a run on one machine, so the merged store has its bytes, and any part may be computed again
alone. Each machine also seals what it took the input for (ids, distinct rows, a fingerprint of each part): parts
of different inputs are never joined.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from dalr.data.rows import sentences_sha256
from dalr.errors import ConfigError, CorruptFileError, DataError, Problem, few
from dalr.features.image_files import ImageFile, ImagePlan
from dalr.features.images import ImageReport, join_images
from dalr.features.kept import rows_to_keep
from dalr.features.making import PLACES, limit_of, stated
from dalr.features.part import (
    MAKING,
    PART_VERSION,
    WORK,
    Gathered,
    Part,
    SealedPart,
    open_part,
    seal_part,
    sealed_earlier,
)
from dalr.features.plan import Plan, common_plan, keep_plan
from dalr.features.store import CONTENTS, contents_file, row_problems, text_digest, write_store
from dalr.io.atomic import storage_errors, write_json
from dalr.io.console import Console
from dalr.io.paths import entries, is_dir
from dalr.io.sealed import well_formed
from dalr.io.share import Share
from dalr.models.embedding import Embed

BLOCK = 16_384
"""Distinct sentences of a part."""


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
    block: int = BLOCK,
    console: Console | None = None,
) -> PartReport:
    """Encode the distinct sentences of a share's parts and seal each part.

    Raises:
        DataError: a vector that cannot be stored, with its sentence.
        StorageError: the disk refuses.
    """
    console = console or Console()
    with storage_errors(out):
        (out / WORK).mkdir(parents=True, exist_ok=True)
    write_json(out / WORK / MAKING, dict(making))
    place = {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences))}
    distinct = list(place)
    parts = _text_parts(distinct, making, block)
    own = [part for part in parts if share.has(part.number)]
    pending = [part for part in own if sealed_earlier(out, part, of="sentences", console=console) is None]
    done = 0
    with console.bar("encode", sum(len(part.rows) for part in pending), "sentence") as bar:
        for part in pending:
            several = [distinct[row] for row in part.rows]
            vectors = embed(several, lambda each, _, before=done: bar.update(before + each))  # type: ignore[misc]
            _require_storable(vectors, several)
            seal_part(out, part, vectors, [text_digest(sentence) for sentence in several])
            done += len(part.rows)
    places = [place[sentence] for sentence in sentences]
    keep_plan(out / WORK, share, ids=ids, places=places, stamps=[part.stamp for part in parts])
    return PartReport(done=len(own), of=len(parts))


def _text_parts(distinct: Sequence[str], making: Mapping[str, Any], block: int) -> list[Part]:
    content = {key: value for key, value in making.items() if key not in PLACES}
    parts = []
    for number, start in enumerate(range(0, len(distinct), block)):
        several = distinct[start : start + block]
        told = json.dumps([PART_VERSION, content, sentences_sha256(several)], sort_keys=True)
        stamp = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()
        parts.append(Part(number=number, rows=tuple(range(start, start + len(several))), stamp=stamp))
    return parts


def _require_storable(vectors: Float32[np.ndarray, "n d"], sentences: Sequence[str]) -> None:
    wrong = [
        (sentences[row], problem.what)
        for row in range(len(vectors))
        for problem in row_problems(vectors[row : row + 1], first=1, origin="")
    ]
    if wrong:
        raise DataError(few(wrong, lambda each: Problem(where=f"sentence {each[0]!r:.100}", what=each[1])))


def merge(out: Path, *, max_bad_images: int = 0) -> ImageReport:
    """Join the parts that `--part i/n` left in `OUT/.partial` to a store.

    A store that is finished already, as after a kill at the very end, stays as it is.

    Raises:
        ConfigError: there are none, or some are missing, with the shares that would make them.
        DataError: they were made of different inputs, or more images are unusable than allowed.
        CorruptFileError: one is damaged.
    """
    if not is_dir(out / WORK) and (finished := rows_to_keep(out)) is not None:
        store, distinct = finished.store, len(finished.row_of)
        bad = int(store.source.get("bad_images", 0))
        return ImageReport(rows=len(store), distinct=distinct, computed=0, bad=bad, dim=store.dim)
    making = stated(out / WORK / MAKING) if is_dir(out / WORK) else None
    if making is None:
        what = f"no parts in {out / WORK}; make them with dalr features images or text, and --part i/n"
        raise ConfigError(Problem(where=f"merge {out}", what=what))
    plan = common_plan(out / WORK)
    parts = [Part(number=number, rows=(), stamp=stamp) for number, stamp in enumerate(plan.stamps)]
    missing = [part.number for part in parts if not is_dir(part.folder(out))]
    if missing:
        shares = sorted({number % plan.of + 1 for number in missing})
        named = ", ".join(f"{number}/{plan.of}" for number in shares[:10])
        what = f"{len(missing)} of {len(parts)} parts are missing: run --part {named} again with --resume"
        raise ConfigError(Problem(where=f"merge {out}", what=what))
    sealed = [_required(out, part, plan.of, limit_of(making)) for part in parts]
    found = _gathered(out, plan, sealed)
    if making.get("kind") == "images":
        return join_images(out, _image_plan(plan), found, making, max_bad_images=max_bad_images)
    write_store(
        out,
        ids=plan.ids,
        blocks=found.blocks(plan.places),
        source=making,
        origin=f"vectors in {out / WORK}",
        work=WORK,
        beside={CONTENTS: contents_file(found.contents[place] for place in plan.places)},
    )
    return ImageReport(rows=len(plan.ids), distinct=len(found.contents), computed=0, bad=0, dim=sealed[0].dim)


def _required(out: Path, part: Part, of: int, max_megapixels: int) -> SealedPart:
    folder = part.folder(out)
    remedy = f"run --part {part.number % of + 1}/{of} again with --resume"
    found = open_part(folder, remedy=remedy)
    if found.stamp != part.stamp:
        raise CorruptFileError(f"{folder}: made of another input than the rest; {remedy}")
    if not found.allows(max_megapixels):
        what = (
            f"made with --max-megapixels {found.max_megapixels}, and the last part with {max_megapixels}; "
            f"{remedy} and --max-megapixels {max_megapixels}"
        )
        raise ConfigError(Problem(where=str(folder), what=what))
    return found


def _gathered(out: Path, plan: Plan, parts: Sequence[SealedPart]) -> Gathered:
    """Part after part holds the distinct rows in order."""
    counts = [len(part.contents) + len(part.bad) for part in parts]
    starts = np.cumsum([0, *counts]).tolist()
    rows = [range(start, start + count) for start, count in zip(starts[:-1], counts, strict=True)]
    distinct = len(set(plan.places))
    with well_formed(out / WORK, remedy="run each --part i/n again with --resume"):
        if sum(counts) != distinct:
            raise ValueError(f"{sum(counts)} rows in the parts for {distinct} distinct ones")
    return Gathered.of(distinct, rows, parts)


def _image_plan(plan: Plan) -> ImagePlan:
    """The plan as far as joining needs it: the files are not looked at again."""
    first: dict[int, int] = {}
    for row, place in enumerate(plan.places):
        first.setdefault(place, row)
    files = tuple(ImageFile(id=name, path=None, refused=None, stamp="", size=-1) for name in plan.ids)
    return ImagePlan(files=files, distinct=tuple(first[place] for place in sorted(first)), file_of=plan.places)
