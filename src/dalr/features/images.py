"""How are vectors of image files computed? Decoded ahead by workers, sealed part by part, resumable.

A part is a fixed range of the distinct images, so which images share a batch never depends on where a run was
cut, and a resumed store has the bytes of an uninterrupted one. Parts are sealed folders below `STORE/.partial`; the
store is put together from them at the end. Images that cannot be used are collected over the whole pass and
listed, because fixing one at a time would take a hundred runs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float16, Float32

from dalr.data.rows import sentences_sha256
from dalr.errors import CorruptFileError, DataError, Problem, StorageError, few
from dalr.features.decode_ahead import ImageBatch, decoded_ahead
from dalr.features.decoding import MAX_PIXELS, MPX_ALLOWED, OUTSIDE
from dalr.features.image_files import ImagePlan, plan_images
from dalr.features.making import LIMIT, PLACES, existing_store, limit_of, refuse_other_making, stated_limit
from dalr.features.plan import keep_plan
from dalr.features.shard import map_shard, write_shard
from dalr.features.store import SHARD_ROWS, row_problems, write_store
from dalr.io.atomic import storage_errors, write_json, write_text
from dalr.io.console import Bar, Console
from dalr.io.paths import exists, is_dir, resolve
from dalr.io.sealed import read_manifest, verify_sealed, write_sealed
from dalr.io.shards import Member
from dalr.io.share import Share

if TYPE_CHECKING:
    from dalr.models.vision import VisionModel

WORK = ".partial"
BAD_IMAGES = "bad_images.jsonl"
PART_IMAGES = 256
PART_FORMAT, PART_VERSION = "dalr-features-part", 1
_PLAN = "making.json"
VECTORS = "vectors.safetensors"
_ALLOWED_BY = {
    OUTSIDE: ". Symbolic links out of the folder are followed with --follow-links FOLDER, which holds the files",
    MPX_ALLOWED: ". Larger images are read with --max-megapixels N",
}
"""What a reason says -> the option that allows it."""


@dataclass(frozen=True, kw_only=True)
class ImageReport:
    """What a pass over the images came to."""

    rows: int
    distinct: int
    computed: int
    """Images that went through the model now; the rest came from sealed parts."""
    bad: int
    dim: int


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A range of the distinct images, computed and sealed together."""

    number: int
    start: int
    stop: int
    stamp: str
    """Changes when one of its files does, or which files it holds."""

    def folder(self, out: Path) -> Path:
        return out / WORK / f"part-{self.number:05d}"


@dataclass(frozen=True, kw_only=True)
class SealedPart:
    folder: Path
    rows: int
    dim: int
    bad: Mapping[int, str]
    """Index of a distinct image -> why it has no vector."""

    def vectors(self) -> Float16[np.ndarray, "rows dim"]:
        """Mapped when asked for: a mapping holds a file open, and a large store has thousands of parts."""
        return map_shard(self.folder / VECTORS, rows=self.rows, dim=self.dim)


