"""How are vectors of image files computed? Decoded ahead by workers, sealed part by part, resumable.

An image's vector depends on its file alone: every batch has the same shape (one that is not full is filled up
with copies of its first image), and with equal shapes the place in a batch changes no bit. So a store that was
resumed, or updated with new images, has the bytes of one made at once; the price is at most one batch per part.
The store is put together from sealed parts at the end; several processes may compute them. Images that cannot be
used are collected over the whole pass and listed, because fixing one at a time would take a hundred runs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float16, Float32

from dalr.data.rows import sentences_sha256
from dalr.errors import ConfigError, CorruptFileError, DataError, Problem, few
from dalr.features.decode_ahead import DecodedBatch, ImageBatch, decoded_ahead
from dalr.features.decoding import MAX_PIXELS, MPX_ALLOWED, OUTSIDE
from dalr.features.image_files import ImagePlan, content_digest, plan_images
from dalr.features.kept import PROBES, Kept, require_same_vectors, rows_to_keep
from dalr.features.making import LIMIT, MEMBERS, PLACES, existing_store, refuse_other_making, stated_limit
from dalr.features.part import (
    MAKING,
    PART_VERSION,
    UPDATE_IN_PARTS,
    WORK,
    Gathered,
    Part,
    SealedPart,
    seal_part,
    sealed_earlier,
)
from dalr.features.plan import keep_plan
from dalr.features.store import CONTENTS, contents_file, row_problems, write_store
from dalr.io.atomic import storage_errors, write_json, write_text
from dalr.io.console import Bar, Console
from dalr.io.paths import is_dir, resolve
from dalr.io.shards import Member
from dalr.io.share import Share

if TYPE_CHECKING:
    from dalr.models.vision import VisionModel

BAD_IMAGES = "bad_images.jsonl"
PART_IMAGES = 256
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
    kept: int = 0
    """Images whose vectors the updated store had already."""
    dropped: int = 0
    """Rows of the updated store whose images are no longer asked for."""
    complete: bool = True
    """False where only parts of the store are there so far."""
    seconds: float = 0.0
    """Of the pass over the images, without the loading of the model."""


def write_image_store(
    out: Path,
    *,
    ids: Sequence[str],
    root: Path,
    model: VisionModel,
    resume: bool = False,
    update: bool = False,
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

    With `update`, a store that is there keeps the vectors of files whose content it knows; only the others are
    computed, and rows whose ids are gone are dropped. Until the new store is complete, the old one stays as it is.

    Raises:
        DataError: no such folder; vectors that are not finite; after the pass, more than `max_bad_images` images
            that cannot be used, which `STORE/bad_images.jsonl` lists with their reasons.
        ConfigError: a store that was made otherwise, unfinished work without `resume`, or an update in shares.
        StorageError: the disk refuses, or `out` is a folder of something else.
    """
    console = console or Console()
    if share is not None and update:
        raise ConfigError(UPDATE_IN_PARTS)
    if members is None and not is_dir(root):
        raise DataError(Problem(where=str(root), what="expected the folder that holds the images"))
    if follow_links is not None and not is_dir(follow_links):
        raise DataError(Problem(where=str(follow_links), what="expected the folder that links may lead into"))
    making = _making(model, ids, batch_size, part_images) | stated_limit(max_megapixels)
    refuse_other_making(out, making, unfinished=out / WORK / MAKING, resume=resume, update=update)
    kept = rows_to_keep(out) if update else None
    if kept is None and (store := existing_store(out, making)) is not None:
        console.say(
            f"{out} already exists, from the same images by the same model; files that changed since are computed "
            "again with --update"
        )
        with storage_errors(out):
            shutil.rmtree(out / WORK, ignore_errors=True)
        bad = int(store.source["bad_images"])
        return ImageReport(
            rows=len(store), distinct=int(store.source["distinct"]), computed=0, bad=bad, dim=store.dim
        )
    plan = _plan(ids, root, members, follow_links, max_megapixels, console)
    known = _known(plan, kept, console)
    with storage_errors(out):
        (out / WORK).mkdir(parents=True, exist_ok=True)
    write_json(out / WORK / MAKING, making)
    parts = _parts(
        plan, [number for number in range(len(plan.distinct)) if number not in known], making, part_images
    )
    own = [part for part in parts if share is None or share.has(part.number)]
    pending = [part for part in own if _sealed(out, part, max_megapixels, console) is None]
    if kept is not None and pending:
        _compare(out, plan, kept, known, model, batch_size, max_megapixels, console)
    computed = _compute(out, plan, pending, model, workers, batch_size, max_megapixels, console)
    results = [_required(out, part, max_megapixels) for part in own]
    if share is not None:
        keep_plan(out / WORK, share, ids=ids, places=plan.file_of, stamps=[part.stamp for part in parts])
        done, bad = sum(len(part.contents) for part in results), sum(len(part.bad) for part in results)
        return ImageReport(rows=done, distinct=done, computed=computed, bad=bad, dim=model.dim, complete=False)
    found = Gathered.of(len(plan.distinct), [part.rows for part in parts], results, kept=kept, known=known)
    return join_images(out, plan, found, making, max_bad_images=max_bad_images, computed=computed)


