"""The rows of an input, one after the other: lines, a column of a table, the files of a folder.

Nothing here holds more than a few thousand rows, so that memory does not grow with the input. A row's id is its
place (from 1) unless a column names it; a sentence stays a sentence whatever it looks like.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from dalr.data.formats.arrow import parquet_batches, stated_columns
from dalr.data.rows import has_surrogate
from dalr.errors import ConfigError, DataError, Problem, did_you_mean, install, shown
from dalr.io.paths import entries, is_dir, is_file, regular, size_of
from dalr.io.proportion import megabytes, room
from dalr.io.text import ending, open_data

InputFormat = Literal["lines", "jsonl", "csv", "tsv", "parquet", "images"]
STDIN = "-"
PART_ROWS = 8_192
"""Rows that are encoded and kept together."""
_PART_CHARACTERS = 16 << 20
_LONGEST_LINE = 64 << 20
_PIECE = 1 << 20
_BOM = b"\xef\xbb\xbf"
_ENDINGS: Mapping[str, InputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


class Row(NamedTuple):
    """One row of the input."""

    id: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is read, and which of its columns are meant."""

    path: str
    """A file, a folder of images, or `-` for standard input."""
    format: InputFormat | None = None
    """None tells it by the name."""
    column: str = "text"
    id_column: str | None = None

    @property
    def kind(self) -> InputFormat:
        """The format, told by the name where none is stated.

        Raises:
            ConfigError: not one of the formats.
        """
        if self.format is not None and self.format not in get_args(InputFormat):
            what = f"expected one of {', '.join(get_args(InputFormat))}, found {self.format!r}"
            raise ConfigError(Problem(where="--format", what=what))
        if self.format is not None:
            return self.format
        if self.path != STDIN and is_dir(Path(self.path)):
            return "images"
        return _ENDINGS.get(ending(Path(self.path)), "lines")

    def rows(self) -> Iterator[Row]:
        """Every row, in order.

        Raises:
            DataError: the input cannot be read, or a row is not what it should be, with its place.
        """
        kind = self.kind
        if self.id_column is not None and kind in ("lines", "images"):
            raise ConfigError(Problem(where="--id-column", what=f"{kind} have no columns; leave it out"))
        if kind in ("parquet", "images") and self.path == STDIN:
            raise ConfigError(Problem(where="INPUT", what=f"{kind} are not read from standard input; name a path"))
        return _READERS[kind](self)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows that are encoded and kept together; which they are depends on the input alone."""

    number: int
    ids: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Content key of its rows."""
        digest = hashlib.sha256()
        for text in (*self.ids, *self.texts):
            encoded = text.encode("utf-8")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.hexdigest()


def parts(rows: Iterator[Row], *, size: int = PART_ROWS) -> Iterator[Part]:
    """The rows in parts of `size`, fewer where they are long."""
    number, held, characters = 0, list[Row](), 0
    for row in rows:
        length = len(row.id) + len(row.text)
        if held and (len(held) == size or characters + length > _PART_CHARACTERS):
            yield _part(number, held)
            number, held, characters = number + 1, [], 0
        held.append(row)
        characters += length
    if held:
        yield _part(number, held)


def _part(number: int, rows: list[Row]) -> Part:
    return Part(number=number, ids=tuple(row.id for row in rows), texts=tuple(row.text for row in rows))


def _raw_lines(read: Callable[[int], bytes], where: str) -> Iterator[bytes]:
    held: list[bytes] = []
    length = 0
    while piece := read(_PIECE):
        first, *others = piece.split(b"\n")
        held.append(first)
        length += len(first)
        if length > _LONGEST_LINE:
            what = f"a line of more than {_LONGEST_LINE >> 20} MiB; expected one sentence per line"
            raise DataError(Problem(where=where, what=what))
        for other in others:
            yield b"".join(held)
            held, length = [other], len(other)
    if length:
        yield b"".join(held)


def _lines(source: Source) -> Iterator[tuple[str, str]]:
    r"""(place, line), ended by \n or \r\n, in strict UTF-8."""
    if source.path == STDIN:
        yield from _decoded(sys.stdin.buffer.read, "standard input")
        return
    with open_data(Path(source.path)) as file:
        yield from _decoded(file.read, source.path)


def _decoded(read: Callable[[int], bytes], name: str) -> Iterator[tuple[str, str]]:
    for number, raw in enumerate(_raw_lines(read, name), start=1):
        line = raw.removesuffix(b"\r")
        if number == 1:
            line = line.removeprefix(_BOM)
        where = f"{name}:{number}"
        try:
            yield where, line.decode("utf-8")
        except UnicodeDecodeError as error:
            what = f"byte {error.start + 1} is 0x{line[error.start]:02x}, not UTF-8; convert the file with iconv"
            raise DataError(Problem(where=where, what=what)) from None


def _plain(source: Source) -> Iterator[Row]:
    for number, (_, line) in enumerate(_lines(source), start=1):
        yield Row(str(number), line)


