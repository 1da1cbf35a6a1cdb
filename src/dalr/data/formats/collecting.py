"""What do readers share? The file that is read, and the images and captions found in it.

Readers differ in where captions stand; that a key must be a string, that captions of one image belong together and
that an image has one split is said once, here.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Int64

from dalr.data.rows import CaptionedImages
from dalr.errors import KEPT, DataError, Problem, did_you_mean, shown
from dalr.io.strings import StringsWriter, key_of, repeated_rows
from dalr.io.text import first_line, iter_lines, read_text
from dalr.recipe.section import LEFT_OUT_IF_NONE, Section

MOST_WRONG = 20_000
"""Problems of one file after which the rest of it is not read."""


class Columns(Section):
    """Names of the columns of a table, or of the keys of a record; not for formats that fix theirs."""

    image: str = "image"
    """Column with the image's file name, which is also its id."""
    caption: str | None = None
    """Column with the caption, or with a list of captions; null: `caption` or `captions`, whichever is there."""
    split: str = "split"
    """Column with the name of the split, where the file has one."""
    separator: Annotated[Literal[",", ";", "|", ":"] | None, LEFT_OUT_IF_NONE] = None
    """The character between the cells of a CSV file; null: a comma."""


_USUAL = {
    "image": (
        *("file_name", "filename", "image_path", "image_name", "image_file", "filepath", "file", "path", "img"),
        *("photo", "picture", "image_id"),
    ),
    "caption": ("text", "texts", "sentence", "sentences", "description", "comment", "raw", "title"),
}
"""What others call the two columns."""
_FILE = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?)\Z", re.IGNORECASE)
"""How the name of an image ends."""
_NEAR = 0.75


def naming(
    found: Collection[str], columns: Columns, *, values: Mapping[str, object] | None = None, which: str = "found"
) -> str:
    """Which columns (or keys) a file has, and how to say which of them are meant.

    Args:
        values: what a row has under them, as far as that is known: a number is no image's name.
    """
    wanted = {"image": columns.image, "caption": columns.caption or "caption"}
    guesses = _guesses(found, wanted, values or {})
    example = shlex.quote(",".join(f"{key}={guesses[key] or 'NAME'}" for key in wanted))
    hints = "".join(
        did_you_mean(name, [guesses[key] or ""])
        for key, name in wanted.items()
        if not {name, f"{name}s"} & set(found)
    )
    listed = ", ".join(name[:60] for name in islice(found, 20))[:200] or "none"
    return f"{which} {listed}; {hints}data.columns names them in a recipe, --columns {example} on the command line"


def _guesses(
    found: Collection[str], wanted: Mapping[str, str], values: Mapping[str, object]
) -> dict[str, str | None]:
    """The columns that are most likely meant: by their names, and by what is in them."""
    sayable = [name for name in found if not {",", "="} & set(name)]
    texts = [name for name in sayable if _is_text(values.get(name, ""))]
    strings = [name for name in texts if isinstance(values.get(name, ""), str)]
    named = _by_name("image", wanted["image"], strings)
    files = [name for name in strings if _FILE.search(str(values.get(name, "")).strip())]
    image = next((name for name in (*named, *files) if name in files or name == wanted["image"]), None)
    image = image or next(iter(named), None)
    caption = next((name for name in _by_name("caption", wanted["caption"], texts) if name != image), None)
    if image is None and caption is not None and len(others := [each for each in strings if each != caption]) == 1:
        image = others[0]
    if caption is None and image is not None:
        spaced = [each for each in texts if each != image and " " in str(values.get(each, "")).strip()]
        caption = spaced[0] if len(spaced) == 1 else None
    return {"image": image, "caption": caption}


