"""An index finds its rows again, keeps their ids through every change, and is searched by its own model alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import dalr
from dalr.errors import ConfigError, CorruptFileError, StorageError
from dalr.inference.encode import EncodeOptions
from dalr.inference.index import build_index, query_vectors, search_index
from dalr.inference.index_folder import open_index
from dalr.inference.rows import Source
from dalr.io.console import Console
from tiny import Outcome, Toys, captions, save_tiny_sentence_transformer

Cli = Callable[..., Outcome]


def options() -> EncodeOptions:
    return EncodeOptions(normalize=True, device="cpu", part_rows=16, console=Console(quiet=True))


def lines(path: Path, sentences: list[str]) -> Source:
    path.write_text("".join(f"{line}\n" for line in sentences))
    return Source(path=str(path))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def index(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    build_index(str(tiny_teacher), lines(folder / "a.txt", captions(70)), folder / "index", options())
    return folder / "index"


def test_rows_are_found_with_their_texts(index: Path, tiny_teacher: Path, cli: Cli) -> None:
    done = cli("search", tiny_teacher, captions(70)[12], "--index", index, "-k", 3, "--json", "--device", "cpu")
    assert done.code == 0, done.err
    first, *others = json.loads(done.out)
    assert (first["id"], first["captions"], len(others)) == ("13", [captions(70)[12]], 2)
    assert first["score"] == pytest.approx(1, abs=1e-5)


def test_answers_are_those_of_all_cosines(index: Path, tiny_teacher: Path) -> None:
    opened = open_index(index)
    queries = query_vectors(opened, str(tiny_teacher), captions(90)[70:], device="cpu")
    numbers, _ = opened.search(queries, 5)
    rows = dalr.encode(tiny_teacher, captions(70), device="cpu", normalize=True)
    assert (numbers == np.argsort(-(queries @ rows.T), axis=1)[:, :5]).all()
    assert isinstance(opened.vectors, np.memmap)


def test_ids_survive_deleting_reloading_and_adding(tiny_teacher: Path, tmp_path: Path, cli: Cli) -> None:
    lines(tmp_path / "a.txt", captions(40))
    out, model = tmp_path / "index", tiny_teacher
    assert cli("index", model, tmp_path / "a.txt", "--out", out, "--device", "cpu").code == 0
    (tmp_path / "gone").write_text("40\n7\n1\n")
    done = cli("index", model, "--out", out, "--delete", tmp_path / "gone", "--device", "cpu")
    assert (done.code, "37 rows" in done.out, "3 deleted" in done.out) == (0, True, True), done.err
    lines(tmp_path / "b.txt", captions(45)[40:])
    assert cli("index", model, tmp_path / "b.txt", "--out", out, "--add", "--device", "cpu").code == 0
    opened = open_index(out)
    ids = [opened.ids[number] for number in range(len(opened))]
    kept = [str(number) for number in range(1, 41) if number not in (1, 7, 40)]
    assert ids == [*kept, "41", "42", "43", "44", "45"], "an id is never used a second time"
    for name in ("2", "39", "43"):
        sentence = captions(45)[int(name) - 1]
        assert search_index(out, str(model), sentence, k=1, device="cpu")[0].id == name
    again = cli("index", model, "--out", out, "--delete", tmp_path / "gone")
    assert (again.code, "no such id among the 42 rows" in again.err) == (3, True), again.err


def test_ids_of_a_column_are_unique(tiny_teacher: Path, tmp_path: Path, cli: Cli) -> None:
    rows = [{"id": name, "text": text} for name, text in zip("abca", captions(4), strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cli(
        *("index", tiny_teacher, tmp_path / "a.jsonl", "--id-column", "id", "--out", tmp_path / "index"),
        *("--device", "cpu"),
    )
    assert (done.code, "id 'a': occurs a second time" in done.err) == (3, True), done.err
    assert not (tmp_path / "index").exists()


def test_another_model_of_the_same_size_is_refused(index: Path, tmp_path: Path, cli: Cli) -> None:
    other = save_tiny_sentence_transformer(tmp_path / "other", seed=9)
    done = cli("search", other, "a dog", "--index", index, "--device", "cpu")
    assert (done.code, "vectors of two models cannot be compared" in done.err) == (2, True), done.err
    lines(tmp_path / "b.txt", captions(3))
    done = cli("index", other, tmp_path / "b.txt", "--out", index, "--add", "--device", "cpu")
    assert (done.code, "vectors of two models cannot be compared" in done.err) == (2, True), done.err


def test_a_query_of_another_dimension_is_refused(index: Path) -> None:
    with pytest.raises(ConfigError, match="holds vectors of 24 numbers, found a query of 3"):
        open_index(index).search(np.ones((1, 3), np.float32), 2)


def test_the_manifest_says_what_the_vectors_are(index: Path, tiny_teacher: Path) -> None:
    made = json.loads((index / "manifest.json").read_text())["metadata"]["making"]
    assert (made["head"], made["normalized"], made["precision"]) == ("none", True, "fp32")
    assert {"sha256", "pooling", "prompt", "max_tokens"} <= made["model"].keys()


def test_an_index_that_was_cut_short_or_damaged_is_refused(index: Path, tmp_path: Path) -> None:
    import shutil

    damaged = tmp_path / "index"
    shutil.copytree(index, damaged)
    with open(damaged / "vectors.npy", "r+b") as file:
        file.truncate(200)
    with pytest.raises(CorruptFileError, match=r"expected .* bytes, found 200; make the index again"):
        open_index(damaged)
    with pytest.raises(CorruptFileError, match=r"no manifest.json"):
        open_index(tmp_path)


@pytest.mark.slow
def test_every_state_that_a_kill_can_leave_is_resumed_to_the_same_bytes(
    index: Path, tiny_teacher: Path, tmp_path: Path
) -> None:
    """The process ends at the k-th rename, for every k until one run comes to its end."""
    lines(tmp_path / "a.txt", captions(70))
    expected = contents(index)
    script = (
        "import os, sys\n"
        "left = int(sys.argv[1])\n"
        "real = os.replace\n"
        "def replace(*names):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0: os._exit(137)\n"
        "    real(*names)\n"
        "os.replace = replace\n"
        "from pathlib import Path\n"
        "from dalr.inference.encode import EncodeOptions\n"
        "from dalr.inference.index import build_index\n"
        "from dalr.inference.rows import Source\n"
        "from dalr.io.console import Console\n"
        "for _ in range(1):\n"
        "    build_index(sys.argv[2], Source(path='a.txt'), Path('index'), resume=True, options=EncodeOptions(\n"
        "        normalize=True, device='cpu', part_rows=16, console=Console(quiet=True)))\n"
    )
    codes = []
    for renames in (3, 1, 1, 2, 99):
        command = [sys.executable, "-c", script, str(renames), str(tiny_teacher)]
        codes.append(subprocess.run(command, cwd=tmp_path, timeout=300, env={**os.environ}, check=False).returncode)
    assert codes[0] == 137
    assert codes[-1] == 0
    assert contents(tmp_path / "index") == expected
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "index"}


def test_an_index_is_not_overwritten(index: Path, tiny_teacher: Path, tmp_path: Path) -> None:
    source = lines(tmp_path / "a.txt", captions(3))
    with pytest.raises(StorageError, match="already exists; nothing was overwritten"):
        build_index(str(tiny_teacher), source, index, options())
    assert build_index(str(tiny_teacher), source, index, options(), resume=True).rows == 70


def test_a_full_disk_is_said(tiny_teacher: Path, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        source = lines(tmp_path / "a.txt", captions(864))
        with pytest.raises(StorageError, match="no space left"):
            build_index(str(tiny_teacher), source, place / "index", options())
        assert not (place / "index").exists()
    finally:
        subprocess.run(["umount", place], check=True)


def test_an_empty_input_is_refused(tiny_teacher: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "a.txt").write_text("")
    done = cli("index", tiny_teacher, tmp_path / "a.txt", "--out", tmp_path / "index", "--device", "cpu")
    assert (done.code, "no rows" in done.err) == (3, True), done.err
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt"}


def test_images_are_indexed_in_the_space_of_a_run(toys: Toys, tmp_path: Path, cli: Cli) -> None:
    run = dalr.train(toys.recipe(tmp_path), out=tmp_path / "run").run
    data = toys.data
    made = cli("features", "import", data.matrix, "--ids", data.ids, "--out", tmp_path / "store")
    assert made.code == 0, made.err
    done = cli("index", run, tmp_path / "store", "--out", tmp_path / "index")
    assert (done.code, "24 rows of 8 numbers" in done.out) == (0, True), done.err
    found = search_index(tmp_path / "index", str(run), "a red dog", k=5, device="cpu")
    expected = dalr.Searcher(run, device="cpu").search("a red dog", k=5)
    assert [(hit.id, hit.kind) for hit in found] == [(hit.id, "image") for hit in expected]
    refused = cli("index", toys.teacher, tmp_path / "store", "--out", tmp_path / "other")
    assert (refused.code, "needs the heads of a run" in refused.err) == (2, True), refused.err


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_faiss_finds_nearly_what_exact_search_finds(
    tiny_teacher: Path, tmp_path: Path, cli: Cli, kind: str
) -> None:
    pytest.importorskip("faiss")
    lines(tmp_path / "a.txt", captions(600))
    out = tmp_path / "index"
    done = cli("index", tiny_teacher, tmp_path / "a.txt", "--out", out, "--kind", kind, "--device", "cpu")
    assert (done.code, "recall@10" in done.out) == (0, True), done.err
    assert open_index(out).recall is not None
    found = search_index(out, str(tiny_teacher), captions(600)[77], k=3, device="cpu")
    assert (found[0].id, len(found)) == ("78", 3)
    again = tmp_path / "again"
    assert (
        cli("index", tiny_teacher, tmp_path / "a.txt", "--out", again, "--kind", kind, "--device", "cpu").code == 0
    )
    assert contents(out) == contents(again)


def test_without_faiss_it_is_said_what_to_install(
    tiny_teacher: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    lines(tmp_path / "a.txt", captions(3))
    done = cli("index", tiny_teacher, tmp_path / "a.txt", "--out", tmp_path / "index", "--kind", "hnsw")
    assert (done.code, "pip install '.[search]'" in done.err) == (2, True), done.err
