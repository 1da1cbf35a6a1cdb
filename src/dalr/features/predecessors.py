"""How are the feature files of earlier methods imported? MCSE's HDF5, and the JSON of KDMCSE and DALR.

Both hold captions and vectors in one, without names that a pairs file could be joined by. An import therefore
leaves a folder that fits together: `pairs.jsonl`, a store `image` by image, and a store `caption` by caption id
where there are vectors of captions. The JSON of Flickr30k has 4 GB on one line, so it is parsed as a stream and its
vectors wait on disk: memory does not grow with the features.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.data.rows import text_id
from dalr.errors import ConfigError, DataError, Problem, Problems, StorageError, install, shown
from dalr.features.importing import Rows, read_ids, row_blocks
from dalr.features.making import stated
from dalr.features.spool import Spool, pairs_line
from dalr.features.store import row_problems, write_store
from dalr.io.atomic import write_text, write_with
from dalr.io.claim import is_unfinished, new_folder, require_ours
from dalr.io.lfs import LFS_ADVICE, is_lfs_pointer
from dalr.io.paths import entries, regular, size_of
from dalr.io.proportion import NotTooDeep, megabytes, room
from dalr.io.sealed import MANIFEST
from dalr.io.text import ending, open_data, read_lines

if TYPE_CHECKING:
    import h5py

FOLDER_ENDINGS = (".hdf5", ".h5", ".json")
PAIRS, IMAGE, CAPTION = "pairs.jsonl", "image", "caption"
_DATASET = "features"
_WORK = ".spool"
"""Where vectors wait while the JSON is parsed."""
_BLOCK_ROWS = 4096
"""Rows that are looked at even where fewer have names."""
_LARGEST_CHUNK = 128 << 20
"""Bytes of one chunk of an HDF5 dataset; h5py's own are of one megabyte at most."""
_INSTALL = install("formats")

OnProgress = Callable[[float], None]
"""Called with the fraction that is done."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import left in its folder."""

    images: int
    captions: int
    image_dim: int
    caption_dim: int | None

    def lines(self, out: Path) -> list[str]:
        """What to tell whoever asked for it."""
        found = [
            f"{out / PAIRS}: {self.images} images, {self.captions} captions",
            f"{out / IMAGE}: {self.images} rows of dimension {self.image_dim}",
        ]
        if self.caption_dim is not None:
            found.append(f"{out / CAPTION}: {self.captions} rows of dimension {self.caption_dim}")
        return found


def import_folder(
    file: Path, out: Path, *, captions: Path | None, ids: Path | None, progress: OnProgress | None = None
) -> Imported:
    """Import a file whose name ends as one of `FOLDER_ENDINGS`."""
    if ending(file) == ".json":
        if captions is not None or ids is not None:
            raise ConfigError(Problem(where="--captions, --ids", what="a .json holds both itself"))
        return import_json(file, out, progress=progress)
    if captions is None:
        what = "an HDF5 file holds no captions: name the file that MCSE reads beside it, one per line"
        raise ConfigError(Problem(where="--captions", what=what))
    return import_hdf5(file, captions, out, ids=ids, progress=progress)


def import_hdf5(
    matrix: Path, captions: Path, out: Path, *, ids: Path | None = None, progress: OnProgress | None = None
) -> Imported:
    """MCSE: row i of the HDF5 dataset `features` is the image of line i of `captions`.

    Without `ids` (one image name a line) an image is named by its line number, because the files name none.

    Raises:
        DataError: not such a file, counts that differ (with both numbers), bad rows; all at once.
        StorageError: `out` holds something else than what is written now.
    """
    source = {"kind": "import", "matrix": matrix.name, "ids": (ids or captions).name}
    _require_import_folder(out, source)
    problems: list[Problem] = Problems()
    lines = _attempt(lambda: read_lines(captions), problems)
    with _hdf5_rows(matrix, problems) as rows:
        total = rows.shape[0] if rows is not None else len(lines)
        names = [text_id(number) for number in range(1, len(lines) + 1)]
        if ids is not None:
            names = _attempt(lambda: read_ids(ids), problems)
        if rows is not None:
            for file, count, what in ((captions, len(lines), "captions"), (ids, len(names), "ids")):
                if file is not None and count and count != total:
                    problems.append(Problem(where=str(matrix), what=f"{total} rows, but {file} has {count} {what}"))
            for first, block in row_blocks(rows, matrix, progress, stop=max(len(lines), len(names), _BLOCK_ROWS)):
                problems.extend(row_problems(block, first=first + 1, origin=str(matrix)))
        if problems:
            raise DataError(problems)
        assert rows is not None
        blocks = (block for _, block in row_blocks(rows, matrix))
        dim = rows.shape[1]
        with new_folder(out) as folder:
            write_store(folder / IMAGE, ids=names, blocks=blocks, source=source, origin=str(matrix))
            pairs = zip(names, lines, strict=True)
            write_text(folder / PAIRS, "".join(pairs_line(name, [line]) for name, line in pairs))
    return Imported(images=total, captions=total, image_dim=dim, caption_dim=None)