def write_image_store(
    out: Path,
    *,
    ids: Sequence[str],
    root: Path,
    model: VisionModel,
    resume: bool = False,
    max_bad_images: int = 0,
    follow_links: Path | None = None,
    max_megapixels: int = MAX_PIXELS // 10**6,
    workers: int | None = None,
    batch_size: int = 32,
    part_images: int = PART_IMAGES,
    members: Mapping[str, Member] | None = None,
    share: Share | None = None,
    console: Console | None = None,
) -> ImageReport:
    """Compute the vectors of the images `ids` below the folder `root` and write them as a store.

    With `members` the images are read from there, where they are in tar shards, and `root` only names them.
    With a `share` only its parts are computed, and `features.parts.merge` makes the store of them.

    Symbolic links are followed inside `root`, and into the folder `follow_links` where there is one. Images
    of more than `max_megapixels` are refused before they are decoded.

    Raises:
        DataError: no such folder; vectors that are not finite; after the pass, more than `max_bad_images` images
            that cannot be used, which `STORE/bad_images.jsonl` lists with their reasons.
        ConfigError: a store that was made otherwise, or unfinished work without `resume`.
        StorageError: the disk refuses, or `out` is a folder of something else.
    """
    console = console or Console()
    if members is None and not is_dir(root):
        raise DataError(Problem(where=str(root), what="expected the folder that holds the images"))
    if follow_links is not None and not is_dir(follow_links):
        raise DataError(Problem(where=str(follow_links), what="expected the folder that links may lead into"))
    making = _making(model, ids, batch_size, part_images) | stated_limit(max_megapixels)
    refuse_other_making(out, making, unfinished=out / WORK / _PLAN, resume=resume)
    if (store := existing_store(out, making)) is not None:
        console.say(f"{out} already exists, from the same images by the same model; delete it to compute it again")
        with storage_errors(out):
            shutil.rmtree(out / WORK, ignore_errors=True)
        bad = int(store.source["bad_images"])
        return ImageReport(
            rows=len(store), distinct=int(store.source["distinct"]), computed=0, bad=bad, dim=store.dim
        )
    with console.bar("look", len(ids), "image") as bar:
        plan = plan_images(
            ids,
            resolve(root),
            lambda done: bar.update(done),
            follow=resolve(follow_links) if follow_links is not None else None,
            max_pixels=max_megapixels * 10**6,
            members=members,
        )
    if other := sum(file.other_form for file in plan.files):
        console.say(
            f"note: {other} image names are in another Unicode form on disk than in the data (NFC and NFD; "
            "macOS writes accents as separate characters); they are treated as the same"
        )
    with storage_errors(out):
        (out / WORK).mkdir(parents=True, exist_ok=True)
    write_json(out / WORK / _PLAN, making)
    parts = _parts(plan, making, part_images)
    own = [part for part in parts if share is None or share.has(part.number)]
    pending = [part for part in own if _sealed(out, part, model.dim, max_megapixels, console) is None]
    computed = _compute(out, plan, pending, model, workers, batch_size, max_megapixels, console)
    results = [_required(out, part, model.dim, max_megapixels) for part in own]
    if share is not None:
        keep_plan(
            out / WORK,
            share,
            ids=ids,
            places=plan.file_of,
            stamps=[part.stamp for part in parts],
        )
        done, bad = sum(part.rows for part in results), sum(len(part.bad) for part in results)
        return ImageReport(rows=done, distinct=done, computed=computed, bad=bad, dim=model.dim)
    return join_images(out, plan, results, making, max_bad_images=max_bad_images, computed=computed)


def join_images(
    out: Path,
    plan: ImagePlan,
    results: Sequence[SealedPart],
    making: Mapping[str, Any],
    *,
    max_bad_images: int,
    computed: int = 0,
) -> ImageReport:
    """Make the store of its parts.

    Raises:
        DataError: more than `max_bad_images` images that cannot be used, or none that can.
    """
    ids = [file.id for file in plan.files]
    bad_of = {index: reason for result in results for index, reason in result.bad.items()}
    listed = _list_bad(out, plan, bad_of, max_bad_images)
    good = [row for row, number in enumerate(plan.file_of) if number not in bad_of]
    if not good:
        raise DataError(Problem(where=str(out), what=f"none of the {len(ids)} images can be used"))
    write_store(
        out,
        ids=[ids[row] for row in good],
        blocks=gathered(results, bad_of, [plan.file_of[row] for row in good]),
        source=dict(making) | {"distinct": len(plan.distinct) - len(bad_of), "bad_images": len(ids) - len(good)},
        origin=f"images by {making['model']}",
        work=WORK,
        beside={BAD_IMAGES: listed.encode()},
    )
    return ImageReport(
        rows=len(good),
        distinct=len(plan.distinct) - len(bad_of),
        computed=computed,
        bad=len(ids) - len(good),
        dim=results[0].dim,
    )


