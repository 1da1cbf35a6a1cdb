"""What is a shard of a feature store? A safetensors file with one tensor, `vectors`, in fp16.

Rows are read with positioned reads instead of through the memory map. Pages that a map has touched count as the
process's own memory until the system is short of it, so reading at random from a store of a million rows would grow
to its whole size; measured, 128 single reads also take no longer than 128 page faults. The map stays for whoever
wants a shard as an array.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from dalr.errors import CorruptFileError
from dalr.io.paths import regular, size_of
from dalr.io.sealed import file_sha256

REMEDY = "make the store again with dalr features"


class Shard:
    """An open shard whose bytes are compared with the sealed checksum before the first row is read."""

    def __init__(self, path: Path, *, rows: int, dim: int, sha256: str) -> None:
        """Open the shard.

        Raises:
            CorruptFileError: not a file of this many rows and numbers.
        """
        self.array = map_shard(path, rows=rows, dim=dim)
        self.path = path
        self._sha256 = sha256
        self._verified = False
        self._start = int(self.array.offset)
        self._file = os.open(regular(path), os.O_RDONLY)
        self._seen = _state(os.fstat(self._file))

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read_row(self, row: int, into: memoryview) -> None:
        """Copy one row's bytes.

        Raises:
            CorruptFileError: the first time, if the file's bytes are not those that were sealed.
        """
        if not self._verified:
            self._verify()
        if not hasattr(os, "preadv"):  # Windows
            into[:] = self.array[row].tobytes()
        elif os.preadv(self._file, [into], self._start + row * len(into)) != len(into):
            raise CorruptFileError(f"{self.path}: ends in row {row} of {len(self.array)}; {REMEDY}")

    def require_unchanged(self) -> None:
        """Compare size, times and inode with those at opening; where they differ, the bytes with the checksum.

        Raises:
            CorruptFileError: the file is gone, or does not have the bytes that were sealed.
        """
        try:
            now = _state(os.stat(regular(self.path)))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            what = f"expected the file that was opened, found none ({reason})"
            raise CorruptFileError(f"{self.path}: {what}; {REMEDY}") from None
        if now != self._seen:
            self._verify()
            self._seen = now

    def _verify(self) -> None:
        try:
            found = file_sha256(self.path)
        except OSError as error:
            raise CorruptFileError(f"{self.path}: cannot be read ({error.strerror}); {REMEDY}") from None
        if found != self._sha256:
            raise CorruptFileError(
                f"{self.path}: its content differs from the sealed sha256 (expected {self._sha256[:12]}…, "
                f"found {found[:12]}…); {REMEDY}"
            )
        self._verified = True


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


def write_shard(path: Path, vectors: Shaped[np.ndarray, "_ dim"]) -> None:
    from safetensors.numpy import save_file

    save_file({"vectors": np.ascontiguousarray(vectors, dtype=np.float16)}, path)


def map_shard(path: Path, *, rows: int, dim: int) -> np.memmap[tuple[int, int], np.dtype[np.float16]]:
    """Map the one tensor of a safetensors file: 8 bytes of header length, the header, then the data."""
    with open(regular(path), "rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if 8 + header + 2 * rows * dim != size_of(path, CorruptFileError):
        what = f"expected {rows} rows of {dim} fp16 numbers behind a header of {header} bytes"
        raise CorruptFileError(f"{path}: {what}, found {size_of(path, CorruptFileError)} bytes in all; {REMEDY}")
    if rows == 0:
        return np.memmap(path, dtype=np.float16, mode="r", shape=(0, dim))
    return np.memmap(path, dtype=np.float16, mode="r", offset=8 + header, shape=(rows, dim))
