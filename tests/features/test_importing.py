"""Features of others: a matrix and the file that names its rows."""

from __future__ import annotations

import gc
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dalr.errors import DataError
from dalr.features.importing import import_matrix, open_matrix, read_ids
from dalr.features.source import as_matrix, features_dim, open_features
from dalr.features.store import open_store
from dalr.io.cache import cache_folder
from tiny import IMAGE_WIDTH, IMAGES, TinyData


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return Path.touch, (self.marker,)


def refused(matrix: Path, ids: Path, out: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        import_matrix(matrix, ids, out)
    assert not out.exists()
    return [str(problem) for problem in caught.value.problems]


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_a_matrix_becomes_a_store(tmp_path: Path, tiny_data: TinyData, dtype: str) -> None:
    matrix = save(tmp_path / "m.npy", tiny_data.features.astype(dtype))
    import_matrix(matrix, tiny_data.ids, tmp_path / "s")
    store = open_store(tmp_path / "s")
    assert store.ids == tiny_data.images
    assert np.array_equal(as_matrix(store), tiny_data.features.astype(np.float16))
    assert store.source == {"kind": "import", "matrix": "m.npy", "ids": "images.txt"}


def test_a_matrix_in_fortran_order_keeps_its_rows(tmp_path: Path, tiny_data: TinyData) -> None:
    matrix = save(tmp_path / "m.npy", np.asfortranarray(tiny_data.features))
    import_matrix(matrix, tiny_data.ids, tmp_path / "s")
    assert np.array_equal(as_matrix(open_store(tmp_path / "s")), tiny_data.features.astype(np.float16))


def test_rows_may_be_named_by_the_pairs_file(tmp_path: Path, tiny_data: TinyData) -> None:
    import_matrix(tiny_data.matrix, tiny_data.pairs, tmp_path / "s")
    assert open_store(tmp_path / "s").ids == tiny_data.images


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.ones((3, 4), np.int64), "expected floating-point numbers, found int64"),
        (np.ones((3, 4), np.complex64), "expected floating-point numbers, found complex64"),
        (np.ones((3, 4), bool), "expected floating-point numbers, found bool"),
        (np.array([["a", "b"]]), "expected floating-point numbers, found <U1"),
        (np.ones(12), "expected a matrix (rows, dimension), found (12,)"),
        (np.ones((3, 4, 5)), "expected a matrix (rows, dimension), found (3, 4, 5)"),
        (np.float64(3), "expected a matrix (rows, dimension), found ()"),
        (np.ones((0, 4)), "expected a matrix (rows, dimension), found (0, 4)"),
        (np.ones((3, 0)), "expected a matrix (rows, dimension), found (3, 0)"),
    ],
)
def test_what_is_no_matrix_of_floats_is_refused(tmp_path: Path, array: np.ndarray, found: str) -> None:
    with pytest.raises(DataError) as caught:
        open_matrix(save(tmp_path / "m.npy", array))
    assert str(caught.value) == f"{tmp_path / 'm.npy'}: {found}"


def test_a_pickled_array_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "canary"
    array = np.empty((1, 1), object)
    array[0, 0] = Canary(marker)
    np.save(tmp_path / "m.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=r"not a plain \.npy matrix"):
        open_matrix(tmp_path / "m.npy")
    assert not marker.exists()
    np.load(tmp_path / "m.npy", allow_pickle=True)
    assert marker.exists(), "the canary itself works"


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    import pickle

    marker = tmp_path / "canary"
    (tmp_path / "m.npy").write_bytes(pickle.dumps(Canary(marker)))
    with pytest.raises(DataError):
        open_matrix(tmp_path / "m.npy")
    assert not marker.exists()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "5 bytes": lambda data: data[:5],
    "half a header": lambda data: data[:60],
    "one byte short": lambda data: data[:-1],
    "more rows than data": lambda data: data.replace(b"(3, 4)", b"(9, 4)"),
    "negative shape": lambda data: data.replace(b"(3, 4)", b"(-3,4)"),
    "open brackets": lambda data: data.replace(b"(3, 4)", b"[[[[[["),
    "open quotes": lambda data: data.replace(b"{'descr'", b"'''''''''"),
    "unknown dtype": lambda data: data.replace(b"<f8", b"<q9"),
    "zip": lambda data: b"PK\x03\x04" + data,
    "html": lambda data: b"<html>not found</html>",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_matrix_is_refused_and_no_traceback(tmp_path: Path, damage: str) -> None:
    path = save(tmp_path / "m.npy", np.ones((3, 4)))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    raised: type[BaseException] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # numpy leaves some broken files open
        try:
            open_matrix(path)
        except Exception as error:  # noqa: BLE001 - its traceback would keep the file open
            raised, message = type(error), str(error)
        gc.collect()
    assert raised is DataError, raised
    assert message.startswith(str(path))


def test_an_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.npy", "w") as archive:
        archive.writestr("x.npy", b"")
    with pytest.raises(DataError):
        open_matrix(tmp_path / "m.npy")


def test_missing_files_come_together(tmp_path: Path) -> None:
    problems = refused(tmp_path / "m.npy", tmp_path / "ids.txt", tmp_path / "s")
    assert problems == [f"{tmp_path / 'ids.txt'}: no such file", f"{tmp_path / 'm.npy'}: no such file"]


@pytest.mark.parametrize("count", [0, IMAGES - 1, IMAGES + 1])
def test_counts_that_differ_are_refused_with_both_numbers(tmp_path: Path, tiny_data: TinyData, count: int) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"{number}\n" for number in range(count)))
    [problem] = refused(tiny_data.matrix, ids, tmp_path / "s")
    assert str(tiny_data.matrix) in problem
    assert f"{IMAGES} rows" in problem
    assert f"{count} ids" in problem


