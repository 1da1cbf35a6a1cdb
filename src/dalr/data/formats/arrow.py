"""Tables in Arrow: Parquet files and Hugging Face data sets, read batch by batch and without their pictures.

Only the columns that are asked for are read: a data set with the pictures inside costs no more than its captions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.data.formats.collecting import Collector, Source
from dalr.errors import DataError, Problem
from dalr.io.paths import is_file, regular, require_regular_below, resolve

if TYPE_CHECKING:
    import pyarrow

HUB = "hf:"
"""What a Hugging Face data set is named by: `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`."""
_BATCH = 10_000
_INSTALL = "pip install 'dalr[formats]'"


def read_parquet(source: Source, into: Collector) -> None:
    """Columns `image` and `caption` or `captions` (a list); `split` if there is one."""
    where = str(source.path)
    with _as_problems(where, "Parquet"):
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(regular(source.path)) as file:
            chosen = _columns(file.schema_arrow, source, into, where)
            if chosen is not None:
                _rows(file.iter_batches(_BATCH, columns=chosen), into, where)


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
        for split, table in _splits(source.path):
            place = f"{where}[{split}]" if split is not None else where
            chosen = _columns(table.features.arrow_schema, source, into, place)
            if chosen is not None:
                batches = table.select_columns(chosen).with_format("arrow").iter(_BATCH)
                _rows((batch for part in batches for batch in part.to_batches()), into, place, split)


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
                Problem(where=str(folder), what=f"{name!r:.80} is not the name of a file in this folder")
            )
        if not resolve(folder / name).is_relative_to(resolve(folder)):
            raise DataError(Problem(where=str(folder), what=f"{name!r:.80} leads out of this folder"))


def _columns(schema: pyarrow.Schema, source: Source, into: Collector, where: str) -> list[str] | None:
    """The columns to read, or None after saying what is wrong with them."""
    wanted, names = source.columns, schema.names
    captions = [wanted.caption] if wanted.caption is not None else ["caption", "captions"]
    present = [name for name in captions if name in names]
    if wanted.image not in names or len(present) != 1:
        expected = " or ".join(captions)
        into.problem(
            where,
            f"expected the columns {wanted.image} and {expected}, found {', '.join(names)[:200] or 'none'}; "
            "data.columns names others",
        )
        return None
    chosen = [wanted.image, present[0], *([wanted.split] if wanted.split in names else [])]
    kind = schema.field(wanted.image).type
    if not _is_string(kind):
        what = f"expected strings that name the images, found {kind!s:.60}; data.columns names another column"
        into.problem(f"{where}: column {wanted.image}", what)
        return None
    return chosen


def _is_string(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _rows(batches: Iterable[pyarrow.RecordBatch], into: Collector, where: str, split: str | None = None) -> None:
    number = 0
    for batch in batches:
        for record in batch.to_pylist():
            number += 1
            into.record(record, f"{where}: row {number}", split)


@contextmanager
def _as_problems(where: str, kind: str) -> Iterator[None]:
    """What these libraries raise, in our words."""
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        what = f"reading {kind} needs the package {error.name}: {_INSTALL}"
        raise DataError(Problem(where=where, what=what)) from None
    except FileNotFoundError as error:
        what = "no such file" if where in str(error) else f"not whole: {error}"
        raise DataError(Problem(where=where, what=what)) from None
    except Exception as error:  # noqa: BLE001 - pyarrow, fsspec and the hub client raise two dozen kinds
        what = f"cannot be read as {kind} ({type(error).__name__}): {str(error).splitlines()[:1]!s:.200}"
        raise DataError(Problem(where=where, what=what)) from None