def join_images(
    out: Path,
    plan: ImagePlan,
    found: Gathered,
    making: Mapping[str, Any],
    *,
    max_bad_images: int,
    computed: int = 0,
) -> ImageReport:
    """Write the store of images whose vectors are there.

    Raises:
        DataError: more than `max_bad_images` images that cannot be used, or none that can.
    """
    ids, kept = [file.id for file in plan.files], found.kept
    listed = _list_bad(out, plan, found.bad, max_bad_images, kept is not None)
    good = [row for row, number in enumerate(plan.file_of) if number not in found.bad]
    if not good:
        raise DataError(Problem(where=str(out), what=f"none of the {len(ids)} images can be used"))
    numbers = [plan.file_of[row] for row in good]
    outcome = {"distinct": len(plan.distinct) - len(found.bad), "bad_images": len(ids) - len(good)}
    write_store(
        out,
        ids=[ids[row] for row in good],
        blocks=found.blocks(numbers),
        source=dict(making) | outcome,
        origin=f"images by {making['model']}",
        work=WORK if kept is None else None,  # an old store is exchanged for the new one as a whole
        beside={BAD_IMAGES: listed.encode(), CONTENTS: contents_file(found.contents[each] for each in numbers)},
    )
    return ImageReport(
        rows=len(good),
        distinct=outcome["distinct"],
        computed=computed,
        bad=outcome["bad_images"],
        dim=int(making["dim"]),
        kept=found.from_kept,
        dropped=len(set(kept.store.ids) - set(ids)) if kept is not None else 0,
    )


def _plan(
    ids: Sequence[str],
    root: Path,
    members: Mapping[str, Member] | None,
    follow_links: Path | None,
    max_megapixels: int,
    console: Console,
) -> ImagePlan:
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
    return plan


def _known(plan: ImagePlan, kept: Kept | None, console: Console) -> dict[int, int]:
    """Distinct images whose vectors are there already -> the rows that have them."""
    if kept is None:
        return {}
    known: dict[int, int] = {}
    with console.bar("compare", len(plan.distinct), "image") as bar:
        for number, index in enumerate(plan.distinct):
            path = plan.files[index].path
            with suppress(OSError, DataError):  # one that cannot be read is refused, with its reason, by the pass
                if path is not None and (row := kept.row_of.get(content_digest(path))) is not None:
                    known[number] = row
            bar.update(number + 1)
    return known


def _compare(
    out: Path,
    plan: ImagePlan,
    kept: Kept,
    known: Mapping[int, int],
    model: VisionModel,
    batch_size: int,
    max_megapixels: int,
    console: Console,
) -> None:
    """Compute a few kept images again: rows of two makings are never mixed."""
    chosen = list(known)[: min(PROBES, batch_size)]
    files = [(number, plan.files[plan.distinct[number]].path) for number in chosen]
    batch = ImageBatch(files=tuple((number, path) for number, path in files if path is not None))
    for decoded in decoded_ahead(
        [batch] if batch.files else [], model.pixels, workers=0, max_pixels=max_megapixels * 10**6
    ):
        if decoded.numbers:
            rows = kept.read([known[number] for number in decoded.numbers])
            require_same_vectors(out, rows, _vectors(model, decoded, batch_size), console)


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


