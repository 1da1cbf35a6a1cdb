"""A report as a reader's browser takes it in: tables by caption, elements, text."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "hr", "input"}


@dataclass(kw_only=True)
class ReadTable:
    caption: str = ""
    rows: list[list[str]] = field(default_factory=list)
    """Heading and body rows; a cell's second line is not part of its text."""
    bold: set[tuple[str, str]] = field(default_factory=set)
    """(row head, column) of cells in bold."""

    def row(self, head: str, occurrence: int = 0) -> dict[str, str]:
        found = [row for row in self.rows[1:] if row[0] == head]
        return dict(zip(self.rows[0], found[occurrence], strict=True))


class Reader(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, ReadTable] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.panels: list[str] = []
        self._open: list[str] = []
        self._table: ReadTable | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._table = ReadTable()
        if self._table is not None and tag == "tr":
            self._table.rows.append([])
        if self._table is not None and tag in ("td", "th"):
            self._table.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes something else"
        if tag == "table":
            assert self._table is not None
            assert self._table.caption not in self.tables, "two tables of one caption"
            self.tables[self._table.caption] = self._table
            self._table = None

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.text.append(data)
        if self._table is None or not data.strip():
            return
        if "caption" in self._open:
            self._table.caption += data.strip()
        elif {"td", "th"} & set(self._open) and "small" not in self._open:
            self._table.rows[-1][-1] += data.strip()
            if "strong" in self._open:
                column = self._table.rows[0][len(self._table.rows[-1]) - 1]
                self._table.bold.add((self._table.rows[-1][0], column))

    def table(self, beginning: str) -> ReadTable:
        found = [table for caption, table in self.tables.items() if caption.startswith(beginning)]
        assert len(found) == 1, f"{len(found)} tables begin with {beginning!r}: {list(self.tables)}"
        return found[0]

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.elements if name in attributes]

    def count(self, tag: str) -> int:
        return sum(each == tag for each, _ in self.elements)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())
