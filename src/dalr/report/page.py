"""What is the skeleton of a page? Prose, tables and figures in one HTML file that loads nothing.

Everything that comes from data passes the template's escaping; only `Markup` that this package made goes through as
it is. The page works without its script, which only sorts tables, and a policy in its head forbids every request,
so that a report can be mailed around and opened anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from markupsafe import Markup

from dalr.report.palette import css_variables, variable
from dalr.report.svg import Chart, tint_filters
from dalr.report.tables import Table
from dalr.version import VERSION

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True, kw_only=True)
class Prose:
    """A paragraph; `Markup` for emphasis, a plain string for text that may hold anything."""

    text: str
    small: bool = False


@dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of a legend."""

    name: str
    colour: str

    @property
    def css(self) -> str:
        return variable(self.colour)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart of a figure, under a title of its own where it has one."""

    chart: Chart
    title: str = ""
    key: Key | None = None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Charts side by side, with a caption that says how to read them."""

    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[Key, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TableBlock:
    table: Table
    sortable: bool = True
    stacked: bool = False
    """What a row is about stands below its head, as large: for two sentences and their numbers on a phone."""


@dataclass(frozen=True, kw_only=True)
class Folded:
    """Blocks that are opened by a click; printed in full."""

    summary: str
    blocks: tuple[Block, ...]
    open: bool = False


@dataclass(frozen=True, kw_only=True)
class Photo:
    """An image of a card, inside the page; without one its name stands there."""

    name: str
    source: str | None
    """A data address."""
    label: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Card:
    """A case: photos side by side and what is said of them."""

    title: str
    photos: tuple[Photo, ...]
    lines: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Cards:
    """Cases in a grid."""

    cards: tuple[Card, ...]


Block = Prose | Figure | TableBlock | Folded | Cards


@dataclass(frozen=True, kw_only=True)
class Section:
    name: str
    """For the address of the section."""
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    title: str
    lead: Prose
    """The summary in words."""
    legend: tuple[Key, ...]
    sections: tuple[Section, ...]


def render(page: Page) -> str:
    """The page as one HTML file."""
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            kind=lambda block: type(block).__name__,
            css=_asset("page.css"),
            script=_asset("page.js"),
            light=Markup(css_variables(dark=False)),
            dark=Markup(css_variables(dark=True)),
            filters=tint_filters(_tints(page)),
            colour=variable,
            version=VERSION,
        )
    )


def _tints(page: Page) -> list[str]:
    import re

    charts = [panel.chart.svg for section in page.sections for panel in _panels(section.blocks)]
    return sorted({role for svg in charts for role in re.findall(r'data-tint="([\w-]+)"', svg)})


def _panels(blocks: Sequence[Block]) -> Iterator[Panel]:
    for block in blocks:
        match block:
            case Figure():
                yield from block.panels
            case Folded():
                yield from _panels(block.blocks)
            case _:
                pass


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("dalr.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> Markup:
    return Markup((resources.files("dalr.report") / "assets" / name).read_text(encoding="utf-8"))
