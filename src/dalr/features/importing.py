"""How are features that somebody else computed imported? From a matrix with one id per row."""

from __future__ import annotations

import json
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from dalr.data.rows import has_surrogate
from dalr.errors import DataError, Problem, Problems, few
from dalr.features.store import block_rows, row_problems, write_store
from dalr.io.lfs import LFS_ADVICE, is_lfs_pointer
from dalr.io.paths import regular
from dalr.io.text import read_lines

_LOOKED_AT = 4096
"""Rows that are looked at even where fewer have names."""
_MAGIC = b"\x93NUMPY"
_T = TypeVar("_T")


def import_matrix(matrix: Path, ids_file: Path, out: Path) -> None:
    """Write a store from an `.npy` matrix (rows, dimension) and a file naming its rows.

    Raises:
        DataError: not a matrix of floating-point numbers, counts that differ (with both numbers), unreadable or
            duplicate ids, bad rows; all that could be found is reported at once.
    """
    ids, rows = check_matrix(matrix, ids_file)
    source = {"kind": "import", "matrix": matrix.name, "ids": ids_file.name}
    write_store(out, ids=ids, blocks=(block for _, block in _blocks(rows)), source=source, origin=str(matrix))


def check_matrix(matrix: Path, ids_file: Path) -> tuple[list[str], np.ndarray]:
    """Ids and memory-mapped rows, after every check; raises as `import_matrix` and writes nothing."""
    problems: list[Problem] = Problems()
    ids: list[str] = _collect(problems, lambda: read_ids(ids_file), [])
    rows: np.ndarray | None = _collect(problems, lambda: open_matrix(matrix), None)
    if rows is not None:
        if ids and len(ids) != len(rows):
            what = f"{len(rows)} rows of features, but {ids_file} names {len(ids)} ids"
            problems.append(Problem(where=str(matrix), what=what))
        named = rows[: max(len(ids), _LOOKED_AT)]  # rows beyond those that have names cannot be used
        for start, block in _blocks(named):
            problems.extend(row_problems(block, first=start + 1, origin=str(matrix)))
    if problems:
        raise DataError(problems)
    assert rows is not None
    return ids, rows


def open_matrix(path: Path) -> np.ndarray:
    """A memory-mapped (rows, dimension) matrix of floats; pickled arrays are refused."""
    try:
        with open(regular(path), "rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                what = LFS_ADVICE if is_lfs_pointer(path) else "not an .npy file"
                raise DataError(Problem(where=str(path), what=what))
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(Problem(where=str(path), what="no such file")) from None
    except (ValueError, OSError, EOFError, SyntaxError, OverflowError, tokenize.TokenError) as error:
        raise DataError(Problem(where=str(path), what=f"not a plain .npy matrix: {error}")) from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or 0 in matrix.shape:
        found = getattr(matrix, "shape", type(matrix).__name__)
        raise DataError(Problem(where=str(path), what=f"expected a matrix (rows, dimension), found {found}"))
    if matrix.dtype.kind != "f":
        raise DataError(Problem(where=str(path), what=f"expected floating-point numbers, found {matrix.dtype}"))
    return matrix


def read_ids(path: Path) -> list[str]:
    """Ids of rows: a `.txt` with one id a line, or a `.jsonl` with `image` on every line."""
    if path.suffix.lower() not in (".txt", ".jsonl"):
        what = "expected a .txt with one id a line, or a .jsonl with 'image'"
        raise DataError(Problem(where=str(path), what=what))
    lines = read_lines(path)
    if path.suffix.lower() != ".jsonl":
        blank = (number for number, line in enumerate(lines, start=1) if not line.strip())
        if empty := few(blank, lambda number: Problem(where=f"{path}:{number}", what="empty id")):
            raise DataError(empty)
        return lines
    ids, problems = [], Problems()
    for number, line in enumerate(lines, start=1):
        try:
            image = json.loads(line)["image"]
        except (ValueError, KeyError, TypeError, RecursionError):
            image = None
        if isinstance(image, str) and image and not has_surrogate(image):
            ids.append(image)
        else:
            problems.append(Problem(where=f"{path}:{number}", what="expected a JSON object with a string 'image'"))
    if problems:
        raise DataError(problems)
    return ids


def _blocks(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first row, rows) in pieces of few megabytes."""
    size = block_rows(rows.shape[1], rows.dtype)
    for start in range(0, len(rows), size):
        yield start, np.asarray(rows[start : start + size])


def _collect(problems: list[Problem], read: Callable[[], _T], otherwise: _T) -> _T:
    """What `read` gives, or `otherwise` with its problems noted."""
    try:
        return read()
    except DataError as error:
        problems.extend(error.problems)
        return otherwise
