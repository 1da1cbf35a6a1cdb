"""Feature files of MCSE, KDMCSE and DALR: stores and pairs that fit together, or every problem at once."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalr.data.dataset import read_pairs
from dalr.errors import DataError, StorageError
from dalr.features.predecessors import import_hdf5, import_json
from dalr.features.store import open_store
from stores import as_matrix
from tiny import Outcome

Cli = Callable[..., Outcome]
RANDOM = np.random.default_rng(0)
LINES = ["A dog runs.", "Zwei Hunde\u2028 😀", "A dog runs."]


def write_hdf5(path: Path, rows: object, name: str = "features", **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=rows, **options)
    return path


def write_captions(folder: Path, lines: list[str] = LINES) -> Path:
    (folder / "captions.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder / "captions.txt"


def record(**changes: Any) -> dict[str, Any]:
    vectors = RANDOM.normal(size=(3, 4)).astype(np.float32).tolist()
    return {
        "image": "x.jpg",
        "captions": ["one", "two"],
        "image_feat": vectors[0],
        "lang_feat": vectors[1:],
    } | changes


def write_json(folder: Path, tree: object) -> Path:
    (folder / "flickr.json").write_text(json.dumps(tree), encoding="utf-8")
    return folder / "flickr.json"


def peak_of(run: Callable[[], object]) -> int:
    """Bytes that Python held at once."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(read: Callable[[], object], out: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        read()
    assert not out.exists()
    assert not list(out.parent.glob(".*")), "nothing is left behind"
    return [str(problem) for problem in caught.value.problems]


class TestHdf5:
    @pytest.mark.parametrize("options", [{}, {"chunks": (2, 4), "compression": "gzip"}])
    def test_lines_and_rows_become_pairs_and_a_store(self, tmp_path: Path, options: dict[str, Any]) -> None:
        rows = RANDOM.normal(size=(3, 5)).astype(np.float32)
        found = import_hdf5(
            write_hdf5(tmp_path / "f.hdf5", rows, **options), write_captions(tmp_path), tmp_path / "o"
        )
        assert (found.images, found.image_dim, found.caption_dim) == (3, 5, None)
        store = open_store(tmp_path / "o" / "image")
        pairs = read_pairs(tmp_path / "o" / "pairs.jsonl", [], {})
        assert store.ids == pairs.images == ("1", "2", "3")
        assert list(pairs.captions) == LINES
        assert np.array_equal(as_matrix(store), rows.astype(np.float16))

    def test_rows_may_be_named(self, tmp_path: Path) -> None:
        (tmp_path / "ids.txt").write_text("../a\nb\nc\n")
        matrix = write_hdf5(tmp_path / "f.h5", np.ones((3, 2)))
        import_hdf5(matrix, write_captions(tmp_path), tmp_path / "o", ids=tmp_path / "ids.txt")
        assert open_store(tmp_path / "o" / "image").ids == ("../a", "b", "c")

    def test_everything_that_is_wrong_is_said_at_once(self, tmp_path: Path) -> None:
        rows = np.ones((4, 3), np.float32)
        rows[1, 2], rows[3] = np.nan, 0
        matrix = write_hdf5(tmp_path / "f.hdf5", rows)
        problems = refused(lambda: import_hdf5(matrix, write_captions(tmp_path), tmp_path / "o"), tmp_path / "o")
        assert problems == [
            f"{matrix}: 4 rows, but {tmp_path / 'captions.txt'} has 3 captions",
            f"{matrix}: row 2: value 3 is nan, expected finite numbers",
            f"{matrix}: row 4: all zero, so cosines are undefined",
        ]

    @pytest.mark.parametrize(
        ("rows", "name", "expected"),
        [
            (np.ones((3, 2)), "feats", "expected the dataset 'features' in this file, found feats"),
            (
                np.ones((3, 2), np.int64),
                "features",
                "expected a matrix (rows, dimension) of floating-point numbers",
            ),
            (np.ones(3), "features", "found (3,) of float64"),
            (np.ones((0, 3)), "features", "found (0, 3) of float64"),
        ],
    )
    def test_another_dataset_is_refused(self, tmp_path: Path, rows: np.ndarray, name: str, expected: str) -> None:
        matrix = write_hdf5(tmp_path / "f.hdf5", rows, name)
        [problem] = refused(lambda: import_hdf5(matrix, write_captions(tmp_path), tmp_path / "o"), tmp_path / "o")
        assert problem.startswith(f"{matrix}: features: ")
        assert expected in problem

    def test_numbers_in_other_files_are_not_opened(self, tmp_path: Path) -> None:
        """HDF5 can name any file of the machine as the place of its numbers."""
        (tmp_path / "secret").write_bytes(np.ones((3, 2)).tobytes())
        other = write_hdf5(tmp_path / "other.hdf5", np.ones((3, 2)))
        with h5py.File(tmp_path / "raw.hdf5", "w") as file:
            file.create_dataset("features", (3, 2), "f8", external=[(str(tmp_path / "secret"), 0, 48)])
        with h5py.File(tmp_path / "link.hdf5", "w") as file:
            file["features"] = h5py.ExternalLink(str(other), "features")
        captions = write_captions(tmp_path)
        for name in ("raw.hdf5", "link.hdf5"):
            matrix = tmp_path / name
            refused(lambda matrix=matrix: import_hdf5(matrix, captions, tmp_path / "o"), tmp_path / "o")  # type: ignore[misc]

    @pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n" + bytes(50)])
    def test_what_is_no_hdf5_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "f.hdf5").write_bytes(content)
        captions = write_captions(tmp_path)
        [problem] = refused(lambda: import_hdf5(tmp_path / "f.hdf5", captions, tmp_path / "o"), tmp_path / "o")
        assert "not an HDF5 file" in problem


