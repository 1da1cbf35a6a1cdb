"""Tables as data: dashes, signs, and which number is best."""

from __future__ import annotations

from typing import Literal

import pytest

from dalr.report.tables import Cell, Column, Group, Row, Table, formatted, interval, number, table


def rows(*values: float | None) -> Group:
    return Group(
        rows=tuple(Row(head=str(place), cells=(number(v),)) for place, v in enumerate(values)), ranked=True
    )


def best(group: Group, better: Literal["higher", "lower"]) -> list[int]:
    made = table(name="t", caption="", head="", columns=[Column(name="c", better=better)], groups=[group])
    return [int(row.head) for row in made.rows if row.cells[0].best]


@pytest.mark.parametrize(
    ("values", "better", "expected"),
    [
        ((1.0, 3.0, 2.0), "higher", [1]),
        ((1.0, 3.0, 2.0), "lower", [0]),
        ((3.001, 3.004, 1.0), "higher", [0, 1]),
        ((-2.0, -1.0, None), "lower", [0]),
        ((5.0, None), "higher", []),
        ((None, None), "higher", []),
    ],
)
def test_the_best_number_is_what_is_printed_as_such(
    values: tuple[float | None, ...], better: Literal["higher", "lower"], expected: list[int]
) -> None:
    assert best(rows(*values), better) == expected


def test_groups_that_are_not_ranked_and_columns_without_a_direction_have_no_best() -> None:
    unranked = Group(rows=rows(1.0, 2.0).rows)
    made = table(name="t", caption="", head="", columns=[Column(name="c", better="higher")], groups=[unranked])
    assert not any(row.cells[0].best for row in made.rows)
    made = table(name="t", caption="", head="", columns=[Column(name="c")], groups=[rows(1.0, 2.0)])
    assert not any(row.cells[0].best for row in made.rows)


def test_a_missing_number_is_a_dash_without_a_value() -> None:
    assert number(None) == Cell(text="–", value=None)
    assert number(0.0) == Cell(text="0.00", value=0.0)


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (-1.5, False, "−1.50"),
        (1.5, True, "+1.50"),
        (-0.001, False, "0.00"),
        (-0.001, True, "0.00"),
        (72.365, False, "72.36"),
    ],
)
def test_numbers_have_true_minus_signs(value: float, signed: bool, text: str) -> None:
    assert formatted(value, signed=signed) == text


def test_intervals_have_both_ends() -> None:
    assert interval((-1.26, 2.0), 1) == "−1.3 to 2.0"


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells for 1 columns"):
        Table(
            name="t",
            caption="",
            head="",
            columns=(Column(name="c"),),
            groups=(Group(rows=(Row(head="r", cells=(Cell(), Cell())),)),),
        )
