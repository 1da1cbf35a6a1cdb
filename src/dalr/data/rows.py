"""What is a row of data? Images with captions, and lines of text.

Row ids are stable names: an image is its key in the data, a caption is key#k (k from 0 in the order of the
file), a line of text is its number (from 1, counting dropped lines too, so that an id is a place in the file).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64

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


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Captions in file order with the image that each belongs to."""

    images: tuple[str, ...]
    captions: tuple[str, ...]
    caption_ids: tuple[str, ...]
    image_of: Int64[np.ndarray, " captions"]
    """Index into `images`."""

    @property
    def image_numbers(self) -> Int64[np.ndarray, " images"]:
        """Numbers of the distinct images that these captions have, in rising order."""
        return np.unique(self.image_of)

    @property
    def image_names(self) -> list[str]:
        """Names of the distinct images that these captions have, in the order of `image_numbers`."""
        return [self.images[number] for number in self.image_numbers.tolist()]

    def subset(self, keep: Sequence[int]) -> Pairs:
        """The captions with these indices; images keep their numbers."""
        return Pairs(
            images=self.images,
            captions=tuple(self.captions[index] for index in keep),
            caption_ids=tuple(self.caption_ids[index] for index in keep),
            image_of=self.image_of[np.asarray(keep, dtype=np.int64)],
        )


@dataclass(frozen=True, kw_only=True)
class Text:
    """Lines of plain text with their ids."""

    lines: tuple[str, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """The sentences of one kind, which become one stream of batches."""

    kind: Kind
    ids: Sequence[str]
    sentences: Sequence[str]


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


def sentences_sha256(sentences: Sequence[str]) -> str:
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
