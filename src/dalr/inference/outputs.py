"""Where vectors go: an `.npy` matrix, a Parquet table (id, vector), or a sealed feature store.

Each is put together from finished parts, a part in memory at a time, and gets its name in one rename. Beside a
matrix or a table lies `OUT.json`, which says how the vectors were made; a store says it itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dalr.errors import ConfigError, Problem, install
from dalr.features.store import write_store
from dalr.inference.precision import DTYPES, Precision
from dalr.inference.work import Kept
from dalr.io.atomic import write_json, write_with
from dalr.io.sealed import file_sha256

Kind = Literal["npy", "parquet", "store"]
_KINDS: Mapping[str, Kind] = {".npy": "npy", ".parquet": "parquet", "": "store"}


@dataclass
class Totals:
    """What went through on the way."""

    rows: int = 0
    cut: int = 0
    blank: int = 0
    sha256: str = ""
    """Of the content keys of all parts of the input."""


def kind_of(out: Path, precision: Precision) -> Kind:
    """What an output's name says it is.

    Raises:
        ConfigError: no kind of output, or one that cannot hold this precision.
    """
    kind = _KINDS.get(out.suffix.lower())
    if kind is None:
        what = f"expected a name that ends in .npy or .parquet, or a folder's (a feature store), found {out.name!r}"
        raise ConfigError(Problem(where="--out", what=what))
    if kind == "store" and precision in ("int8", "binary"):
        what = f"a feature store holds fp16 vectors, not {precision}; name an .npy or .parquet file"
        raise ConfigError(Problem(where="--out", what=what))
    if kind == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            what = f"Parquet is written by pyarrow, which is not installed; {install('formats')}"
            raise ConfigError(Problem(where="--out", what=what)) from None
    return kind


def sidecar(out: Path) -> Path:
    """The file that says how a matrix or a table was made."""
    return out.with_name(f"{out.name}.json")


def write_output(
    out: Path,
    kind: Kind,
    parts: Callable[[], Iterable[Kept]],
    *,
    rows: int,
    dim: int,
    making: Mapping[str, Any],
) -> Totals:
    """Put the parts together under the name `out`; `dim` is the length of a row as it is stored."""
    totals = Totals()
    dtype = np.dtype(DTYPES[making["precision"]])

    def counted() -> Iterator[Kept]:
        digest = hashlib.sha256()
        for part in parts():
            digest.update(part.input_sha256.encode())
            totals.rows += len(part.ids)
            totals.cut += part.cut
            totals.blank += part.blank
            yield part
        totals.sha256 = digest.hexdigest()

    if kind == "npy":
        write_with(out, lambda path: _write_matrix(path, counted(), rows, dim, dtype))
    elif kind == "parquet":
        write_with(out, lambda path: _write_table(path, counted(), dim, dtype))
    else:
        _write_store(out, parts, counted, making)
    if kind != "store":
        stated: dict[str, Any] = {
            "rows": totals.rows,
            "dim": dim,
            "cut_rows": totals.cut,
            "blank_rows": totals.blank,
        }
        stated |= {"input_sha256": totals.sha256, "file_sha256": file_sha256(out)}
        write_json(sidecar(out), {"format": "dalr-vectors", "version": 1, **making, **stated})
    return totals


def _write_matrix(path: Path, parts: Iterable[Kept], rows: int, dim: int, dtype: np.dtype[Any]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, dim)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part.vectors, dtype).tobytes())


def _write_table(path: Path, parts: Iterable[Kept], dim: int, dtype: np.dtype[Any]) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    number = pyarrow.from_numpy_dtype(dtype)
    kind = pyarrow.list_(number, dim)
    schema = pyarrow.schema([("id", pyarrow.string()), ("vector", kind)])
    with parquet.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for part in parts:
            flat = pyarrow.array(np.ascontiguousarray(part.vectors, dtype).reshape(-1), type=number)
            vectors = pyarrow.FixedSizeListArray.from_arrays(flat, type=kind)
            ids = pyarrow.array(part.ids, type=pyarrow.string())
            writer.write_table(pyarrow.Table.from_arrays([ids, vectors], schema=schema))


def _write_store(
    out: Path,
    parts: Callable[[], Iterable[Kept]],
    counted: Callable[[], Iterator[Kept]],
    making: Mapping[str, Any],
) -> None:
    """A store reads all of its ids when it is opened, so they are held here too."""
    ids = [name for part in parts() for name in part.ids]
    model = making["model"]
    source = {"kind": "text" if model.get("tower") != "image" else "images", **model, **making}
    source.pop("model")
    write_store(
        out,
        ids=ids,
        blocks=(part.vectors for part in counted()),
        source=source | {"model": model.get("model")},
        origin=f"vectors of {model.get('model')}",
    )
