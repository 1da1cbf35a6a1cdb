"""How is a table written as Markdown? Best numbers bold, published rows last, text escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dalr.evaluation.table import markdown
from dalr.report.tables import Table

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")


def markdown_document(title: str, tables: Sequence[Table], lead: Sequence[str] = ()) -> str:
    """All tables under one heading, below what is to be said first."""
    return "\n\n".join([f"# {escape(title)}", *map(escape, lead), *map(markdown_table, tables)]) + "\n"


def markdown_table(table: Table) -> str:
    """One table under its caption; a group's title is a row of its own."""
    rows: list[list[str]] = []
    for group in table.groups:
        if group.title:
            rows.append([f"*{escape(group.title)}*", *[""] * len(table.columns)])
        for row in group.rows:
            head = f"{row.head} ({row.about})" if row.about else row.head
            cells = [f"**{escape(cell.text)}**" if cell.best else escape(cell.text) for cell in row.cells]
            rows.append([escape(head), *cells])
    headers = [escape(table.head), *(escape(column.name) for column in table.columns)]
    notes = "".join(f"\n\n{escape(note)}" for note in table.notes)
    return f"**{escape(table.caption)}**\n\n{markdown(headers, rows)}{notes}"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    flat = " ".join(text.split())
    return _SPECIAL.sub(r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
