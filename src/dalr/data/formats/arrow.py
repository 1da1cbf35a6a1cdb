"""How are Parquet files and Hugging Face data sets read? Batch by batch and without their images.

Only the columns that are asked for are read: a data set with the images inside costs no more than its captions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.data.formats.collecting import Collector, Source, naming
from dalr.errors import DataError, Problem, install, shown
from dalr.io.lfs import LFS_ADVICE, is_lfs_pointer
from dalr.io.paths import is_file, regular, require_regular_below, resolve, size_of
from dalr.io.proportion import megabytes, room

if TYPE_CHECKING:
    import pyarrow

HUB = "hf:"
"""What a Hugging Face data set is named by: `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`."""
_BATCH, _BATCH_OF_LISTS = 10_000, 500
_SHORTENED, _SHORTENED_BYTES = "DELTA_BYTE_ARRAY", 64 << 20
"""An encoding that stores what a value has in common with the one before as a number."""
_ROW_BYTES = 100
"""Memory of a cell, besides its text."""
_INSTALL = install("formats")


def read_parquet(source: Source, into: Collector) -> None:
    """Columns `image` and `caption` or `captions` (a list); `split` if there is one."""
    where = str(source.path)
    with _as_problems(where, "Parquet"):
        import pyarrow.parquet as parquet

        if is_lfs_pointer(source.path):
            raise DataError(Problem(where=where, what=LFS_ADVICE))
        with parquet.ParquetFile(regular(source.path)) as file:
            chosen = _columns(file.schema_arrow, source, into, where)
            if chosen is None:
                return
            growth = _Growth(where, size_of(source.path))
            stated = list(stated_columns(file.metadata, chosen))
            growth.require(sum(column.total_uncompressed_size for column in stated), _values(stated))
        _rows(parquet_batches(source.path, chosen, stated), into, where, growth)


def parquet_batches(path: Path, chosen: list[str], stated: list[Any]) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a Parquet file, few at a time; values that many rows share are unpacked once where possible."""
    from pyarrow import ArrowNotImplementedError
    from pyarrow.parquet import ParquetFile

    shortened = [column for column in stated if _SHORTENED in column.encodings]
    names = {column.path_in_schema for column in stated}
    plain = sorted((names & set(chosen)) - {column.path_in_schema for column in shortened})
    rows = _BATCH if names == set(chosen) else _BATCH_OF_LISTS
    if shortened:  # a value may be as long as all that is stored
        rows = min(rows, max(_SHORTENED_BYTES // max(each.total_uncompressed_size for each in shortened), 1))
    shared = sorted(names - {column.path_in_schema for column in shortened})
    with ParquetFile(path, read_dictionary=shared) as file, ParquetFile(path, read_dictionary=plain) as unpacked:
        for group in range(file.num_row_groups):
            read = 0
            try:
                for batch in file.iter_batches(rows, row_groups=[group], columns=chosen):
                    yield batch
                    read += len(batch)
            except ArrowNotImplementedError:  # lists, a part of whose values are in no dictionary
                for batch in unpacked.iter_batches(rows, row_groups=[group], columns=chosen):
                    if len(batch) > read:
                        yield batch.slice(read)
                    read = max(read - len(batch), 0)


def is_parquet(source: Source) -> bool:
    try:
        with open(regular(source.path), "rb") as file:
            return file.read(4) == b"PAR1"
    except (OSError, ValueError):
        return False


def read_datasets(source: Source, into: Collector) -> None:
    """A folder that `save_to_disk` wrote, or `hf:OWNER/NAME`; columns as in Parquet.

    The splits of a data set count as its rows' split, unless the rows name one themselves.
    """
    where = str(source.path)
    with _as_problems(where, "a data set"):
        growth = _Growth(where, None if is_hub(source.path) else _size_below(source.path))
        for split, table in _splits(source.path):
            place = f"{where}[{split}]" if split is not None else where
            chosen = _columns(table.features.arrow_schema, source, into, place)
            if chosen is not None:
                growth.require(0, len(table))
                batches = table.select_columns(chosen).with_format("arrow").iter(_BATCH)
                _rows((batch for part in batches for batch in part.to_batches()), into, place, growth, split)


def is_datasets(source: Source) -> bool:
    saved = (source.path / "dataset_dict.json", source.path / "state.json")
    return is_hub(source.path) or any(is_file(path) for path in saved)


def is_hub(path: Path) -> bool:
    return str(path).startswith(HUB)


def _splits(path: Path) -> Iterator[tuple[str | None, Any]]:
    from datasets import DatasetDict, disable_progress_bars, load_dataset, load_from_disk

    disable_progress_bars()
    if is_hub(path):
        name, _, revision = str(path).removeprefix(HUB).partition("@")
        loaded = load_dataset(name, revision=revision or None)
    else:
        _refuse_foreign_names(path)
        require_regular_below(path)
        loaded = load_from_disk(str(path))
    if isinstance(loaded, DatasetDict):
        yield from loaded.items()
    else:
        yield None, loaded


def _refuse_foreign_names(folder: Path) -> None:
    """The files that a saved data set names must be its own: names from data never become paths elsewhere."""
    for path in sorted(folder.rglob("*")):
        if is_lfs_pointer(path):
            raise DataError(Problem(where=str(path), what=LFS_ADVICE))
    folders = [folder]
    if is_file(folder / "dataset_dict.json"):
        splits = json.loads(regular(folder / "dataset_dict.json").read_bytes())["splits"]
        _require_plain(folder, splits)
        folders = [folder / split for split in splits]
    for each in folders:
        files = json.loads(regular(each / "state.json").read_bytes())["_data_files"]
        _require_plain(each, [file["filename"] for file in files])


def _require_plain(folder: Path, names: list[object]) -> None:
    for name in names:
        if not isinstance(name, str) or name in ("", "..") or Path(name).name != name or "\\" in name:
            raise DataError(
                Problem(where=str(folder), what=f"{shown(name)} is not the name of a file in this folder")
            )
        if not resolve(folder / name).is_relative_to(resolve(folder)):
            raise DataError(Problem(where=str(folder), what=f"{shown(name)} leads out of this folder"))


def _columns(schema: pyarrow.Schema, source: Source, into: Collector, where: str) -> list[str] | None:
    """The columns to read, or None after saying what is wrong with them."""
    wanted, names = source.columns, schema.names
    captions = [wanted.caption] if wanted.caption is not None else ["caption", "captions"]
    present = [name for name in captions if name in names]
    if wanted.image not in names or len(present) != 1:
        expected = " or ".join(captions)
        into.problem(
            where,
            f"expected the columns {wanted.image} and {expected}, {naming(names, wanted, values=_kinds(schema))}",
        )
        return None
    chosen = [wanted.image, present[0], *([wanted.split] if wanted.split in names else [])]
    usable = True
    kinds = _kinds(schema)
    for name in chosen:
        kind = schema.field(name).type
        usual = {wanted.image: "strings that name the images", present[0]: "strings, or lists of strings"}
        if not (_is_string(kind) or (name == present[0] and _holds_strings(kind))):
            others = {each: kinds[each] for each in names if each != name}
            told = naming(others, wanted, values=kinds, which="others are")
            what = f"expected {usual.get(name, 'strings')}, found {kind!s:.60}; {told}"
            into.problem(f"{where}: column {name}", what)
            usable = False
    return chosen if usable else None


def _kinds(schema: pyarrow.Schema) -> dict[str, object]:
    """Of each column, a value that stands for its type: a string, a list of strings, or neither."""
    types = {field.name: field.type for field in schema}
    return {
        name: "" if _is_string(kind) else [""] if _holds_strings(kind) else None for name, kind in types.items()
    }


def _is_string(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _holds_strings(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    listed = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    return any(is_list(kind) for is_list in listed) and _is_string(kind.value_type)


def _rows(
    batches: Iterable[pyarrow.RecordBatch],
    into: Collector,
    where: str,
    growth: _Growth,
    split: str | None = None,
) -> None:
    number = 0
    for batch in batches:
        names = batch.schema.names
        for cells in zip(*batch.columns, strict=True):
            number += 1
            record = {name: growth.value(cell) for name, cell in zip(names, cells, strict=True)}
            into.record(record, f"{where}: row {number}", split)


class _Growth:
    """Counts what comes out of a file, and stops where that is out of all proportion to what is in it.

    Dictionaries and runs make a million equal rows of a few bytes; rows that people wrote hardly shrink.
    """

    def __init__(self, where: str, stored: int | None) -> None:
        """`stored` are the bytes of the file; None knows no bound."""
        self._where, self._stored, self._taken = where, stored, 0

    def require(self, text: int, rows: int) -> None:
        """Take room for so many bytes of text in so many rows, before any is read.

        Raises:
            DataError: too many for the file.
        """
        if self._stored is not None and text + rows * _ROW_BYTES > room(self._stored):
            self._refuse(f"{rows} rows, {megabytes(text + rows * _ROW_BYTES)} in memory,")

    def value(self, cell: pyarrow.Scalar) -> object:
        """A cell as a plain value; raises as `require`."""
        listed = getattr(cell, "values", None)
        self._taken += _ROW_BYTES * (1 if listed is None else 1 + len(listed))
        self._check()
        found = cell.as_py() if listed is None else _items(listed)
        for text in found if isinstance(found, list) else (found,):
            self._taken += len(text) if isinstance(text, str) else 0
        self._check()
        return found

    def _check(self) -> None:
        if self._stored is not None and self._taken > room(self._stored):
            self._refuse("its rows")

    def _refuse(self, what: str) -> None:
        assert self._stored is not None
        told = f"{what} are far too large for a file of {megabytes(self._stored)}: nearly all of it repeats"
        raise DataError(Problem(where=self._where, what=told))


def _items(listed: pyarrow.Array) -> list[object]:
    """The items of a list; those that are one value of a dictionary are one object."""
    from pyarrow import types

    if not types.is_dictionary(listed.type):
        found: list[object] = listed.to_pylist()
        return found
    numbers = listed.indices.to_pylist()
    values = {number: listed.dictionary[number].as_py() for number in {*numbers} - {None}}
    return [values.get(number) for number in numbers]


def stated_columns(metadata: Any, chosen: list[str]) -> Iterator[Any]:
    """What a Parquet file states of each part of the chosen columns: bytes before compression, number of values."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema.split(".")[0] in chosen:
                yield column


def _values(stated: list[Any]) -> int:
    """Values of the longest column; a list counts with its items."""
    counts: Counter[str] = Counter()
    for column in stated:
        counts[column.path_in_schema] += column.num_values
    return max(counts.values(), default=0)


def _size_below(folder: Path) -> int:
    return sum(size_of(path) for path in folder.rglob("*"))


@contextmanager
def _as_problems(where: str, kind: str) -> Iterator[None]:
    """What these libraries raise, in our words."""
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        what = f"reading {kind} needs the package {error.name}; {_INSTALL}"
        raise DataError(Problem(where=where, what=what)) from None
    except FileNotFoundError as error:
        what = "no such file" if where in str(error) else f"damaged: {error}"
        raise DataError(Problem(where=where, what=what)) from None
    except Exception as error:  # noqa: BLE001 - pyarrow, fsspec and the hub client raise two dozen kinds
        what = f"cannot be read as {kind} ({type(error).__name__}): {str(error).splitlines()[:1]!s:.200}"
        raise DataError(Problem(where=where, what=what)) from None
