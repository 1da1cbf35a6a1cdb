"""How is an array written that does not fit into memory? Piece by piece into an .npy file, its length last.

NumPy leaves room in the header for the length to grow, so the header that is written at the end takes the place of
the first one.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Shaped
from numpy.lib import format as npy
from numpy.typing import DTypeLike


class ArrayFile:
    """An .npy file of one dimension that grows."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.length = 0
        self._dtype = np.dtype(dtype)
        self._file = open(path, "xb")  # noqa: SIM115 - closed by __exit__
        self._write_header()
        self._start = self._file.tell()

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            if kind is None:
                self._file.seek(0)
                self._write_header()
                if self._file.tell() != self._start:
                    raise AssertionError("the header of an .npy file has outgrown its room")
        finally:
            self._file.close()

    def append(self, values: Shaped[np.ndarray, " n"]) -> None:
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self.length += len(values)

    def _write_header(self) -> None:
        header = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.length,)}
        npy.write_array_header_1_0(self._file, header)
