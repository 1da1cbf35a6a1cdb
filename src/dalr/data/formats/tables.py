"""How are text tables read? A header names the columns; each row holds one caption.

CSV has quotes as RFC 4180 has them. TSV has none: a cell is what stands between two tabs. Flickr30k's table is
neither: cells stand between `|`, a space behind each belongs to the mark, quotes are text.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from dalr.data.formats.collecting import Collector, Columns, Source, naming
from dalr.errors import shown

_FLICKR_HEADER = ["image_name", "comment_number", "comment"]


def read_csv(source: Source, into: Collector) -> None:
    """A header with `image` and `caption`, then one caption a row; rows of one image are put together."""
    _read_table(source, into, _csv_rows(source, into), source.columns.separator or ",")


def read_tsv(source: Source, into: Collector) -> None:
    """As CSV, but with tabs and without quotes."""
    rows = ((f"{source.path}:{number}", line) for number, line in enumerate(source.lines(), start=1))
    _read_table(source, into, ((where, line.split("\t") if line else []) for where, line in rows), "<TAB>")


def read_flickr_csv(source: Source, into: Collector) -> None:
    """`image_name| comment_number| comment`, as Flickr30k is published on Kaggle (results.csv)."""
    header = False
    for number, line in enumerate(source.lines(), start=1):
        where = f"{source.path}:{number}"
        if not line.strip():
            continue
        cells = _flickr_cells(line)
        if not header:
            header = True
            if cells != _FLICKR_HEADER:
                into.problem(where, f"expected the header {'| '.join(_FLICKR_HEADER)}, found {shown(line)}")
                return
        elif len(cells) != len(_FLICKR_HEADER):
            what = f"expected 3 columns separated by |, found {len(cells)} in {shown(line)}"
            into.problem(where, what)
        elif not cells[0].strip():
            into.problem(where, "the image_name column is empty")
        else:
            into.numbered_caption(cells[0], cells[1], cells[2], where)
    if not header:
        into.problem(f"{source.path}:1", f"expected the header {'| '.join(_FLICKR_HEADER)}, found nothing")


def is_flickr_csv(source: Source) -> bool:
    return _flickr_cells(source.first_line) == _FLICKR_HEADER


def is_csv(source: Source) -> bool:
    return _names(source.first_line.split(source.columns.separator or ","), source.columns)


def is_tsv(source: Source) -> bool:
    return _names(source.first_line.split("\t"), source.columns)


def _names(cells: list[str], columns: Columns) -> bool:
    return columns.image in cells and (columns.caption or "caption") in cells


def _flickr_cells(line: str) -> list[str]:
    return [cell.removeprefix(" ") for cell in line.split("|", maxsplit=2)]


def _read_table(source: Source, into: Collector, rows: Iterator[tuple[str, list[str]]], mark: str) -> None:
    """Rows as (file:line, cells), the header first."""
    columns, caption = source.columns, source.columns.caption or "caption"
    expected = f"expected the columns {columns.image}{mark}{caption} in the header"
    before = len(into.problems)
    header: list[str] | None = None
    for where, cells in rows:
        if header is None:
            header = cells
            if columns.image not in header or caption not in header:
                _, first = next(rows, (where, []))
                into.problem(where, f"{expected}, {_header_found(cells, first, columns, mark)}")
                return
            image, text = header.index(columns.image), header.index(caption)
            split = header.index(columns.split) if columns.split in header else None
        elif cells and len(cells) != len(header):
            into.problem(where, f"expected {len(header)} columns, found {len(cells)}")
        elif cells and not cells[image].strip():
            into.problem(where, f"the {columns.image} column is empty")
        elif cells:
            into.caption(cells[image], cells[text], where, (cells[split] or None) if split is not None else None)
    if header is None and len(into.problems) == before:
        into.problem(f"{source.path}:1", f"{expected}, found nothing")


def _header_found(cells: list[str], first: list[str], columns: Columns, mark: str) -> str:
    """What stands in a header instead of the columns, and what to do; `first` is the row below it."""
    if not any(cells):
        return "found nothing"
    marks = {";": ";", "\t": "tabs", "|": "|", ",": ","}
    other = next((one for one in marks if len(cells) == 1 and one != mark and one in cells[0]), None)
    if other is None:
        return naming(cells, columns, values=dict(zip(cells, first, strict=False)))
    named = [name.strip().strip('"') for name in cells[0].split(other)]
    wanted = (columns.image, columns.caption or "caption")
    also = "" if all(name in named for name in wanted) else f"; {naming(named, columns)}"
    as_csv = "--format csv " if mark == "<TAB>" else ""
    reads_it = {"\t": "--format tsv reads it so", ",": "--format csv reads it so"}
    told = reads_it.get(
        other, f"say so with {as_csv}--columns 'separator={other}', or with data.columns in a recipe"
    )
    return f"found {shown(cells[0])}, with columns that seem to be separated by {marks[other]}; {told}{also}"


def _csv_rows(source: Source, into: Collector) -> Iterator[tuple[str, list[str]]]:
    """(file:first line, cells) of each row; stops at a row that is not CSV."""
    mark = source.columns.separator or ","
    reader = csv.reader((f"{line}\n" for line in source.lines()), strict=True, delimiter=mark)
    while True:
        where = f"{source.path}:{reader.line_num + 1}"
        try:
            yield where, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            into.problem(where, f"not valid CSV: {error}")
            return
