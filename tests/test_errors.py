"""Errors carry problems with places, the first twenty in full, each class with its exit code."""

from __future__ import annotations

import pytest

from dalr import errors
from dalr.errors import ConfigError, DalrError, DataError, Problem


def test_a_problem_is_a_place_and_what_is_wrong_there() -> None:
    assert str(Problem(where="a.txt:3", what="is empty")) == "a.txt:3: is empty"
    assert str(Problem(where="", what="is empty")) == "is empty"


def test_an_error_is_made_of_words_one_problem_or_many() -> None:
    one = Problem(where="a", what="b")
    assert str(DataError("nothing there")) == "nothing there"
    assert str(DataError(one)) == "a: b"
    assert str(DataError([one, one])) == "a: b\na: b"
    assert DataError(iter([one, one])).problems == [one, one]


def test_the_first_twenty_are_shown_and_the_rest_counted() -> None:
    problems = [Problem(where=f"a:{number}", what="x") for number in range(25)]
    lines = str(ConfigError(problems)).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "... and 5 more (25 in total)"
    assert str(ConfigError(problems[:20])).count("\n") == 19
    assert str(ConfigError(problems[:3], total=9)).endswith("... and 6 more (9 in total)")


def test_every_class_has_a_code_of_the_contract() -> None:
    codes = {cls.__name__: cls.exit_code for cls in DalrError.__subclasses__() if cls.__module__ == errors.__name__}
    assert codes == {
        "ConfigError": 2,
        "DataError": 3,
        "ModelFileError": 4,
        "CorruptFileError": 4,
        "NumericsError": 5,
        "StorageError": 6,
    }


def test_errors_are_caught_by_their_base() -> None:
    with pytest.raises(DalrError):
        raise DataError("x")
