"""R33: small files that would become gigabytes are refused, within two seconds and 500 MB."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bounds import bounded, limited_memory
from dalr.data.dataset import read_pairs, read_text
from dalr.errors import DalrError, DataError, Problem
from dalr.features.importing import check_matrix, read_ids
from dalr.features.predecessors import import_hdf5, import_json

MEGA = 1_000_000
RECORD = b'{"k": {"image": "a", "captions": ["x"], "image_feat": %b, "lang_feat": [[1]]}}'
TEXTS: dict[str, tuple[str, bytes]] = {
    "nested lists": ("p.json", b"[" * (3 * MEGA)),
    "nested objects": ("p.json", b'{"a":' * (MEGA // 2)),
    "nested lists in a line": ("p.jsonl", b'{"image": ' + b"[" * (3 * MEGA)),
    "lists in a list": ("p.json", b"[" + b"[]," * (MEGA // 2) + b"[]]"),
    "lists for images": ("p.json", b'{"annotations": [], "images": [' + b"[]," * (MEGA // 2) + b"[]]}"),
    "objects for images": ("p.json", b'{"annotations": [], "images": [' + b"{}," * (MEGA // 2) + b"{}]}"),
    "lines of lists": ("p.jsonl", b"[]\n" * (MEGA // 2)),
    "lines of nothing known": ("p.token", b"x\n" * MEGA),
    "a row of tabs": ("p.tsv", b"image\tcaption" + b"\t" * (3 * MEGA)),
    "one field": ("p.csv", b'image,caption\na,"' + b"x" * (3 * MEGA) + b'"\n'),
    "a number": ("p.jsonl", b'{"image": "a", "caption": ' + b"9" * (3 * MEGA) + b"}"),
    "an image of a million items": ("p.jsonl", b'{"caption": "x", "image": [' + b"0," * MEGA + b"0]}"),
    "lines that are not UTF-8": ("p.csv", b"\xff\n" * MEGA),
    "gzip of zeros": ("p.json", gzip.compress(bytes(300 * MEGA), 1)),
    "gzip of lines": ("p.csv", gzip.compress(b"image,caption\n" + b"a,a\n" * (50 * MEGA), 1)),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_pairs(tmp_path: Path, kind: str) -> None:
    name, content = TEXTS[kind]
    path = tmp_path / name
    path.write_bytes(content)
    problems: list[Problem] = []
    with limited_memory(), bounded():
        read_pairs(path, problems, {})
    assert problems
    assert all(problem.where.startswith(str(path)) for problem in problems)
    assert len(str(DataError(problems))) < 100_000


def test_every_problem_is_counted_where_few_are_kept(tmp_path: Path) -> None:
    (tmp_path / "p.token").write_bytes(b"a#0\tx\n" + b"x\n" * 10_000)
    problems: list[Problem] = []
    read_pairs(tmp_path / "p.token", problems, {})
    assert len(problems) < 2_000
    assert str(DataError(problems)).endswith("... and 9980 more (10000 in total)")


@pytest.mark.parametrize("content", [b"\n" * (MEGA // 5), gzip.compress(b"\n" * (300 * MEGA), 1), b"\xff\n" * MEGA])
def test_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    problems: list[Problem] = []
    with limited_memory(), bounded():
        read_text(tmp_path / "t.txt", problems, {})
    assert problems


@pytest.mark.parametrize(
    ("name", "content"),
    [("i.txt", b"\n" * (3 * MEGA)), ("i.jsonl", b"[" * (3 * MEGA)), ("i.jsonl", b"\n" * (MEGA // 10))],
)
def test_ids(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with limited_memory(), bounded(), pytest.raises(DataError):
        read_ids(tmp_path / name)


FEATURES: dict[str, bytes] = {
    "nested lists": b"[" * (3 * MEGA),
    "nested objects": b'{"a":' * (MEGA // 2),
    "nested in a value": b'{"k": ' + b"[" * (3 * MEGA),
    "nested behind strings": b'{"[[[[\\\\\\"[": "\\\\", "k": "]\\"", "m": ' + b"[" * (3 * MEGA),
    "texts of one long and many short": RECORD % json.dumps(["x" * MEGA, *["y"] * 10_000]).encode(),
    "a number": RECORD % (b"[1" + b"0" * 5_000 + b"]"),
    "lists of unequal length": RECORD % (b"[" + b"[0]," * (MEGA // 2) + b"[0,0]]"),
    "gzip of blanks": gzip.compress(b"{" + b" " * (300 * MEGA), 1),
}


@pytest.mark.parametrize("kind", FEATURES)
def test_features_in_json(tmp_path: Path, kind: str) -> None:
    (tmp_path / "f.json").write_bytes(FEATURES[kind])
    with limited_memory(), bounded(), pytest.raises(DataError, match=r"f\.json"):
        import_json(tmp_path / "f.json", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"], "nothing is left behind"


def test_brackets_in_texts_are_not_nesting(tmp_path: Path) -> None:
    captions = ["[" * 500 + "\\" * 3, '{"' * 500 + '\\\\"]']
    record = {"captions": captions, "image_feat": [1.0, 2], "lang_feat": [[1.0, 2], [3, 4]]}
    (tmp_path / "f.json").write_text(json.dumps({'a"[\\': record} | {f"{n}\\": record for n in range(300)}))
    assert import_json(tmp_path / "f.json", tmp_path / "out").images == 301


HDF5: dict[str, dict[str, Any]] = {
    "rows": {"shape": (10**10, 4), "chunks": (1_000, 4)},
    "dim": {"shape": (3, 10**9), "chunks": (1, 1_000)},
    "width in one piece": {"shape": (3, 10**9)},
    "both": {"shape": (10**6, 10**6), "chunks": (100, 100)},
    "a compressed row": {"shape": (3, 5 * 10**7), "chunks": (1, 10**5), "compression": "gzip"},
    "a chunk": {"shape": (3, 4), "chunks": (10**7, 4), "maxshape": (None, 4)},
    "another fill value": {"shape": (10**8, 768), "chunks": (100, 768), "fillvalue": 1.0},
}


@pytest.mark.parametrize("kind", HDF5)
def test_hdf5_claims(tmp_path: Path, kind: str) -> None:
    import h5py

    with h5py.File(tmp_path / "f.hdf5", "w") as file:
        file.create_dataset("features", dtype="f4", **HDF5[kind])
    (tmp_path / "captions.txt").write_text("a\nb\nc\n")
    with limited_memory(), bounded(), pytest.raises(DataError, match=r"f\.hdf5"):
        import_hdf5(tmp_path / "f.hdf5", tmp_path / "captions.txt", tmp_path / "out")


def test_rows_that_nobody_named_are_not_looked_at(tmp_path: Path) -> None:
    """A matrix of 40 GB that takes no place on the disk."""
    header = np.lib.format.header_data_from_array_1_0(np.zeros((0, 4), np.float32)) | {"shape": (10**10 // 4, 4)}
    with open(tmp_path / "m.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * 10**10)
    (tmp_path / "ids.txt").write_text("a\nb\n")
    with limited_memory(60_000), bounded(), pytest.raises(DataError, match="2500000000 rows of features, but"):
        check_matrix(tmp_path / "m.npy", tmp_path / "ids.txt")


def repeated(**columns: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import pyarrow
        import pyarrow.parquet as parquet

        parquet.write_table(pyarrow.table(columns), path, compression="zstd")

    return write


def same(value: Any, rows: int) -> Any:
    import pyarrow

    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(rows, np.int32)), pyarrow.array([value]))


def lists(value: str, rows: int, each: int) -> Any:
    import pyarrow

    offsets = pyarrow.array(np.arange(rows + 1, dtype=np.int32) * each)
    return pyarrow.ListArray.from_arrays(offsets, same(value, rows * each).cast("string"))


PARQUET: dict[str, Callable[[], Callable[[Path], None]]] = {
    "rows": lambda: repeated(image=same("a", 20 * MEGA), caption=same("a dog runs", 20 * MEGA)),
    "long captions": lambda: repeated(image=same("a", 100_000), caption=same("x" * 100_000, 100_000)),
    "long lists": lambda: repeated(image=["a"], captions=lists("a", 1, 20 * MEGA)),
    "one caption of zeros": lambda: repeated(image=["a"], caption=["\0" * (200 * MEGA)]),
}


@pytest.mark.parametrize(("items", "size"), [(3_000, 100_000), (300_000, 5_000), (100, 10 * MEGA)])
def test_one_row_of_many_equal_captions(tmp_path: Path, items: int, size: int) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    offsets = pyarrow.array(np.array([0, items], np.int32))
    captions = pyarrow.ListArray.from_arrays(offsets, same("x" * size, items))
    table = pyarrow.table({"image": ["a"], "captions": captions})
    parquet.write_table(table, tmp_path / "p.parquet", compression="zstd")
    problems: list[Problem] = []
    with limited_memory(), bounded():
        read_pairs(tmp_path / "p.parquet", problems, {})
    assert "far too large for a file of" in problems[0].what


def test_captions_that_share_their_beginnings(tmp_path: Path) -> None:
    """An encoding that stores only what differs from the value before: read like any other, and bounded."""
    import pyarrow
    import pyarrow.parquet as parquet

    def write(captions: list[str]) -> list[Problem]:
        table = pyarrow.table({"image": [f"{n}.jpg" for n in range(len(captions))], "caption": captions})
        encodings = {"caption": "DELTA_BYTE_ARRAY", "image": "DELTA_BYTE_ARRAY"}
        parquet.write_table(table, tmp_path / "p.parquet", use_dictionary=False, column_encoding=encodings)
        return []

    problems = write([f"a dog runs {n}" for n in range(200)])
    assert len(read_pairs(tmp_path / "p.parquet", problems, {}).captions) == 200
    assert problems == []
    problems = write([f"{'x' * MEGA}{n}" for n in range(400)])
    pyarrow.default_memory_pool().release_unused()  # what writing took is not counted as reading's
    with limited_memory(), bounded():
        read_pairs(tmp_path / "p.parquet", problems, {})
    assert "far too large for a file of" in problems[0].what


def test_lists_whose_captions_repeat_but_are_few_are_read(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    captions = [["a dog", "two cats"][: n % 2 + 1] for n in range(400)]
    table = pyarrow.table({"image": [f"{n}.jpg" for n in range(400)], "captions": captions})
    parquet.write_table(table, tmp_path / "p.parquet", row_group_size=150)
    problems: list[Problem] = []
    found = read_pairs(tmp_path / "p.parquet", problems, {})
    assert problems == []
    assert len(found.captions) == 600
    assert set(found.captions) == {"a dog", "two cats"}


@pytest.mark.parametrize("kind", PARQUET)
def test_parquet(tmp_path: Path, kind: str) -> None:
    PARQUET[kind]()(tmp_path / "p.parquet")
    problems: list[Problem] = []
    with limited_memory(), bounded():
        read_pairs(tmp_path / "p.parquet", problems, {})
    assert "far too large for a file of" in problems[0].what


def test_a_table_whose_rows_repeat_but_are_few_is_read(tmp_path: Path) -> None:
    repeated(image=[f"{n}.jpg" for n in range(20_000)], caption=same("a dog runs", 20_000))(tmp_path / "p.parquet")
    problems: list[Problem] = []
    assert len(read_pairs(tmp_path / "p.parquet", problems, {}).captions) == 20_000
    assert not problems


def test_a_saved_data_set_of_equal_rows(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"image": ["a"] * 10, "caption": ["b"] * 10})
    rows.save_to_disk(str(tmp_path / "d"))
    import pyarrow

    run = pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([2**31 - 1], pyarrow.int32()), pyarrow.array(["a"]))
    table = pyarrow.table({"image": run, "caption": run})
    [file] = (tmp_path / "d").glob("*.arrow")
    with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    problems: list[Problem] = []
    with limited_memory(), bounded():
        read_pairs(tmp_path / "d", problems, {})
    assert problems


def test_nothing_else_escapes(tmp_path: Path) -> None:
    for content in (b'{"k": ' + b"9" * 5_000 + b"}", b'{"k": {"image_feat": [1e999]}}', b'{"k": NaN}'):
        (tmp_path / "f.json").write_bytes(content)
        with pytest.raises(DalrError):
            import_json(tmp_path / "f.json", tmp_path / "out")


TIMED = """
import json, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_balloons import TEXTS
from dalr.data.dataset import read_pairs
for kind, (name, content) in TEXTS.items():
    path = Path(sys.argv[1]) / name
    path.write_bytes(content)
    started = time.process_time()
    read_pairs(path, [], {})
    print(json.dumps([kind, time.process_time() - started]))