def _jsonl(source: Source) -> Iterator[Row]:
    number = 0
    for where, line in _lines(source):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(Problem(where=where, what=f"not JSON: {error!s:.200}")) from None
        if not isinstance(record, dict):
            raise DataError(Problem(where=where, what=f"expected a JSON object, found {shown(record)}"))
        number += 1
        yield _row(source, record, number, where)


def _table(source: Source) -> Iterator[Row]:
    """CSV with quotes as RFC 4180 has them; TSV without quotes."""
    tabs = source.kind == "tsv"
    name = "standard input" if source.path == STDIN else source.path
    lines = (f"{line}\n" for _, line in _lines(source))
    reader = csv.reader(
        lines, strict=True, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    )
    header: list[str] | None = None
    number = 0
    while True:
        where = f"{name}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(Problem(where=where, what=f"not valid {'TSV' if tabs else 'CSV'}: {error}")) from None
        if header is None:
            header = cells
            _require_columns(source, header, where)
        elif cells:
            if len(cells) != len(header):
                what = f"expected {len(header)} columns, found {len(cells)}"
                raise DataError(Problem(where=where, what=what))
            number += 1
            yield _row(source, dict(zip(header, cells, strict=True)), number, where)


def _parquet(source: Source) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        what = f"Parquet is read by pyarrow, which is not installed; {install('formats')}"
        raise ConfigError(Problem(where=source.path, what=what)) from None
    try:
        path = regular(Path(source.path))
        with parquet.ParquetFile(path) as file:
            _require_columns(source, file.schema_arrow.names, source.path)
            wanted = [source.column, *([source.id_column] if source.id_column is not None else [])]
            chosen = list(dict.fromkeys(wanted))
            stated = list(stated_columns(file.metadata, chosen))
            _require_proportion(source, file.metadata, chosen)
        number = 0
        for batch in parquet_batches(path, chosen, stated):
            names = batch.schema.names
            for cells in zip(*batch.columns, strict=True):  # one at a time: many rows may share a long value
                number += 1
                record = {name: cell.as_py() for name, cell in zip(names, cells, strict=True)}
                yield _row(source, record, number, f"{source.path}: row {number}")
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(Problem(where=source.path, what=f"cannot be read as Parquet: {error!s:.200}")) from None


def _require_proportion(source: Source, metadata: Any, chosen: list[str]) -> None:
    """A row group is unpacked at once, and may not be far larger than its file could hold.

    Raises:
        DataError: with the first that is.
    """
    stored = size_of(Path(source.path))
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = (group.column(index) for index in range(group.num_columns))
        size = sum(
            column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] in chosen
        )
        if size > room(stored):
            what = (
                f"row group {number + 1} is {megabytes(size)} once unpacked, far too large for a file of "
                f"{megabytes(stored)}: nearly all of it repeats; write it again, in smaller row groups"
            )
            raise DataError(Problem(where=source.path, what=what))


def _images(source: Source) -> Iterator[Row]:
    """The image files of a folder and those below it; id and text are the path below the folder."""
    root = Path(source.path)
    if not is_dir(root):
        raise DataError(Problem(where=source.path, what="expected the folder that holds the images"))
    yield from (Row(name, name) for name in _below(root, root))


def _below(root: Path, folder: Path) -> Iterator[str]:
    for path in entries(folder):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in _IMAGES and is_file(path):
            yield path.relative_to(root).as_posix()
        elif is_dir(path) and not _is_link(path):
            yield from _below(root, path)


def _is_link(path: Path) -> bool:
    """Whether a folder is a link: it may lead back to where it lies, so it is not followed."""
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return True


def _require_columns(source: Source, found: list[str], where: str) -> None:
    options = {"--column": source.column, "--id-column": source.id_column}
    problems = []
    for option, name in options.items():
        if name is not None and name not in found:
            listed = ", ".join(each[:60] for each in found[:20]) or "none"
            what = (
                f"no column {name!r}; {did_you_mean(name, found)}found {listed}; {option} NAME says which is meant"
            )
            problems.append(Problem(where=where, what=what))
    if problems:
        raise DataError(problems)


def _row(source: Source, record: Mapping[str, Any], number: int, where: str) -> Row:
    _require_columns(source, list(record), where)
    text = record[source.column]
    if isinstance(text, str) and len(text) > _LONGEST_LINE:
        what = f"a sentence of more than {_LONGEST_LINE >> 20} MiB under {source.column!r}; expected one per row"
        raise DataError(Problem(where=where, what=what))
    if not isinstance(text, str) or has_surrogate(text):
        what = f"expected a sentence under {source.column!r}, found {shown(text)}"
        raise DataError(Problem(where=where, what=what))
    if source.id_column is None:
        return Row(str(number), text)
    name = record[source.id_column]
    if isinstance(name, bool) or not isinstance(name, str | int) or has_surrogate(str(name)):
        what = f"expected a string or a whole number under {source.id_column!r}, found {shown(name)}"
        raise DataError(Problem(where=where, what=what))
    return Row(str(name), text)


_READERS: Mapping[InputFormat, Callable[[Source], Iterator[Row]]] = {
    "lines": _plain,
    "jsonl": _jsonl,
    "csv": _table,
    "tsv": _table,
    "parquet": _parquet,
    "images": _images,
}