def _parts(plan: ImagePlan, images: Sequence[int], making: Mapping[str, Any], size: int) -> list[Part]:
    content = {key: value for key, value in making.items() if key not in (*PLACES, *MEMBERS, LIMIT)}
    parts = []
    for number, start in enumerate(range(0, len(images), size)):
        chosen = tuple(images[start : start + size])
        files = [plan.files[plan.distinct[image]] for image in chosen]
        stamp = json.dumps([PART_VERSION, content, [[file.id, file.stamp] for file in files]], sort_keys=True)
        digest = hashlib.sha256(stamp.encode("utf-8", "surrogatepass")).hexdigest()
        parts.append(Part(number=number, rows=chosen, stamp=digest))
    return parts


def _compute(
    out: Path,
    plan: ImagePlan,
    pending: Sequence[Part],
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
    with console.bar("images", sum(len(part.rows) for part in pending), "image") as bar:
        for part in pending:
            bad = _refused(plan, part)
            done, refused = done + len(bad), refused + len(bad)
            vectors = [np.empty((0, model.dim), np.float16)]
            contents: list[str] = []
            for _ in _batches(plan, part, batch_size):
                batch = next(decoded)
                if len(batch.numbers):
                    names = [plan.files[plan.distinct[number]].id for number in batch.numbers]
                    vectors.append(_checked(_vectors(model, batch, batch_size), names))
                    contents += batch.contents
                bad |= batch.refused
                computed, refused = computed + len(batch.numbers), refused + len(batch.refused)
                done += len(batch.numbers) + len(batch.refused)
                _show(bar, done, refused)
            seal_part(out, part, np.concatenate(vectors), contents, bad=bad, max_megapixels=max_megapixels)
    return computed


def _vectors(model: VisionModel, batch: DecodedBatch, size: int) -> Float32[np.ndarray, "n dim"]:
    """Vectors of a batch, computed in the shape of a full one."""
    missing = size - len(batch.pixels)
    filled = (
        np.concatenate([batch.pixels, np.repeat(batch.pixels[:1], missing, axis=0)]) if missing else batch.pixels
    )
    return model.vectors(filled)[: len(batch.pixels)]


def _batches(plan: ImagePlan, part: Part, size: int) -> list[ImageBatch]:
    """The images of a part that can be opened, in batches that never reach into the next part."""
    files = {number: plan.files[plan.distinct[number]] for number in part.rows}
    paths = [(number, file.path) for number, file in files.items() if file.path is not None]
    return [ImageBatch(files=tuple(paths[start : start + size])) for start in range(0, len(paths), size)]


def _refused(plan: ImagePlan, part: Part) -> dict[int, str]:
    """Images of a part that are not even opened."""
    files = {number: plan.files[plan.distinct[number]] for number in part.rows}
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


def _sealed(out: Path, part: Part, max_megapixels: int, console: Console) -> SealedPart | None:
    return sealed_earlier(out, part, of="image files", console=console, max_megapixels=max_megapixels)


def _required(out: Path, part: Part, max_megapixels: int) -> SealedPart:
    result = _sealed(out, part, max_megapixels, Console(quiet=True))
    if result is None:
        raise CorruptFileError(
            f"{part.folder(out)} was just sealed and its checksum does not match: the disk may be failing"
        )
    return result


def _list_bad(out: Path, plan: ImagePlan, bad_of: Mapping[int, str], allowed: int, update: bool) -> str:
    """The bad images, one JSON object a line; more than `allowed` end the pass.

    With `update` there is a store, which stays as it is: its own list too.

    Raises:
        DataError: naming the first of them, the count and the list.
    """
    found = [
        (file, bad_of[number]) for file, number in zip(plan.files, plan.file_of, strict=True) if number in bad_of
    ]
    lines = [json.dumps({"image": file.id, "reason": reason}, ensure_ascii=False) for file, reason in found]
    listed = "".join(f"{line}\n" for line in lines)
    if len(found) > allowed:
        place, again = (out / WORK / BAD_IMAGES, "--update") if update else (out / BAD_IMAGES, "--resume")
        write_text(place, listed)
        what = (
            f"{len(found)} of {len(plan.files)} images cannot be used, {allowed} allowed; all are listed in "
            f"{place}. Fix them and rerun with {again}, which computes only what changed; or "
            f"leave them out with {again} --max-bad-images {len(found)}, and take them out of the captions too"
            + "".join(advice for sign, advice in _ALLOWED_BY.items() if any(sign in reason for _, reason in found))
        )
        raise DataError(
            [
                Problem(where=str(out), what=what),
                *few(found, lambda each: Problem(where=f"image {each[0].id!r}", what=each[1])),
            ]
        )
    return listed