def _is_text(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _by_name(key: str, wanted: str, found: Collection[str]) -> list[str]:
    """Columns that may be meant, the likeliest first."""
    plain = {name.strip().lower(): name for name in found}
    close = difflib.get_close_matches(wanted.lower(), plain, n=1, cutoff=_NEAR)
    is_default = wanted in ("image", "caption")
    names = (wanted.lower(), f"{key}s", *_USUAL[key], *close) if is_default else (wanted.lower(), *close)
    return [plain[name] for name in dict.fromkeys((*names, key, f"{key}s", *_USUAL[key])) if name in plain]


class Source:
    """A pairs file, read when its reader asks for it."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.columns = path, columns

    def lines(self) -> Iterator[str]:
        """Its lines, read as they are asked for; raises DataError where they are not UTF-8."""
        return iter_lines(self.path)

    @cached_property
    def first_line(self) -> str:
        """The first line that is not blank, for telling what the file is."""
        return first_line(self.path)

    @cached_property
    def tree(self) -> object:
        """Its content as one JSON value; raises DataError if it is none."""
        try:
            return json.loads(read_text(self.path), object_hook=_without_tokens)
        except RecursionError:
            raise DataError(Problem(where=str(self.path), what="not JSON: nested too deeply")) from None
        except ValueError as error:
            line = getattr(error, "lineno", None)
            where = f"{self.path}:{line}" if line else str(self.path)
            raise DataError(Problem(where=where, what=f"not JSON: {error}")) from None


def _without_tokens(record: dict[str, object]) -> dict[str, object]:
    """Karpathy's files hold each sentence a second time, cut into words: half a gigabyte for COCO's."""
    record.pop("tokens", None)
    return record


class Collector:
    """Images in the order of the file; what is wrong goes to `problems`.

    What is read is written away at once. Captions of one image that come one by one belong together wherever they
    stand in the file: rows that follow one another are one entry, and entries of one image become one at the end.
    """

    def __init__(self, problems: list[Problem], columns: Columns) -> None:
        self.problems, self.columns = problems, columns
        self._wrong = 0
        self._without: dict[tuple[str, ...], int] = {}
        self._names, self._where, self._captions = StringsWriter(), StringsWriter(), StringsWriter()
        self._keys, self._counts, self._split_of, self._whole = array("q"), array("q"), array("q"), array("b")
        self._splits: dict[str | None, int] = {}
        self._last: tuple[str, int] | None = None
        self._numbered: dict[str, int] = {}

    def found(self) -> CaptionedImages:
        """All images, after the last row was read."""
        names = self._names.finish()
        counts = np.array(self._counts, np.int64)
        read = CaptionedImages(
            names=names,
            where=self._where.finish(),
            captions=self._captions.finish(),
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            splits=tuple(self._splits),
            split_of=np.array(self._split_of, np.int64),
        )
        whole = np.array(self._whole, np.int8)
        again = [
            pair for pair in repeated_rows(names, np.array(self._keys, np.int64)) if not whole[list(pair)].any()
        ]
        return self._together(read, again) if again else read

    def _together(self, read: CaptionedImages, again: list[tuple[int, int]]) -> CaptionedImages:
        """Captions that came one by one, those of an image after one another."""
        belongs = np.arange(len(read))
        for entry, first in again:
            belongs[entry] = first
            if read.split_of[entry] != read.split_of[first]:
                splits = [read.splits[int(read.split_of[each])] for each in (entry, first)]
                what = f"image {read.names[entry]!r} is in split {splits[0]!r} here and in {splits[1]!r}"
                self.problem(read.where[entry], f"{what} at {read.where[first]}")
        kept = np.flatnonzero(belongs == np.arange(len(read)))
        of_entry: Int64[np.ndarray, " entries"] = np.searchsorted(kept, belongs)
        counts = np.diff(read.starts)
        owner = np.repeat(of_entry, counts)
        return CaptionedImages(
            names=read.names.take(kept),
            where=read.where.take(kept),
            captions=read.captions.take(np.argsort(owner, kind="stable")),
            starts=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(kept)))]).astype(np.int64),
            splits=read.splits,
            split_of=read.split_of[kept],
        )

    def problem(self, where: str, what: str) -> None:
        """Note what is wrong.

        Raises:
            DataError: there is so much that the file is something else.
        """
        self.problems.append(Problem(where=where, what=what))
        self._wrong += 1
        if self._wrong >= MOST_WRONG:
            told = f"{MOST_WRONG} problems so far; the rest was not read: the file may be of another kind"
            raise DataError(Problem(where=where, what=told))

    def _without_column(self, record: Mapping[str, object], where: str, what: str) -> None:
        """A record that lacks a key; how to name keys is said once for all records with the same ones."""
        keys = (what.partition(", found")[0], *record)
        if (known := self._without.get(keys)) is not None:
            self.problems[known] = replace(self.problems[known], count=self.problems[known].count + 1)
            return
        told = naming(tuple(record), self.columns, values=record, which="its keys are")
        self.problem(where, f"{what}; {told}")
        if len(self._without) < KEPT:
            self._without[keys] = len(self.problems) - 1

    def record(
        self, record: Mapping[str, object], where: str, split: str | None = None, *, lists: bool = False
    ) -> None:
        """A row with the image, and one caption or all of its captions; `split` where the row names none.

        With `lists`, what is under the key of one caption may be a list of them.
        """
        columns = self.columns
        image = record.get(columns.image)
        if columns.image not in record:
            self._without_column(record, where, f"expected a string under {columns.image!r}, found None")
            return
        if (
            not isinstance(image, str)
            and _guesses(record, {"image": "", "caption": ""}, record)["image"] is not None
        ):
            self._without_column(record, where, f"expected a string under {columns.image!r}, found {shown(image)}")
            return
        if not isinstance(image, str) or not image.strip():
            self.problem(where, f"expected a string under {columns.image!r}, found {shown(image)}")
            return
        key = columns.caption or ("captions" if "captions" in record else "caption")
        if columns.caption is None and ("caption" in record) == ("captions" in record):
            what = "expected either 'caption' or 'captions'"
            self.problem(where, what) if "caption" in record else self._without_column(record, where, what)
            return
        if key not in record:
            self._without_column(record, where, f"expected a string under {key!r}, found None")
            return
        captions = record.get(key)
        several = isinstance(captions, list) if lists or columns.caption is not None else key == "captions"
        stated = record.get(columns.split)
        if stated is not None and not isinstance(stated, str):
            self.problem(where, f"expected a string under {columns.split!r}, found {shown(stated)}")
        elif several:
            self.image(image, captions, where, stated or split, key=key)
        else:
            self.caption(image, captions, where, stated or split, key=key)

    def image(
        self, image: str, captions: object, where: str, split: str | None = None, *, key: str = "captions"
    ) -> None:
        """An image with all of its captions."""
        if isinstance(captions, list) and all(isinstance(caption, str) for caption in captions):
            self._last = None
            self._entry(image, where, split, whole=True)
            self._captions.extend(captions)
            self._counts[-1] = len(captions)
        else:
            self.problem(where, f"expected a list of strings under {key!r}, found {shown(captions)}")

    def caption(
        self, image: str, caption: object, where: str, split: str | None = None, *, key: str = "caption"
    ) -> None:
        """One more caption of an image; captions of one image are put together."""
        if not isinstance(caption, str):
            self.problem(where, f"expected a string under {key!r}, found {shown(caption)}")
            return
        if self._last != (image, self._splits.get(split)):
            self._entry(image, where, split, whole=False)
            self._last = image, self._splits[split]
        self._captions.append(caption)
        self._counts[-1] += 1

    def _entry(self, image: str, where: str, split: str | None, *, whole: bool) -> None:
        self._names.append(image)
        self._where.append(where)
        self._keys.append(key_of(image))
        self._counts.append(0)
        self._split_of.append(self._splits.setdefault(split, len(self._splits)))
        self._whole.append(whole)

    def numbered_caption(self, image: str, number: str, caption: str, where: str) -> None:
        """A caption with the number that the file gives it; numbers go 0, 1, 2 ... within an image."""
        expected = self._numbered.get(image, 0)
        self._numbered[image] = expected + 1
        if number != str(expected):
            self.problem(where, f"caption number of {image!r}: expected {expected}, found {number!r:.40}")
        self.caption(image, caption, where)
