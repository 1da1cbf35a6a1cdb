"""Files that are wrong in every way that R18, R19, R21 and R34 name, in each format: the message, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalr.data.dataset import read_pairs, read_text
from dalr.data.formats import FORMATS, read_pairs_file
from dalr.data.reading import Reading
from dalr.errors import DataError, Problem

# (name of the file, what stands before a caption, what stands behind it)
FILES: dict[str, tuple[str, str, str]] = {
    "jsonl": ("p.jsonl", '{"image": "a.jpg", "caption": "', '"}'),
    "csv": ("p.csv", "image,caption\na.jpg,", ""),
    "tsv": ("p.tsv", "image\tcaption\na.jpg\t", ""),
    "flickr-csv": ("p.csv", "image_name| comment_number| comment\na.jpg| 0| ", ""),
    "flickr-token": ("p.token", "a.jpg#0\t", ""),
    "coco": (
        "p.json",
        '{"images": [{"id": 1, "file_name": "a.jpg"}],\n"annotations": [{"image_id": 1, "caption": "',
        '"}]}',
    ),
    "karpathy": ("p.json", '{"images": [\n{"filename": "a.jpg", "split": "val", "sentences": [{"raw": "', '"}]}]}'),
}
ODD = [
    "a\u2028b",
    "a\u2029b",
    "a\u0085b",
    "日本 😀 שלום",
    "e\u0301",
    "http://host/x.jpg",
    "/etc/passwd",
    "x" * 100_000,
]
BLANK = ["", "  ", "\u200b", "\u3000\ufeff", "\u2060 \u00a0"]


def write(folder: Path, kind: str, caption: bytes) -> Path:
    name, before, behind = FILES[kind]
    (folder / name).write_bytes(before.encode() + caption + behind.encode() + b"\n")
    return folder / name


def check(path: Path, on_empty: str = "error") -> tuple[tuple[str, ...], list[str], dict[str, int | str]]:
    problems: list[Problem] = []
    report: dict[str, int | str] = {}
    pairs = read_pairs(path, problems, report, on_empty=on_empty)  # type: ignore[arg-type]
    return pairs.captions, [str(problem) for problem in problems], report


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    ("bytes_", "shown"),
    [(b"caf\xe9 au", "0xe9"), (b"\xff", "0xff"), (b"x\xed\xa0\x80", "0xed"), (b"\xc0\xaf", "0xc0")],
)
def test_a_byte_that_is_not_utf8_is_located(tmp_path: Path, kind: str, bytes_: bytes, shown: str) -> None:
    path = write(tmp_path, kind, bytes_)
    head = path.read_bytes().split(bytes_[bytes_.index(int(shown, 16)) :])[0]
    line, byte = head.count(b"\n") + 1, len(head.rpartition(b"\n")[2]) + 1
    assert check(path)[1] == [f"{path}:{line}: byte {byte} is {shown}, not UTF-8; convert the file with iconv"]


@pytest.mark.parametrize("kind", FILES)
def test_utf_16_is_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, b"fine")
    path.write_bytes(path.read_text().encode("utf-16"))
    _, problems, _ = check(path)
    assert (
        any(f"{path}:1: byte 1 is 0xff, not UTF-8" in problem for problem in problems)
        or "known shapes" in problems[0]
    )


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("text", ODD, ids=lambda text: ascii(text)[:12])
def test_odd_text_is_text_and_comes_back_as_it_is(tmp_path: Path, kind: str, text: str) -> None:
    captions, problems, _ = check(write(tmp_path, kind, text.encode()))
    assert (captions, problems) == ((text,), [])


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("text", BLANK, ids=ascii)
def test_an_empty_caption_is_an_error_or_dropped_and_counted(tmp_path: Path, kind: str, text: str) -> None:
    path = write(tmp_path, kind, text.encode())
    _, [problem], _ = check(path)
    assert problem.startswith(str(path))
    assert problem.endswith("caption 0 of image 'a.jpg' is empty; remove it or set data.on_empty: drop")
    captions, [all_gone], report = check(path, on_empty="drop")
    assert (captions, all_gone, report["captions_dropped_empty"]) == ((), f"{path}: no caption in it", 1)


@pytest.mark.parametrize("kind", ["jsonl", "coco", "karpathy"])
def test_half_a_character_is_refused(tmp_path: Path, kind: str) -> None:
    _, [problem], _ = check(write(tmp_path, kind, b"x \\ud83d y"))
    assert problem.endswith(
        "'x \\ud83d y' holds a lone surrogate, half of a character, which no encoding can represent"
    )


@pytest.mark.parametrize("kind", FILES)
def test_a_nul_is_text_or_refused_by_the_format_itself(tmp_path: Path, kind: str) -> None:
    captions, problems, _ = check(write(tmp_path, kind, b"a\x00b"))
    assert captions == ("a\x00b",) or "not JSON" in problems[0]


NAMES = ["../../x", "/etc/passwd", "C:\\x", "CON", "a#0", "x" * 300, "日本.jpg", "..", "$HOME/~", "hf:x/y", "a;b"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:12])
@pytest.mark.parametrize("kind", FILES)
def test_names_are_data_and_never_paths(tmp_path: Path, kind: str, name: str) -> None:
    path = write(tmp_path, kind, b"fine")
    written = name.replace("\\", "\\\\") if kind in ("jsonl", "coco", "karpathy") else name
    path.write_text(path.read_text().replace("a.jpg", written))
    problems: list[Problem] = []
    pairs = read_pairs(path, problems, {})
    assert (pairs.images, pairs.caption_ids, problems) == ((name,), (f"{name}#0",), [])
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_twenty_of_many_problems_are_shown_and_the_rest_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "p.token"
    path.write_text("a#0\tfine\n" + "broken\n" * 45)
    problems: list[Problem] = []
    read_pairs_file(path, problems)
    shown = str(DataError(problems)).splitlines()
    assert len(shown) == 21
    assert shown[0] == f"{path}:2: expected name#number, a tab and a caption, found 'broken'"
    assert shown[-1] == "... and 25 more (45 in total)"


def test_gzip_that_unpacks_to_what_no_text_is_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr("dalr.io.text._FREE", 1 << 20)
    path = tmp_path / "t.txt"
    path.write_bytes(gzip.compress(bytes(8 << 20)))
    problems: list[Problem] = []
    read_text(path, problems, {})
    assert "bytes of gzip unpack to more than" in problems[0].what


PIECES = st.sampled_from(
    [
        *(
            '{"images": [',
            '{"image": ',
            '"a.jpg"',
            '"captions": [',
            '"annotations": [',
            '"id": 1',
            '"sentences": [',
        ),
        *(
            '"raw": "x"',
            '"file_name": ',
            '"filename": ',
            "]}",
            "}",
            ", ",
            "image,caption",
            "image\tcaption",
            "a#0\tx",
        ),
        *(
            "image_name| comment_number| comment",
            "a| 0| x",
            "\n",
            "\r\n",
            '"',
            "\ufeff",
            "\u2028",
            "\x00",
            "\\ud800",
            "1e999",
        ),
    ]
)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(sorted(FORMATS)),
    content=st.one_of(
        st.binary(max_size=60),
        st.lists(PIECES, max_size=12).map(lambda pieces: "".join(pieces).encode("utf-8", "surrogatepass")),
        st.binary(max_size=40).map(lambda tail: b"\x1f\x8b\x08\x00" + tail),
        st.binary(max_size=40).map(lambda tail: b"PAR1" + tail + b"PAR1"),
    ),
    ending=st.sampled_from(
        [".jsonl", ".json", ".csv", ".tsv", ".txt", ".token", ".parquet", ".json.gz", ".xyz", ""]
    ),
)
def test_whatever_a_file_holds_only_our_problems_come_out(
    tmp_path_factory: pytest.TempPathFactory, kind: str, content: bytes, ending: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"p{ending}"
    path.write_bytes(content)
    for format in (None, kind):
        problems: list[Problem] = []
        pairs = read_pairs(path, problems, {}, reading=Reading.model_validate({"format": format}))
        assert problems or pairs.captions
        assert all(problem.where.startswith(str(path)) for problem in problems)


@settings(max_examples=150)
@given(data=st.data())
def test_a_good_file_with_bytes_changed_gives_pairs_or_problems(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = write(folder, data.draw(st.sampled_from(sorted(FILES))), b"fine")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(content)
    problems: list[Problem] = []
    pairs = read_pairs(path, problems, {})
    assert problems or pairs.captions