def import_json(source: Path, out: Path, *, progress: OnProgress | None = None) -> Imported:
    """KDMCSE, DALR: `{key: {"image", "captions": [...], "image_feat": [...], "lang_feat": [[...], ...]}}`.

    An image is named by `image`, or by its key where there is none.

    Raises:
        DataError: not such a file, vectors of differing dimensions, more or fewer vectors than captions, bad rows;
            all at once.
        StorageError: `out` holds something else than what is written now, or the disk is full.
    """
    origin = {"kind": "import", "matrix": source.name, "ids": source.name}
    _require_import_folder(out, origin)
    problems: list[Problem] = Problems()
    with new_folder(out) as folder:
        work = folder / _WORK
        work.mkdir()
        with Spool(work) as spool:
            try:
                for key, record in _json_items(source, progress):
                    spool.add(key, record, f"{source}: {shown(key)}", problems)
            except DataError as error:  # the file ends early: what was wrong before is said as well
                problems.extend(error.problems)
            if not spool.image.ids and not problems:
                problems.append(Problem(where=str(source), what="no image in it"))
            if problems:
                raise DataError(problems)
            for name, vectors in ((IMAGE, spool.image), (CAPTION, spool.caption)):
                rows = vectors.blocks()
                write_store(folder / name, ids=vectors.ids, blocks=rows, source=origin, origin=str(source))
            write_with(folder / PAIRS, spool.copy_pairs)
        shutil.rmtree(work)
    return Imported(
        images=len(spool.image.ids),
        captions=len(spool.caption.ids),
        image_dim=spool.image.dim,
        caption_dim=spool.caption.dim,
    )


def _require_import_folder(out: Path, source: Mapping[str, Any]) -> None:
    """Refuse a folder of something else at once; one of the same file is compared when it has been read again."""

    def ours() -> bool:
        names = {path.name for path in entries(out, StorageError) if not is_unfinished(path)}
        return names <= {PAIRS, IMAGE, CAPTION} and stated(out / IMAGE / MANIFEST, "metadata", "source") == source

    require_ours(out, f"an earlier import of {source['matrix']}", ours=ours)


def _json_items(path: Path, progress: OnProgress | None) -> Iterator[tuple[str, object]]:
    """Keys and values of a JSON object, one at a time."""
    try:
        import ijson
    except ImportError:
        raise DataError(Problem(where=str(path), what=f"reading this needs ijson; {_INSTALL}")) from None
    last = None
    with open_data(path) as file:
        total = size_of(path)
        try:
            for key, value in ijson.kvitems(NotTooDeep(file, path), "", use_float=True):
                yield key, value
                last = key
                if progress is not None:
                    progress(os.lseek(file.fileno(), 0, os.SEEK_CUR) / total)
        except (ijson.JSONError, OverflowError) as error:
            after = f" after {shown(last)}" if last is not None else ""
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(Problem(where=str(path), what=f"damaged JSON{after}: {first:.200}")) from None


@contextmanager
def _hdf5_rows(path: Path, problems: list[Problem]) -> Iterator[Rows | None]:
    """The dataset `features` of an HDF5 file, read from disk piece by piece; None after saying what is wrong."""
    try:
        import h5py
    except ImportError:
        raise DataError(Problem(where=str(path), what=f"reading this needs h5py; {_INSTALL}")) from None
    try:
        file = h5py.File(regular(path), "r")
    except FileNotFoundError:
        problems.append(Problem(where=str(path), what="no such file"))
        yield None
        return
    except (OSError, ValueError) as error:
        what = LFS_ADVICE if is_lfs_pointer(path) else f"not an HDF5 file: {error!s:.200}"
        problems.append(Problem(where=str(path), what=what))
        yield None
        return
    with file:
        rows, wrong = None, ""
        try:
            rows = file[_DATASET] if file.get(_DATASET, getlink=True).__class__ is h5py.HardLink else None
        except (KeyError, OSError, RuntimeError) as error:
            wrong = f" ({error!s:.120})"
        if not isinstance(rows, h5py.Dataset):
            found = ", ".join(file)[:200] or "nothing"
            what = f"expected the dataset {_DATASET!r} in this file, found {found}{wrong}"
        elif rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind != "f":
            what = (
                f"expected a matrix (rows, dimension) of floating-point numbers, found {rows.shape} of {rows.dtype}"
            )
        elif rows.external or rows.is_virtual:
            what = "the values are in other files, which are not opened; write them into this one"
        elif claimed := _out_of_proportion(rows, path):
            what = claimed
        else:
            yield rows
            return
        problems.append(Problem(where=f"{path}: {_DATASET}", what=what))
        yield None


def _out_of_proportion(rows: h5py.Dataset, path: Path) -> str:
    """What a matrix claims that its file cannot hold; empty where it is in proportion."""
    stored, item = size_of(path), rows.dtype.itemsize
    claimed = math.prod(map(int, rows.shape)) * item
    if claimed > room(stored):
        return (
            f"{rows.shape[0]} rows of dimension {rows.shape[1]} would be {megabytes(claimed)}, but the file has "
            f"{megabytes(stored)}: its values are not in it"
        )
    if rows.chunks is not None and (chunk := math.prod(map(int, rows.chunks)) * item) > _LARGEST_CHUNK:
        return (
            f"written in chunks of {megabytes(chunk)}, each of which must be unpacked at once; write smaller ones"
        )
    return ""


def _attempt(read: Callable[[], list[str]], problems: list[Problem]) -> list[str]:
    try:
        return read()
    except DataError as error:
        problems.extend(error.problems)
        return []
