"""Where do vectors wait while a stream is read? On disk, until all ids of the store are known.

Everything is checked record by record on the way, so that one pass over a file of gigabytes finds every problem.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float32

from dalr.data.rows import caption_id, has_surrogate
from dalr.errors import Problem, shown
from dalr.features.store import row_problems

_BLOCK_ROWS = 4096


class Spool:
    """What was read of a JSON file, on disk: image vectors, caption vectors, lines of pairs."""

    def __init__(self, folder: Path) -> None:
        self.pairs: IO[bytes] = open(folder / "pairs", "w+b")  # noqa: SIM115 - closed by __exit__
        self.image = Vectors(open(folder / "image", "w+b"))  # noqa: SIM115
        self.caption = Vectors(open(folder / "caption", "w+b"))  # noqa: SIM115
        self.seen: set[str] = set()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self.pairs, self.image.file, self.caption.file):
            file.close()

    def copy_pairs(self, path: Path) -> None:
        """Write the lines of pairs to `path`."""
        self.pairs.seek(0)
        with open(path, "wb") as target:
            shutil.copyfileobj(self.pairs, target)

    def add(self, key: str, record: object, where: str, problems: list[Problem]) -> None:
        """Check one image and keep it."""
        if not isinstance(record, dict):
            problems.append(Problem(where=where, what=f"expected an object, found {shown(record)}"))
            return
        image, captions = record.get("image", key), record.get("captions")
        if not isinstance(image, str) or not image.strip() or has_surrogate(image):
            problems.append(Problem(where=where, what=f"expected a string under 'image', found {shown(image)}"))
        elif image in self.seen:
            problems.append(Problem(where=where, what=f"image {shown(image)} occurs a second time"))
        elif not isinstance(captions, list) or not captions or not all(isinstance(text, str) for text in captions):
            what = f"expected a list of strings under 'captions', found {shown(captions)}"
            problems.append(Problem(where=where, what=what))
        elif any(has_surrogate(text) for text in captions):
            problems.append(Problem(where=where, what="a caption holds half a character (a lone surrogate)"))
        else:
            self.seen.add(image)
            self.image.add([image], [record.get("image_feat")], f"{where}: image_feat", problems)
            ids = [caption_id(image, index) for index in range(len(captions))]
            self.caption.add(ids, record.get("lang_feat"), f"{where}: lang_feat", problems)
            self.pairs.write(pairs_line(image, captions).encode("utf-8"))


class Vectors:
    """Rows of one dimension that wait in a file until all of them were seen."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.ids: list[str] = []
        self.dim = 0

    def add(self, ids: list[str], value: object, where: str, problems: list[Problem]) -> None:
        """One row per id, if `value` holds that many vectors of the dimension of those before."""
        rows = as_rows(value)
        if rows is None or len(rows) != len(ids):
            found = "something else" if rows is None else f"{len(rows)}"
            problems.append(Problem(where=where, what=f"expected {len(ids)} vectors of numbers, found {found}"))
            return
        self.dim = self.dim or rows.shape[1]
        if rows.shape[1] != self.dim:
            what = f"of dimension {rows.shape[1]}, but the vectors before are of dimension {self.dim}"
            problems.append(Problem(where=where, what=what))
            return
        problems.extend(row_problems(rows, first=1, origin=where))
        self.ids += ids
        self.file.write(rows.tobytes())

    def blocks(self) -> Iterator[Float32[np.ndarray, "_ dim"]]:
        self.file.seek(0)
        size = 4 * self.dim * _BLOCK_ROWS
        while data := self.file.read(size):
            yield np.frombuffer(data, np.float32).reshape(-1, self.dim)


def as_rows(value: object) -> Float32[np.ndarray, "_ dim"] | None:
    """A list of vectors of numbers as a matrix, or None if it is none."""
    if not isinstance(value, list) or not value or not isinstance(value[0], list) or not value[0]:
        return None
    dim = len(value[0])
    for row in value:  # looked at first: NumPy would give every item the size of the longest text among them
        if not isinstance(row, list) or len(row) != dim or not all(type(item) in (float, int) for item in row):
            return None
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, np.float64).astype(np.float32)
    except OverflowError:  # a whole number beyond any float
        return None


def pairs_line(image: str, captions: list[str]) -> str:
    return json.dumps({"image": image, "captions": captions}, ensure_ascii=False) + "\n"
