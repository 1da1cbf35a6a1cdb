"""Strings that stay on disk: the same sequence as a list, wherever its bytes are."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalr.errors import StorageError
from dalr.io import strings
from dalr.io.strings import Lookup, Strings, key_of, keys_of, repeated_rows

KEY_OF_A = 3405396810240292928
"""BLAKE2b of one byte, as another program computes it."""
LARGE = [f"sentence {number}: grün 🙂 \ud800" + "x" * (number % 50) for number in range(120_000)]


@pytest.fixture(scope="module")
def large() -> Strings:
    """More than is kept in memory."""
    found = Strings.of(LARGE)
    assert sum(len(each.encode("utf-8", "surrogatepass")) for each in LARGE) > strings._IN_MEMORY
    return found


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=8), max_size=30), st.data())
def test_they_are_the_sequence_that_was_written(content: list[str], data: st.DataObject) -> None:
    found = Strings.of(content)
    assert found == content
    assert [found[number] for number in range(-len(content), len(content))] == content * 2
    part = data.draw(st.slices(len(content)))
    assert found[part] == content[part]
    rows = data.draw(st.lists(st.integers(0, len(content) - 1), max_size=40)) if content else []
    taken = found.take(np.array(rows, np.int64))
    assert taken == [content[row] for row in rows]
    assert taken[::-1] == [content[row] for row in rows[::-1]]
    assert pickle.loads(pickle.dumps(taken)) == taken


def test_what_is_read_from_a_file_is_the_same(large: Strings) -> None:
    assert large == LARGE
    assert large[70_000] == LARGE[70_000]
    scattered = np.random.default_rng(0).permutation(len(LARGE))[:5000]
    assert large.take(scattered) == [LARGE[row] for row in scattered]
    most = np.sort(np.random.default_rng(1).permutation(len(LARGE))[:90_000])
    assert large.take(most) == [LARGE[row] for row in most]


def test_a_row_longer_than_is_read_at_once_comes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strings, "_BYTES_AT_ONCE", 10)
    content = ["a", "b" * 100, "", "c" * 9, "dd"]
    assert Strings.of(content) == content
    assert Strings.of(content).take(np.array([4, 1, 0])) == ["dd", "b" * 100, "a"]


def test_an_index_outside_is_an_index_error(large: Strings) -> None:
    for index in (len(LARGE), -len(LARGE) - 1):
        with pytest.raises(IndexError, match=f"row {index} of {len(LARGE)}"):
            large[index]


def test_other_kinds_of_things_are_not_equal(large: Strings) -> None:
    assert Strings.of(["a", "b"]) != "ab"
    assert Strings.of(["a"]) != ["a", "b"]
    assert Strings.of(["a", "b"]) == ("a", "b")
    assert repr(Strings.of("abcd")) == "<Strings of 4: 'a', 'b', 'c', …>"


def test_the_file_is_in_the_cache_folder_and_has_no_name(tmp_path: Path) -> None:
    code = """
import os
from pathlib import Path
from dalr.io.strings import Strings
found = Strings.of(f"sentence {number} " * 9 for number in range(100_000))
cache = os.environ["DALR_CACHE"]
descriptors = Path("/proc/self/fd")
there = [os.readlink(each) for each in descriptors.iterdir() if each.is_symlink()]
inside = [name for name in there if name.startswith(cache)]
print(len(found), len(inside), all(name.endswith("(deleted)") for name in inside), len(os.listdir(cache)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"DALR_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["100000", "1", "True", "0"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DALR_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="DALR_CACHE"):
        Strings.of("x" * (1 << 20) for _ in range(10))


def test_equal_strings_have_equal_keys_in_every_process() -> None:
    assert keys_of(["b", "a", "b"]).tolist() == [key_of("b"), key_of("a"), key_of("b")]
    assert key_of("a") == KEY_OF_A
    assert len(set(keys_of(LARGE).tolist())) == len(LARGE)


def test_repeated_rows_are_found_with_the_first_of_each() -> None:
    content = ["b", "a", "b", "c", "a", "b"]
    assert repeated_rows(content, keys_of(content)) == [(2, 0), (4, 1), (5, 0)]
    assert repeated_rows(["a", "b"], keys_of(["a", "b"])) == []
    assert repeated_rows([], keys_of([])) == []


def test_strings_that_share_a_key_are_told_apart() -> None:
    content = ["b", "a", "b", "c"]
    assert repeated_rows(content, np.zeros(4, np.int64)) == [(2, 0)]


@pytest.mark.parametrize("bits", [64, 1])
def test_a_lookup_finds_rows_by_their_string(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if bits == 1:
        monkeypatch.setattr(strings, "keys_of", lambda found: np.array([len(text) % 2 for text in found], np.int64))
    content = [f"name {number}" for number in range(200)]
    wanted = ["name 7", "nobody", "name 199", "name 0", ""]
    assert Lookup(Strings.of(content)).rows_of(wanted).tolist() == [7, -1, 199, 0, -1]
    assert Lookup(Strings.of([])).rows_of(wanted).tolist() == [-1] * 5
