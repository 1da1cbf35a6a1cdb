"""How are formats with one record per line read? JSON lines, and the token files of Flickr8k and Flickr30k."""

from __future__ import annotations

import json
import re

from dalr.data.formats.collecting import Collector, Source
from dalr.errors import DataError, shown
from dalr.io.text import ending

_TOKEN = re.compile(r"(?P<image>[^\t]*[^\t\s][^\t]*)#(?P<number>[0-9]{1,4})\t(?P<caption>.*)\Z", re.DOTALL)

_LIST = re.compile(r"\s*\[\s*(\{|\Z)")
"""How a list of objects begins."""


def read_jsonl(source: Source, into: Collector) -> None:
    """Lines `{"image": key, "captions": [...]}`, or `{"image": key, "caption": "..."}` repeated per caption.

    One list of such objects is read too, as ALBEF, BLIP and LAVIS publish COCO and Flickr30k: there `caption` is
    one sentence or a list of them.
    """
    if _LIST.match(source.first_line) and _read_list(source, into):
        return
    for number, line in enumerate(source.lines(), start=1):
        where = f"{source.path}:{number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            into.problem(where, f"not JSON: {error}")
            continue
        if isinstance(record, dict):
            into.record(record, where)
        else:
            into.problem(where, f"expected a JSON object, found {type(record).__name__}")


def _read_list(source: Source, into: Collector) -> bool:
    """Read a file that is one list of records; false, with nothing read, where it is none."""
    try:
        records = source.tree
    except DataError:
        if ending(source.path) == ".json":
            raise
        return False
    if not isinstance(records, list):
        return False
    for number, record in enumerate(records):
        where = f"{source.path}: [{number}]"
        if isinstance(record, dict):
            into.record(record, where, lists=True)
        else:
            into.problem(where, f"expected a JSON object, found {type(record).__name__}")
    return True


def is_jsonl(source: Source) -> bool:
    """Whether the first line is a JSON object of its own, with one of the keys of a record, or begins a list."""
    if ending(source.path) == ".json" and _LIST.match(source.first_line):
        return True
    try:
        record = json.loads(source.first_line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and source.columns.image in record


def read_flickr_token(source: Source, into: Collector) -> None:
    """Lines `name.jpg#k<TAB>caption`, k from 0 within each image."""
    for number, line in enumerate(source.lines(), start=1):
        where = f"{source.path}:{number}"
        if not line.strip():
            continue
        match = _TOKEN.match(line)
        if match is None:
            into.problem(where, f"expected name#number, a tab and a caption, found {shown(line)}")
        else:
            into.numbered_caption(match["image"], match["number"], match["caption"], where)


def is_flickr_token(source: Source) -> bool:
    return _TOKEN.match(source.first_line) is not None
