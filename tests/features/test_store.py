"""The feature store: fp16 vectors come back by id, whatever is wrong with rows is named, rot is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalr.errors import CorruptFileError, DalrError, DataError, StorageError
from dalr.features.source import as_matrix, features_dim, open_features
from dalr.features.store import FeatureStore, open_store, store_dim, write_store

ROWS, DIM = 23, 6


def vectors(rows: int = ROWS, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)


def names(rows: int = ROWS) -> list[str]:
    return [f"{number}.jpg" for number in range(rows)]


def write(folder: Path, matrix: np.ndarray, ids: Sequence[str] | None = None, **options: Any) -> FeatureStore:
    blocks = options.pop("blocks", [matrix])
    chosen = list(ids) if ids is not None else names(len(matrix))
    write_store(folder, ids=chosen, blocks=blocks, source={"kind": "test"}, origin="m.npy", **options)
    return open_store(folder)


def refused(folder: Path, matrix: np.ndarray, ids: Sequence[str] | None = None, **options: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        write(folder, matrix, ids, **options)
    assert list(folder.parent.iterdir()) == [], "nothing is left behind"
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("shard_rows", [1, 5, ROWS - 1, ROWS, 1000])
@pytest.mark.parametrize("block", [1, 4, ROWS])
def test_vectors_come_back_as_fp16_from_any_number_of_shards(tmp_path: Path, shard_rows: int, block: int) -> None:
    matrix = vectors()
    blocks = [matrix[start : start + block] for start in range(0, ROWS, block)]
    store = write(tmp_path / "s", matrix, blocks=blocks, shard_rows=shard_rows)
    assert (len(store), store.dim, len(store.shards)) == (ROWS, DIM, -(-ROWS // shard_rows))
    assert store.ids == tuple(names())
    assert np.array_equal(as_matrix(store), matrix.astype(np.float16).astype(np.float32))
    assert as_matrix(store).dtype == np.float32
    assert all(isinstance(shard, np.memmap) for shard in store.shards)


def test_rows_are_read_by_id_in_any_order_and_repeatedly(tmp_path: Path) -> None:
    matrix = vectors()
    store = write(tmp_path / "s", matrix, shard_rows=5)
    asked = [21, 0, 7, 7, 4, 5, 22, 0]
    rows = store.rows_of([f"{number}.jpg" for number in asked], what="image")
    assert rows.tolist() == asked
    assert np.array_equal(store.read(rows), matrix[asked].astype(np.float16))
    assert store.read(np.empty(0, np.int64)).shape == (0, DIM)


def test_shards_are_plain_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    matrix = vectors()
    write(tmp_path / "s", matrix, shard_rows=20)
    parts = [load_file(path)["vectors"] for path in sorted((tmp_path / "s").glob("*.safetensors"))]
    assert [len(part) for part in parts] == [20, 3]
    assert np.array_equal(np.concatenate(parts), matrix.astype(np.float16))


def test_the_dim_and_the_source_are_stated(tmp_path: Path) -> None:
    store = write(tmp_path / "s", vectors())
    assert store_dim(tmp_path / "s") == features_dim(tmp_path / "s") == DIM
    assert store.source == {"kind": "test"}


def test_unknown_ids_are_named_with_the_store(tmp_path: Path) -> None:
    store = write(tmp_path / "s", vectors())
    with pytest.raises(DataError) as caught:
        store.rows_of(["3.jpg", "lost.jpg", "gone.jpg", "lost.jpg"], what="caption")
    first, second = map(str, caught.value.problems)
    assert first == f"caption 'lost.jpg': no such id among the {ROWS} rows of {tmp_path / 's'}"
    assert second.startswith("caption 'gone.jpg'")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.nan, "value 3 is nan, expected finite numbers"),
        (np.inf, "value 3 is inf, expected finite numbers"),
        (-np.inf, "value 3 is -inf, expected finite numbers"),
        (70_000.0, "largest value 7e+04 is beyond fp16 (65504)"),
        (-70_000.0, "largest value 7e+04 is beyond fp16 (65504)"),
    ],
)
def test_a_bad_value_is_named_with_its_row_and_place(tmp_path: Path, value: float, what: str) -> None:
    matrix = vectors()
    matrix[17, 2] = value
    [problem] = refused(tmp_path / "s", matrix, shard_rows=5)
    assert problem.startswith("m.npy: row 18: ")
    assert what in problem


def test_a_row_of_zeros_has_no_direction(tmp_path: Path) -> None:
    matrix = vectors()
    matrix[4] = 0
    [problem] = refused(tmp_path / "s", matrix)
    assert problem == "m.npy: row 5: all zero, so it has no direction"


def test_a_row_that_becomes_zero_in_fp16_is_refused_too(tmp_path: Path) -> None:
    """fp16 ends at 6e-8: what is smaller is stored as zero, whose cosine with everything is 0 or NaN."""
    matrix = vectors()
    matrix[4] = 1e-9
    [problem] = refused(tmp_path / "s", matrix)
    assert problem.startswith("m.npy: row 5: ")


def test_all_bad_rows_of_all_shards_come_together(tmp_path: Path) -> None:
    matrix = vectors()
    matrix[1, 0], matrix[9], matrix[20, 5] = np.nan, 0, 1e6
    problems = refused(tmp_path / "s", matrix, shard_rows=4)
    assert [problem.split(":")[1] for problem in problems] == [" row 2", " row 10", " row 21"]


def test_duplicate_ids_are_named_with_both_places(tmp_path: Path) -> None:
    ids = names()
    ids[7], ids[9] = ids[2], ids[2]
    problems = refused(tmp_path / "s", vectors(), ids)
    assert problems == ["m.npy: id 8: '2.jpg' was already id 3", "m.npy: id 10: '2.jpg' was already id 3"]


@pytest.mark.parametrize("count", [ROWS - 1, ROWS + 1])
def test_a_count_that_differs_is_refused_with_both_numbers(tmp_path: Path, count: int) -> None:
    [problem] = refused(tmp_path / "s", vectors(), names(count))
    assert f"{ROWS} rows of features for {count} ids" in problem


def test_a_foreign_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match="another --out"):
        write(tmp_path / "s", vectors())
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a\nb", "a b ", "x" * 300, "日本#0", 'quo"te', "a\u2028b"])
def test_ids_are_data_and_come_back_as_they_are(tmp_path: Path, name: str) -> None:
    store = write(tmp_path / "s", vectors(2), [name, "b"])
    assert store.ids == (name, "b")
    assert store.rows_of([name], what="image").tolist() == [0]


def test_a_store_without_a_manifest_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path / "s", vectors())
    (tmp_path / "s" / "manifest.json").unlink()
    with pytest.raises(CorruptFileError, match="make the store again with dalr features"):
        open_store(tmp_path / "s")
    with pytest.raises(DataError, match=r"no manifest\.json in it"):
        open_features(tmp_path / "s", None)


def test_a_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_features(tmp_path / "nowhere", None)
    with pytest.raises(DataError, match="no such folder"):
        features_dim(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["ids.jsonl", "vectors-00000.safetensors", "vectors-00004.safetensors"])
@pytest.mark.parametrize("cut", [None, 0, 7])
def test_a_file_that_is_absent_or_short_is_named_when_the_store_is_opened(
    tmp_path: Path, name: str, cut: int | None
) -> None:
    write(tmp_path / "s", vectors(), shard_rows=5)
    path = tmp_path / "s" / name
    data = path.read_bytes()
    path.unlink()
    if cut is not None:
        path.write_bytes(data[:cut])
    with pytest.raises(CorruptFileError, match=name):
        open_store(tmp_path / "s")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "s"
    write(folder, vectors())
    return folder


@given(data=st.data())
@settings(max_examples=200)
def test_damage_never_ends_in_a_traceback(stored: Path, data: st.DataObject) -> None:
    """R33: one changed byte anywhere in the small files raises our errors or nothing."""
    name = data.draw(st.sampled_from(["ids.jsonl", "vectors-00000.safetensors", "manifest.json"]))
    path = stored / name
    whole = path.read_bytes()
    place = data.draw(st.integers(0, min(len(whole), 100) - 1))
    value = data.draw(st.integers(0, 255))
    path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
    try:
        as_matrix(open_store(stored))
    except DalrError:
        pass
    finally:
        path.write_bytes(whole)


def test_a_flipped_bit_in_the_ids_is_noticed_when_the_store_is_opened(tmp_path: Path) -> None:
    """An id that changed silently is another image's vector."""
    write(tmp_path / "s", vectors())
    path = tmp_path / "s" / "ids.jsonl"
    path.write_text(path.read_text().replace("17.jpg", "77.jpg"))
    with pytest.raises(CorruptFileError, match=r"ids\.jsonl"):
        open_store(tmp_path / "s")
