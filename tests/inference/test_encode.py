"""`dalr encode`: one row in, one row out, in order, to the same bytes however often it is interrupted."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer

import dalr
from dalr.errors import ConfigError, DataError, StorageError
from dalr.features.store import open_store
from dalr.inference.encode import EncodeOptions, encode_file, merge_parts
from dalr.inference.precision import Ranges, quantized, restored
from dalr.inference.rows import Source, parts
from dalr.io.console import Console
from dalr.io.share import Share
from tiny import Outcome, captions, save_tiny_encoder
from tiny_images import save_tiny_image_model

Cli = Callable[..., Outcome]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def reference(tiny_teacher: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_teacher), device="cpu")


def lines(path: Path, sentences: list[str]) -> Source:
    path.write_text("".join(f"{line}\n" for line in sentences), encoding="utf-8")
    return Source(path=str(path))


def options(**changes: object) -> EncodeOptions:
    return EncodeOptions(**({"console": QUIET, "device": "cpu", "part_rows": 16} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 7, 64])
def test_rows_are_those_of_sentence_transformers_in_order(
    tiny_teacher: Path, reference: SentenceTransformer, count: int
) -> None:
    sentences = captions(count)
    random.Random(0).shuffle(sentences)
    found = dalr.encode(tiny_teacher, [*sentences, sentences[0]], device="cpu")
    assert np.abs(found - reference.encode([*sentences, sentences[0]])).max() <= 1e-5


def test_parts_of_another_size_give_the_same_vectors_to_1e_5(tiny_teacher: Path, tmp_path: Path) -> None:
    source = lines(tmp_path / "a.txt", captions(50))
    found = []
    for size in (1, 7, 64):
        encode_file(str(tiny_teacher), source, tmp_path / f"{size}.npy", options(part_rows=size))
        found.append(np.load(tmp_path / f"{size}.npy", allow_pickle=False))
    assert max(np.abs(each - found[0]).max() for each in found) <= 1e-5


@pytest.mark.parametrize("architecture", ["modernbert", "mpnet", "xlm-roberta"])
def test_other_encoders_get_their_own_vectors(tmp_path: Path, architecture: str) -> None:
    folder = save_tiny_encoder(tmp_path / architecture, architecture)
    found = dalr.encode(folder, captions(9), pooling="mean", device="cpu")
    one_by_one = np.concatenate([dalr.encode(folder, [each], pooling="mean", device="cpu") for each in captions(9)])
    assert np.abs(found - one_by_one).max() <= 1e-5


def test_a_model_in_memory_keeps_its_mode(reference: SentenceTransformer) -> None:
    reference.train()
    found = dalr.encode(reference, captions(5))
    assert reference.training
    assert np.abs(found - reference.encode(captions(5))).max() <= 1e-5
    reference.eval()


def test_no_rows_give_no_vectors(tiny_teacher: Path) -> None:
    assert dalr.encode(tiny_teacher, [], device="cpu").shape == (0, 24)


WRITERS: dict[str, Callable[[Path, list[str]], Source]] = {}


def _jsonl(path: Path, rows: list[str]) -> Source:
    path.write_text("".join(json.dumps({"name": f"r{i}", "text": row}) + "\n\n" for i, row in enumerate(rows)))
    return Source(path=str(path), id_column="name")


def _csv(path: Path, rows: list[str]) -> Source:
    path.write_text("name,text\n" + "".join(f'r{i},"{row}"\r\n' for i, row in enumerate(rows)))
    return Source(path=str(path), id_column="name")


def _tsv(path: Path, rows: list[str]) -> Source:
    path.write_text("text\tname\n" + "".join(f"{row}\tr{i}\n" for i, row in enumerate(rows)))
    return Source(path=str(path), id_column="name")


def _parquet(path: Path, rows: list[str]) -> Source:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table({"name": [f"r{i}" for i in range(len(rows))], "text": rows}), path)
    return Source(path=str(path), id_column="name")


@pytest.mark.parametrize(
    ("name", "write"), [("a.jsonl", _jsonl), ("a.csv", _csv), ("a.tsv", _tsv), ("a.parquet", _parquet)]
)
def test_columns_of_tables_are_encoded_with_their_ids(
    tiny_teacher: Path, reference: SentenceTransformer, tmp_path: Path, name: str, write: Callable[..., Source]
) -> None:
    sentences = captions(20)
    source = write(tmp_path / name, sentences)
    encode_file(str(tiny_teacher), source, tmp_path / "store", options())
    store = open_store(tmp_path / "store")
    assert store.ids == tuple(f"r{i}" for i in range(20))
    assert np.abs(store.read(np.arange(20)) - reference.encode(sentences)).max() <= 1e-3


def test_parquet_output_has_an_id_and_a_vector_per_row(
    tiny_teacher: Path, reference: SentenceTransformer, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    encode_file(str(tiny_teacher), lines(tmp_path / "a.txt", captions(20)), tmp_path / "v.parquet", options())
    table = parquet.read_table(tmp_path / "v.parquet")
    assert table["id"].to_pylist() == [str(number) for number in range(1, 21)]
    vectors = np.asarray(table["vector"].to_pylist(), np.float32)
    assert np.abs(vectors - reference.encode(captions(20))).max() <= 1e-5


def test_standard_input_is_encoded(
    tiny_teacher: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = "".join(f"{line}\n" for line in captions(5)).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    done = cli("encode", tiny_teacher, "-", "--out", tmp_path / "v.npy", "--device", "cpu", "-q")
    assert (done.code, done.out) == (0, f"{tmp_path / 'v.npy'}: 5 rows of 24 numbers\n"), done.err
    assert np.load(tmp_path / "v.npy", allow_pickle=False).shape == (5, 24)


def test_captions_are_text_whatever_they_look_like(tiny_teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    odd = ["http://host/x.jpg", "data:image/png;base64,AAAA", str(tmp_path / "x.png"), "../x.png"]
    assert dalr.encode(tiny_teacher, odd, device="cpu").shape == (4, 24)


def test_long_and_blank_rows_are_counted_and_said(tiny_teacher: Path, tmp_path: Path, cli: Cli) -> None:
    lines(tmp_path / "a.txt", ["a dog", "dog " * 300_000, "", "a cat on the grass \N{DOG FACE} \u202edog"])
    done = cli("encode", tiny_teacher, tmp_path / "a.txt", "--out", tmp_path / "v.npy", "--device", "cpu")
    assert done.code == 0
    assert "1 rows were longer than the model reads" in done.err
    assert "1 row is blank" in done.err
    stated = json.loads((tmp_path / "v.npy.json").read_text())
    assert (stated["cut_rows"], stated["blank_rows"], stated["rows"]) == (1, 1, 4)
    refused = cli(
        *("encode", tiny_teacher, tmp_path / "a.txt", "--out", tmp_path / "w.npy", "--on-long", "error"),
        *("--device", "cpu"),
    )
    assert refused.code == 3
    assert "row 2: longer than 48 tokens" in refused.err


def test_truncated_vectors_are_the_first_numbers_at_length_1(
    tiny_teacher: Path, reference: SentenceTransformer
) -> None:
    found = dalr.encode(tiny_teacher, captions(5), truncate_dim=8, device="cpu")
    expected = reference.encode(captions(5))[:, :8]
    assert np.abs(found - expected / np.linalg.norm(expected, axis=1, keepdims=True)).max() <= 1e-5


def test_int8_keeps_its_ranges_for_later_vectors(tiny_teacher: Path, tmp_path: Path) -> None:
    source = lines(tmp_path / "a.txt", captions(40))
    encode_file(str(tiny_teacher), source, tmp_path / "v.npy", options(precision="int8"))
    ranges = Ranges.from_json(json.loads((tmp_path / "v.npy.json").read_text())["ranges"])
    whole = dalr.encode(tiny_teacher, captions(40), device="cpu")
    found = np.load(tmp_path / "v.npy", allow_pickle=False)
    assert found.dtype == np.int8
    assert (found == quantized(whole, ranges)).mean() > 0.999, (
        "a number on the border of two steps may fall either way"
    )
    inside = (whole >= ranges.low) & (whole <= ranges.high)
    half_a_step = (ranges.high - ranges.low) / 255 * 0.51
    assert (np.abs(restored(found, ranges) - whole) <= half_a_step)[inside].all()
    later = lines(tmp_path / "b.txt", captions(50)[40:])
    ranged = options(precision="int8", ranges=tmp_path / "v.npy.json")
    encode_file(str(tiny_teacher), later, tmp_path / "w.npy", ranged)
    assert json.loads((tmp_path / "w.npy.json").read_text())["ranges"] == ranges.as_json()


def test_int8_does_not_wrap_around() -> None:
    ranges = Ranges(low=np.zeros(2, np.float32), high=np.ones(2, np.float32))
    assert quantized(np.array([[-5, 5]], np.float32), ranges).tolist() == [[-128, 127]]


def test_binary_holds_the_signs(tiny_teacher: Path) -> None:
    whole = dalr.encode(tiny_teacher, captions(5), device="cpu")
    found = dalr.encode(tiny_teacher, captions(5), precision="binary", device="cpu")
    assert (np.unpackbits(found, axis=1) == (whole > 0)).all()


def test_bf16_moves_cosines_little(tiny_teacher: Path, reference: SentenceTransformer) -> None:
    found = dalr.encode(tiny_teacher, captions(20), precision="bf16", device="cpu")
    assert found.dtype == np.float32
    assert ((found * reference.encode(captions(20))).sum(axis=1) > 0.999).all()


@pytest.mark.parametrize("name", ["v.npy", "v.parquet", "store"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_parts_of_several_processes_are_merged_to_the_bytes_of_one(
    tiny_teacher: Path, tmp_path: Path, name: str, precision: str
) -> None:
    if name == "store" and precision == "int8":
        pytest.skip("a store holds fp16")
    source = lines(tmp_path / "a.txt", captions(70))
    alone, shared = tmp_path / "alone" / name, tmp_path / "shared" / name
    alone.parent.mkdir()
    encode_file(str(tiny_teacher), source, alone, options(precision=precision))
    for number in (2, 0):
        share = Share(number=number, of=3)
        encode_file(str(tiny_teacher), source, shared, options(precision=precision), share=share)
    with pytest.raises(ConfigError, match="--part 2/3 is missing"):
        merge_parts(shared)
    encode_file(str(tiny_teacher), source, shared, options(precision=precision), share=Share(number=1, of=3))
    assert merge_parts(shared).rows == 70
    assert contents(shared) == contents(alone)
    assert {path.name for path in shared.parent.iterdir()} == {path.name for path in alone.parent.iterdir()}


def contents(out: Path) -> dict[str, bytes]:
    files = sorted(out.iterdir()) if out.is_dir() else [out, out.with_name(f"{out.name}.json")]
    return {path.name: path.read_bytes() for path in files}


def killed_states(work: Path) -> Iterator[list[str]]:
    """What a kill can leave: parts that are done, one that is half written, one that is damaged."""
    names = sorted(path.name for path in work.iterdir() if path.suffix == ".part")
    yield from (names[:count] for count in range(len(names) + 1))


def test_every_state_that_a_kill_can_leave_is_resumed_to_the_same_bytes(tiny_teacher: Path, tmp_path: Path) -> None:
    source, out = lines(tmp_path / "a.txt", captions(70)), tmp_path / "v.npy"
    encode_file(str(tiny_teacher), source, tmp_path / "whole.npy", options())
    expected = (tmp_path / "whole.npy").read_bytes()
    encode_file(str(tiny_teacher), source, out, options(), share=Share(number=0, of=2))
    encode_file(str(tiny_teacher), source, out, options(), share=Share(number=1, of=2))
    work = out.with_name("v.npy.parts")
    complete = {path.name: path.read_bytes() for path in work.iterdir()}
    for kept in [*killed_states(work), ["half"], ["damaged"]]:
        for path in work.iterdir():
            path.unlink()
        for name in (*[name for name in kept if name.endswith(".part")], "making.json"):
            (work / name).write_bytes(complete[name])
        if kept == ["half"]:
            (work / ".000001.part.0123abcd.tmp").write_bytes(complete["000001.part"][:100])
        if kept == ["damaged"]:
            damaged = bytearray(complete["000001.part"])
            damaged[-5] ^= 1
            (work / "000001.part").write_bytes(damaged)
        report = encode_file(str(tiny_teacher), source, out, options(), resume=True)
        assert out.read_bytes() == expected, kept
        done = sum(name.endswith(".part") for name in kept)
        assert report.computed == 70 - min(16 * done, 70), kept
        assert not work.exists()
        out.unlink()
        out.with_name("v.npy.json").unlink()
        work.mkdir()


def test_a_changed_row_is_computed_again(tiny_teacher: Path, tmp_path: Path) -> None:
    sentences, out = captions(70), tmp_path / "v.npy"
    source = lines(tmp_path / "a.txt", sentences)
    encode_file(str(tiny_teacher), source, out, options(), share=Share(number=0, of=2))
    encode_file(str(tiny_teacher), source, out, options(), share=Share(number=1, of=2))
    sentences[20] = "another sentence"
    report = encode_file(str(tiny_teacher), lines(tmp_path / "a.txt", sentences), out, options(), resume=True)
    assert report.computed == 16
    assert (
        np.abs(np.load(out, allow_pickle=False) - dalr.encode(tiny_teacher, sentences, device="cpu")).max() < 1e-5
    )


def test_a_finished_output_is_left_as_it_is(tiny_teacher: Path, tmp_path: Path) -> None:
    source, out = lines(tmp_path / "a.txt", captions(20)), tmp_path / "v.npy"
    encode_file(str(tiny_teacher), source, out, options())
    with pytest.raises(StorageError, match="already exists; nothing was overwritten"):
        encode_file(str(tiny_teacher), source, out, options())
    assert encode_file(str(tiny_teacher), source, out, options(), resume=True).computed == 0
    with pytest.raises(StorageError, match="made of another input or otherwise"):
        encode_file(str(tiny_teacher), source, out, options(precision="binary"), resume=True)


def test_unfinished_work_is_neither_mixed_nor_lost(tiny_teacher: Path, tiny_bert: Path, tmp_path: Path) -> None:
    source, out = lines(tmp_path / "a.txt", captions(70)), tmp_path / "v.npy"
    encode_file(str(tiny_teacher), source, out, options(), share=Share(number=0, of=2))
    with pytest.raises(ConfigError, match="unfinished work of an earlier run; continue with --resume"):
        encode_file(str(tiny_teacher), source, out, options())
    with pytest.raises(ConfigError, match="begun with model"):
        encode_file(str(tiny_bert), source, out, options(pooling="cls"), resume=True)
    with pytest.raises(ConfigError, match="begun with precision 'fp32', now asked for 'binary'"):
        encode_file(str(tiny_teacher), source, out, options(precision="binary"), share=Share(number=1, of=2))


@pytest.mark.slow
def test_killed_encodings_end_in_the_same_bytes(tiny_teacher: Path, tmp_path: Path) -> None:
    """Kill -9 at some moment, again and again, until one run comes to its end."""
    lines(tmp_path / "a.txt", [f"{line} {number}" for number in range(40) for line in captions(400)])
    command = [
        sys.executable,
        "-m",
        "dalr",
        "encode",
        str(tiny_teacher),
        "a.txt",
        "-q",
        "--device",
        "cpu",
        "--resume",
    ]
    subprocess.run([*command, "--out", "whole.npy"], cwd=tmp_path, check=True, timeout=300)
    kills = 0
    while not (tmp_path / "v.npy.json").exists():
        process = subprocess.Popen([*command, "--out", "v.npy"], cwd=tmp_path)
        work = tmp_path / "v.npy.parts"
        before = len(list(work.glob("*.part"))) if work.exists() else 0
        while process.poll() is None and kills < 3:
            if work.exists() and len(list(work.glob("*.part"))) > before:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        process.wait(timeout=300)
    assert kills
    assert (tmp_path / "v.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


BAD = {
    "empty": (b"", "no rows; expected at least one sentence"),
    "latin-1": (b"a dog\na caf\xe9\n", "a.txt:2: byte 6 is 0xe9, not UTF-8"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_text_is_refused_with_its_place(tiny_teacher: Path, tmp_path: Path, cli: Cli, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / "a.txt").write_bytes(content)
    done = cli("encode", tiny_teacher, tmp_path / "a.txt", "--out", tmp_path / "v.npy", "--device", "cpu")
    assert done.code == 3, done.err
    assert message in done.err
    assert not (tmp_path / "v.npy").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}\n', "a.jsonl:2: no column 'text'; did you mean 'txt'?"),
        ("a.jsonl", '{"text": ["a"]}\n', "a.jsonl:1: expected a sentence under 'text', found ['a']"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: expected a JSON object"),
        ("a.jsonl", "{\n", "a.jsonl:1: not JSON"),
        ("a.csv", "caption\na\n", "a.csv:1: no column 'text'"),
        ("a.csv", "text,b\na\n", "a.csv:2: expected 2 columns, found 1"),
        ("a.csv", 'text\n"a\n', "not valid CSV"),
        ("a.parquet", "no parquet", "cannot be read as Parquet"),
    ],
)
def test_bad_tables_are_refused_with_their_place(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as refused:
        list(Source(path=str(tmp_path / name)).rows())
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--out", "v.txt"), 2, "ends in .npy or .parquet"),
        (("--out", "store", "--precision", "int8"), 2, "a feature store holds fp16"),
        (("--out", "v.npy", "--truncate-dim", "99"), 2, "expected 1 to 24, the embedding dimension"),
        (("--out", "v.npy", "--part", "3/2"), 2, "expected i/n"),
        (("--out", "v.npy", "--part", "x"), 2, "expected i/n such as 2/8"),
        (("--out", "v.npy", "--id-column", "a"), 2, "a matrix has no ids"),
        (("--out", "v.npy", "--prompt", "nosuch"), 2, "is not the name of one of its prompts"),
        ((), 2, "name FILE.npy, FILE.parquet or a folder"),
    ],
)
def test_options_that_cannot_work_are_refused(
    tiny_teacher: Path, tmp_path: Path, cli: Cli, arguments: tuple[str, ...], code: int, message: str
) -> None:
    lines(tmp_path / "a.txt", captions(3))
    placed = [str(tmp_path / each) if each in ("v.txt", "v.npy", "store") else each for each in arguments]
    done = cli("encode", tiny_teacher, tmp_path / "a.txt", *placed, "--device", "cpu")
    assert (done.code, message in done.err) == (code, True), done.err


def test_a_missing_model_and_a_missing_file_are_said(tiny_teacher: Path, tmp_path: Path, cli: Cli) -> None:
    lines(tmp_path / "a.txt", captions(3))
    assert cli("encode", tmp_path / "none", tmp_path / "a.txt", "--out", tmp_path / "v.npy").code == 4
    assert cli("encode", tiny_teacher, tmp_path / "b.txt", "--out", tmp_path / "v.npy").code == 3
    nothing = cli("encode", "--merge", "--out", tmp_path / "v.npy")
    assert (nothing.code, "no parts to merge" in nothing.err) == (2, True)


def test_images_need_an_image_model(tiny_teacher: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "images").mkdir()
    done = cli("encode", tiny_teacher, tmp_path / "images", "--out", tmp_path / "store")
    assert (done.code, "name an image model such as CLIP" in done.err) == (2, True), done.err


def test_a_full_disk_is_said_and_what_is_done_is_kept(tiny_teacher: Path, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        source = lines(tmp_path / "a.txt", captions(864))
        with pytest.raises(StorageError, match="no space left"):
            encode_file(str(tiny_teacher), source, place / "v.npy", options())
        assert not (place / "v.npy").exists()
        assert list((place / "v.npy.parts").glob("*.part"))
    finally:
        subprocess.run(["umount", place], check=True)


def test_memory_does_not_grow_with_the_input() -> None:
    """A part is the most that is held; a long line makes a part of its own."""
    from dalr.inference.rows import Row

    rows = (Row(str(number), "x" * (1 << 20)) for number in range(40))
    assert max(sum(map(len, part.texts)) for part in parts(rows)) <= 17 << 20


MEGABYTE = 1 << 20


def test_a_small_parquet_file_that_unpacks_to_much_is_refused(tiny_teacher: Path, tmp_path: Path, cli: Cli) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    table = pyarrow.table({"text": [f"{number}" + "a" * MEGABYTE for number in range(70)]})
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "a.parquet").stat().st_size < MEGABYTE
    done = cli("encode", tiny_teacher, tmp_path / "a.parquet", "--out", tmp_path / "v.npy", "--device", "cpu")
    assert done.code == 3, done.err
    assert "row group 1 is 73.4 MB once unpacked, far too large for a file of" in done.err
    parquet.write_table(table, tmp_path / "b.parquet", compression="zstd", use_dictionary=False, row_group_size=30)
    assert len(list(Source(path=str(tmp_path / "b.parquet")).rows())) == 70


def test_a_long_value_of_many_parquet_rows_is_unpacked_for_one_row_at_a_time(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    texts = pyarrow.DictionaryArray.from_arrays([0] * 1_000, ["a" * 900_000])
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    program = f"""
from pathlib import Path
from dalr.inference.rows import Source, parts
rows = sum(len(part.texts) for part in parts(Source(path={str(tmp_path / "a.parquet")!r}).rows()))
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(rows, int(peak.split()[1]) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    rows, peak = map(int, done.stdout.split())
    assert rows == 1_000
    assert peak < 600  # megabytes; all rows would take 900, beside the 150 of the libraries


def test_a_sentence_of_any_length_is_refused_in_tables_as_in_lines(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    noise = np.random.default_rng(0).integers(97, 123, 65 * MEGABYTE, dtype=np.uint8).tobytes().decode()
    parquet.write_table(pyarrow.table({"text": ["a dog", noise]}), tmp_path / "a.parquet", compression="none")
    with pytest.raises(DataError, match="row 2: a sentence of more than 64 MiB"):
        list(Source(path=str(tmp_path / "a.parquet")).rows())


def test_images_of_a_folder_are_encoded_under_their_paths(tmp_path: Path, cli: Cli) -> None:
    model = save_tiny_image_model(tmp_path / "clip", "clip")
    (tmp_path / "images" / "b").mkdir(parents=True)
    for name in ("c.png", "a.jpg", "b/d.png"):
        Image.new("RGB", (40, 30), (len(name) * 20, 10, 200)).save(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    arguments = ("encode", model, tmp_path / "images", "--device", "cpu")
    done = cli(*arguments, "--out", tmp_path / "store")
    assert done.code == 0, done.err
    store = open_store(tmp_path / "store")
    assert store.ids == ("a.jpg", "b/d.png", "c.png")
    assert np.isfinite(store.read(np.arange(3))).all()
    (tmp_path / "images" / "e.png").write_bytes(b"no image")
    bad = cli(*arguments, "--out", tmp_path / "other")
    assert (bad.code, "e.png" in bad.err) == (3, True), bad.err


def test_the_text_tower_of_a_clip_encodes_sentences(tmp_path: Path) -> None:
    model = save_tiny_image_model(tmp_path / "clip", "clip")
    found = dalr.encode(model, ["a dog", "a cat", "a dog"], device="cpu")
    assert (found[0] == found[2]).all()
    assert found.shape[0] == 3