def test_bad_rows_and_bad_counts_and_bad_ids_come_together(tmp_path: Path, tiny_data: TinyData) -> None:
    features = tiny_data.features.copy()
    features[3, 1], features[8] = np.nan, 0
    matrix = save(tmp_path / "m.npy", features)
    (tmp_path / "short.txt").write_text("a\nb\n")
    problems = refused(matrix, tmp_path / "short.txt", tmp_path / "s")
    assert len(problems) == 3
    assert any("row 4: value 2 is nan" in problem for problem in problems)
    assert any("row 9: all zero" in problem for problem in problems)
    (tmp_path / "blank.txt").write_text("a\n\n" + "b\n" * 5 + " \n")
    problems = refused(matrix, tmp_path / "blank.txt", tmp_path / "s")
    assert problems[:2] == [f"{tmp_path / 'blank.txt'}:2: empty id", f"{tmp_path / 'blank.txt'}:8: empty id"]
    assert len(problems) == 4


def test_duplicate_ids_are_refused(tmp_path: Path, tiny_data: TinyData) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"{name}\n" for name in [*tiny_data.images[:-1], tiny_data.images[0]]))
    [problem] = refused(tiny_data.matrix, ids, tmp_path / "s")
    assert "'000.jpg' was already id 1" in problem


@pytest.mark.parametrize(
    "line", ["", "x", "3", "null", "[]", '{"caption": "x"}', '{"image": ""}', '{"image": 3}', "[" * 100_000]
)
def test_a_malformed_line_of_names_is_refused(tmp_path: Path, line: str) -> None:
    ids = tmp_path / "ids.jsonl"
    ids.write_text(f'{{"image": "a"}}\n{line}\n{{"image": "b"}}\n')
    with pytest.raises(DataError, match="expected a JSON object with a string 'image'") as caught:
        read_ids(ids)
    assert str(caught.value).startswith(f"{ids}:2: ")


def test_a_lone_surrogate_in_a_name_is_refused_and_no_traceback(tmp_path: Path) -> None:
    ids = tmp_path / "ids.jsonl"
    ids.write_text(json.dumps({"image": "a\ud800"}) + "\n")
    [_] = refused(save(tmp_path / "m.npy", np.ones((1, 4))), ids, tmp_path / "s")


def test_a_matrix_named_in_a_recipe_is_imported_once(
    tmp_path: Path, fresh_cache: Path, tiny_data: TinyData
) -> None:
    first = open_features(tiny_data.matrix, tiny_data.ids)
    [entry] = cache_folder("features").iterdir()
    before = entry.stat().st_mtime_ns
    second = open_features(tiny_data.matrix, tiny_data.ids)
    assert entry.stat().st_mtime_ns == before
    assert second.folder == first.folder == entry
    assert features_dim(tiny_data.matrix) == IMAGE_WIDTH == first.dim
    save(tmp_path / "other.npy", tiny_data.features * 2)
    assert open_features(tmp_path / "other.npy", tiny_data.ids).folder != entry


@pytest.mark.parametrize("name", ["vectors-00000.safetensors", "manifest.json"])
def test_a_damaged_import_in_the_cache_is_made_again(fresh_cache: Path, tiny_data: TinyData, name: str) -> None:
    store = open_features(tiny_data.matrix, tiny_data.ids)
    expected = as_matrix(store)
    (store.folder / name).write_bytes(b"")
    assert np.array_equal(as_matrix(open_features(tiny_data.matrix, tiny_data.ids)), expected)


def test_a_matrix_without_names_is_refused(tiny_data: TinyData) -> None:
    with pytest.raises(DataError, match="needs the file that names its rows"):
        open_features(tiny_data.matrix, None)


def test_a_missing_matrix_of_a_recipe_is_refused_and_leaves_nothing(fresh_cache: Path, tiny_data: TinyData) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_features(tiny_data.folder / "nowhere.npy", tiny_data.ids)
    with pytest.raises(DataError, match="no such file"):
        open_features(tiny_data.matrix, tiny_data.folder / "nowhere.txt")
    assert not cache_folder("features").exists()
