"""Arrays written piece by piece are ordinary .npy files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dalr.io.array_file import ArrayFile


@pytest.mark.parametrize("sizes", [[], [0], [1], [3, 0, 70_000, 1]])
def test_the_pieces_are_one_array(tmp_path: Path, sizes: list[int]) -> None:
    pieces = [np.arange(size) + number for number, size in enumerate(sizes)]
    with ArrayFile(tmp_path / "a.npy", np.int32) as file:
        for piece in pieces:
            file.append(piece)
    found = np.load(tmp_path / "a.npy", mmap_mode="r" if sum(sizes) else None, allow_pickle=False)
    assert found.dtype == np.int32
    assert np.array_equal(found, np.concatenate([np.empty(0, np.int32), *pieces]))


def test_work_that_fails_leaves_no_array_of_a_false_length(tmp_path: Path) -> None:
    def work() -> None:
        with ArrayFile(tmp_path / "a.npy", np.int64) as file:
            file.append(np.arange(5))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert len(np.load(tmp_path / "a.npy", allow_pickle=False)) == 0