def _making(model: VisionModel, ids: Sequence[str], batch_size: int, part_images: int) -> dict[str, Any]:
    """Everything that decides the bytes of the store, as its manifest states it."""
    return {
        "kind": "images",
        **model.source,
        "dim": model.dim,
        "images": len(ids),
        "ids_sha256": sentences_sha256(ids),
        "batch_size": batch_size,
        "part_images": part_images,
    }


def _parts(plan: ImagePlan, making: Mapping[str, Any], size: int) -> list[_Part]:
    content = {key: value for key, value in making.items() if key not in (*PLACES, LIMIT)}
    parts = []
    for number, start in enumerate(range(0, len(plan.distinct), size)):
        stop = min(start + size, len(plan.distinct))
        files = [plan.files[plan.distinct[number]] for number in range(start, stop)]
        stamp = json.dumps([content, [[file.id, file.stamp] for file in files]], sort_keys=True)
        digest = hashlib.sha256(stamp.encode("utf-8", "surrogatepass")).hexdigest()
        parts.append(_Part(number=number, start=start, stop=stop, stamp=digest))
    return parts


def _compute(
    out: Path,
    plan: ImagePlan,
    pending: Sequence[_Part],
    model: VisionModel,
    workers: int | None,
    batch_size: int,
    max_megapixels: int,
    console: Console,
) -> int:
    """Compute and seal the pending parts; how many images went through the model."""
    batches = [batch for part in pending for batch in _batches(plan, part, batch_size)]
    decoded = decoded_ahead(batches, model.pixels, workers=workers, max_pixels=max_megapixels * 10**6)
    computed = done = 0
    refused = 0
    with console.bar("images", sum(part.stop - part.start for part in pending), "image") as bar:
        for part in pending:
            bad = _refused(plan, part)
            done, refused = done + len(bad), refused + len(bad)
            vectors = [np.empty((0, model.dim), np.float16)]
            for _ in _batches(plan, part, batch_size):
                batch = next(decoded)
                if len(batch.numbers):
                    names = [plan.files[plan.distinct[number]].id for number in batch.numbers]
                    vectors.append(_checked(model.vectors(batch.pixels), names))
                bad |= batch.refused
                computed, refused = computed + len(batch.numbers), refused + len(batch.refused)
                done += len(batch.numbers) + len(batch.refused)
                _show(bar, done, refused)
            _seal(out, part, np.concatenate(vectors), bad, max_megapixels)
    return computed


def _batches(plan: ImagePlan, part: _Part, size: int) -> list[ImageBatch]:
    """The images of a part that can be opened, in batches that never reach into the next part."""
    files = {number: plan.files[plan.distinct[number]] for number in range(part.start, part.stop)}
    paths = [(number, file.path) for number, file in files.items() if file.path is not None]
    return [ImageBatch(files=tuple(paths[start : start + size])) for start in range(0, len(paths), size)]


def _refused(plan: ImagePlan, part: _Part) -> dict[int, str]:
    """Images of a part that are not even opened."""
    files = {number: plan.files[plan.distinct[number]] for number in range(part.start, part.stop)}
    return {number: file.refused for number, file in files.items() if file.refused is not None}


def _checked(vectors: Float32[np.ndarray, "n dim"], names: Sequence[str]) -> Float16[np.ndarray, "n dim"]:
    """The vectors as they are stored; one that cannot be a feature stops the pass with its image's name."""
    problems = [
        Problem(where=f"image {name!r}", what=f"its vector: {problem.what}")
        for row, name in enumerate(names)
        for problem in row_problems(vectors[row : row + 1], first=1, origin="")
    ]
    if problems:
        raise DataError(problems)
    return vectors.astype(np.float16)


def _show(bar: Bar, done: int, refused: int) -> None:
    if refused:
        bar.update(done, bad=str(refused))
    else:
        bar.update(done)


