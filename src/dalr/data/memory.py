"""What may stand in place of files? Pairs and sentences that a program already has in memory.

They become the same rows as those of a file, so that every check and every checksum is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dalr.data.formats.collecting import Collector, Columns
from dalr.data.rows import CaptionedImages
from dalr.errors import DataError, Problem

IN_MEMORY = "(in memory)"
"""What the record of a run names as the place of data that came as objects."""


def captioned_images(pairs: Iterable[Any], columns: Columns | None = None) -> CaptionedImages:
    """Image-caption pairs from objects, in their order.

    Args:
        pairs: (image id, caption) or (image id, list of captions) tuples, or mappings with the keys of a
            JSON-lines file (`image`, `caption` or `captions`, `split`), such as the rows of a `datasets.Dataset`.
            Captions of one image that come one by one are put together.
        columns: other names of the keys.

    Raises:
        DataError: with every item that is neither.
    """
    problems: list[Problem] = []
    into = Collector(problems, columns or Columns())
    for number, item in enumerate(pairs):
        where = f"pairs[{number}]"
        match item:
            case Mapping():
                into.record(item, where)
            case (str(image), str(caption)):
                into.caption(image, caption, where)
            case (str(image), list() | tuple() as captions):
                into.image(image, list(captions), where)
            case _:
                expected = "(image, caption), (image, [captions]) or a mapping with the keys image and caption"
                into.problem(where, f"expected {expected}, found {item!r:.80}")
    if problems:
        raise DataError(problems)
    return into.found()


def sentences(text: Iterable[Any]) -> list[str]:
    """Plain sentences from an iterable of strings.

    Raises:
        DataError: with every item that is not a string.
    """
    if isinstance(text, str | bytes | Path):
        raise DataError(Problem(where="text", what=f"expected a list of sentences, found {text!r:.80}"))
    lines = list(text)
    if problems := list(_not_lines(lines)):
        raise DataError(problems)
    return lines


def _not_lines(lines: list[Any]) -> Iterator[Problem]:
    for number, line in enumerate(lines):
        if not isinstance(line, str):
            yield Problem(where=f"text[{number}]", what=f"expected a string, found {line!r:.80}")
