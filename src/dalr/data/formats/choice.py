"""Which format has a pairs file? Its name gives the family, its content the member; the reader checks it.

A name alone cannot tell Flickr30k's results.csv from an ordinary table, nor Karpathy's JSON from COCO's, and
content alone would turn a typo in the first line into another format. `data.format` in a recipe overrules both.
A new format is one function that reads and one line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from dalr.data.formats import arrow, lines, shards, tables, trees
from dalr.data.formats.collecting import Collector, Columns, Source
from dalr.data.rows import CaptionedImages
from dalr.errors import DataError, Problem, Problems
from dalr.io.shards import ENDING
from dalr.io.text import ending

FOLDER = "a folder"


class Format(NamedTuple):
    """One shape of pairs."""

    read: Callable[[Source, Collector], None]
    matches: Callable[[Source], bool]
    """Whether a file looks like it; may raise DataError."""
    endings: tuple[str, ...]
    shape: str
    """What it looks like, for messages."""


_COLUMNS = Columns()
_JSON, _TEXT = (".json",), (".txt", ".token", "")
FORMATS: Mapping[str, Format] = {
    "jsonl": Format(
        lines.read_jsonl,
        lines.is_jsonl,
        (".jsonl", ".ndjson", ".json"),
        "lines {image, captions}, or a list of them",
    ),
    "karpathy": Format(trees.read_karpathy, trees.is_karpathy, _JSON, "{images: [{filename, split, sentences}]}"),
    "coco": Format(trees.read_coco, trees.is_coco, _JSON, "{images: [{id, file_name}], annotations}"),
    "flickr-token": Format(
        lines.read_flickr_token, lines.is_flickr_token, (".tsv", *_TEXT), "lines name#k<TAB>caption"
    ),
    "flickr-csv": Format(
        tables.read_flickr_csv, tables.is_flickr_csv, (".csv", *_TEXT), "header image_name| comment_number| comment"
    ),
    "tsv": Format(tables.read_tsv, tables.is_tsv, (".tsv", *_TEXT), "header image<TAB>caption"),
    "csv": Format(tables.read_csv, tables.is_csv, (".csv", *_TEXT), "header image,caption"),
    "parquet": Format(arrow.read_parquet, arrow.is_parquet, (".parquet",), "columns image, caption or captions"),
    "datasets": Format(
        arrow.read_datasets, arrow.is_datasets, (FOLDER,), "a folder of save_to_disk, or hf:OWNER/NAME"
    ),
    "webdataset": Format(
        shards.read_webdataset,
        shards.is_webdataset,
        (ENDING,),
        "tar shards of KEY.jpg with KEY.txt or KEY.json, {000..099} for several",
    ),
}


def read_pairs_file(
    path: Path, problems: list[Problem], *, format: str | None = None, columns: Columns = _COLUMNS
) -> CaptionedImages:
    """The images of `path` with their captions, in file order; what is wrong is appended to `problems`.

    Args:
        path: a file, a folder that `datasets` saved, or `hf:OWNER/NAME`.
        problems: gets every malformed row of the file, not only the first.
        format: one of `FORMATS`; None recognises it by name and content.
        columns: what the columns of tables and the keys of JSON lines are called.
    """
    wrong = Problems()
    into = Collector(wrong, columns)
    source = Source(path, columns)
    try:
        reader = FORMATS[format] if format is not None else _choose(source)
        reader.read(source, into)
        return into.found()
    except DataError as error:
        wrong.extend(error.problems)
        return Collector([], columns).found()
    finally:
        problems.extend(wrong)


def holds_pairs(path: Path) -> bool:
    """Whether a file is one of `FORMATS`; text that looks like none of them is plain text.

    Raises:
        DataError: it cannot be read.
    """
    source, kind = Source(path, _COLUMNS), ending(path)
    candidates = [format for format in FORMATS.values() if kind in format.endings]
    return any(format.matches(source) for format in candidates) if kind in _TEXT else bool(candidates)


def _choose(source: Source) -> Format:
    """The format of a file by its ending, and by its content where the ending leaves a choice."""
    path = source.path
    kind = FOLDER if arrow.is_hub(path) or _is_folder(path) else ending(path)
    candidates = {name: format for name, format in FORMATS.items() if kind in format.endings}
    named_after = candidates.get(kind.removeprefix("."))
    if len(candidates) == 1 and kind != FOLDER:
        return next(iter(candidates.values()))
    for format in candidates.values():
        if format.matches(source):
            return format
    if named_after is not None:
        return named_after  # says what its kind of file needs
    if candidates:
        shapes = "; ".join(f"{name}: {format.shape}" for name, format in candidates.items())
        found = "" if kind == FOLDER else f", found {source.first_line!r:.80}"
        what = f"none of the known shapes ({shapes}){found}; set data.format"
        raise DataError(Problem(where=str(path), what=what))
    known = ", ".join(f"{name} ({' '.join(filter(None, format.endings))})" for name, format in FORMATS.items())
    what = f"unknown kind of pairs file; expected one of {known}; set data.format"
    raise DataError(Problem(where=str(path), what=what))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