class TestJson:
    @pytest.mark.parametrize("packed", [False, True])
    def test_records_become_pairs_and_two_stores(self, tmp_path: Path, packed: bool) -> None:
        tree = {
            "1": record(image="b.jpg"),
            "2": record(captions=["drei"], lang_feat=[[1.0, 2, 3, 4]]),
            "a": record(),
        }
        del tree["a"]["image"]
        path = write_json(tmp_path, tree)
        if packed:
            path.write_bytes(gzip.compress(path.read_bytes()))
        found = import_json(path, tmp_path / "o")
        assert (found.images, found.captions, found.image_dim, found.caption_dim) == (3, 5, 4, 4)
        pairs = read_pairs(tmp_path / "o" / "pairs.jsonl", [], {})
        image, caption = open_store(tmp_path / "o" / "image"), open_store(tmp_path / "o" / "caption")
        assert image.ids == pairs.images == ("b.jpg", "x.jpg", "a")
        assert caption.ids == pairs.caption_ids == ("b.jpg#0", "b.jpg#1", "x.jpg#0", "a#0", "a#1")
        expected = np.array([each["image_feat"] for each in tree.values()], np.float16)
        assert np.array_equal(as_matrix(image), expected)
        assert np.array_equal(as_matrix(caption)[2], np.array([1, 2, 3, 4], np.float16))

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"captions": "x"}, "expected a list of strings under 'captions', found 'x'"),
            ({"captions": []}, "expected a list of strings under 'captions', found []"),
            ({"image": 3}, "expected a string under 'image', found 3"),
            ({"image": "ok.jpg"}, "image 'ok.jpg' occurs twice"),
            ({"image_feat": None}, "image_feat: expected 1 vectors of numbers, found something else"),
            ({"image_feat": ["1"] * 4}, "image_feat: expected 1 vectors of numbers, found something else"),
            ({"image_feat": [1, 2, 3]}, "image_feat: of dimension 3, but the vectors before are of dimension 4"),
            ({"image_feat": [0, 0, 0, 0]}, "image_feat: row 1: all zero, so cosines are undefined"),
            ({"image_feat": [1e30, 0, 0, 0]}, "image_feat: row 1: largest value 1e+30 is beyond fp16"),
            ({"lang_feat": [[1, 2, 3, 4]]}, "lang_feat: expected 2 vectors of numbers, found 1"),
            ({"lang_feat": [[1, 2, 3, 4], [1]]}, "lang_feat: expected 2 vectors of numbers, found something else"),
            (
                {"lang_feat": [[1, 2, 3]] * 2},
                "lang_feat: of dimension 3, but the vectors before are of dimension 4",
            ),
        ],
    )
    def test_a_malformed_record_is_named(self, tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
        path = write_json(tmp_path, {"1": record(image="ok.jpg"), "k2": record(**changes)})
        [problem] = refused(lambda: import_json(path, tmp_path / "o"), tmp_path / "o")
        assert problem.startswith(f"{path}: 'k2': {expected}")

    def test_a_file_that_ends_early_says_what_was_wrong_before_as_well(self, tmp_path: Path) -> None:
        path = write_json(tmp_path, {"1": 3, "2": record()})
        path.write_bytes(path.read_bytes()[:-9])
        first, second = refused(lambda: import_json(path, tmp_path / "o"), tmp_path / "o")
        assert first == f"{path}: '1': expected an object, found 3"
        assert second.startswith(f"{path}: damaged JSON after '1': ")

    def test_an_empty_object_is_refused(self, tmp_path: Path) -> None:
        path = write_json(tmp_path, {})
        assert refused(lambda: import_json(path, tmp_path / "o"), tmp_path / "o") == [f"{path}: no image in it"]

    @pytest.mark.slow
    def test_memory_does_not_grow_with_the_vectors(self, tmp_path: Path) -> None:
        dim, count = 512, 400
        with open(tmp_path / "big.json", "w") as file:
            for number in range(count):
                vectors = RANDOM.normal(size=(3, dim)).round(4).tolist()
                each = {"captions": ["one", "two"], "image_feat": vectors[0], "lang_feat": vectors[1:]}
                file.write(f"{',' if number else '{'}{json.dumps(str(number))}:{json.dumps(each)}")
            file.write("}")
        size = (tmp_path / "big.json").stat().st_size
        import_json(write_json(tmp_path, {"1": record()}), tmp_path / "warm")
        streamed = peak_of(lambda: import_json(tmp_path / "big.json", tmp_path / "o"))
        whole = peak_of(lambda: json.loads((tmp_path / "big.json").read_bytes()))
        assert size > 4 << 20
        assert streamed < whole / 2

    @settings(max_examples=60)
    @given(content=st.one_of(st.binary(max_size=50), st.text('{}[]":,1e.ax \\ud', max_size=50).map(str.encode)))
    def test_whatever_a_file_holds_only_our_errors_come_out(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes
    ) -> None:
        folder = tmp_path_factory.mktemp("fuzz")
        (folder / "x.json").write_bytes(content)
        with pytest.raises(DataError):
            import_json(folder / "x.json", folder / "o")


class TestCommand:
    def test_json(self, cli: Cli, tmp_path: Path) -> None:
        path, out = write_json(tmp_path, {"1": record()}), tmp_path / "o"
        outcome = cli("features", "import", path, "--out", out, "-q")
        assert outcome == Outcome(
            code=0,
            out=f"{out}/pairs.jsonl: 1 images, 2 captions\n{out}/image: 1 rows of dimension 4\n"
            f"{out}/caption: 2 rows of dimension 4\n",
            err="",
        )

    def test_hdf5(self, cli: Cli, tmp_path: Path) -> None:
        matrix, captions = write_hdf5(tmp_path / "f.hdf5", np.ones((3, 2))), write_captions(tmp_path)
        outcome = cli("features", "import", matrix, "--captions", captions, "--out", tmp_path / "o", "-q")
        assert (outcome.code, len(outcome.out.splitlines())) == (0, 2)

    @pytest.mark.parametrize(
        ("name", "options", "expected"),
        [
            ("f.hdf5", [], "--captions: an HDF5 file holds no captions"),
            ("f.json", ["--captions", "x"], "--captions, --ids: a .json holds both itself"),
            ("f.npy", [], "--ids: an .npy matrix needs the file that names its rows"),
        ],
    )
    def test_options_that_do_not_fit(
        self, cli: Cli, tmp_path: Path, name: str, options: list[str], expected: str
    ) -> None:
        outcome = cli("features", "import", tmp_path / name, "--out", tmp_path / "o", *options)
        assert outcome.code == 2
        assert expected in outcome.err

    def test_a_folder_in_use_is_left_alone(self, tmp_path: Path) -> None:
        path = write_json(tmp_path, {"1": record()})
        with pytest.raises(StorageError, match="nothing was written"):
            import_json(path, tmp_path)
