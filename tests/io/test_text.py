r"""Text is UTF-8 or the place where it is not is named; lines end at \n and \r\n only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dalr.errors import DataError, Problem
from dalr.io import text
from dalr.io.text import iter_lines, read_lines


def lines_of(tmp_path: Path, data: bytes) -> list[str]:
    """Read whole, and piece by piece, which must be the same."""
    path = tmp_path / "captions.txt"
    path.write_bytes(data)
    whole = outcome(lambda: read_lines(path))
    for piece in (1 << 20, 5):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text, "_CHUNK", piece)
            assert outcome(lambda: list(iter_lines(path))) == whole
    return read_lines(path)


def outcome(read: Callable[[], list[str]]) -> list[str] | list[Problem]:
    """The lines, or what is wrong with them."""
    try:
        return read()
    except DataError as error:
        return error.problems


def refused(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        lines_of(tmp_path, data)
    assert caught.value.exit_code == 3
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"one", ["one"]),
        (b"one\n", ["one"]),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"one\r\ntwo", ["one", "two"]),
        (b"\n", [""]),
        (b"one\n\ntwo\n\n", ["one", "", "two", ""]),
        (b"a\rb\n", ["a\rb"]),
        (b"\xef\xbb\xbfone\n", ["one"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfone\n", ["\ufeffone"]),
        (b"one\n\xef\xbb\xbftwo\n", ["one", "\ufefftwo"]),
        ("a\u2028b\n".encode(), ["a\u2028b"]),
        ("a\u2029b\n".encode(), ["a\u2029b"]),
        ("a\u0085b\n".encode(), ["a\u0085b"]),
        (b"a\x0bb\x0cc\x1cd\x1ee\n", ["a\x0bb\x0cc\x1cd\x1ee"]),
        (b"a\x00b\nc\n", ["a\x00b", "c"]),
        ("😀 שלום\n".encode(), ["😀 שלום"]),
    ],
)
def test_lines_are_split_at_line_feeds_and_nowhere_else(tmp_path: Path, data: bytes, expected: list[str]) -> None:
    assert lines_of(tmp_path, data) == expected


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"\xffbc\nok\n", ":1: byte 1 is 0xff, not UTF-8"),
        (b"ok\nabc\xffdef\n", ":2: byte 4 is 0xff, not UTF-8"),
        (b"ok\nok\nabc\xff", ":3: byte 4 is 0xff, not UTF-8"),
        ("größe\n".encode("latin-1"), ":1: byte 3 is 0xf6, not UTF-8"),
        ("über\n".encode("utf-16"), ":1: byte 1 is 0xff, not UTF-8"),
        ("über\n".encode("utf-16-be"), ":1: byte 2 is 0xfc, not UTF-8"),
        (b"\xed\xa0\x80\n", ":1: byte 1 is 0xed, not UTF-8"),  # a lone surrogate
        (b"\xc0\xaf\n", ":1: byte 1 is 0xc0, not UTF-8"),  # overlong
        (b"caf\xc3", ":1: byte 4 is 0xc3, not UTF-8"),  # cut in the middle of a letter
    ],
)
def test_a_byte_that_is_not_utf8_is_located(tmp_path: Path, data: bytes, where: str) -> None:
    assert f"{tmp_path / 'captions.txt'}{where}" in refused(tmp_path, data)


def test_the_first_twenty_lines_are_listed_and_the_total_is_given(tmp_path: Path) -> None:
    message = refused(tmp_path, b"fine\n" + b"bad \xe9\n" * 45)
    listed = message.splitlines()
    assert len(listed) == 21
    assert ":2: byte 5 is 0xe9" in listed[0]
    assert ":21: byte 5 is 0xe9" in listed[19]
    assert listed[20] == "... and 25 more (45 in total)"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file") as caught:
        read_lines(tmp_path / "nowhere.txt")
    assert str(tmp_path / "nowhere.txt") in str(caught.value)


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a file, found a folder"):
        read_lines(tmp_path)


def test_a_path_with_a_nul_is_refused_and_no_traceback() -> None:
    with pytest.raises(DataError):
        read_lines(Path("a\x00b.txt"))