def _seal(
    out: Path, part: _Part, vectors: Float16[np.ndarray, "good dim"], bad: Mapping[int, str], max_megapixels: int
) -> None:
    metadata = stated_limit(max_megapixels) | {
        "stamp": part.stamp,
        "rows": len(vectors),
        "bad": sorted([index, reason] for index, reason in bad.items()),
    }
    write_sealed(
        part.folder(out),
        format=PART_FORMAT,
        version=PART_VERSION,
        metadata=metadata,
        fill=lambda folder: write_shard(folder / VECTORS, vectors),
    )


def _sealed(out: Path, part: _Part, dim: int, max_megapixels: int, console: Console) -> SealedPart | None:
    """A part that an earlier run sealed, if it verifies and its files are still the same."""
    folder = part.folder(out)
    if not exists(folder, StorageError):
        return None
    try:
        manifest = read_manifest(folder, format=PART_FORMAT, version=PART_VERSION, remedy="it is computed again")
        verify_sealed(folder, manifest, remedy="it is computed again")
        metadata = manifest.metadata
        if metadata["stamp"] != part.stamp:
            console.say(f"{folder.name}: its image files have changed; it is computed again")
        elif limit_of(metadata) > max_megapixels or (limit_of(metadata) < max_megapixels and metadata["bad"]):
            console.say(f"{folder.name}: made with --max-megapixels {limit_of(metadata)}; it is computed again")
        else:
            bad = {int(index): str(reason) for index, reason in metadata["bad"]}
            return SealedPart(folder=folder, rows=int(metadata["rows"]), dim=dim, bad=bad)
    except CorruptFileError as error:
        console.say(str(error))
    with storage_errors(folder):
        shutil.rmtree(folder)
    return None


def _required(out: Path, part: _Part, dim: int, max_megapixels: int) -> SealedPart:
    result = _sealed(out, part, dim, max_megapixels, Console(quiet=True))
    if result is None:
        raise CorruptFileError(
            f"{part.folder(out)} was just sealed and its checksum does not match: the disk may be failing"
        )
    return result


def _list_bad(out: Path, plan: ImagePlan, bad_of: Mapping[int, str], allowed: int) -> str:
    """The bad images, one JSON object a line; more than `allowed` end the pass.

    Raises:
        DataError: naming the first of them, the count and the list.
    """
    found = [
        (file, bad_of[number]) for file, number in zip(plan.files, plan.file_of, strict=True) if number in bad_of
    ]
    lines = [json.dumps({"image": file.id, "reason": reason}, ensure_ascii=False) for file, reason in found]
    listed = "".join(f"{line}\n" for line in lines)
    if len(found) > allowed:
        write_text(out / BAD_IMAGES, listed)
        what = (
            f"{len(found)} of {len(plan.files)} images cannot be used, {allowed} allowed; all are listed in "
            f"{out / BAD_IMAGES}. Fix them and rerun with --resume, which computes only what changed; or "
            f"leave them out with --resume --max-bad-images {len(found)}, and take them out of the captions too"
            + "".join(advice for sign, advice in _ALLOWED_BY.items() if any(sign in reason for _, reason in found))
        )
        raise DataError(
            [
                Problem(where=str(out), what=what),
                *few(found, lambda each: Problem(where=f"image {each[0].id!r}", what=each[1])),
            ]
        )
    return listed


def gathered(
    results: Sequence[SealedPart], bad_of: Mapping[int, str], numbers: Sequence[int]
) -> Iterator[Float16[np.ndarray, "_ dim"]]:
    """The vectors of these images in blocks, gathered from the parts."""
    starts = np.cumsum([0, *(part.rows for part in results)])
    bad = np.fromiter(sorted(bad_of), np.int64, len(bad_of))
    wanted = np.asarray(numbers, np.int64)
    rows = wanted - np.searchsorted(bad, wanted)  # an image's row among the good ones
    for start in range(0, len(rows), SHARD_ROWS):
        block = rows[start : start + SHARD_ROWS]
        out = np.empty((len(block), results[0].dim), np.float16)
        part_of = np.searchsorted(starts, block, side="right") - 1
        for part in np.unique(part_of):
            chosen = part_of == part
            out[chosen] = results[part].vectors()[block[chosen] - starts[part]]
        yield out
