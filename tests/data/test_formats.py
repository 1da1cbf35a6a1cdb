"""Pairs files: every good form is read, every malformed row is named, and all of them in one pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from dalr.data.formats import FORMATS, read_pairs_file
from dalr.data.rows import CaptionedImage
from dalr.errors import Problem


def read(path: Path, text: str | bytes) -> tuple[list[CaptionedImage], list[Problem]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    problems: list[Problem] = []
    return read_pairs_file(path, problems), problems


def as_plain(rows: list[CaptionedImage]) -> list[tuple[str, tuple[str, ...]]]:
    return [(row.image, row.captions) for row in rows]


@pytest.mark.parametrize(
    "text",
    [
        '{"image": "b", "captions": ["one", "two"]}\n{"image": "a", "captions": ["three"]}\n',
        '{"image": "b", "caption": "one"}\n{"image": "b", "caption": "two"}\n{"image": "a", "caption": "three"}\n',
        '{"image": "b", "caption": "one"}\n{"image": "a", "caption": "three"}\n{"image": "b", "caption": "two"}',
        '\ufeff{"image": "b", "captions": ["one", "two"], "x": 1}\r\n\r\n{"image": "a", "caption": "three"}',
    ],
)
def test_jsonl_lists_images_in_the_order_of_the_file(tmp_path: Path, text: str) -> None:
    rows, problems = read(tmp_path / "p.jsonl", text)
    assert problems == []
    assert as_plain(rows) == [("b", ("one", "two")), ("a", ("three",))]


@pytest.mark.parametrize(
    "text",
    [
        "image,caption\nb,one\nb,two\na,three\n",
        "image,caption\r\nb,one\r\na,three\r\nb,two",
        '\ufeffid,caption,image\n1,"one",b\n\n2,two,b\n3,three,"a"\n',
    ],
)
def test_csv_puts_the_rows_of_an_image_together(tmp_path: Path, text: str) -> None:
    rows, problems = read(tmp_path / "p.csv", text)
    assert problems == []
    assert as_plain(rows) == [("b", ("one", "two")), ("a", ("three",))]


def test_csv_takes_commas_quotes_and_line_ends_inside_quotes(tmp_path: Path) -> None:
    rows, problems = read(tmp_path / "p.csv", 'image,caption\na,"one, ""two""\nthree"\nb,"a\u2028b"\n')
    assert problems == []
    assert as_plain(rows) == [("a", ('one, "two"\nthree',)), ("b", ("a\u2028b",))]


def test_the_ending_decides_whatever_its_case(tmp_path: Path) -> None:
    rows, problems = read(tmp_path / "P.JSONL", '{"image": "a", "caption": "x"}\n')
    assert (as_plain(rows), problems) == ([("a", ("x",))], [])


def test_an_unknown_ending_lists_the_known_ones(tmp_path: Path) -> None:
    rows, [problem] = read(tmp_path / "p.xml", "x")
    assert rows == []
    assert all(ending in problem.what for ending in FORMATS)


JSONL_PROBLEMS = {
    "{": "not JSON",
    "nonsense": "not JSON",
    "[" * 100_000: "not JSON",
    "3": "expected a JSON object, found int",
    '["a", "b"]': "expected a JSON object, found list",
    '{"caption": "x"}': "expected a string under 'image', found None",
    '{"image": 3, "caption": "x"}': "expected a string under 'image', found 3",
    '{"image": "  ", "caption": "x"}': "expected a string under 'image', found '  '",
    '{"image": "a"}': "expected either 'caption' or 'captions'",
    '{"image": "a", "caption": "x", "captions": ["x"]}': "expected either 'caption' or 'captions'",
    '{"image": "a", "caption": ["x"]}': "expected a string under 'caption', found ['x']",
    '{"image": "a", "caption": null}': "expected a string under 'caption', found None",
    '{"image": "a", "captions": "x"}': "expected a list of strings under 'captions', found 'x'",
    '{"image": "a", "captions": ["x", 3]}': "expected a list of strings under 'captions', found ['x', 3]",
}


@pytest.mark.parametrize("line", JSONL_PROBLEMS, ids=lambda line: line[:40])
def test_a_malformed_jsonl_line_is_named(tmp_path: Path, line: str) -> None:
    rows, [problem] = read(tmp_path / "p.jsonl", f'{{"image": "ok", "caption": "fine"}}\n{line}\n')
    assert as_plain(rows) == [("ok", ("fine",))]
    assert problem.where == f"{tmp_path / 'p.jsonl'}:2"
    assert JSONL_PROBLEMS[line] in problem.what


def test_all_malformed_lines_are_reported_in_one_pass(tmp_path: Path) -> None:
    _, problems = read(tmp_path / "p.jsonl", "".join(f"{line}\n" for line in JSONL_PROBLEMS))
    assert [problem.where.rpartition(":")[2] for problem in problems] == [
        str(number) for number in range(1, len(JSONL_PROBLEMS) + 1)
    ]
    for problem, expected in zip(problems, JSONL_PROBLEMS.values(), strict=True):
        assert expected in problem.what


def test_what_is_shown_of_a_long_value_is_short(tmp_path: Path) -> None:
    _, [problem] = read(tmp_path / "p.jsonl", '{"image": "a", "captions": "' + "x" * 10_000 + '"}')
    assert len(problem.what) < 200


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
def test_a_missing_file_is_a_problem(tmp_path: Path, name: str) -> None:
    problems: list[Problem] = []
    assert read_pairs_file(tmp_path / name, problems) == []
    assert [str(problem) for problem in problems] == [f"{tmp_path / name}: no such file"]


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv"])
def test_bytes_that_are_not_utf8_are_located(tmp_path: Path, name: str) -> None:
    rows, [problem] = read(tmp_path / name, b"image,caption\na,caf\xe9\n")
    assert rows == []
    assert f"{name}:2: byte 6 is 0xe9" in str(problem)


@pytest.mark.parametrize("text", ["", "a,one\n", "image\na\n", "image;caption\na;one\n", "Image,Caption\na,b\n"])
def test_csv_needs_its_two_columns(tmp_path: Path, text: str) -> None:
    rows, [problem] = read(tmp_path / "p.csv", text)
    assert rows == []
    assert "expected the columns image,caption in the header" in problem.what
    assert problem.where.endswith(":1")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a", "expected 2 columns"),
        ("a,one,two", "expected 2 columns"),
        (",one", "the image column is empty"),
        ('a,"one', "not valid CSV"),
        ('a,"one"x', "not valid CSV"),
    ],
)
def test_a_malformed_csv_row_is_named(tmp_path: Path, row: str, expected: str) -> None:
    rows, [problem] = read(tmp_path / "p.csv", f"image,caption\nok,fine\n{row}\n")
    assert as_plain(rows) == [("ok", ("fine",))]
    assert expected in problem.what
    assert problem.where == f"{tmp_path / 'p.csv'}:3"


def test_a_malformed_csv_header_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    rows, [problem] = read(tmp_path / "p.csv", '"image,caption\na,one\n')
    assert rows == []
    assert "not valid CSV" in problem.what


def test_a_csv_row_over_several_lines_is_named_by_its_first_line(tmp_path: Path) -> None:
    rows, problems = read(tmp_path / "p.csv", 'image,caption\na,"one\ntwo"\n,"three\nfour"\n')
    assert [row.where for row in rows] == [f"{tmp_path / 'p.csv'}:2"]
    assert [problem.where for problem in problems] == [f"{tmp_path / 'p.csv'}:4"]