"""


def test_each_is_refused_within_two_seconds_where_no_types_are_checked(tmp_path: Path) -> None:
    """As users run it; the rest of the suite checks the types of every call, which takes several times as long."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", TIMED, str(tmp_path), str(here), str(here.parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    taken = dict(json.loads(line) for line in done.stdout.splitlines())
    assert taken.keys() == TEXTS.keys()
    assert max(taken.values()) < 2.0, taken


LONG = """
import json, re, sys
from pathlib import Path
from transformers import AutoTokenizer
from dalr.data.dataset import read_pairs, read_text
from dalr.data.tokens import tokenised

def peak():
    return int(re.search("VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) / 1024

tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
before, problems, path = peak(), [], Path(sys.argv[1])
sentences = (
    read_text(path, problems, {}).lines if path.suffix == ".txt" else read_pairs(path, problems, {}).captions
)
stream = tokenised(sentences, tokenizer, max_tokens=32)
print(json.dumps([peak() - before, len(problems), len(stream.row(0))]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.txt", "p.jsonl", "p.tsv"])
def test_a_line_of_200_megabytes_takes_a_few_times_its_size(tmp_path: Path, name: str) -> None:
    """Read and tokenised in a process of its own; 1.5 GB is seven times the line, and not the forty of before."""
    from tiny import save_tiny_bert

    model = save_tiny_bert(tmp_path / "bert")
    text = b"a red dog runs " * (200 * MEGA // 15)
    beginning = {"t.txt": b"", "p.jsonl": b'{"image": "a.jpg", "caption": "', "p.tsv": b"image\tcaption\na.jpg\t"}
    (tmp_path / name).write_bytes(beginning[name] + text + (b'"}\n' if name == "p.jsonl" else b"\n"))
    done = subprocess.run(
        [sys.executable, "-c", LONG, str(tmp_path / name), str(model)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    grown, problems, tokens = json.loads(done.stdout.splitlines()[-1])
    assert (problems, tokens) == (0, 32)
    assert grown < 1_500, f"{grown:.0f} MB for a line of 200 MB"
