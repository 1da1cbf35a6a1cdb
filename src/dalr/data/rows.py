"""What is a row of data? Images with captions, and lines of text.

Row ids are stable names: an image is its key in the data, a caption is key#k (k from 0 in the order of the
file), a line of text is its number (from 1, counting dropped lines too, so that an id is a place in the file).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int, Int64

from dalr.io.strings import Rows, Strings

Kind = Literal["text", "pair"]
"""Of a row or a batch: a plain sentence, or a caption with its image."""
_LONG, _SPACE = 100_000, re.compile(r"\s")


@dataclass(frozen=True, kw_only=True)
class CaptionedImage:
    """One image of a pairs file, before any check."""

    image: str
    captions: tuple[str, ...]
    where: str
    """file:line of its first caption."""
    split: str | None = None
    """The part of the data set that it belongs to, where the file says so."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CaptionedImages(Rows[CaptionedImage]):
    """The images of a pairs file in its order, with as little of them in memory as possible."""

    names: Strings
    where: Strings
    captions: Strings
    """Of all images, one image after the other."""
    starts: Int64[np.ndarray, " images_plus_one"]
    """Image i has the captions from `starts[i]` to before `starts[i + 1]`."""
    splits: Sequence[str | None]
    """The names of splits that there are."""
    split_of: Int64[np.ndarray, " images"]
    """Index into `splits`."""

    def __len__(self) -> int:
        return len(self.split_of)

    def _row(self, place: int) -> CaptionedImage:
        return next(iter(self.take(np.array([place]))))

    def __iter__(self) -> Iterator[CaptionedImage]:
        captions = iter(self.captions)
        counts = np.diff(self.starts).tolist()
        for image, where, split, count in zip(self.names, self.where, self.split_of.tolist(), counts, strict=True):
            yield CaptionedImage(
                image=image,
                captions=tuple(next(captions) for _ in range(count)),
                where=where,
                split=self.splits[split],
            )

    def take(self, rows: Int[np.ndarray, " n"]) -> CaptionedImages:
        counts = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        captions = np.arange(starts[-1]) + np.repeat(self.starts[:-1][rows] - starts[:-1], counts)
        return CaptionedImages(
            names=self.names.take(rows),
            where=self.where.take(rows),
            captions=self.captions.take(captions),
            starts=starts,
            splits=self.splits,
            split_of=self.split_of[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """The sentences of one kind, which become one stream of batches."""

    kind: Kind
    ids: Sequence[str]
    sentences: Strings
    keys: Int64[np.ndarray, " sentences"]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Captions in file order with the image that each belongs to."""

    images: Strings
    captions: Strings
    caption_ids: CaptionIds
    image_of: Int[np.ndarray, " captions"]
    """Index into `images`; with the pairing control not the image of the caption's id."""
    keys: Int64[np.ndarray, " captions"]
    """Captions that are the same up to case and white space have the same key (of `comparable`)."""

    @property
    def stream(self) -> Sentences:
        return Sentences(kind="pair", ids=self.caption_ids, sentences=self.captions, keys=self.keys)

    @cached_property
    def image_numbers(self) -> Int[np.ndarray, " images"]:
        """Numbers of the distinct images that these captions have, in rising order."""
        return np.unique(self.image_of)

    @property
    def image_names(self) -> Strings:
        """Names of the distinct images that these captions have, in the order of `image_numbers`."""
        return self.images.take(self.image_numbers)

    def subset(self, keep: Int64[np.ndarray, " n"]) -> Pairs:
        """The captions with these indices; images keep their numbers."""
        ids = self.caption_ids.take(keep)
        return Pairs(
            images=self.images,
            captions=self.captions.take(keep),
            caption_ids=ids,
            image_of=ids.image_of if self.caption_ids.image_of is self.image_of else self.image_of[keep],
            keys=self.keys[keep],
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CaptionIds(Rows[str]):
    """The ids of captions, made when they are asked for."""

    images: Strings
    image_of: Int[np.ndarray, " captions"]
    numbers: Int[np.ndarray, " captions"]
    """The number of each caption among those that the file has of its image, from 0."""

    def __len__(self) -> int:
        return len(self.image_of)

    def _row(self, place: int) -> str:
        return caption_id(self.images[int(self.image_of[place])], int(self.numbers[place]))

    def __iter__(self) -> Iterator[str]:
        return map(caption_id, self.images.take(self.image_of), self.numbers.tolist())

    def take(self, rows: Int[np.ndarray, " n"]) -> CaptionIds:
        return CaptionIds(images=self.images, image_of=self.image_of[rows], numbers=self.numbers[rows])


@dataclass(frozen=True, kw_only=True)
class Text:
    """Lines of plain text with their ids."""

    lines: Strings
    numbers: Int64[np.ndarray, " lines"]
    """The number of each line in the file, from 1."""
    keys: Int64[np.ndarray, " lines"]
    """As those of `Pairs`."""

    @property
    def ids(self) -> LineIds:
        return LineIds(self.numbers)

    @property
    def stream(self) -> Sentences:
        return Sentences(kind="text", ids=self.ids, sentences=self.lines, keys=self.keys)

    def subset(self, keep: Int64[np.ndarray, " n"]) -> Text:
        """The lines with these indices."""
        return Text(lines=self.lines.take(keep), numbers=self.numbers[keep], keys=self.keys[keep])


class LineIds(Rows[str]):
    """The ids of lines of text, made when they are asked for."""

    def __init__(self, numbers: Int64[np.ndarray, " lines"]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def _row(self, place: int) -> str:
        return text_id(int(self._numbers[place]))

    def take(self, rows: Int[np.ndarray, " n"]) -> LineIds:
        return LineIds(self._numbers[rows])


def comparable(sentence: str) -> str:
    """The form in which two sentences count as the same: NFKC, case and white space folded."""
    if sentence.isascii():  # nothing to normalise; this runs for every row of a million
        return _spaced(sentence.lower())
    return _spaced(unicodedata.normalize("NFKC", sentence).casefold())


def _spaced(text: str) -> str:
    """One space between words; a text of megabytes is never held as a list of its words."""
    if len(text) <= _LONG:
        return " ".join(text.split())
    parts: list[str] = []
    start = 0
    while start < len(text):
        border = _SPACE.search(text, start + _LONG) if len(text) - start > _LONG else None
        stop = border.start() if border is not None else len(text)
        parts.append(" ".join(text[start:stop].split()))
        start = stop + 1
    return " ".join(filter(None, parts))


def is_blank(sentence: str) -> bool:
    """Empty, or only white space and zero-width characters."""
    if sentence[:1].isalnum():  # nearly every sentence
        return False
    if not sentence:
        return True
    return not any(not char.isspace() and unicodedata.category(char) not in ("Cf", "Cc") for char in sentence)


def has_surrogate(text: str) -> bool:
    """Whether a string holds half of a surrogate pair, as JSON's \\ud800 gives."""
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def sentences_sha256(sentences: Iterable[str]) -> str:
    """Content key of a list of sentences."""
    digest = hashlib.sha256()
    for sentence in sentences:
        encoded = sentence.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def text_id(number: int) -> str:
    return str(number)


def caption_id(image: str, index: int) -> str:
    return f"{image}#{index}"
