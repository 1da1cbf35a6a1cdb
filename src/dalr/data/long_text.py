"""How are sentences of megabytes tokenised? Cut in characters first, such that their tokens do not change.

A tokenizer takes about 200 bytes of memory per character and gives up (as a process) where there are too many. Of a
sentence that is cut at some number of tokens only the beginning matters, and tokens depend on their word and its
neighbours, not on what stands thousands of tokens later. So a long sentence is cut at white space, and tokenised to
see whether its beginning gives more tokens than are kept, by a margin; if not, a beginning of twice the length is
tried. Nothing of up to `WHOLE` characters is cut, and nothing beyond `MOST` is looked at: a sentence whose first
million characters have too few tokens (one endless word, or white space) is cut there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

WHOLE = 1 << 13
"""Characters that are always tokenised as they are."""
MOST = 1 << 20
"""Characters beyond which no sentence is read."""
_MARGIN = 64
"""Tokens between the last that is kept and the cut."""
_BATCH_CHARACTERS = 1 << 20
"""Characters tokenised at once, unless a single sentence has more."""


@runtime_checkable
class CountsTokens(Protocol):
    """A tokenizer of transformers, or what does the same."""

    truncation_side: str

    def __call__(
        self, text: str, *, add_special_tokens: bool, truncation: bool, verbose: bool
    ) -> Mapping[str, Any]: ...


def within_tokens(
    sentence: str,
    tokenizer: CountsTokens,
    max_tokens: int,
    *,
    whole: int = WHOLE,
    most: int = MOST,
) -> str:
    """The sentence, or as much of it as its first `max_tokens` tokens need (its last, if those are kept).

    A result that is shorter than the sentence says that the sentence is cut.
    """
    size = whole
    while size < len(sentence):
        part = _part(sentence, min(size, most), from_end=tokenizer.truncation_side == "left")
        if size >= most or _count(part, tokenizer) >= max_tokens + _MARGIN:
            return part
        size *= 2
    return (
        sentence if len(sentence) <= most else _part(sentence, most, from_end=tokenizer.truncation_side == "left")
    )


def in_batches(sentences: Iterable[str], rows: int) -> Iterator[list[str]]:
    """The sentences in order, at most `rows` at once and fewer where they are long."""
    batch: list[str] = []
    characters = 0
    for sentence in sentences:
        if batch and (len(batch) == rows or characters + len(sentence) > _BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(sentence)
        characters += len(sentence)
    if batch:
        yield batch


def _part(sentence: str, size: int, *, from_end: bool) -> str:
    """`size` characters from one end, less the word that is cut, where a word ends in the last half of them."""
    if from_end:
        part = sentence[-size:]
        border = next((place for place in range(size // 2) if part[place].isspace()), 0)
        return part[border:]
    part = sentence[:size]
    border = next((place for place in range(size, size // 2, -1) if part[place - 1].isspace()), size)
    return part[:border]


def _count(text: str, tokenizer: CountsTokens) -> int:
    return len(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])
