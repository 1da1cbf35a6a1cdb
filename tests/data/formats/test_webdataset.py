"""WebDataset shards as pairs: ids from shard and key, captions from .txt or .json, problems with their places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dalr.data.formats import read_pairs_file
from dalr.data.formats.collecting import Columns
from dalr.data.formats.shards import shard_images
from dalr.data.rows import CaptionedImage
from dalr.errors import Problem
from dalr.io.shards import read_member, write_shard


def read(path: Path, **options: object) -> tuple[list[CaptionedImage], list[str]]:
    problems: list[Problem] = []
    rows = read_pairs_file(path, problems, **options)  # type: ignore[arg-type]
    return rows, [str(problem) for problem in problems]


def record(**content: object) -> bytes:
    return json.dumps(content).encode()


def test_captions_are_read_from_text_or_json_and_images_stay_where_they_are(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "000.tar",
        [
            ("a.jpg", b"A"),
            ("a.txt", b"\xef\xbb\xbfa dog\n"),
            ("sub/b.png", b"B"),
            ("sub/b.json", record(caption="two cats", split="val")),
            ("c.json", record(captions=["one", "two"], url="http://x")),
            ("c.JPEG", b"C"),
            ("c.cls", b"7"),
        ],
    )
    rows, problems = read(tmp_path / "000.tar")
    assert problems == []
    assert [(row.image, row.captions, row.split) for row in rows] == [
        ("000/a", ("a dog",), None),
        ("000/sub/b", ("two cats",), "val"),
        ("000/c", ("one", "two"), None),
    ]
    images = shard_images(tmp_path / "000.tar")
    assert {name: read_member(member, most=1) for name, member in images.items()} == {
        "000/a": b"A",
        "000/sub/b": b"B",
        "000/c": b"C",
    }


def test_several_shards_are_one_file_of_pairs_and_keys_may_be_the_same_in_them(tmp_path: Path) -> None:
    for shard in ("000", "001"):
        write_shard(tmp_path / f"{shard}.tar", [("a.jpg", b"A"), ("a.txt", shard.encode())])
    rows, problems = read(tmp_path / "{000..001}.tar", format="webdataset")
    assert problems == []
    assert [(row.image, row.captions) for row in rows] == [("000/a", ("000",)), ("001/a", ("001",))]


def test_text_goes_before_json_unless_a_key_is_named(tmp_path: Path) -> None:
    members = [("a.jpg", b"A"), ("a.txt", b"text"), ("a.json", record(caption="json", alt="named"))]
    write_shard(tmp_path / "s.tar", members)
    assert read(tmp_path / "s.tar")[0][0].captions == ("text",)
    assert read(tmp_path / "s.tar", columns=Columns(caption="alt"))[0][0].captions == ("named",)


def test_what_others_put_into_shards_is_passed_over(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "s.tar",
        [("README", b""), ("._a.jpg", b""), (".DS_Store", b""), ("a.txt", b"t"), ("a.jpg", b"A")],
    )
    assert [row.image for row in read(tmp_path / "s.tar")[0]] == ["s/a"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.txt", b"t")], "expected one image (jpg, jpeg, png, webp, ...), found none"),
        ([("a.jpg", b""), ("a.png", b""), ("a.txt", b"t")], "found a.jpg, a.png"),
        ([("a.jpg", b"")], "no caption: expected a .txt, or a .json with 'caption' or 'captions'"),
        ([("a.jpg", b""), ("a.json", record(text="x"))], "no caption: expected a .txt"),
        ([("a.jpg", b""), ("a.json", record(caption=1))], "expected a list of strings under 'caption'"),
        ([("a.jpg", b""), ("a.json", b"[1]")], "expected a JSON object"),
        ([("a.jpg", b""), ("a.json", b"{")], "not JSON"),
        ([("a.jpg", b""), ("a.json", b"[" * 100_000)], "not JSON"),
        ([("a.jpg", b""), ("a.json", record(caption="x", split=3))], "expected a string under 'split'"),
        ([("a.jpg", b""), ("a.txt", b"caf\xe9")], "not UTF-8: byte 4 is 0xe9"),
        ([("a.jpg", b""), ("a.txt", b"x" * (2**20 + 1))], "1048577 bytes, more than the 1048576 allowed"),
        ([("a.jpg", b""), ("b.txt", b""), ("a.txt", b"")], "the key occurs twice"),
    ],
)
def test_a_wrong_sample_is_named_with_shard_and_offset(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    write_shard(tmp_path / "s.tar", [*members, ("z.jpg", b""), ("z.txt", b"fine")])
    rows, problems = read(tmp_path / "s.tar")
    wrong = [problem for problem in problems if message in problem]
    assert len(wrong) == 1, problems
    assert wrong[0].startswith(f"{tmp_path / 's.tar'}: member ")
    assert " at byte " in wrong[0]
    if "twice" not in message:
        assert [row.image for row in rows] == ["s/z"]


def test_a_damaged_shard_does_not_hide_the_problems_of_the_next(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"no tar file" * 100)
    write_shard(tmp_path / "1.tar", [("a.jpg", b"")])
    _, problems = read(tmp_path / "{0..2}.tar")
    assert [problem.split(":")[0][-5:] for problem in problems] == ["0.tar", "1.tar", "2.tar"]


def test_a_published_shard_is_read(shared: Path) -> None:
    path = shared / "data" / "webdataset-cc12m" / "cc12m-train-0000.tar"
    rows, problems = read(path)
    assert problems == []
    assert len(rows) == len(shard_images(path)) == 32
    assert rows[0].captions == ("Red Square is a city square in Moscow, Russia.",)
