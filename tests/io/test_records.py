"""Records hold finite numbers."""

from __future__ import annotations

import pytest

from dalr.io.records import parse_record


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1E+999", "9" * 301, "-" + "9" * 5000]
)
@pytest.mark.parametrize("text", ["%s", '{"a": [1, {"b": %s}]}'])
def test_numbers_that_are_not_finite_are_refused(number: str, text: str) -> None:
    with pytest.raises(ValueError, match="expected finite numbers, found"):
        parse_record(text % number)


def test_others_are_read_as_they_are() -> None:
    text = '{"a": [1, -2.5, 1e-400, 1e308, null, true, "NaN"], "b": {}}'
    assert parse_record(text) == {"a": [1, -2.5, 0.0, 1e308, None, True, "NaN"], "b": {}}
    assert parse_record(text.encode()) == parse_record(text)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff"])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|nested|decode"):
        parse_record(text)
