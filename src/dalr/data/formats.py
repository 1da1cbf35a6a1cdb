"""Readers of image-caption pairs. A new format is one function and one line in `FORMATS`.

A reader returns the images in file order and appends what is wrong to `problems`; it repairs nothing and stops
at nothing, so that one pass reports everything.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dalr.data.rows import CaptionedImage, suffix_of
from dalr.errors import DataError, Problem
from dalr.io.text import read_lines

Reader = Callable[[Path, list[Problem]], list[CaptionedImage]]


def read_pairs_file(path: Path, problems: list[Problem]) -> list[CaptionedImage]:
    """Read `path` by the format that its name ends with."""
    reader = FORMATS.get(suffix_of(path))
    if reader is None:
        known = ", ".join(FORMATS)
        problems.append(Problem(where=str(path), what=f"unknown kind of pairs file; known endings: {known}"))
        return []
    try:
        return reader(path, problems)
    except DataError as error:
        problems.extend(error.problems)
        return []


def read_jsonl(path: Path, problems: list[Problem]) -> list[CaptionedImage]:
    """Lines `{"image": key, "captions": [...]}`, or `{"image": key, "caption": "..."}` repeated per caption."""
    single: dict[str, _Growing] = {}
    rows: list[_Growing] = []
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        record = _json_object(line, where, problems)
        if record is None:
            continue
        image = record.get("image")
        if not isinstance(image, str) or not image.strip():
            problems.append(Problem(where=where, what=f"expected a string under 'image', found {image!r}"))
            continue
        if ("caption" in record) == ("captions" in record):
            problems.append(Problem(where=where, what="expected either 'caption' or 'captions'"))
        elif "captions" in record:
            captions = record["captions"]
            if not isinstance(captions, list) or not all(isinstance(item, str) for item in captions):
                problems.append(
                    Problem(
                        where=where,
                        what=f"expected a list of strings under 'captions', found {captions!r:.80}",
                    )
                )
                continue
            rows.append(_Growing(image, where, list(captions)))
        else:
            _add_single(single, rows, image, record["caption"], where, problems)
    return [row.frozen() for row in rows]


def read_csv(path: Path, problems: list[Problem]) -> list[CaptionedImage]:
    """A header with `image` and `caption`, then one caption a row; rows of one image are put together."""
    rows: list[_Growing] = []
    single: dict[str, _Growing] = {}
    columns: list[str] | None = None
    for where, cells in _csv_rows(path, problems):
        if columns is None:
            columns = cells
            if "image" not in columns or "caption" not in columns:
                what = f"expected the columns image,caption in the header, found {', '.join(cells) or 'nothing'}"
                problems.append(Problem(where=where, what=what))
                return []
        elif cells and len(cells) != len(columns):
            what = f"expected {len(columns)} columns, found {len(cells)}"
            problems.append(Problem(where=where, what=what))
        elif cells:
            record = dict(zip(columns, cells, strict=True))
            if record["image"].strip():
                _add_single(single, rows, record["image"], record["caption"], where, problems)
            else:
                problems.append(Problem(where=where, what="the image column is empty"))
    if columns is None and not problems:
        problems.append(
            Problem(where=f"{path}:1", what="expected the columns image,caption in the header, found nothing")
        )
    return [row.frozen() for row in rows]


def _csv_rows(path: Path, problems: list[Problem]) -> Iterator[tuple[str, list[str]]]:
    """(file:first line, cells) of each row; stops at a row that is not CSV."""
    reader = csv.reader((f"{line}\n" for line in read_lines(path)), strict=True)
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            yield where, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.append(Problem(where=where, what=f"not valid CSV: {error}"))
            return


FORMATS: Mapping[str, Reader] = {".jsonl": read_jsonl, ".csv": read_csv}


class _Growing:
    """An image whose captions are still being collected."""

    def __init__(self, image: str, where: str, captions: list[str]) -> None:
        self.image, self.where, self.captions = image, where, captions

    def frozen(self) -> CaptionedImage:
        return CaptionedImage(image=self.image, captions=tuple(self.captions), where=self.where)


def _add_single(
    single: dict[str, _Growing],
    rows: list[_Growing],
    image: str,
    caption: object,
    where: str,
    problems: list[Problem],
) -> None:
    if not isinstance(caption, str):
        problems.append(Problem(where=where, what=f"expected a string under 'caption', found {caption!r:.80}"))
        return
    if image not in single:
        single[image] = _Growing(image, where, [])
        rows.append(single[image])
    single[image].captions.append(caption)


def _json_object(line: str, where: str, problems: list[Problem]) -> dict[str, object] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        problems.append(Problem(where=where, what=f"not JSON: {error}"))
        return None
    if not isinstance(record, dict):
        problems.append(Problem(where=where, what=f"expected a JSON object, found {type(record).__name__}"))
        return None
    return record
