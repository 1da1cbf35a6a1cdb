"""git-LFS pointers in place of captions, text, ids and features: every reader says so, and how to fetch them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dalr.data.dataset import read_pairs, read_text
from dalr.errors import DalrError, DataError, Problem
from dalr.features.importing import open_matrix, read_ids
from dalr.features.predecessors import import_hdf5, import_json
from dalr.features.store import open_store, write_store

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90868376\n"


PAIRS = ["p.jsonl", "p.json", "p.csv", "p.tsv", "p.token", "p.txt", "p.parquet", "p.json.gz"]


@pytest.mark.parametrize("name", PAIRS)
def test_pairs(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    problems: list[Problem] = []
    read_pairs(tmp_path / name, problems, {})
    assert [problem.where for problem in problems] == [str(tmp_path / name)]
    assert "git lfs pull" in problems[0].what


def test_text(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(POINTER)
    problems: list[Problem] = []
    read_text(tmp_path / "t.txt", problems, {})
    assert "git lfs pull" in problems[0].what


def test_a_saved_data_set(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"image": ["a"], "caption": ["b"]}).save_to_disk(str(tmp_path / "d"))
    [file] = (tmp_path / "d").glob("*.arrow")
    file.write_bytes(POINTER)
    problems: list[Problem] = []
    read_pairs(tmp_path / "d", problems, {})
    assert problems[0].where == str(file)
    assert "git lfs pull" in problems[0].what


READERS: dict[str, Callable[[Path], object]] = {
    "i.txt": read_ids,
    "i.jsonl": read_ids,
    "m.npy": open_matrix,
    "f.hdf5": lambda path: import_hdf5(path, path.parent / "captions.txt", path.parent / "out"),
    "f.json": lambda path: import_json(path, path.parent / "out"),
}


@pytest.mark.parametrize("name", READERS)
def test_ids_and_features(tmp_path: Path, name: str) -> None:
    (tmp_path / "captions.txt").write_text("a\n")
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(DataError, match="git lfs pull"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", ["vectors-00000.safetensors", "ids.jsonl", "manifest.json"])
def test_a_feature_store(tmp_path: Path, name: str) -> None:
    write_store(tmp_path / "s", ids=["a"], blocks=[np.ones((1, 4))], source={}, origin="x")
    (tmp_path / "s" / name).write_bytes(POINTER)
    with pytest.raises(DalrError, match="git lfs pull"):
        open_store(tmp_path / "s")
