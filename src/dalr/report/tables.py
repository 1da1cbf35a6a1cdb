"""What is a table? Data, built once, then written as HTML, Markdown or LaTeX.

A cell without a number is a dash in all three. The best number is found here, among the rows of one group and by
what is printed, so that the three formats cannot disagree and two equal-looking numbers are both best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

DASH = "–"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry."""

    text: str = DASH
    value: float | int | None = None
    """What a number sorts and compares by."""
    detail: str = ""
    """A second, smaller line; on the page only."""
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Column:
    name: str
    better: Literal["higher", "lower"] | None = None
    """Whether one number of the column can be best."""
    numeric: bool = True
    explained: str = ""
    """What the numbers are, for a tooltip."""


@dataclass(frozen=True, kw_only=True)
class Row:
    head: str
    cells: tuple[Cell, ...]
    about: str = ""
    """What stands beside the head, in smaller letters."""
    colour: str | None = None
    """Role of the colour that marks the row (`palette`)."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows under a title, below a rule."""

    rows: tuple[Row, ...]
    title: str = ""
    ranked: bool = False
    """Whether the best number of each column is marked, among these rows."""


@dataclass(frozen=True, kw_only=True)
class Table:
    name: str
    """A word for anchors and LaTeX labels."""
    caption: str
    head: str
    """Name of the first column."""
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"row {row.head!r} has {len(row.cells)} cells for {len(self.columns)} columns")

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group.rows]


def number(value: float | None, decimals: int = 2, *, detail: str = "") -> Cell:
    """A number, or a dash where there is none."""
    if value is None:
        return Cell()
    return Cell(text=formatted(value, decimals), value=value, detail=detail)


def count(value: int | None) -> Cell:
    return Cell() if value is None else Cell(text=f"{value:,}", value=value)


def words(text: str | None, *, detail: str = "") -> Cell:
    return Cell(text=text, detail=detail) if text else Cell()


def formatted(value: float, decimals: int = 2, *, signed: bool = False) -> str:
    """A number with a true minus sign, and never a minus before nothing but zeros."""
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    if float(text) == 0:
        return f"{0:.{decimals}f}"
    return text.replace("-", "−")


def interval(bounds: tuple[float, float], decimals: int = 2, *, signed: bool = False) -> str:
    low, high = (formatted(bound, decimals, signed=signed) for bound in bounds)
    return f"{low} to {high}"


def table(
    *,
    name: str,
    caption: str,
    head: str,
    columns: Sequence[Column],
    groups: Sequence[Group],
    notes: Sequence[str] = (),
) -> Table:
    """A table without empty groups, with the best numbers of its ranked groups marked."""
    filled = tuple(_ranked(group, columns) if group.ranked else group for group in groups if group.rows)
    return Table(
        name=name,
        caption=caption,
        head=head,
        columns=tuple(columns),
        groups=filled,
        notes=tuple(filter(None, notes)),
    )


def _ranked(group: Group, columns: Sequence[Column]) -> Group:
    """A single number is not the best of anything: two are needed."""
    best: list[str | None] = []
    for place, column in enumerate(columns):
        cells = [row.cells[place] for row in group.rows if row.cells[place].value is not None]
        if column.better is None or len(cells) < 2:
            best.append(None)
            continue
        choose = max if column.better == "higher" else min
        best.append(choose(cells, key=lambda cell: cell.value if cell.value is not None else 0.0).text)
    rows = tuple(
        replace(
            row,
            cells=tuple(
                replace(cell, best=cell.value is not None and cell.text == top)
                for cell, top in zip(row.cells, best, strict=True)
            ),
        )
        for row in group.rows
    )
    return replace(group, rows=rows)
